"""What every format's answers have in common: their columns and their first checks."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from active_learning.schemas import ANSWERS
from active_learning.services.labeling.references import without_query

# Labels that tools and people give to say that they give none. A class of such a name
# is told from them by `answer` saying `label`.
SKIPPED = ("skipped", "skip")
UNCLEAR = ("unclear", "unsure", "not sure", "can't tell")

_ANSWERS = ("label", "skipped", "unclear")

# Longer than any path or class name; what is longer is no name but something else.
_LONGEST = {"reference": 4096, "label": 1024, "labeler": 1024, "request_id": 1024}

_TIME = ANSWERS.field("labeled_at").type
_ZONED = r"[T ]\d\d.*([Zz]|[+-]\d\d(:?\d\d)?)$"

Texts: TypeAlias = Any  # an array of Arrow's, which has no types, or a list of str


class Broken(NamedTuple):
    """A place in a file of which no answer could be made."""

    line: int
    reason: str


class Columns(NamedTuple):
    """Answers as a format gives them; a column it does not have is ``None``.

    ``answer`` holds ``""`` where the label alone decides. ``flaw`` is the format's own
    reason to refuse a row, ``""`` for none.
    """

    reference: Texts
    label: Texts
    line: Sequence[int] | np.ndarray[Any, np.dtype[np.int64]]
    answer: Texts | None = None
    labeler: Texts | None = None
    labeled_at: Texts | None = None
    request_id: Texts | None = None
    flaw: Texts | None = None


def answers(
    columns: Columns, source: str, broken: Sequence[Broken] = ()
) -> pd.DataFrame:
    """Put answers into the columns of ``schemas.ANSWERS``.

    Space around a value is cut off, as is a URL's query, which may be a secret. A
    label such as ``skipped`` or ``not sure`` is an answer of that kind.

    Args:
        columns: What the format gives, row by row.
        source: The tool it came from.
        broken: Places where no answer could be made out; a row each.

    Returns:
        In the order of lines; ``reason`` says why a row cannot be read.
    """
    n = len(columns.line)
    texts = {
        name: _texts(getattr(columns, name), n)
        for name in ("reference", "label", "answer", "labeler", "request_id", "flaw")
    }
    texts["reference"] = _without_queries(texts["reference"])
    reason = _Reasons(texts["flaw"])
    for name, longest in _LONGEST.items():
        too_long = pc.greater(pc.utf8_length(texts[name]), longest)
        reason.add(too_long, f"its {name} is longer than {longest} characters")
        texts[name] = pc.utf8_slice_codeunits(texts[name], 0, longest)
    label, answer = _meaning(texts["label"], pc.utf8_lower(texts["answer"]))
    is_label, no_label = pc.equal(answer, "label"), pc.equal(label, "")
    strange = pc.invert(pc.is_in(answer, pa.array(_ANSWERS)))
    times, no_time = _times(_texts(columns.labeled_at, n))
    for where, why in (
        (pc.equal(texts["reference"], ""), "the image is not named"),
        (strange, "its answer is none of label, skipped and unclear"),
        (
            pc.invert(pc.or_(is_label, no_label)),
            "it is skipped or unclear and yet has a label",
        ),
        (pc.and_(is_label, no_label), "the label is empty"),
        (no_time, "its time is not in ISO 8601, such as 2000-01-31T12:00:00Z"),
    ):
        reason.add(where, why)
    for name in _LONGEST:
        damaged = pc.match_substring(texts[name], "\ufffd")
        reason.add(damaged, f"its {name} is not UTF-8: save the file as UTF-8")
    frame = pd.DataFrame(
        {
            "reference": _objects(texts["reference"]),
            "label": _repeated(pc.if_else(is_label, label, "")),
            "answer": _repeated(pc.if_else(strange, "label", answer)),
            "labeler": _repeated(texts["labeler"]),
            "labeled_at": times,
            "source": np.full(n, source, dtype=object),
            "request_id": _objects(texts["request_id"]),
            "line": np.asarray(columns.line, dtype=np.int64),
            "reason": _repeated(reason.said),
        },
        copy=False,
    )
    if not broken:
        return frame
    lines, reasons = zip(*broken, strict=True)
    lost = _lost(source, reasons, lines)
    every = pd.concat([frame, lost], ignore_index=True) if n else lost
    return every.sort_values("line", kind="stable", ignore_index=True)


def refused(source: str, reason: str, line: int = 0) -> pd.DataFrame:
    """One row that says why a file, or a line of one, cannot be read."""
    return _lost(source, [reason], [line])


def _lost(source: str, reasons: Sequence[str], lines: Sequence[int]) -> pd.DataFrame:
    given = {
        "answer": "label",
        "labeled_at": pd.Series(pd.NaT, range(len(lines)), "datetime64[us, UTC]"),
        "source": source,
        "line": np.array(lines, dtype=np.int64),
        "reason": np.array(reasons, dtype=object),
    }
    columns = {name: given.get(name, "") for name in ANSWERS.names}
    return pd.DataFrame(columns, index=range(len(lines)))


def excerpt(text: str, longest: int = 80) -> str:
    """The beginning of a text for a message, quoted; what may be a token is cut off."""
    shown = " ".join(without_query(word) for word in text[:500].split(" "))
    return repr(shown if len(shown) <= longest else f"{shown[:longest]}...")


def _meaning(label: pa.Array, answer: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Label and answer, where a label alone may say that it is none."""
    unsaid, word = pc.equal(answer, ""), pc.utf8_lower(label)
    for kind, words in (("skipped", SKIPPED), ("unclear", UNCLEAR)):
        meant = pc.and_(unsaid, pc.is_in(word, pa.array(words)))
        answer = pc.if_else(meant, kind, answer)
        label = pc.if_else(meant, "", label)
    return label, pc.if_else(pc.equal(answer, ""), "label", answer)


