"""How much memory a simulation holds at its peak, and what a larger pool adds to it.

A process tree is sampled ten times a second; its memory is the sum of the proportional
set sizes (PSS) of all processes, in which what they share counts once. It is told for
the settings of ``--env simulation`` with one seed and three rounds, every core busy
with a branch, and for a tenth of their pool: the ratio says whether a pool ten times as
large costs ten times as much. Linux alone, as no other system tells PSS.
"""

import shutil
import subprocess
import time
from pathlib import Path

from tests.benchmarks.stage import ROOT, RUNNER, Stage, kedro, tell, tell_ratio, typed

GOAL_GB = 2.5
INTERVAL_S = 0.1
ROUNDS = 3


def main(folder: Path, repetitions: int, quick: bool) -> None:
    """Measure and print."""
    peaks = {}
    for pool in (1500, 15000):
        place = folder / str(pool)
        place.mkdir()
        settings = {
            "simulate.rounds": ROUNDS,
            "simulate.seeds": [0],
            "simulate.pool_size": pool,
        }
        peaks[pool] = peak_gb(Stage(place, settings))
        shutil.rmtree(place)
    tell(f"memory: four strategies, {ROUNDS} rounds, every core busy")
    tell(f"  peak with a pool of {1500:,}: {peaks[1500]:.2f} GB")
    verdict = "met" if peaks[15000] <= GOAL_GB else "MISSED"
    tell(
        f"  peak with a pool of {15000:,}: {peaks[15000]:.2f} GB  "
        f"goal {GOAL_GB}: {verdict}"
    )
    tell_ratio("ten times the pool", [peaks[15000] / peaks[1500]], None)


def peak_gb(stage: Stage) -> float:
    """The largest sum of PSS over a run, in 10^9 bytes."""
    parameters = ("--env", "simulation", "--params", typed(stage.overrides))
    command = kedro("simulate", "--runner", RUNNER, *parameters)
    with (stage.data / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=stage.environment, stdout=log, stderr=log
        )
        most = 0
        while process.poll() is None:
            most = max(most, sum(map(pss, tree(process.pid))))
            time.sleep(INTERVAL_S)
    if process.returncode:
        raise SystemExit((stage.data / "log.txt").read_text()[-4000:])
    return most / 1e9


def tree(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def pss(pid: int) -> int:
    """Bytes; none for a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
