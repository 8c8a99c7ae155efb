"""What each table promises where it crosses the catalog.

The columns, their order and their Arrow types have their one home here; ``TABLES``
names them as the catalog does. Every ``check_*`` is a dataset ``validator``: it
returns the frame it was given, or raises with the number of wrong rows, the first
of them, what it held and the way out.
"""

from hashlib import blake2b, sha256
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from active_learning.errors import LabelsError, SchemaError
from active_learning.texts import in_order, to_texts

_TIME = pa.timestamp("us", tz="UTC")

PREDICTIONS = pa.schema(
    [
        ("prediction_id", pa.string()),
        ("image_id", pa.string()),
        ("source", pa.string()),
        ("label", pa.string()),
        ("confidence", pa.float64()),
        ("margin", pa.float64()),
        ("entropy", pa.float64()),
        ("sampling_key", pa.float64()),
        ("classes", pa.list_(pa.string())),
        ("probabilities", pa.list_(pa.float64())),
        ("model_name", pa.string()),
        ("model_version", pa.int64()),
        ("scored_at", _TIME),
    ]
)

# What a model sees in an image, beside the wide table of what it says of it.
EMBEDDINGS = pa.schema(
    [
        ("image_id", pa.string()),
        ("model_version", pa.int64()),
        ("vector", pa.list_(pa.float32())),
    ]
)

LABELS = pa.schema(
    [
        ("label_id", pa.string()),
        ("image_id", pa.string()),
        ("label", pa.string()),
        ("labeler", pa.string()),
        ("labeled_at", _TIME),
        ("batch_id", pa.string()),
        ("source", pa.string()),
        ("request_id", pa.string()),
        ("answer", pa.string()),
    ]
)

