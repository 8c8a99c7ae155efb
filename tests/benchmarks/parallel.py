"""Four strategies on every core against the same four one after the other.

The whole process ``kedro run --pipelines simulate`` with ``BranchRunner``, one worker a
core, against the whole process of ``bare_loop.py``, which trains with all cores and
takes the strategies in turn from one shared first model. One seed; both write or print
their curves, which for the strategies that ran on one thread and on several may differ
in the last digits. The ratio is the median of pairs that ran in turns.

``--quick`` takes 6 rounds instead of 30.
"""

import json
from pathlib import Path

from tests.benchmarks.stage import (
    RUNNER,
    Ran,
    Stage,
    interleave,
    ratios,
    tell,
    tell_ratio,
)

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
    pairs = interleave(repetitions, simulate, stage.bare_loop)
    curves = json.loads(pairs[-1][1].output)
    tell(
        f"parallel: {len(curves)} strategies, {rounds} rounds, "
        "BranchRunner / bare script one by one"
    )
    tell_ratio("wall time", ratios(pairs), GOAL)
    for strategy, bare in curves.items():
        ours = stage.accuracies(strategy)
        tell(f"  {strategy}: final accuracy {ours[-1]:.4f} and {bare[-1]:.4f}")
