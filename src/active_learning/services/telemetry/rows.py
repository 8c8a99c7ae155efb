"""How a model's answers become rows of ``schemas.PREDICTIONS``, and which may not.

Whole columns at a time: a million rows take about a second, and half of it goes into
the hashes that give each row its ids.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import overload

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from active_learning.acquisition import FloatArray, IntArray, sampling_keys, uncertainty
from active_learning.errors import (
    ImageIdError,
    PredictionsError,
    SchemaError,
)
from active_learning.imaging.ids import flaw
from active_learning.schemas import PREDICTIONS, row_id, to_arrow

SUM_TOLERANCE = 1e-3

# Arrow counts the values of one chunk of lists in 32 bits.
_VALUES_PER_CHUNK = 1 << 22

# Matches every name that `flaw` finds fault with: the rest of a million need no Python.
_SUSPECT = r"[\\\x00]|^(?s:.):|(?:^|/)\.{0,2}(?:/|$)"

_NUMBERS = ("confidence", "margin", "entropy", "sampling_key")
_WORKED_OUT = ("label", *_NUMBERS)
_SAID = tuple(name for name in PREDICTIONS.names if name not in _WORKED_OUT)


def predictions_table(
    image_ids: Sequence[str],
    probabilities: FloatArray,
    classes: Sequence[str],
    model_name: str,
    model_version: int,
    source: str,
    scored_at: datetime,
    prediction_ids: Sequence[str] | None = None,
) -> pa.Table:
    """Put what one model said of N images into rows.

    Args:
        image_ids: N names.
        probabilities: (N, C), one column per class. What they hold is for
            ``check_rows`` to judge.
        classes: C names.
        model_name: Said it.
        model_version: Said it.
        source: ``online``, ``batch`` or ``simulation``.
        scored_at: With its time zone.
        prediction_ids: N ids; without them each is a hash of the image and the model
            version, so that a batch that is scored again has the same.

    Returns:
        N rows in the columns, order and types of ``schemas.PREDICTIONS``.

    Raises:
        PredictionsError: The shapes do not fit each other.
        SchemaError: ``scored_at`` has no time zone.
    """
    n, n_classes = len(image_ids), len(classes)
    if probabilities.shape != (n, n_classes) or not n_classes:
        raise PredictionsError(
            f"{n} images and {n_classes} classes came with probabilities of shape "
            f"{probabilities.shape}; expected ({n}, {n_classes}) and a class or more."
        )
    check_time(scored_at)
    if prediction_ids is None:
        prediction_ids = [row_id(name, model_name, model_version) for name in image_ids]
    p = np.ascontiguousarray(probabilities, dtype=np.float64)
    names = pa.array(classes, pa.string())
    predicted = pa.array(p.argmax(axis=1).astype(np.int32))
    columns = {
        "prediction_id": pa.array(prediction_ids, pa.string()),
        "image_id": pa.array(image_ids, pa.string()),
        "source": _repeated(source, n, pa.string()),
        "label": pa.DictionaryArray.from_arrays(predicted, names).cast(pa.string()),
        "confidence": pa.array(uncertainty.confidence(p)),
        "margin": pa.array(uncertainty.margin(p)),
        "entropy": pa.array(uncertainty.entropy(p)),
        "sampling_key": pa.array(sampling_keys(image_ids, model_version)),
        "classes": _same_list(names, n),
        "probabilities": _lists(p),
        "model_name": _repeated(model_name, n, pa.string()),
        "model_version": _repeated(model_version, n, pa.int64()),
        "scored_at": _repeated(scored_at, n, PREDICTIONS.field("scored_at").type),
    }
    return pa.table(columns, schema=PREDICTIONS)


def completed(rows: pa.Table) -> pa.Table:
    """Work out what follows from the answers in rows.

    Args:
        rows: In the columns and types of ``schemas.PREDICTIONS``. What ``label``,
            ``confidence``, ``margin``, ``entropy`` and ``sampling_key`` hold does not
            matter; rows may differ in their number of classes.

    Returns:
        The same rows with all columns filled.

    Raises:
        SchemaError: Another column holds a null.
        PredictionsError: A row is no probability vector over its own classes.
    """
    _check_filled(rows, _SAID)
    _check_probabilities(rows)
    n = rows.num_rows
    labels = np.empty(n, dtype=np.int64)
    numbers = {name: np.empty(n) for name in _NUMBERS}
    p, starts, sizes = _flat(rows.column("probabilities"))
    for size in np.unique(sizes):
        of_size = np.flatnonzero(sizes == size)
        block = p[starts[of_size, np.newaxis] + np.arange(size)]
        labels[of_size] = block.argmax(axis=1)
        numbers["confidence"][of_size] = uncertainty.confidence(block)
        numbers["margin"][of_size] = uncertainty.margin(block)
        numbers["entropy"][of_size] = uncertainty.entropy(block)
    image_ids = rows.column("image_id").to_pylist()
    versions = rows.column("model_version").to_numpy()
    for version in np.unique(versions):
        of_version = np.flatnonzero(versions == version)
        names = [image_ids[row] for row in of_version]
        numbers["sampling_key"][of_version] = sampling_keys(names, int(version))
    classes = rows.column("classes").combine_chunks()
    firsts = classes.offsets.to_numpy()[:-1]
    columns = {
        "label": classes.values.take(pa.array(firsts + labels)),
        **{name: pa.array(column) for name, column in numbers.items()},
    }
    return pa.table(
        [columns.get(name, rows.column(name)) for name in PREDICTIONS.names],
        schema=PREDICTIONS,
    )


def check_rows(table: pa.Table) -> None:
    """Stop at predictions that no reader should ever see.

    A row may have another number of classes than its neighbor: two model versions
    lie in one table.

    Raises:
        SchemaError: A column is missing, unknown or of another type; a value is null;
            a ``prediction_id`` is empty or stands here twice; a number is not finite.
        ImageIdError: An ``image_id`` is no place inside the image store.
        PredictionsError: A row is no probability vector over its own classes.
    """
    _check_columns(table)
    _check_filled(table, PREDICTIONS.names)
    _check_ids(table.column("prediction_id"))
    _check_image_ids(table.column("image_id"))
    _check_probabilities(table)
    _check_finite(table)


def check_predictions(frame: pd.DataFrame) -> pd.DataFrame:
    """Check a frame of predictions where it crosses the catalog: a ``validator``.

    Raises:
        DataError: As ``check_rows`` does.
    """
    check_rows(to_arrow(frame, PREDICTIONS))
    return frame


def check_time(scored_at: datetime) -> None:
    """Raise ``SchemaError`` unless a time says which one it is everywhere."""
    if scored_at.tzinfo is None:
        raise SchemaError(
            f"scored_at={scored_at.isoformat()!r} has no time zone, and the table is "
            "in UTC; say datetime.now(UTC)."
        )


def _repeated(value: object, n: int, of_type: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, of_type), n)


def _same_list(values: pa.Array, n: int) -> pa.ChunkedArray:
    """N times the same list: one chunk is made, the others are views of it."""
    size = len(values)
    rows = min(n, max(1, _VALUES_PER_CHUNK // size))
    again = values.take(pa.array(np.tile(np.arange(size), rows)))
    block = pa.ListArray.from_arrays(_offsets(rows, size), again)
    chunks = [block.slice(0, stop - start) for start, stop in _chunks(n, size)]
    return pa.chunked_array(chunks, pa.list_(values.type))


def _lists(rows: FloatArray) -> pa.ChunkedArray:
    """A list for each row, over the array's own memory."""
    n, size = rows.shape
    chunks = [
        pa.ListArray.from_arrays(
            _offsets(stop - start, size), pa.array(rows[start:stop].reshape(-1))
        )
        for start, stop in _chunks(n, size)
    ]
    return pa.chunked_array(chunks, pa.list_(pa.float64()))


