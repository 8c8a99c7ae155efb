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
    Placed,
    lines_of,
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
    if isinstance(document, list):
        return _read_list(document, text)
    if azureml_coco.fits(document):
        return azureml_coco.read(document, text)
    raise SchemaError(
        f"it is no export that is known: a JSON object with the keys "
        f"{sorted(document)[:8]}"
    )


def _read_list(elements: list[Placed], text: str) -> pd.DataFrame:
    """Label Studio alone gives a list: of tasks, or of annotations."""
    if not elements:
        return answers(Columns(reference=[], label=[], line=[]), "label_studio")
    full = [each for each in elements if label_studio_json.fits(each.value)]
    short = [each for each in elements if label_studio_min.fits(each.value)]
    if full and short:
        raise SchemaError(
            f"{len(full)} of its elements are tasks of Label Studio and {len(short)} "
            "are of its short format; export one of them"
        )
    if not full and not short:
        raise SchemaError(
            "it is a JSON list, but none of its elements is a task of Label Studio "
            "with annotations"
        )
    known = {id(each) for each in full or short}
    strange = [each for each in elements if id(each) not in known]
    lines = lines_of(text, [each.at for each in strange])
    what = "task with its annotations" if full else "annotation"
    broken = [
        Broken(line, f"it is no {what} of Label Studio: {excerpt(str(each.value))}")
        for line, each in zip(lines, strange, strict=True)
    ]
    if full:
        return label_studio_json.read(full, text, broken)
    return label_studio_min.read(short, text, broken)
