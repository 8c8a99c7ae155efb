"""Which format a file is of."""

import re

import pandas as pd

from active_learning.errors import SchemaError
from active_learning.services.labeling.exports import (
    azureml_coco,
    azureml_json_lines,
    label_studio_json,
    label_studio_min,
    tables,
)
from active_learning.services.labeling.exports.documents import (
    Elements,
    read_document,
)
from active_learning.services.labeling.exports.rows import (
    Broken,
    Columns,
    answers,
    excerpt,
    refused,
)
from active_learning.services.labeling.exports.text import decode

_JSON = re.compile(r"\s*[\[{]")


def read(data: bytes) -> pd.DataFrame:
    """Read an export of any format that is known.

    Args:
        data: The whole file.

    Returns:
        Its answers in the columns of ``schemas.ANSWERS``. A file that fits no format,
        or two, is one row with line 0 and the reason.
    """
    try:
        text = decode(data)
        return _read_json(text) if _JSON.match(text) else tables.read(text)
    except SchemaError as exc:
        return refused("", str(exc))


def _read_json(text: str) -> pd.DataFrame:
    try:
        document, rest = read_document(text)
    except SchemaError:
        if azureml_json_lines.fits(text):
            return azureml_json_lines.read(text)
        raise
    if isinstance(document, dict) and azureml_json_lines.KEY in document:
        # A lone object may span lines.
        return azureml_json_lines.read(
            text if rest.strip() else text.replace("\n", " ")
        )
    if rest.strip():
        if azureml_json_lines.fits(text):
            return azureml_json_lines.read(text)
        raise SchemaError("its lines are JSON, but none has an image_url")
    if isinstance(document, Elements):
        return _read_list(document, text)
    if azureml_coco.fits(document):
        return azureml_coco.read(document, text)
    raise SchemaError(
        f"it is no export that is known: a JSON object with the keys "
        f"{sorted(document)[:8]}"
    )


def _read_list(elements: Elements, text: str) -> pd.DataFrame:
    """Label Studio alone gives a list: of tasks, or of annotations."""
    if not elements:
        return answers(Columns(reference=[], label=[], line=[]), "label_studio")
    full, short = (
        list(map(fits, elements))
        for fits in (label_studio_json.fits, label_studio_min.fits)
    )
    if any(full) and any(short):
        raise SchemaError(
            f"{sum(full)} of its elements are tasks of Label Studio and {sum(short)} "
            "are of its short format; export one of them"
        )
    if not any(full) and not any(short):
        raise SchemaError(
            "it is a JSON list, but none of its elements is a task of Label Studio "
            "with annotations"
        )
    known, what = full, "task with its annotations"
    if not any(full):
        known, what = short, "annotation"
    strange = elements.where([not fits for fits in known])
    broken = [
        Broken(line, f"it is no {what} of Label Studio: {excerpt(str(value))}")
        for line, value in zip(strange.lines(text), strange, strict=True)
    ]
    if any(full):
        return label_studio_json.read(elements.where(full), text, broken)
    return label_studio_min.read(elements.where(short), text, broken)
