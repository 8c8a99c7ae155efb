"""Answers of labelers as columns: whole tables at a time, no loop over rows."""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from active_learning.acquisition import IntArray
from active_learning.services.labeling.consensus import BoolArray, in_turn, latest
from active_learning.texts import TEXT, hexadecimal, to_frame, to_texts, trimmed

LABEL = "label"
ABSTENTIONS = ("skipped", "unclear")


class Findings:
    """Why each of N rows is refused; the first reason that is found counts.

    Attributes:
        reasons: (N,) texts, empty for a good row.
        good: (N,) whether it is one.
    """

    def __init__(self, reasons: pd.Series) -> None:
        """Start with what is known already."""
        self.reasons = to_texts(reasons)
        self.good: BoolArray = pc.equal(self.reasons, "").to_numpy(zero_copy_only=False)

    def refuse(self, wrong: BoolArray, why: str | Callable[[int], str]) -> None:
        """Refuse the rows that are good so far and ``wrong``.

        Args:
            wrong: (N,) which.
            why: The reason, or what gives it for a row's number.
        """
        fresh = self.good & wrong
        rows = np.flatnonzero(fresh).tolist()
        if rows:
            told = [why if isinstance(why, str) else why(row) for row in rows]
            given = pa.array(told, pa.large_string())
            self.reasons = pc.replace_with_mask(self.reasons, fresh, given)
            self.good &= ~fresh


def in_columns(frame: pd.DataFrame, schema: pa.Schema) -> pd.DataFrame:
    """Bring a frame into a schema's columns, texts trimmed and held by Arrow.

    A column that is missing is empty: ``""``, NaT, 0. A missing ``answer`` is a
    ``label``.
    """
    columns = {field.name: _column(frame, field) for field in schema}
    if "answer" in columns:
        said = columns["answer"]
        columns["answer"] = pc.if_else(pc.equal(said, ""), LABEL, said)
    return to_frame(pa.table(columns))


def _column(frame: pd.DataFrame, field: pa.Field) -> pa.Array:
    if field.name not in frame.columns:
        values = pa.nulls(len(frame), field.type)
    elif pa.types.is_string(field.type):
        values = trimmed(to_texts(frame[field.name]))
    elif pa.types.is_timestamp(field.type):
        times = frame[field.name]
        if times.dtype == object:
            times = pd.to_datetime(times.replace("", None), utc=True, format="ISO8601")
        values = pa.array(times, from_pandas=True).cast(field.type)
    else:
        values = pa.array(frame[field.name], from_pandas=True).cast(field.type)
    if pa.types.is_string(field.type):
        values = pc.fill_null(values, "")
    elif pa.types.is_integer(field.type):
        values = pc.fill_null(values, 0)
    return values


def microseconds(times: pd.Series) -> IntArray:
    """(N,) since 1970; the lowest of all numbers where there is no time."""
    since: IntArray = (
        times.dt.as_unit("us").to_numpy(dtype="datetime64[us]").view(np.int64)
    )
    return since


def joined(frame: pd.DataFrame, columns: Sequence[str]) -> pa.Array:
    """One text for each row: the columns' values with NUL between them."""
    parts = []
    for name in columns:
        if isinstance(frame[name].dtype, pd.DatetimeTZDtype):
            since = pa.array(microseconds(frame[name])).cast(pa.large_string())
            missing = pa.array(frame[name].isna().to_numpy())
            parts.append(pc.if_else(missing, "", since))
        else:
            parts.append(to_texts(frame[name]))
    return pc.binary_join_element_wise(*parts, pa.scalar("\0", pa.large_string()))


def answer_ids(answers: pd.DataFrame) -> pa.Array:
    """Hash what an answer says, and not which export brought it, into its id.

    An answer without a time has the same id at every run, although it is given the
    time of its first.
    """
    identity = ("image_id", "label", "answer", "labeler", "labeled_at", "request_id")
    said = joined(answers, identity).cast(pa.large_binary()).to_pylist()
    digests = b"".join([blake2b(one, digest_size=16).digest() for one in said])
    return hexadecimal(digests, 16)


