"""The loop, end to end: labels grow and error falls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest

PROJECT = Path(__file__).parents[1]
SMALL = {
    "train.preprocessing.height": 8,
    "train.preprocessing.width": 8,
    "train.network.width": 8,
    "train.recipe.min_steps": 60,
    "train.recipe.augmentation.flip": "false",
    "train.recipe.augmentation.crop": 1,
    "train.recipe.augmentation.erase": 0,
}


def kedro(
    data: Path, pipelines: str, *options: str, **params: object
) -> subprocess.CompletedProcess[str]:
    """Type a kedro command, with the small images' parameters."""
    typed = ",".join(f"{key}={value}" for key, value in params.items())
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "kedro", "run", "--pipelines", pipelines),
            *options,
            *(("--params", typed) if typed else ()),
        ],
        cwd=PROJECT,
        env={**os.environ, "AL_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran


@pytest.mark.slow
def test_a_turn_of_the_loop_on_a_laptop(digits: Path, tmp_path: Path) -> None:
    here = {"images": digits, **SMALL}
    exports = tmp_path / "01_raw" / "label_exports"
    exports.mkdir(parents=True)
    kedro(tmp_path, "test-set", **here)
    tests = pd.read_parquet(tmp_path / "05_model_input/test_sets/digits.parquet")
    pool = sorted(
        path.relative_to(digits).as_posix() for path in digits.glob("*/*.png")
    )
    pool = [name for name in pool if name not in set(tests["image_id"])]

    # A labeler's first answers, from a spreadsheet.
    first = pool[::15]
    labels = pd.DataFrame({"image_id": first, "label": [n[0] for n in first]})
    labels.to_csv(exports / "first.csv", index=False)
    kedro(tmp_path, "label-ingest,train,deploy", **here)
    release = json.loads((tmp_path / "08_reporting/release.json").read_text())
    assert release["decision"] == "promoted"

    # What comes in is the whole folder; the engine leaves the test images out.
    kedro(tmp_path, "score", **here)
    kedro(tmp_path, "score", **here)
    scored = pd.read_parquet(tmp_path / "07_model_output/scored_batch")
    assert len(scored) == 1797
    assert set(scored["model_version"]) == {1}

    kedro(tmp_path, "monitor,select", **here)
    taken = pd.read_parquet(tmp_path / "03_primary/predictions")
    assert sorted(taken["prediction_id"]) == sorted(scored["prediction_id"])
    assert not list((tmp_path / "07_model_output/scored_batch").glob("*.parquet"))
    requests = pd.read_parquet(tmp_path / "03_primary/label_requests")
    assert requests["audit"].sum() == 5
    assert len(requests) == 50 + 5
    asked = set(requests["image_id"])
    assert not asked & set(tests["image_id"])
    assert not set(requests.loc[~requests["audit"], "image_id"]) & set(first)
    assert_monitored(tmp_path)

    # Selecting again asks for others, and scoring again has nothing to do.
    kedro(tmp_path, "score,monitor,select", **here)
    assert len(pd.read_parquet(tmp_path / "03_primary/predictions")) == 1797
    more = pd.read_parquet(tmp_path / "03_primary/label_requests")
    by_use = more[~more["audit"]]
    assert len(by_use) == 100
    assert by_use["image_id"].is_unique

    # The oracle answers the audit; its accuracy is known afterwards.
    queue = tmp_path / "03_primary/labeling_queue"
    listed = pd.read_csv(queue / "requests.csv")
    assert all((queue / "images" / name).exists() for name in listed["image_id"])
    answers = listed[["request_id", "image_id"]].assign(
        label=[name[0] for name in listed["image_id"]]
    )
    answers.to_csv(exports / "second.csv", index=False)
    kedro(tmp_path, "label-ingest", **here)
    kedro(tmp_path, "monitor", **here)
    report = json.loads(
        (tmp_path / "08_reporting/monitor/accuracy_report.json").read_text()
    )
    (version,) = report["by_version"]
    audited = more[more["audit"]]["image_id"]
    said = taken.set_index("image_id")["label"].loc[audited]
    assert version["n_audited"] == 10
    assert version["n_right"] == sum(said == [name[0] for name in audited])


def assert_monitored(data: Path) -> None:
    """A page, a plot and figures in MLflow."""
    reports = data / "08_reporting/monitor"
    drift = json.loads((reports / "drift_report.json").read_text())
    assert drift["current"]["n"] == 1797
    assert drift["verdict"] == "too_few"  # there is no window before this one
    html = (reports / "report.html").read_text()
    assert "http://" not in html
    assert "https://" not in html
    assert (reports / "monitor.png").read_bytes().startswith(b"\x89PNG")
    client = mlflow.MlflowClient(f"sqlite:///{data}/mlflow.db")
    experiment = client.get_experiment_by_name("active-learning-loop")
    runs = client.search_runs([experiment.experiment_id])
    assert any(run.data.metrics.get("volume/current") == 1797 for run in runs)


@pytest.mark.slow
def test_labels_grow_and_error_falls(digits: Path, tmp_path: Path) -> None:
    ran = kedro(
        tmp_path,
        "simulate",
        *("--runner", "active_learning.runner.BranchRunner"),
        **{
            "images": digits,
            **SMALL,
            "simulate.rounds": 4,
            "simulate.seeds": "0+1",
            "simulate.pool_size": 1000,
            "simulate.initial_labels": 40,
            "simulate.labels_per_round": 40,
            "simulate.stream_size": 250,
        },
    )

    report = tmp_path / "08_reporting" / "simulation"
    curves = pd.read_csv(report / "learning_curves.csv")
    assert list(curves.columns) == [
        *("seed", "strategy", "round", "n_labels", "test_accuracy", "test_macro_f1"),
        *("stream_accuracy", "train_s", "score_s", "select_s"),
    ]
    assert len(curves) == 2 * 2 * 5
    assert sorted(set(curves["n_labels"])) == [40, 80, 120, 160, 200]
    by_round = curves.groupby("round")["test_accuracy"].mean()
    assert by_round[4] > by_round[0] + 0.05
    assert by_round[4] > 0.85
    # All strategies of a seed start from the same labels and the same model.
    starts = curves[curves["round"] == 0].groupby("seed")["test_accuracy"]
    assert (starts.nunique() == 1).all()
    assert (
        curves.loc[curves["round"] > 0, ["train_s", "score_s", "select_s"]]
        .gt(0)
        .all(axis=None)
    )
    summary = pd.read_csv(report / "summary.csv")
    assert list(summary.columns) == [
        *("strategy", "n_seeds", "aubc_mean", "aubc_std", "final_accuracy_mean"),
        *("labels_to_random_final", "labels_saved_pct"),
    ]
    assert set(summary["n_seeds"]) == {2}
    assert (report / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    html = (report / "report.html").read_text()
    assert "http://" not in html
    assert "https://" not in html
    assert "margin" in ran.stdout
    assert str(report / "report.html") in ran.stdout
    assert_books(tmp_path, curves)


@pytest.mark.slow
def test_wrong_labels_cost_and_labelers_share_the_budget(
    digits: Path, tmp_path: Path
) -> None:
    kedro(
        tmp_path,
        "simulate",
        **{
            "images": digits,
            **SMALL,
            "simulate.rounds": 2,
            "simulate.strategies": "random",
            "simulate.seeds": "0",
            "simulate.pool_size": 400,
            "simulate.initial_labels": 90,
            "simulate.labels_per_round": 90,
            "simulate.stream_size": 200,
            "simulate.variants.wrong.oracle.noise": 0.6,
            "simulate.variants.wrong.oracle.abstain": 0.1,
            "simulate.variants.three.oracle.labelers": 3,
        },
    )

    curves = pd.read_csv(
        tmp_path / "08_reporting" / "simulation" / "learning_curves.csv"
    )
    counts = curves.groupby("strategy")["n_labels"].apply(list).to_dict()
    names = ("random", "random (wrong)", "random (three)")
    assert counts == {name: [90, 180, 270] for name in names}
    ends = curves[curves["round"] == 2].set_index("strategy")["test_accuracy"]
    assert ends["random (wrong)"] < ends["random"] - 0.1
    (three,) = tmp_path.glob("07_model_output/**/random--three/round_02")
    assert len(pd.read_parquet(three / "label_requests.parquet")) == 30
    labels = pd.read_parquet(three / "labels.parquet")
    assert len(labels) == 270
    assert set(labels.groupby("image_id")["labeler"].nunique()) == {3}
    (wrong,) = tmp_path.glob("07_model_output/**/random--wrong/round_02")
    answers = pd.read_parquet(wrong / "labels.parquet")["answer"]
    assert set(answers) == {"label", "skipped", "unclear"}


def assert_books(data: Path, curves: pd.DataFrame) -> None:
    """One parent, a child for each seed and strategy, and the round as the step."""
    client = mlflow.MlflowClient(f"sqlite:///{data}/mlflow.db")
    experiment = client.get_experiment_by_name("active-learning-loop")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(parents) == 1
    assert {run.info.run_name for run in children} == {
        *("seed_0.random", "seed_0.margin", "seed_1.random", "seed_1.margin")
    }
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in children:
        seed, strategy = run.info.run_name.removeprefix("seed_").split(".")
        own = curves[(curves["seed"] == int(seed)) & (curves["strategy"] == strategy)]
        history = client.get_metric_history(run.info.run_id, "test/accuracy")
        told = {metric.step: metric.value for metric in history}
        measured = dict(zip(own["round"], own["test_accuracy"], strict=True))
        assert told == pytest.approx(measured)
        assert "time/train_s" in run.data.metrics
        assert run.data.metrics["labels/total"] == 200
    artifacts = client.list_artifacts(parents[0].info.run_id, "report")
    assert "report/report.html" in {artifact.path for artifact in artifacts}
