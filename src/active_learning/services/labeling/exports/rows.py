"""What every format's answers have in common: their columns and their first checks."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from active_learning.schemas import ANSWERS
from active_learning.services.labeling.references import without_query
from active_learning.texts import may_hold, to_frame, trimmed

# Labels that tools and people give to say that they give none. A class of such a name
# is told from them by `answer` saying `label`.
SKIPPED = ("skipped", "skip")
UNCLEAR = ("unclear", "unsure", "not sure", "can't tell")

_ANSWERS = ("label", "skipped", "unclear")
_DAMAGED = "\ufffd"

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
        # No text has more characters than bytes.
        if n and pc.max(pc.binary_length(texts[name])).as_py() > longest:
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
        if may_hold(texts[name], _DAMAGED):
            damaged = pc.match_substring(texts[name], _DAMAGED)
            reason.add(damaged, f"its {name} is not UTF-8: save the file as UTF-8")
    read = pa.table(
        {
            "reference": texts["reference"],
            "label": pc.if_else(is_label, label, ""),
            "answer": pc.if_else(strange, "label", answer),
            "labeler": texts["labeler"],
            "labeled_at": times,
            "source": pa.repeat(source, n),
            "request_id": texts["request_id"],
            "line": np.asarray(columns.line, dtype=np.int64),
            "reason": reason.said,
        },
        schema=ANSWERS,
    )
    if broken:
        lines, reasons = zip(*broken, strict=True)
        read = pa.concat_tables([read, _lost(source, reasons, lines)])
        # Of equal lines, what could be read goes first.
        order = np.argsort(read["line"].to_numpy(), kind="stable")
        read = read.take(order)
    return to_frame(read)


def refused(source: str, reason: str, line: int = 0) -> pd.DataFrame:
    """One row that says why a file, or a line of one, cannot be read."""
    return to_frame(_lost(source, [reason], [line]))


def _lost(source: str, reasons: Sequence[str], lines: Sequence[int]) -> pa.Table:
    n = len(lines)
    given = {
        "answer": pa.repeat("label", n),
        "labeled_at": pa.nulls(n, _TIME),
        "source": pa.repeat(source, n),
        "line": pa.array(lines, pa.int64()),
        "reason": _array(reasons),
    }
    empty = pa.repeat("", n)
    columns = [given.get(name, empty) for name in ANSWERS.names]
    return pa.table(columns, schema=ANSWERS)


def excerpt(text: str, longest: int = 80) -> str:
    """The beginning of a text for a message, quoted; what may be a token is cut off."""
    shown = " ".join(without_query(word) for word in text[:500].split(" "))
    return repr(shown if len(shown) <= longest else f"{shown[:longest]}...")


def _meaning(label: pa.Array, answer: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Label and answer, where a label alone may say that it is none."""
    unsaid, said = pc.equal(answer, ""), label.dictionary_encode()
    known = pc.utf8_lower(said.dictionary)
    for kind, words in (("skipped", SKIPPED), ("unclear", UNCLEAR)):
        means = pc.is_in(known, pa.array(words))
        if pc.any(means).as_py():
            meant = pc.and_(unsaid, means.take(said.indices))
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
    return trimmed(pc.fill_null(array, ""))


def _array(values: Sequence[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        # JSON can spell half a character, and a file can be called by one.
        halves = [(value or "").encode("utf-16", "surrogatepass") for value in values]
        return pa.array([half.decode("utf-16", "replace") for half in halves])


def _without_queries(references: pa.Array) -> pa.Array:
    if not (may_hold(references, "?") or may_hold(references, "@")):
        return references
    marked = pc.match_substring_regex(references, r"\?|:[^/@]*@")
    if not pc.any(marked).as_py():
        return references
    cut = [without_query(name) for name in references.filter(marked).to_pylist()]
    return pc.replace_with_mask(references, marked, pa.array(cut, pa.string()))


def _times(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The times, null where there is none, and which are given and cannot be read."""
    given = pc.not_equal(texts, "")
    said = pc.if_else(given, texts, None)
    try:
        # All of them in the spelling of nearly every export, with a zone.
        times = said.cast(_TIME)
    except pa.ArrowInvalid:
        times = _mixed_times(said)
    return times, pc.and_(given, pc.is_null(times))


def _mixed_times(texts: pa.Array) -> pa.Array:
    zoned = pc.fill_null(pc.match_substring_regex(texts, _ZONED), False)
    # Apart: beside times with a zone, pandas 2.3 gives their zone to the others.
    return pc.coalesce(
        _read_times(pc.if_else(zoned, texts, None), _TIME),
        _read_times(pc.if_else(zoned, None, texts), pa.timestamp("us")),
    )


def _read_times(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return texts.cast(kind).cast(_TIME)
    except pa.ArrowInvalid:
        # Arrow is fast and reads few spellings, or all of a column or none.
        times = pd.to_datetime(
            pd.Series(texts.to_pylist(), dtype=object),
            utc=True,
            format="ISO8601",
            errors="coerce",
        )
        return pa.array(times.astype("datetime64[us, UTC]"), from_pandas=True)
