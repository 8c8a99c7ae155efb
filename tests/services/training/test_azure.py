"""An AutoML job is paid for once, waited for within bounds, and told of if it fails."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError
from tests.pipelines.train.test_nodes import NO_TESTS, params, training_set
from tests.services.training.automl_cluster import Cluster, automl_params, cluster
from tests.services.training.test_trainers import asset
from tests.standins.arm import Fault, arm
from tests.standins.identity import Identity, identity
from tests.standins.tls import tls

from active_learning.errors import CheckpointError, SettingsError, TrainingError
from active_learning.imaging import ImageStore
from active_learning.learning.protocol import Classifier
from active_learning.pipelines.train.nodes import train_challenger
from active_learning.services.azure import credential
from active_learning.services.scoring.onnx_classifier import OnnxClassifier

__all__ = ["arm", "cluster", "identity", "tls"]

JOBS = r"/jobs/.*"
# So that azure-core's own retries do not take their time.
AT_ONCE = {"retry-after-ms": "1"}


@pytest.fixture
def labels(cluster: Cluster, store: ImageStore, tmp_path: Path) -> pd.DataFrame:
    """Two classes, whose data asset is registered."""
    frame = training_set(store, a="dark", b="dark", e="light", f="light")
    asset(tmp_path).save(frame)
    return frame


def train(
    labels: pd.DataFrame,
    store: ImageStore,
    champion: Classifier | None = None,
    **changes: Any,
) -> OnnxClassifier:
    trained = train_challenger(
        labels,
        store,
        champion,
        NO_TESTS,
        automl_params(min_new_labels=0, **changes),
    )
    assert isinstance(trained, OnnxClassifier)
    return trained


def hyperparameters(**values: Any) -> dict[str, Any]:
    said = automl_params().automl.hyperparameters.by_name()
    return {"automl": {"hyperparameters": {**said, **values}}}


def test_a_job_says_what_is_trained_on_what_and_where(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore
) -> None:
    trained = train(labels, store, **hyperparameters(number_of_epochs=3))

    (job,) = cluster.submitted
    task = job["properties"]["taskDetails"]
    assert task["taskType"] == "ImageClassification"
    assert task["targetColumnName"] == "label"
    assert task["primaryMetric"].lower() == "accuracy"
    version = trained.lineage["training_set"][:16]
    assert task["trainingData"]["uri"].endswith(f"/training-set/versions/{version}")
    assert job["properties"]["computeId"].endswith("/computes/gpu-cluster")
    assert job["properties"]["identity"] == {"identityType": "Managed"}
    (settings,) = cluster.settings
    assert settings["modelName"] == "vitb16r224"
    assert settings["numberOfEpochs"] == 3
    assert 0 <= settings["randomSeed"] < 2**31
    assert trained.model_name == "vitb16r224"


def test_a_second_run_takes_the_model_that_was_paid_for(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore
) -> None:
    one = train(labels, store)
    two = train(labels[::-1], store)

    assert len(cluster.submitted) == 1
    assert two.fingerprint == one.fingerprint
    assert two.lineage == one.lineage


def test_a_run_that_waited_in_vain_is_gone_on_with_by_the_next(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore
) -> None:
    cluster.statuses = ["Queued", "Running", "Running"]

    with pytest.raises(TrainingError) as raised:
        train(labels, store, automl={"timeout_minutes": 1e-9})
    trained = train(labels, store)

    said = str(raised.value)
    assert trained.lineage["job"] in said
    assert "run 'train' again to wait on for it" in said
    assert "quota" in said
    assert f"https://ml.azure.com/runs/{trained.lineage['job']}" in said
    assert len(cluster.submitted) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        hyperparameters(model_name="resnet50"),
        hyperparameters(number_of_epochs=7),
        {
            "automl": {
                "limits": {
                    "max_trials": 2,
                    "max_concurrent_trials": 1,
                    "timeout_minutes": 9,
                }
            }
        },
    ],
    ids=["seed", "model", "epochs", "trials"],
)
def test_another_training_is_another_job(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore, change: dict[str, Any]
) -> None:
    one, two = train(labels, store), train(labels, store, **change)

    assert one.lineage["job"] != two.lineage["job"]
    assert one.lineage["settings"] != two.lineage["settings"]


def test_where_a_job_runs_does_not_make_it_another(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore
) -> None:
    one = train(labels, store)
    two = train(labels, store, automl={"compute": "larger", "poll_s": 0.02})

    assert one.lineage == two.lineage


def test_a_champion_of_automl_is_gone_on_from(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore, tmp_path: Path
) -> None:
    first = train(labels, store)
    more = training_set(store, a="dark", b="dark", c="gray", e="light", f="light")
    asset(tmp_path).save(more)

    second = train(more, store, first)
    begun = {**automl_params().init.model_dump(), "start": "scratch"}
    anew = train(more, store, first, init=begun)

    assert first.lineage["checkpoint_run_id"] == f"{first.lineage['job']}_0"
    before = [settings.get("checkpointRunId") for settings in cluster.settings]
    assert before == [None, first.lineage["checkpoint_run_id"], None]
    assert second.lineage["checkpoint_run_id"] != first.lineage["checkpoint_run_id"]
    assert anew.classes == ("dark", "light", "gray")


def test_a_champion_of_lightning_is_no_hindrance(
    cluster: Cluster,
    labels: pd.DataFrame,
    store: ImageStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    champion = train_challenger(labels[:3], store, None, NO_TESTS, params())

    with caplog.at_level("INFO", "active_learning"):
        second = train(labels, store, champion)

    assert (second.version, second.classes) == (2, ("dark", "light"))
    assert cluster.settings[0].get("checkpointRunId") is None
    assert "Version 1, which is in production, was not trained by AutoML" in caplog.text


def test_another_network_than_the_champions_is_not_gone_on_from(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore
) -> None:
    champion = train(labels, store)

    with pytest.raises(CheckpointError, match=r"is a vitb16r224, .* asks for resnet50"):
        train(labels, store, champion, **hyperparameters(model_name="resnet50"))


def test_what_automl_cannot_start_from_is_refused(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore
) -> None:
    init = {**automl_params().init.model_dump(), "start": "shrink_perturb"}

    with pytest.raises(SettingsError, match="which AutoML cannot do"):
        train(labels, store, init=init)

    assert not cluster.submitted


@pytest.mark.parametrize(
    ("status", "said"), [("Failed", "failed"), ("Canceled", "was canceled")]
)
def test_a_job_that_ends_badly_is_told_of_and_tried_anew_by_the_next_run(
    cluster: Cluster,
    labels: pd.DataFrame,
    store: ImageStore,
    status: str,
    said: str,
) -> None:
    cluster.statuses = ["Running", status]
    cluster.reason = "no image at https://store/a.png?sv=1&sig=SECRET was readable"

    with pytest.raises(TrainingError) as raised:
        train(labels, store)
    told = str(raised.value)
    cluster.reason = ""
    trained = train(labels, store)

    job = trained.lineage["job"].removesuffix("-2")
    assert f"The AutoML job '{job}' {said}: no image at https://store/a.png" in told
    assert "SECRET" not in told
    assert f"https://ml.azure.com/runs/{job}" in told
    assert trained.lineage["job"] == f"{job}-2"
    assert len(cluster.submitted) == 2


def test_a_job_without_an_onnx_model_says_what_to_do(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore
) -> None:
    cluster.artifacts = ("labels.json",)

    with pytest.raises(CheckpointError) as raised:
        train(labels, store)

    said = str(raised.value)
    assert "has no train_artifacts/model.onnx" in said
    assert "train_artifacts holds ['train_artifacts/labels.json']" in said
    assert "choose another train.automl.hyperparameters.model_name" in said


def test_a_job_that_names_no_best_run_is_judged_by_its_metric(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore
) -> None:
    cluster.names_best = False

    trained = train(labels, store)
    with pytest.raises(TrainingError, match="'auc_weighted'"):
        train(labels, store, seed=5, automl={"primary_metric": "auc_weighted"})

    assert trained.lineage["checkpoint_run_id"] == f"{trained.lineage['job']}_0"


def test_a_training_set_that_is_no_data_asset_is_not_paid_for(
    cluster: Cluster, store: ImageStore
) -> None:
    with pytest.raises(TrainingError, match=r"no data asset 'training-set:\w{16}'"):
        train(training_set(store, a="dark", f="light"), store)

    assert not cluster.submitted


@pytest.mark.parametrize("status", [429, 503, 0])
def test_a_wait_outlives_an_answer_that_is_missing(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore, status: int
) -> None:
    cluster.statuses = ["Running", "Running"]
    cluster.silences = [Fault("GET", JOBS, status, headers=AT_ONCE)] * 2

    trained = train(labels, store)

    assert trained.version == 1
    assert not cluster.arm.faults
    assert len(cluster.submitted) == 1


@pytest.mark.parametrize("status", [503, 0])
def test_a_wait_outlives_a_longer_silence(
    cluster: Cluster,
    labels: pd.DataFrame,
    store: ImageStore,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # More than azure-core tries again by itself.
    cluster.silences = [Fault("GET", JOBS, status, headers=AT_ONCE)] * 5

    with caplog.at_level("WARNING", "active_learning"):
        trained = train(labels, store)

    assert trained.version == 1
    assert "no answer now" in caplog.text


@pytest.mark.parametrize(
    ("status", "message", "way"),
    [
        (400, "Quota of NC6 is used up.", "Quota of NC6 is used up"),
        (403, "AuthorizationFailed", "the role 'AzureML Data Scientist'"),
        (401, "Unauthorized", "'az login'"),
        (503, "down", "nothing is done twice"),
    ],
)
def test_a_submission_that_is_refused_says_the_way_out(
    cluster: Cluster,
    labels: pd.DataFrame,
    store: ImageStore,
    status: int,
    message: str,
    way: str,
) -> None:
    faults = [Fault("PUT", JOBS, status, message, AT_ONCE) for _ in range(20)]
    cluster.arm.faults.extend(faults)

    with pytest.raises(TrainingError, match="did not start the AutoML job") as raised:
        train(labels, store)

    assert way in str(raised.value)
    assert "'gpu-cluster'" in str(raised.value)
    cluster.arm.faults.clear()
    assert train(labels, store).version == 1


def test_a_model_that_cannot_be_fetched_is_fetched_by_the_next_run(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore
) -> None:
    runs = r"/api/2.0/mlflow/runs/get"
    cluster.arm.faults.append(Fault("GET", runs, 403, "no such role"))

    with pytest.raises(TrainingError, match="its model cannot be fetched") as raised:
        train(labels, store)

    assert "MLFLOW_TRACKING_URI must be the workspace's" in str(raised.value)
    assert train(labels, store).version == 1
    assert len(cluster.submitted) == 1


def test_a_wait_of_hours_outlives_its_token(
    cluster: Cluster,
    labels: pd.DataFrame,
    store: ImageStore,
    identity: Identity,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster.statuses = ["Running"] * 4
    before = len(identity.issued)
    # Less than what clients take for nearly expired, so that each look needs another.
    identity.lifetime_s = 200
    credential.cache_clear()
    try:
        with caplog.at_level("DEBUG"):
            trained = train(labels, store)
    finally:
        identity.lifetime_s = 3600

    assert trained.version == 1
    assert len(identity.issued) - before >= 4
    for token in identity.issued[before:]:
        assert token not in caplog.text


def test_a_hyperparameter_that_automl_does_not_know_is_told_the_nearest(
    cluster: Cluster, labels: pd.DataFrame, store: ImageStore
) -> None:
    with pytest.raises(SettingsError, match=r"'number_of_epoch', .*'number_of_epochs'"):
        train(labels, store, **hyperparameters(number_of_epoch=3))

    assert not cluster.submitted


@pytest.mark.parametrize(
    "name", ["checkpoint_run_id", "random_seed", "enable_onnx_normalization"]
)
def test_what_the_trainer_decides_is_no_hyperparameter(name: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}'.* are set by the trainer"):
        automl_params(**hyperparameters(**{name: 1}))


@pytest.mark.parametrize("name", ["lightning", "automl"])
def test_finding_a_trainer_imports_no_cloud_and_no_network(name: str) -> None:
    code = f"""
import sys
from active_learning.services.training import trainer_named
from active_learning.pipelines.train import nodes
trainer_named({name!r})
print(sorted({{m.split(".")[0] for m in sys.modules}}
    & {{"azure", "torch", "mlflow", "onnx", "onnxruntime"}}))
"""
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert said.stdout.strip() == "[]"
