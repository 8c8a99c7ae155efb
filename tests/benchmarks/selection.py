"""What ``kedro run --pipelines select`` costs beside an empty pipeline.

The whole process with a thousand scored candidates, against the whole process of a
pipeline of one node that does nothing, in a project with the same configuration,
settings, hooks and plugins: all that differs is the registry. Both run in turns; the
ratio is the median of the pairs' ratios. Then the modules that ``select`` imported are
looked through for those that it has no use for.
"""

import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from tests.benchmarks.stage import (
    ROOT,
    Ran,
    Stage,
    interleave,
    kedro,
    ratios,
    run,
    tell,
    tell_ratio,
)

GOAL = 1.6
N_CANDIDATES = 1000
HEAVY = ("torch", "torchvision", "pytorch_lightning", "mlflow.server", "matplotlib")

REGISTRY = """
from kedro.pipeline import Node, Pipeline


def do_nothing():
    return True


def register_pipelines():
    return {"nothing": Pipeline([Node(do_nothing, None, "nothing")])}
"""
SETTINGS = "from active_learning.settings import *\n"
IMPORTED = """
import json, sys
from kedro.framework.cli.cli import main
try:
    main()
finally:
    print("IMPORTED", json.dumps(sorted(sys.modules)))
"""


def main(folder: Path, repetitions: int, quick: bool) -> None:
    """Measure and print."""
    stage = Stage(folder, {})
    empty = write_empty_project(folder / "empty")
    write_candidates(stage)

    def select() -> Ran:
        for name in ("label_requests", "labeling_queue"):
            shutil.rmtree(stage.data / "03_primary" / name, ignore_errors=True)
        return run(kedro("select"), stage.environment)

    def do_nothing() -> Ran:
        return run(kedro("nothing"), stage.environment, empty)

    select()
    do_nothing()
    # They take seconds, so that more of them cost little.
    pairs = interleave(3 if quick else 3 * repetitions, select, do_nothing)
    tell(f"select: {N_CANDIDATES} candidates / a pipeline that does nothing")
    tell_ratio("wall time", ratios(pairs), GOAL)
    tell_ratio("processor time", ratios(pairs, "cpu_s"), None)
    command = [sys.executable, "-c", IMPORTED, "run", "--pipelines", "select"]
    said = run(command, stage.environment).output.rpartition("IMPORTED")[2]
    modules = json.loads(said)
    for name in HEAVY:
        below = [m for m in modules if m == name or m.startswith(f"{name}.")]
        tell(f"  {name:<44} {'NOT NEEDED' if below else 'not'} imported")


def write_empty_project(project: Path) -> Path:
    """The project with another registry."""
    package = project / "src" / "empty_project"
    package.mkdir(parents=True)
    (project / "conf").symlink_to(ROOT / "conf")
    described = (ROOT / "pyproject.toml").read_text()
    changed = described.replace(
        'package_name = "active_learning"', 'package_name = "empty_project"'
    )
    (project / "pyproject.toml").write_text(changed)
    (project / ".telemetry").write_text("consent: false\n")
    (package / "__init__.py").touch()
    (package / "settings.py").write_text(SETTINGS)
    (package / "pipeline_registry.py").write_text(REGISTRY)
    return project


def write_candidates(stage: Stage) -> None:
    """Predictions, as if a champion had just said something of a thousand images."""
    from active_learning.datasets import TableDataset
    from active_learning.services.telemetry.rows import predictions_table

    run(kedro("test-set"), stage.environment)
    root = stage.data / "01_raw" / "fashion-mnist"
    files = sorted((root / "train").glob("*/*.png"))[:: 60000 // N_CANDIDATES]
    names = [file.relative_to(root).as_posix() for file in files[:N_CANDIDATES]]
    classes = sorted(path.name for path in (root / "train").iterdir())
    said = np.random.default_rng(0).dirichlet(np.ones(len(classes)), len(names))
    table = predictions_table(
        names, said, classes, "bench", 1, "batch", datetime.now(UTC)
    )
    place = str(stage.data / "03_primary" / "predictions")
    TableDataset(table="predictions", path=place).save(table.to_pandas())
