"""A whole run of select: what it asks for, and what it tells who pays."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from active_learning.datasets import ManifestDataset, TableDataset
from active_learning.datasets.snapshot_dataset import SnapshotDataset
from active_learning.pipelines.select.pipeline import (
    create_pipeline,
    create_selection,
)
from active_learning.schemas import (
    DISPUTED_LABELS,
    LABEL_REQUESTS,
    LABELS,
    empty_frame,
)
from active_learning.services.telemetry.rows import predictions_table

PROJECT = Path(__file__).parents[3]
NOW = datetime.now(UTC)
CLASSES = [str(digit) for digit in range(10)]


def kedro(data: Path, *options: str, **params: object) -> None:
    """Type ``kedro run --pipelines select``."""
    typed = ",".join(f"{key}={value}" for key, value in params.items())
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "kedro", "run", "--pipelines", "select"),
            *options,
            *("--params", typed),
        ],
        cwd=PROJECT,
        env={**os.environ, "AL_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]


def table(data: Path, name: str) -> TableDataset:
    return TableDataset(table=name, path=str(data / "03_primary" / name))


def fill(data: Path, names: list[str]) -> None:
    """Two versions that scored all images; 40 audits of each, and the labels before.

    Version 1 names every digit right but the audited ones, of which it gets 20 wrong;
    version 2 gets 4 of its own wrong and is unsure of all.
    """
    truth = np.array([int(name.split("/")[0]) for name in names])
    for version, days_ago, wrong, sure in ((1, 20, 20, 0.9), (2, 5, 4, 0.6)):
        said = truth.copy()
        first = 100 * version
        said[first : first + wrong] = (said[first : first + wrong] + 1) % 10
        chances = np.full((len(names), 10), (1 - sure) / 9)
        chances[np.arange(len(names)), said] = sure
        scored_at = NOW - timedelta(days=days_ago)
        rows = predictions_table(
            names, chances, CLASSES, "small_cnn", version, "batch", scored_at
        )
        table(data, "predictions").save(rows.to_pandas())
        asked = names[first : first + 40]
        requests = empty_frame(LABEL_REQUESTS).reindex(range(40))
        table(data, "label_requests").save(
            requests.assign(
                request_id=[f"audit {version} {i}" for i in range(40)],
                image_id=asked,
                round=version,
                strategy="random",
                utility=0.1,
                rank=range(1, 41),
                propensity=0.1,
                population=400,
                audit=True,
                model_name="small_cnn",
                model_version=version,
                requested_at=pd.Timestamp(scored_at + timedelta(hours=1)),
            )
        )
        table(data, "labels").save(
            labels(asked, scored_at + timedelta(hours=2), f"audit {version}")
        )
    table(data, "labels").save(labels(names[:10], NOW - timedelta(days=30), "start"))


def labels(names: list[str], at: datetime, batch: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label_id": [f"{batch} {i}" for i in range(len(names))],
            "image_id": names,
            "label": [name.split("/")[0] for name in names],
            "labeler": "ann",
            "labeled_at": pd.Timestamp(at),
            "batch_id": batch,
            "source": "csv",
            "request_id": [f"{batch} {i}" for i in range(len(names))],
            "answer": "label",
        }
    )[LABELS.names]


def dispute(data: Path, names: list[str]) -> None:
    frame = pd.DataFrame(
        {
            "image_id": names,
            "reason": "the labelers disagree",
            "priority": np.linspace(1, 0.5, len(names)),
            "label": "3",
            "n_answers": 2,
            "predicted_label": "5",
            "model_name": "small_cnn",
            "model_version": 1,
        }
    )
    place = str(data / "03_primary" / "disputed_labels.parquet")
    SnapshotDataset(schema="DISPUTED_LABELS", filepath=place).save(
        frame[DISPUTED_LABELS.names]
    )


def test_a_run_tells_whether_to_go_on_and_can_stop_by_itself(
    digits: Path, tmp_path: Path
) -> None:
    names = sorted(p.relative_to(digits).as_posix() for p in digits.glob("*/*.png"))
    tests = pd.DataFrame({"image_id": names[::50]})
    tests["label"] = [name[0] for name in tests["image_id"]]
    tests["content"] = [f"{i:064x}" for i in range(len(tests))]
    held_out = tmp_path / "05_model_input" / "test_sets" / "digits.parquet"
    ManifestDataset(filepath=str(held_out)).save(tests)
    pool = [name for name in names if name not in set(tests["image_id"])][::4]
    fill(tmp_path, pool)
    dispute(tmp_path, pool[:4])
    here = {
        "images": digits,
        "select.budget": 10,
        "select.audit": 3,
        "select.stopping.cost_per_label": 0.5,
        "select.stopping.plateau.versions": 1,
        "select.stopping.stability.min_images": 100,
        "select.stopping.stability.pairs": 1,
        "select.stopping.stability.kappa": 0.999,
    }

    kedro(tmp_path, **here)

    reports = tmp_path / "08_reporting" / "select"
    report = json.loads((reports / "stopping_report.json").read_text())
    told = {one["name"]: one for one in report["criteria"]}
    # 20 and 36 of 40 audits were right: it is better, and how much is not known.
    assert told["plateau"]["value"] == 0.4
    assert told["plateau"]["met"] is False
    # They differ on the images of their audits alone, which are labeled by now.
    assert told["stability"]["value"] == 1.0
    assert report["headline"] == "Stop: the predictions have stopped changing"
    assert report["spent"]["labeled_images"] == 90
    assert report["spent"]["cost"] == 45.0
    assert [point["n_labels"] for point in report["curve"]["points"]] == [10, 50]
    assert "at 2 different numbers of labels are too few" in report["price"]["says"]
    html = (reports / "stopping.html").read_text()
    assert report["headline"] in html
    assert "<svg" in html
    # It is advice: the strategy has asked for its share of the budget.
    assert asked(tmp_path) == {"second_opinion": 2, "margin": 8, "random": 3}
    queue = pd.read_csv(tmp_path / "03_primary" / "labeling_queue" / "requests.csv")
    assert queue["image_id"].tolist()[:2] == pool[:2]

    kedro(tmp_path, **here, **{"select.stopping.act": "true"})

    # What was asked again waits; the rest in doubt follows, and the audit goes on.
    assert asked(tmp_path) == {"second_opinion": 4, "margin": 8, "random": 6}


def asked(data: Path) -> dict[str, int]:
    """Requests of these runs by strategy."""
    requests = table(data, "label_requests").load()
    new = requests[~requests["request_id"].str.startswith("audit")]
    return {str(k): int(v) for k, v in new["strategy"].value_counts().items()}


def test_a_simulation_can_take_the_selection_without_the_report() -> None:
    whole, selection = create_pipeline(), create_selection()

    beside = {node.name for node in whole.nodes} - {n.name for n in selection.nodes}
    assert beside == {
        "select.judge_stopping",
        "select.render_stopping",
        "select.heed_advice",
    }
    functions = {node.name: node.func for node in whole.nodes}
    assert all(node.func is functions[node.name] for node in selection.nodes)
    assert {"labeling_queue", "label_requests"} <= selection.all_outputs()
    extra = whole.inputs() - selection.inputs()
    assert extra == {
        "predictions@audit_answers",
        "predictions@overall_uncertainty",
        "predictions@version_agreement",
        "predictions@version_history",
    }
