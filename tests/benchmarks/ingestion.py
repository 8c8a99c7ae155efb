"""What it costs to append a million predictions at once.

``Collector.collect_batch`` checks every row and appends to a table of Parquet parts;
beside it ``pyarrow.parquet.write_table`` writes the same columns and checks nothing.
Both are handed the same Arrow table, then the same pandas frame, which both turn into
Arrow first. They run in turns in one process; the ratio is the median of the pairs'
own. A ratio of 2 is half the rows a second.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tests.benchmarks.stage import (
    Ran,
    collector_in,
    interleave,
    ratios,
    tell,
    tell_ratio,
)

GOAL = 2.0
N_CLASSES = 10


def main(folder: Path, repetitions: int, quick: bool) -> None:
    """Measure and print."""
    from active_learning.schemas import PREDICTIONS

    collector = collector_in(folder, 1000)
    n = 100_000 if quick else 1_000_000
    table = scored(n)
    frame: pd.DataFrame = table.to_pandas()
    bare = folder / "bare.parquet"

    def write_frame() -> None:
        rows = pa.Table.from_pandas(frame, PREDICTIONS, preserve_index=False)
        pq.write_table(rows, bare)

    # A repeated batch takes its own place again, so the table does not grow.
    tell(f"ingestion: {n:,} predictions of {N_CLASSES} classes / a bare Parquet write")
    for what, ours, theirs in (
        (
            "of an Arrow table",
            lambda: collector.collect_batch(table),
            lambda: pq.write_table(table, bare),
        ),
        ("of a pandas frame", lambda: collector.collect_batch(frame), write_frame),
    ):
        pairs = interleave(repetitions, timed(ours), timed(theirs))
        tell_ratio(f"wall time {what}", ratios(pairs), GOAL)
        tell_ratio(f"processor time {what}", ratios(pairs, "cpu_s"), None)


def timed(action: Callable[[], object]) -> Callable[[], Ran]:
    """Measure an action of this process as if it were one of its own."""

    def measured() -> Ran:
        began, cpu_began = time.perf_counter(), time.process_time()
        action()
        return Ran(time.perf_counter() - began, time.process_time() - cpu_began, "")

    return measured


def scored(n: int) -> pa.Table:
    """As if a model had said something of N images."""
    from active_learning.services.telemetry.rows import predictions_table

    generator = np.random.default_rng(0)
    return predictions_table(
        [f"camera-{row % 7}/2000/01/{row:08}.png" for row in range(n)],
        generator.dirichlet(np.ones(N_CLASSES), n),
        [f"class {number}" for number in range(N_CLASSES)],
        "small_cnn",
        1,
        "batch",
        datetime(2000, 1, 1, tzinfo=UTC),
    )
