"""Four strategies on every core against the same four one after the other.

The whole process ``kedro run --pipelines simulate`` with ``BranchRunner``, one worker a
core, against the whole process of ``bare_loop.py``, which trains with all cores and
takes the strategies in turn from one shared first model. One seed; both write or print
their curves, which for the strategies that ran on one thread and on several may differ
in the last digits. Ratios are medians of runs in turns.

Beside it, without a goal: what no runner can go below. That is the bare loop once a
core, on one thread each, the strategies shared out among them, by the bare loop on all
cores.

``--quick`` takes 6 rounds instead of 30.
"""

import json
import sys
from pathlib import Path

from tests.benchmarks.stage import RUNNER, Ran, Stage, tell, tell_ratio

GOAL = 0.85


def main(folder: Path, repetitions: int, quick: bool) -> None:
    """Measure and print."""
    rounds = 6 if quick else 30
    stage = Stage(folder, {"simulate.rounds": rounds, "simulate.seeds": [0]})

    def simulate() -> Ran:
        stage.clear()
        return stage.kedro("simulate", "--runner", RUNNER, "--only-missing-outputs")

    simulate()
    stage.write_arrays()
    whole, bound = [], []
    for number in range(repetitions):
        turns = (simulate, stage.bare_loop, stage.bare_loops)
        order = range(3) if number % 2 else (2, 1, 0)
        ran = {turn: turns[turn]() for turn in order}
        whole.append(ran[0].wall_s / ran[1].wall_s)
        bound.append(ran[2].wall_s / ran[1].wall_s)
        sys.stderr.write(f"  {number + 1} of {repetitions}\n")
    curves = json.loads(ran[1].output)
    tell(
        f"parallel: {len(curves)} strategies, {rounds} rounds, "
        "BranchRunner / bare script one by one"
    )
    tell_ratio("wall time", whole, GOAL)
    tell_ratio("wall time, bare script once a core", bound, None)
    for strategy, bare in curves.items():
        ours = stage.accuracies(strategy)
        tell(f"  {strategy}: final accuracy {ours[-1]:.4f} and {bare[-1]:.4f}")