def _offsets(n: int, size: int) -> pa.Array:
    return pa.array(np.arange(n + 1, dtype=np.int32) * np.int32(size))


def _chunks(n: int, size: int) -> Iterator[tuple[int, int]]:
    rows = max(1, _VALUES_PER_CHUNK // size)
    for start in range(0, n, rows):
        yield start, min(start + rows, n)


def _check_columns(table: pa.Table) -> None:
    missing = [name for name in PREDICTIONS.names if name not in table.column_names]
    strange = [name for name in table.column_names if name not in PREDICTIONS.names]
    if missing or strange or len(table.column_names) != len(PREDICTIONS.names):
        raise SchemaError(
            f"Columns missing: {missing}; columns unknown: {strange}. "
            f"Expected {PREDICTIONS.names}, each once."
        )
    for field in PREDICTIONS:
        found = table.schema.field(field.name).type
        if found != field.type:
            raise SchemaError(
                f"The column {field.name!r} is {found}, not {field.type}. "
                "Cast the table to schemas.PREDICTIONS."
            )


def _check_filled(table: pa.Table, names: Sequence[str]) -> None:
    for name in names:
        column = table.column(name)
        if column.null_count:
            first = pc.index(pc.is_null(column), True).as_py()
            raise SchemaError(
                f"{column.null_count} of {len(column)} rows have no {name}; the first "
                f"is row {first} with prediction_id="
                f"{table.column('prediction_id')[first].as_py()!r}. "
                "A prediction is complete, or it is left out."
            )


def _check_ids(ids: pa.ChunkedArray) -> None:
    n_empty = pc.sum(pc.equal(ids, "")).as_py()
    if n_empty:
        raise SchemaError(
            f"{n_empty} of {len(ids)} rows have an empty prediction_id; the first is "
            f"row {pc.index(ids, '').as_py()}. Each needs an id of its own."
        )
    if _surely_distinct(ids) or pc.count_distinct(ids).as_py() == len(ids):
        return
    codes = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    firsts = np.unique(codes, return_index=True)[1]
    repeats = np.ones(len(codes), dtype=bool)
    repeats[firsts] = False
    raise SchemaError(
        f"{int(repeats.sum())} of {len(ids)} rows repeat a prediction_id; the first "
        f"is {ids[int(repeats.argmax())].as_py()!r}. Each may stand here once."
    )


def _surely_distinct(ids: pa.ChunkedArray) -> bool:
    """Whether even 64-bit hashes of all ids differ; five times as fast as the ids.

    For ids of one length that is a multiple of eight bytes, as ours are; for others it
    says no.
    """
    lengths = pc.min_max(pc.binary_length(ids)).as_py()
    if not len(ids) or lengths["min"] != lengths["max"] or lengths["min"] % 8:
        return False
    array = pa.concat_arrays(ids.chunks)
    _, offsets, text = array.buffers()
    start = int(np.frombuffer(offsets, np.int32)[array.offset])
    n_words = lengths["min"] // 8
    words = np.frombuffer(text, np.uint64, len(ids) * n_words, start)
    # Odd, so that two ids which differ in one word alone never hash alike.
    factors = np.uint64(0x9E3779B97F4A7C15) * np.arange(
        1, 2 * n_words, 2, dtype=np.uint64
    )
    hashes = (words.reshape(-1, n_words) * factors).sum(axis=1, dtype=np.uint64)
    hashes.sort()
    return bool((hashes[1:] != hashes[:-1]).all())


def _check_image_ids(image_ids: pa.ChunkedArray) -> None:
    suspects = np.flatnonzero(pc.match_substring_regex(image_ids, _SUSPECT).to_numpy())
    names = image_ids.take(pa.array(suspects)).to_pylist()
    wrong = [(name, reason) for name in names if (reason := flaw(name))]
    if wrong:
        name, reason = wrong[0]
        raise ImageIdError(
            f"{len(wrong)} of {len(image_ids)} image_ids are no place inside the "
            f"image store; the first is {name!r}: {reason}. "
            "Name each image by its path below the store's root."
        )


def _check_probabilities(table: pa.Table) -> None:
    n, image_ids = table.num_rows, table.column("image_id")
    chunks = table.column("probabilities").chunks
    sizes = _lengths(chunks)
    n_classes = _lengths(table.column("classes").chunks)
    unequal = np.flatnonzero((sizes != n_classes) | (sizes == 0))
    if unequal.size:
        first = int(unequal[0])
        raise PredictionsError(
            f"{unequal.size} of {n} rows have another number of probabilities than of "
            f"classes; the first is image_id={image_ids[first].as_py()!r} with "
            f"{sizes[first]} probabilities for {n_classes[first]} classes. "
            "Score it again."
        )
    measured = [_lows_and_sums(chunk) for chunk in chunks if len(chunk)]
    lows = np.concatenate([low for low, _ in measured] or [np.empty(0)])
    sums = np.concatenate([total for _, total in measured] or [np.empty(0)])
    wrong = np.flatnonzero(~is_vector(lows, sums))
    if wrong.size:
        first = int(wrong[0])
        raise PredictionsError(
            f"{wrong.size} of {n} rows are not probability vectors; the first is "
            f"image_id={image_ids[first].as_py()!r}, "
            f"{what_it_holds(lows[first], sums[first])}"
        )


@overload
def is_vector(lows: float, sums: float) -> bool: ...
@overload
def is_vector(lows: FloatArray, sums: FloatArray) -> npt.NDArray[np.bool_]: ...
def is_vector(
    lows: float | FloatArray, sums: float | FloatArray
) -> bool | npt.NDArray[np.bool_]:
    """Whether rows of these lowest values and sums are probability vectors."""
    # Written so that a NaN, which compares false with everything, is wrong too.
    near_one = (sums - 1 <= SUM_TOLERANCE) & (1 - sums <= SUM_TOLERANCE)
    return (lows >= 0) & near_one


def what_it_holds(low: float, total: float) -> str:
    """The end of a sentence about a row that is no probability vector."""
    if low < 0:
        held = f"whose lowest value is {low:.3f}"
    else:
        held = f"whose values sum to {total:.3f}, not 1"
    return f"{held}. If these are logits, apply softmax before they are collected."


def _flat(lists: pa.ChunkedArray) -> tuple[FloatArray, IntArray, IntArray]:
    """All values in a row; where each list starts in them, and how long it is."""
    array = lists.combine_chunks()
    offsets = array.offsets.to_numpy().astype(np.int64)
    return array.values.to_numpy(), offsets[:-1], np.diff(offsets)


def _lengths(chunks: Sequence[pa.ListArray]) -> IntArray:
    lengths = [pc.list_value_length(chunk).to_numpy() for chunk in chunks]
    return np.concatenate([*lengths, np.empty(0)]).astype(np.int64)


def _lows_and_sums(lists: pa.ListArray) -> tuple[FloatArray, FloatArray]:
    """Of each list; none is empty. A null inside one is a NaN in both."""
    offsets = lists.offsets.to_numpy()
    inside = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    values = inside.to_numpy(zero_copy_only=False)
    starts = offsets[:-1] - offsets[0]
    return np.minimum.reduceat(values, starts), np.add.reduceat(values, starts)


def _check_finite(table: pa.Table) -> None:
    for name in _NUMBERS:
        column = table.column(name)
        wrong = np.flatnonzero(~np.isfinite(column.to_numpy()))
        if wrong.size:
            first = int(wrong[0])
            raise SchemaError(
                f"{wrong.size} of {len(column)} rows have a {name} that is not finite; "
                f"the first is image_id={table.column('image_id')[first].as_py()!r} "
                f"with {column[first].as_py()!r}. A NaN has no place in a ranking."
            )
