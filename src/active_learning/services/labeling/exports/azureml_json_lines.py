"""Azure ML's JSON Lines: one image and its label a line.

``{"image_url": "azureml://...", "label": "cat"}``, with ``image_details`` in version 2
and ``label_confidence`` now and then; ``image_url`` begins with ``AmlDatastore://`` in
version 1.
"""

import re

import pandas as pd

from active_learning.errors import SchemaError
from active_learning.services.labeling.exports.documents import parse, text_of
from active_learning.services.labeling.exports.rows import (
    Broken,
    Columns,
    answers,
    excerpt,
)

KEY = "image_url"
SOURCE = "azureml"

# A line as the service writes it, each of its keys once; what is escaped or written in
# another way is read with more care.
_TEXT = r'"([^"\\\x00-\x1f]*)"'
_PLAIN = _TEXT.replace("(", "(?:")
_DETAILS = ", ?".join(rf'"{key}": ?{_PLAIN}' for key in ("format", "width", "height"))
_LINE = re.compile(
    rf'^\{{"{KEY}": ?{_TEXT}'
    rf'(?:, ?"image_details": ?\{{{_DETAILS}\}})?'
    rf', ?"label": ?{_TEXT}'
    r'(?:, ?"label_confidence": ?\d(?:\.\d+)?)?\}\r?$',
    re.MULTILINE,
)


def fits(text: str) -> bool:
    """Whether any line is an object with an ``image_url``."""
    return any(f'"{KEY}"' in line and _names_image(line) for line in text.split("\n"))


def read(text: str) -> pd.DataFrame:
    """Read line by line; a line that is no answer costs itself alone."""
    plain = _LINE.findall(text)
    if len(plain) == text.rstrip("\n").count("\n") + 1:
        images, labels = map(list, zip(*plain, strict=True))
        n = len(plain)
        return answers(Columns(images, labels, range(1, n + 1)), SOURCE)
    return _read_with_care(text)


def _read_with_care(text: str) -> pd.DataFrame:
    broken: list[Broken] = []
    images: list[str] = []
    labels: list[str] = []
    lines: list[int] = []
    flaws: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse(line)
            image = row.get(KEY) if isinstance(row, dict) else None
            if not isinstance(image, str):
                raise SchemaError(f"it is no object with an {KEY}")
        except SchemaError as exc:
            broken.append(Broken(number, f"{exc}: {excerpt(line)}"))
            continue
        label = text_of(row.get("label", ""))
        images.append(image)
        labels.append(label or "")
        flaws.append("" if label is not None else _no_class(row["label"]))
        lines.append(number)
    columns = Columns(reference=images, label=labels, line=lines, flaw=flaws)
    return answers(columns, SOURCE, broken)


def _no_class(label: object) -> str:
    return f"its label is not one class but {excerpt(str(label))}"


def _names_image(line: str) -> bool:
    try:
        row = parse(line)
    except SchemaError:
        return False
    return isinstance(row, dict) and KEY in row
