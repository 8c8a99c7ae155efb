"""You pay only for what you run: what a pipeline has no use for is not imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from active_learning.datasets import TableDataset
from active_learning.schemas import PREDICTIONS

PROJECT = Path(__file__).parents[1]
RUN = """
import json, sys
from kedro.framework.cli.cli import main
try:
    main()
finally:
    print("IMPORTED", json.dumps(sorted(sys.modules)))
"""
HEAVY = {"torch", "torchvision", "pytorch_lightning", "onnxruntime"}
# Beside these, MLflow itself looks at its plugin for Azure where that is installed.
CLOUD = {"adlfs", "azure.ai", "azure.kusto"}


def modules_of(data: Path, *arguments: str) -> set[str]:
    """What ``kedro`` has imported when a command is done."""
    ran = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=PROJECT,
        env={**os.environ, "AL_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return set(json.loads(ran.stdout.rpartition("IMPORTED")[2]))


def write_candidates(images: Path, data: Path) -> None:
    """Say something of twenty images."""
    names = sorted(p.relative_to(images).as_posix() for p in images.glob("*/*.png"))
    table = pd.DataFrame({"image_id": names[:: len(names) // 20][:20]}).assign(
        prediction_id=lambda t: t["image_id"],
        source="batch",
        label="0",
        confidence=0.6,
        margin=0.2,
        entropy=0.7,
        sampling_key=np.linspace(0, 0.95, 20),
        classes=[["0", "1"]] * 20,
        probabilities=[[0.6, 0.4]] * 20,
        model_name="small_cnn",
        model_version=1,
        scored_at=pd.Timestamp.now(tz="UTC"),
    )
    place = str(data / "03_primary" / "predictions")
    TableDataset(table="predictions", path=place).save(table[PREDICTIONS.names])


def test_selecting_labels_imports_no_torch(digits: Path, tmp_path: Path) -> None:
    write_candidates(digits, tmp_path)
    modules_of(
        tmp_path, *("run", "--pipelines", "test-set", "--params", f"images={digits}")
    )

    modules = modules_of(
        tmp_path,
        *("run", "--pipelines", "select"),
        *("--params", f"images={digits},select.budget=5"),
    )

    requests = pd.read_parquet(tmp_path / "03_primary" / "label_requests")
    assert len(requests) == 5 + 5  # the budget and the audit beside it
    assert not modules & (HEAVY | CLOUD)
    assert not [name for name in modules if name.startswith("mlflow.server")]


def test_listing_the_pipelines_imports_no_torch(tmp_path: Path) -> None:
    assert not modules_of(tmp_path, "registry", "list") & HEAVY


def test_a_command_does_not_wait_for_those_beside_it() -> None:
    read = "import json, sys, active_learning.cli; print(json.dumps([*sys.modules]))"

    ran = subprocess.run(
        [sys.executable, "-c", read], capture_output=True, text=True, check=True
    )

    modules = set(json.loads(ran.stdout))
    others = {"pydantic", "pandas", "pyarrow", "numpy", "duckdb", "mlflow"}
    assert not modules & (HEAVY | CLOUD | others)