def numbered(*columns: pd.Series) -> tuple[list[IntArray], pd.Index]:
    """Number the values of several columns together, by first appearance."""
    every = pa.concat_arrays([to_texts(column) for column in columns])
    found = every.dictionary_encode()
    codes = found.indices.to_numpy().astype(np.int64)
    ends = np.cumsum([len(column) for column in columns])[:-1]
    return np.split(codes, ends), pd.Index(found.dictionary, dtype=TEXT)


def places(texts: pd.Series, among: pd.Series) -> IntArray:
    """(N,) where each text stands first among others; -1 where it does not."""
    found = pc.index_in(to_texts(texts), value_set=to_texts(among))
    place: IntArray = found.fill_null(-1).to_numpy().astype(np.int64)
    return place


def latest_requests(
    image: IntArray, time: IntArray, asked_image: IntArray, asked_time: IntArray
) -> IntArray:
    """The latest request of each answer's image that was made before it.

    Args:
        image: (N,) what was answered.
        time: (N,) when.
        asked_image: (M,) what was asked for, in the same numbers.
        asked_time: (M,) when.

    Returns:
        (N,) numbers of requests, -1 where none was made by then.
    """
    n = len(asked_image)
    if not n or not len(image):
        return np.full(len(image), -1, dtype=np.int64)
    every_image = np.concatenate([asked_image, image])
    every_time = np.concatenate([asked_time, time])
    # Stable, and requests stand first: at equal times the request was made before.
    order = np.lexsort((every_time, every_image))
    places = np.where(order < n, np.arange(len(order)), 0)
    request = order[np.maximum.accumulate(places)]
    same = (request < n) & (every_image[request] == every_image[order])
    found = np.full(len(order), -1, dtype=np.int64)
    found[order] = np.where(same, request, -1)
    return found[n:]


def contradicted(
    image: IntArray, labeler: IntArray, time: IntArray, said: IntArray
) -> IntArray:
    """Group the answers of one labeler at one time that say different things.

    Returns:
        (N,) a number for each such group, -1 for an answer that stands alone.
    """
    groups = np.full(len(image), -1, dtype=np.int64)
    if not len(image):
        return groups
    order = in_turn(image, labeler, time)
    starts = np.r_[
        True,
        (np.diff(image[order]) != 0)
        | (np.diff(labeler[order]) != 0)
        | (np.diff(time[order]) != 0),
    ]
    first = np.flatnonzero(starts)
    lowest = np.minimum.reduceat(said[order], first)
    highest = np.maximum.reduceat(said[order], first)
    group = np.cumsum(starts) - 1
    groups[order] = np.where((lowest != highest)[group], group, -1)
    return groups


def unlike_copies(
    content: IntArray,
    image: IntArray,
    labeler: IntArray,
    time: IntArray,
    label: IntArray,
) -> BoolArray:
    """Find the labels that no copy of the image has, while copies have others.

    Args:
        content: (N,) equal for images of equal bytes.
        image: (N,) what was labeled.
        labeler: (N,) by whom.
        time: (N,) when; what the same labeler said before does not count.
        label: (N,) as what; -1 for an abstention.

    Returns:
        (N,) whether each contradicts all copies of its image.
    """
    unlike = np.zeros(len(image), dtype=np.bool_)
    rows = latest(image, labeler, time)
    rows = rows[label[rows] >= 0]
    votes = pd.DataFrame(
        {"content": content[rows], "image": image[rows], "label": label[rows]}
    )
    labeled = votes.groupby("content")["image"].transform("nunique")
    alike = votes.groupby(["content", "label"])["image"].transform("nunique")
    unlike[rows] = ((labeled > 1) & (alike == 1)).to_numpy()
    return unlike


def changed(
    image: IntArray, labeler: IntArray, time: IntArray, said: IntArray
) -> tuple[IntArray, IntArray]:
    """Find where labelers changed their minds.

    Returns:
        Rows of answers that say something else than the one that the same labeler gave
        for the same image before, and the rows of those.
    """
    order = in_turn(image, labeler, time)
    before, after = order[:-1], order[1:]
    same = (image[before] == image[after]) & (labeler[before] == labeler[after])
    differs = same & (said[before] != said[after])
    return after[differs], before[differs]
