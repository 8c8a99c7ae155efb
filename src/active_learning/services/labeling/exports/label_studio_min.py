"""Label Studio's short exports, JSON_MIN and CSV: an annotation a row.

The task's data and the answers stand side by side, each under a name from the project:
the answer is ``label`` or ``choice``, or what is left when the others are known.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from active_learning.errors import SchemaError
from active_learning.services.labeling.exports.documents import (
    Elements,
    text_of,
)
from active_learning.services.labeling.exports.label_studio_json import (
    IMAGES,
    LABELS,
    SOURCE,
)
from active_learning.services.labeling.exports.rows import (
    Broken,
    Columns,
    answers,
    excerpt,
)

# What makes an export one of these.
MARKS = frozenset({"annotation_id", "lead_time"})

_OWN = MARKS | {"id", "annotator", "created_at", "updated_at", "agreement", "history"}
# What our own tasks hold beside the image.
_OURS = {"image", "image_id", "request_id", "predicted_label", "rank", "round"}


def columns(names: Sequence[str]) -> dict[str, str]:
    """Which column is what.

    Raises:
        SchemaError: It cannot be told which one is the label or the image.
    """
    image = next((name for name in IMAGES if name in names), None)
    if image is None:
        raise SchemaError(
            f"none of its columns is 'image_id' or 'image'; there are {sorted(names)}"
        )
    left = [name for name in names if name not in _OWN | _OURS]
    label = next((name for name in LABELS if name in names), None)
    if label is None:
        if len(left) != 1:
            raise SchemaError(
                f"which of its columns is the label cannot be told: {sorted(left)}; "
                "call the choices 'label' in the project's configuration"
            )
        label = left[0]
    known = {
        "reference": image,
        "label": label,
        "labeler": "annotator",
        "labeled_at": "updated_at",
        "request_id": "request_id",
    }
    return {meaning: name for meaning, name in known.items() if name in names}


def flaws(labels: pa.Array) -> pa.Array:
    """Why a label is no single choice: Label Studio writes several as JSON."""
    several = pc.or_(pc.starts_with(labels, '{"choices"'), pc.starts_with(labels, "["))
    return pc.if_else(several, "the image has more than one label", "")


def fits(record: object) -> bool:
    """Whether a record is of JSON_MIN."""
    return isinstance(record, dict) and record.keys() >= MARKS


def read(records: Elements, text: str, broken: Sequence[Broken] = ()) -> pd.DataFrame:
    """Read the records of JSON_MIN; one without an annotation is no answer yet."""
    given = records.where([one.get("annotation_id") is not None for one in records])
    names = dict.fromkeys(name for record in given for name in record)
    if not given:
        return answers(Columns(reference=[], label=[], line=[]), SOURCE, broken)
    where = columns(list(names))
    label = where["label"]
    cells: dict[str, list[str]] = {
        meaning: [text_of(record.get(name)) or "" for record in given]
        for meaning, name in where.items()
    }
    cells["flaw"] = [_flaw(record.get(label)) for record in given]
    return answers(Columns(line=given.lines(text), **cells), SOURCE, broken)


def _flaw(label: Any) -> str:
    if label is None or text_of(label) is not None:
        return ""
    return f"the image has not one label but {excerpt(str(label))}"