class _Reasons:
    """The first reason of each row."""

    def __init__(self, said: pa.Array) -> None:
        self.said = said

    def add(self, where: pa.Array, reason: str) -> None:
        """Give a reason to the rows that have none yet."""
        if pc.any(where).as_py():
            fresh = pc.and_(where, pc.equal(self.said, ""))
            self.said = pc.if_else(fresh, reason, self.said)


def _texts(values: Texts | None, n: int) -> pa.Array:
    if values is None:
        return pa.repeat(pa.scalar("", pa.string()), n)
    array = values
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        array = _array(values)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return pc.utf8_trim_whitespace(pc.fill_null(array, ""))


def _array(values: Sequence[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        # JSON can spell half a character, and a file can be called by one.
        halves = [(value or "").encode("utf-16", "surrogatepass") for value in values]
        return pa.array([half.decode("utf-16", "replace") for half in halves])


def _without_queries(references: pa.Array) -> pa.Array:
    marked = pc.match_substring_regex(references, r"\?|:[^/@]*@")
    if not pc.any(marked).as_py():
        return references
    cut = [without_query(name) for name in references.filter(marked).to_pylist()]
    return pc.replace_with_mask(references, marked, pa.array(cut, pa.string()))


def _times(texts: pa.Array) -> tuple[pd.Series, pa.Array]:
    """The times, NaT where there is none, and which are given and cannot be read."""
    given = pc.not_equal(texts, "")
    times = pd.Series(pd.NaT, index=range(len(texts)), dtype="datetime64[us, UTC]")
    if not pc.any(given).as_py():
        return times, given
    zoned = pc.match_substring_regex(texts, _ZONED)
    for group in (zoned, pc.and_(given, pc.invert(zoned))):
        # Apart: beside times with a zone, pandas 2.3 gives their zone to the others.
        kind = _TIME if group is zoned else pa.timestamp("us")
        times = times.fillna(_read_times(pc.if_else(group, texts, None), kind))
    return times, pc.and_(given, pa.array(times.isna()))


def _read_times(texts: pa.Array, kind: pa.DataType) -> pd.Series:
    try:
        told: pd.Series = texts.cast(kind).cast(_TIME).to_pandas()
    except pa.ArrowInvalid:
        # Arrow is fast and reads few spellings, or all of a column or none.
        told = pd.to_datetime(
            pd.Series(_objects(texts)), utc=True, format="ISO8601", errors="coerce"
        ).astype("datetime64[us, UTC]")
    return told


def _repeated(texts: pa.Array) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Few different texts, each of which is one object: small, and fast to compare."""
    objects: np.ndarray[Any, np.dtype[np.object_]] = texts.to_pandas().to_numpy()
    return objects


def _objects(texts: pa.Array) -> np.ndarray[Any, np.dtype[np.object_]]:
    objects: np.ndarray[Any, np.dtype[np.object_]] = texts.to_numpy(
        zero_copy_only=False
    )
    return objects
