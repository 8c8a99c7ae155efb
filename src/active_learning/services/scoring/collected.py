"""What a batch endpoint has written, as the rows that ``score`` would have made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from active_learning.errors import PredictionsError
from active_learning.files import filesystem_at
from active_learning.schemas import PREDICTIONS, SET_ASIDE
from active_learning.services.telemetry.rows import predictions_table


class Collected(NamedTuple):
    """A job's rows.

    Attributes:
        predictions: In the columns of ``schemas.PREDICTIONS``.
        set_aside: ``image_id`` and ``reason`` of images that could not be used.
    """

    predictions: pa.Table
    set_aside: pa.Table


def read_job(output: str, image_ids: Iterable[str]) -> Collected:
    """Read the parts that a job has written.

    A job sees files where its cluster mounts them; each row gets the name that the
    image has in the store, and with it the id that any other run would give it. A file
    that was scored twice is one row.

    Args:
        output: URL of the job's output folder.
        image_ids: Of the image store.

    Raises:
        PredictionsError: There is no part, or a file is none of the store's.
    """
    filesystem, path = filesystem_at(output)
    parts = sorted(name for name in filesystem.find(path) if name.endswith(".parquet"))
    if not parts:
        raise PredictionsError(
            f"{output!r} holds no part: the job has not ended well, or writes "
            "elsewhere. See it in the studio."
        )
    frames = [pd.read_parquet(BytesIO(filesystem.cat_file(part))) for part in parts]
    rows = pd.concat(frames, ignore_index=True)
    rows["image_id"] = _named(rows["image_id"].tolist(), frozenset(image_ids), output)
    rows = rows.drop_duplicates("image_id", ignore_index=True)
    bad = rows["reason"] != ""
    tables = [
        _table(group)
        for _, group in rows[~bad].groupby(
            ["model_name", "model_version", "classes"], sort=True
        )
    ]
    return Collected(
        pa.concat_tables([PREDICTIONS.empty_table(), *tables]),
        pa.Table.from_pandas(
            rows.loc[bad, ["image_id", "reason"]], SET_ASIDE, preserve_index=False
        ),
    )


def _table(group: pd.DataFrame) -> pa.Table:
    first = group.iloc[0]
    return predictions_table(
        group["image_id"].tolist(),
        np.array([json.loads(text) for text in group["probabilities"]]),
        json.loads(first["classes"]),
        str(first["model_name"]),
        int(first["model_version"]),
        "batch",
        pd.Timestamp(first["scored_at"]).to_pydatetime(),
    )


def _named(paths: Sequence[str], known: frozenset[str], output: str) -> list[str]:
    """The store's name for each path: the longest end of it that is one."""
    found = [_ending(path, known) for path in paths]
    strange = [path for path, name in zip(paths, found, strict=True) if name is None]
    if strange:
        raise PredictionsError(
            f"{len(strange)} of {len(paths)} files in {output!r} are none of the image "
            f"store's; the first is {strange[0]!r}. Let the job score the images of "
            "this environment."
        )
    return [name for name in found if name is not None]


def _ending(path: str, known: frozenset[str]) -> str | None:
    parts = path.split("/")
    ends = ("/".join(parts[first:]) for first in range(len(parts)))
    return next((end for end in ends if end in known), None)
