"""What the project costs beside the training: ``kedro run`` against a bare script.

One seed and one strategy: the whole process ``kedro run --pipelines simulate`` for
``seed_0.margin`` with the start it stands on, against the whole process of
``bare_loop.py``. Images are decoded and the tracking database exists, as in any second
run; what rounds write is removed before each repetition. Both run in turns, and the
ratio is the median of the pairs' ratios. Both must end with the same accuracies.

``--quick`` takes 6 rounds, in which the start-up weighs more than in 30.
"""

import json
from pathlib import Path

from tests.benchmarks.stage import (
    Ran,
    Stage,
    interleave,
    ratios,
    tell,
    tell_ratio,
)

GOAL = 1.25
STRATEGY = "margin"
NAMESPACES = f"--namespaces=test_set,prepare,seed_0.start,seed_0.{STRATEGY}"


def main(folder: Path, repetitions: int, quick: bool) -> None:
    """Measure and print."""
    rounds = 6 if quick else 30
    stage = Stage(folder, {"simulate.rounds": rounds, "simulate.seeds": [0]})

    def simulate() -> Ran:
        stage.clear()
        return stage.kedro("simulate", NAMESPACES, "--only-missing-outputs")

    simulate()
    stage.write_arrays()
    pairs = interleave(repetitions, simulate, stage.bare_loop)
    ours = stage.accuracies(STRATEGY)
    bare = json.loads(pairs[-1][1].output)[STRATEGY]
    tell(f"overhead: {rounds} rounds, kedro run / bare PyTorch script")
    tell_ratio("wall time", ratios(pairs), GOAL)
    tell_ratio("processor time", ratios(pairs, "cpu_s"), None)
    same = "the same in every round" if ours == bare else "NOT the same in every round"
    tell(f"  final accuracy {ours[-1]:.4f} and {bare[-1]:.4f}, {same}")
