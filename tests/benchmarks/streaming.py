"""What it costs a scoring service to have its predictions collected.

Four processes collect into one spool while the threads of all carry it to a table of
Parquet parts; an acknowledgement counts from the model's answer to the return of
``collect``. First each as fast as it can: the time that a prediction takes, all four
together, against the 1 / 2,000 s that are the goal. Then each 500 times a second, the
goal's own rate: the median of what a request waits for its acknowledgement, against
1 ms. A figure of 1 is the goal, less is better. Beside them, without a goal: the median
of four processes and of one that never pause, and the longest wait of a thousand.
"""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.benchmarks.stage import ROOT, collector_in, tell, tell_ratio

GOAL_PER_S = 2000
GOAL_MEDIAN_S = 1e-3
N_PROCESSES = 4
N_CLASSES = 10


class Measured(NamedTuple):
    """What some processes did together."""

    per_s: float
    median_s: float
    worst_s: float


def main(folder: Path, repetitions: int, quick: bool) -> None:
    """Measure and print."""
    n = 1000 if quick else 5000
    pace_s = N_PROCESSES / GOAL_PER_S
    fast, paced, alone = [], [], []
    for number in range(repetitions):
        fast.append(measure(folder / f"fast-{number}", N_PROCESSES, n, 0))
        paced.append(measure(folder / f"paced-{number}", N_PROCESSES, n // 2, pace_s))
        alone.append(measure(folder / f"alone-{number}", 1, n, 0))
        sys.stderr.write(f"  {number + 1} of {repetitions}\n")
    tell(f"streaming: {N_PROCESSES} processes / {GOAL_PER_S:,} a second, 1 ms")
    tell_ratio("time a prediction, flat out", [GOAL_PER_S / m.per_s for m in fast], 1)
    tell_ratio("median wait at 2,000 a second", _medians(paced), 1)
    tell_ratio("median wait, flat out", _medians(fast), None)
    tell_ratio("median wait, one process flat out", _medians(alone), None)
    worst = [m.worst_s / GOAL_MEDIAN_S for m in paced]
    tell_ratio("longest of 1,000 at 2,000 a second", worst, None)


def measure(folder: Path, n_processes: int, n: int, pace_s: float) -> Measured:
    """Start processes together and wait for their tables to be full."""
    command = [sys.executable, "-m", "tests.benchmarks.streaming", str(folder)]
    processes = [
        subprocess.Popen(
            [*command, f"{number}", f"{n}", f"{pace_s}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(n_processes)
    ]
    for process in processes:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise SystemExit("A process of the benchmark did not start.")
    start = time.monotonic() + 0.2
    for process in processes:
        process.stdin.write(f"{start}\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    said = [json.loads(process.communicate()[0]) for process in processes]
    waits = sorted(wait for one in said for wait in one["waits_s"])
    took_s = max(one["end"] for one in said) - start
    stay = min(one["stay"] for one in said)  # for the last to close, none
    if stay:
        raise SystemExit(f"{stay} predictions stayed in the spool.")
    return Measured(
        len(waits) / took_s, median(waits), waits[int(len(waits) * 0.999) - 1]
    )


def work(folder: Path, name: str, n: int, pace_s: float) -> None:
    """Collect ``n`` predictions and tell how long each took."""
    from active_learning.services.telemetry.collector import Prediction

    collector = collector_in(folder, 1_000_000)
    classes = [f"class {number}" for number in range(N_CLASSES)]
    said = [0.5, *[0.5 / (N_CLASSES - 1)] * (N_CLASSES - 1)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    start = float(sys.stdin.readline())
    waits_s = []
    time.sleep(max(0, start - time.monotonic()))
    for number in range(n):
        if pace_s:
            time.sleep(max(0, start + number * pace_s - time.monotonic()))
        began = time.perf_counter()
        prediction = Prediction.of(
            f"{name}/{number}.png", said, classes, "m", 1, "online", datetime.now(UTC)
        )
        collector.collect(prediction)
        waits_s.append(time.perf_counter() - began)
    end = time.monotonic()
    stay = collector.close(60)
    sys.stdout.write(json.dumps({"waits_s": waits_s, "end": end, "stay": stay}))


def _medians(measured: list[Measured]) -> list[float]:
    return [one.median_s / GOAL_MEDIAN_S for one in measured]


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