# What a reader of exports makes of one answer. `reference` is how the tool calls the
# image; `answer` is `label`, `skipped` or `unclear`; `reason` says why the row cannot
# be read, and is empty when it can.
ANSWERS = pa.schema(
    [
        ("reference", pa.string()),
        ("label", pa.string()),
        ("answer", pa.string()),
        ("labeler", pa.string()),
        ("labeled_at", _TIME),
        ("source", pa.string()),
        ("request_id", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
    ]
)

# Images whose label is in doubt, as of the last ingestion: what the model said of each
# when it was asked for is `predicted_label`. The highest priority is asked first.
DISPUTED_LABELS = pa.schema(
    [
        ("image_id", pa.string()),
        ("reason", pa.string()),
        ("priority", pa.float64()),
        ("label", pa.string()),
        ("n_answers", pa.int64()),
        ("predicted_label", pa.string()),
        ("model_name", pa.string()),
        ("model_version", pa.int64()),
    ]
)

LABEL_REQUESTS = pa.schema(
    [
        ("request_id", pa.string()),
        ("image_id", pa.string()),
        ("round", pa.int64()),
        ("strategy", pa.string()),
        ("utility", pa.float64()),
        ("rank", pa.int64()),
        ("propensity", pa.float64()),
        ("population", pa.int64()),
        ("audit", pa.bool_()),
        ("model_name", pa.string()),
        ("model_version", pa.int64()),
        ("requested_at", _TIME),
    ]
)

REJECTED_LABELS = pa.schema(
    [
        ("image_id", pa.string()),
        ("label", pa.string()),
        ("labeler", pa.string()),
        ("labeled_at", _TIME),
        ("source", pa.string()),
        ("request_id", pa.string()),
        ("answer", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("batch_id", pa.string()),
        ("rejected_at", _TIME),
    ]
)

SET_ASIDE = pa.schema([("image_id", pa.string()), ("reason", pa.string())])

# One image, the class it shows and the SHA-256 of its file.
MANIFEST = pa.schema(
    [("image_id", pa.string()), ("label", pa.string()), ("content", pa.string())]
)

# The labels a model learns from, each with the lineage of the answer it came from.
TRAINING_SET = pa.schema([*LABELS, pa.field("content", pa.string())])


class Table(NamedTuple):
    """One append-only table; ``key`` names the columns by which a row counts once."""

    schema: pa.Schema
    key: tuple[str, ...]


# Names and hashes, another in nearly every row: to look for equal ones, or to compress
# them, takes time and gains next to nothing.
UNLIKE = frozenset({"content", "image_id", "label_id", "prediction_id", "request_id"})

TABLES: dict[str, Table] = {
    "predictions": Table(PREDICTIONS, key=("prediction_id",)),
    "scored_batch": Table(PREDICTIONS, key=("prediction_id",)),
    "embeddings": Table(EMBEDDINGS, key=("image_id", "model_version")),
    "labels": Table(LABELS, key=("label_id",)),
    "label_requests": Table(LABEL_REQUESTS, key=("request_id",)),
    "rejected_labels": Table(REJECTED_LABELS, key=()),
    "set_aside": Table(SET_ASIDE, key=("image_id", "reason")),
    "test_set": Table(MANIFEST, key=("image_id",)),
}


def to_arrow(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """Put a frame into the columns, order and types of a schema.

    Raises:
        SchemaError: A column is missing or unknown, or a value does not fit its type.
    """
    check_columns(frame, schema)
    if frame.empty:
        # pandas gives an empty column no type from which a list could be made.
        return schema.empty_table()
    try:
        return pa.Table.from_pandas(
            frame[schema.names], schema=schema, preserve_index=False
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as exc:
        raise SchemaError(f"A column does not fit its type: {exc}") from exc


def empty_frame(schema: pa.Schema) -> pd.DataFrame:
    """A frame of no rows with the columns and dtypes that a full one has."""
    frame: pd.DataFrame = schema.empty_table().to_pandas()
    return frame


def row_id(*parts: object) -> str:
    """Hash what makes a row that row, so that a retry writes the same id.

    Returns:
        32 hexadecimal digits of BLAKE2b over the parts in their order.
    """
    return blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def fingerprint(manifest: pd.DataFrame) -> str:
    """SHA-256 over what a manifest's images show and are called.

    Args:
        manifest: Columns ``content`` and ``label``.

    Returns:
        64 hexadecimal digits; the same for any order of rows and any file names.
    """
    # One text for each image, sorted and hashed where Arrow keeps them.
    content, label = (to_texts(manifest[name]) for name in ("content", "label"))
    mark, end, none = (pa.scalar(text, pa.large_string()) for text in ("\0", "\n", ""))
    lines = pc.binary_join_element_wise(content, mark, label, end, none)
    if not len(lines):
        return sha256().hexdigest()
    lines = in_order(lines)
    ends = np.frombuffer(lines.buffers()[1], dtype=np.int64)
    return sha256(lines.buffers()[2][: ends[len(lines)]]).hexdigest()


def check_columns(frame: pd.DataFrame, schema: pa.Schema) -> None:
    """Raise ``SchemaError`` unless the frame has exactly the schema's columns."""
    missing = [name for name in schema.names if name not in frame.columns]
    strange = [name for name in frame.columns if name not in schema.names]
    if missing or strange:
        raise SchemaError(
            f"Columns missing: {missing}; columns unknown: {strange}. "
            f"Expected {schema.names}."
        )


def check_labels(frame: pd.DataFrame) -> pd.DataFrame:
    """Labels have unique ids, and a class exactly where the answer is one."""
    check_columns(frame, LABELS)
    _refuse_repeats(frame, "label_id")
    # A part of before abstentions were kept has no answer: each is a label.
    given = frame["answer"].fillna("label") == "label"
    _refuse_empty_labels(frame[given])
    both = frame[~given & (frame["label"] != "")]
    if len(both):
        raise LabelsError(
            f"{len(both)} of {len(frame)} rows are {both['answer'].iloc[0]!r} and have "
            f"a label all the same; the first is image_id={both['image_id'].iloc[0]!r}."
        )
    return frame


def check_label_requests(frame: pd.DataFrame) -> pd.DataFrame:
    """Requests have unique ids and propensities in (0, 1]."""
    check_columns(frame, LABEL_REQUESTS)
    _refuse_repeats(frame, "request_id")
    wrong = frame[~((frame["propensity"] > 0) & (frame["propensity"] <= 1))]
    if len(wrong):
        raise SchemaError(
            f"{len(wrong)} of {len(frame)} requests have no propensity in (0, 1]; the "
            f"first is image_id={wrong['image_id'].iloc[0]!r} with "
            f"{wrong['propensity'].iloc[0]!r}. A top-k pick has propensity 1."
        )
    return frame


def check_manifest(frame: pd.DataFrame) -> pd.DataFrame:
    """A manifest names each image once, with a class and a content hash."""
    check_columns(frame, MANIFEST)
    _refuse_repeats(frame, "image_id")
    _refuse_empty_labels(frame)
    return frame


def check_training_set(frame: pd.DataFrame) -> pd.DataFrame:
    """A training set holds one label for each image and says where it came from."""
    check_columns(frame, TRAINING_SET)
    _refuse_repeats(frame, "image_id")
    _refuse_empty_labels(frame)
    return frame


def _refuse_repeats(frame: pd.DataFrame, column: str) -> None:
    repeated = frame[column].duplicated()
    if repeated.any():
        raise SchemaError(
            f"{int(repeated.sum())} of {len(frame)} rows repeat a {column}; the first "
            f"is {frame.loc[repeated, column].iloc[0]!r}. Each may stand here once."
        )


def _refuse_empty_labels(frame: pd.DataFrame) -> None:
    empty = frame["label"].isna() | (frame["label"] == "")
    if empty.any():
        raise LabelsError(
            f"{int(empty.sum())} of {len(frame)} rows have no label; the first is "
            f"image_id={frame.loc[empty, 'image_id'].iloc[0]!r}."
        )
