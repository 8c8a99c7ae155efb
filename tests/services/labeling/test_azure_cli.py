"""``kedro azure-labeling``: what it does, and what it says it does not do."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from kedro.framework.startup import bootstrap_project
from tests.services.labeling.test_azure import FOLDER, PROJECT, arm, cloud
from tests.standins.arm import Answer, Arm
from tests.standins.identity import Identity, identity
from tests.standins.tls import tls

from active_learning.datasets import TableDataset
from active_learning.schemas import LABELS, empty_frame
from active_learning.services.labeling.azure_cli import azure_labeling

__all__ = ["arm", "cloud", "identity", "tls"]

pytestmark = pytest.mark.azure

ROOT = Path(__file__).parents[3]
LABELING = f"""
azure_labeling:
  project: {PROJECT.title}
  asset: active-learning-queue
  folder: {FOLDER}
  start_export: false
  format: Coco
  timeout_s: 20
  poll_s: 0.01
  retries: 0
"""
GLOBALS = """
workspace:
  subscription: ${oc.env:AZURE_SUBSCRIPTION_ID}
  resource_group: ${oc.env:AZURE_RESOURCE_GROUP}
  name: ${oc.env:AZUREML_WORKSPACE_NAME}
"""


@pytest.fixture
def project(cloud: Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's configuration with an overlay for a labeling project."""
    conf = tmp_path / "conf"
    leave = shutil.ignore_patterns("azure", "local")
    shutil.copytree(ROOT / "conf", conf, ignore=leave)
    (conf / "local").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (conf / "cloud" / "labeling").mkdir(parents=True)
    (conf / "cloud" / "labeling" / "azure_labeling.yml").write_text(LABELING)
    (conf / "cloud" / "globals.yml").write_text(GLOBALS)
    monkeypatch.setenv("AL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    written = {
        "exportedRowCount": 12,
        "containerName": "azureml-blobstore-1",
        "snapshotPath": "Labeling/export/coco/7",
    }
    cloud.add(
        "POST", "/labelingJobs/job-1/exportLabels", lambda _: Answer(200, written)
    )
    return tmp_path


def run(project: Path, *options: str, env: str = "cloud") -> Result:
    metadata = bootstrap_project(ROOT)._replace(project_path=project)
    arguments = [*options, "--env", env]
    return CliRunner().invoke(azure_labeling, arguments, obj=metadata)


def label(project: Path, *classes: str) -> None:
    """Labels of the loop so far, one of each class."""
    rows = pd.DataFrame(
        {
            "label_id": [f"id {name}" for name in classes],
            "image_id": [f"{name}.png" for name in classes],
            "label": classes,
            "labeled_at": pd.Timestamp("2026-01-01", tz="UTC"),
        }
    )
    every = pd.concat([empty_frame(LABELS), rows]).astype(empty_frame(LABELS).dtypes)
    texts = every.select_dtypes("object").columns
    path = project / "data/03_primary/labels"
    TableDataset(table="labels", path=str(path)).save(
        every.assign(**every[texts].fillna(""))
    )


def test_classes_that_labelers_cannot_choose_are_named(project: Path) -> None:
    label(project, "shoe", "hat", "bag")

    said = run(project, "--check")

    assert said.exit_code == 1
    assert "cannot choose 2 of 3 known classes: bag, hat" in said.output
    assert "1 classes that no label has yet: shirt" in said.output


def test_classes_that_all_can_be_chosen_are_well(project: Path) -> None:
    label(project, "shoe", "shirt")

    said = run(project, "--check")

    assert said.exit_code == 0, said.output
    assert "labelers can choose all 2 known classes" in said.output


def test_classes_that_are_configured_go_before_those_of_labels(project: Path) -> None:
    label(project, "hat")

    said = run(project, "--check", "--params", "label_ingest.classes=shoe+shirt")

    assert said.exit_code == 0, said.output


def test_an_export_is_started_only_where_that_is_allowed(
    project: Path, cloud: Arm
) -> None:
    off = run(project, "--export")

    assert off.exit_code == 1
    assert "azure_labeling.start_export=true" in off.output
    assert not cloud.requests

    allowed = run(project, "--export", "--params", "azure_labeling.start_export=true")

    assert allowed.exit_code == 0, allowed.output
    assert "12 labels exported to azureml-blobstore-1/Labeling" in allowed.output


def test_without_an_option_it_prepares_and_checks_and_starts_nothing(
    project: Path, cloud: Arm
) -> None:
    label(project, "shoe")

    said = run(project)

    assert said.exit_code == 0, said.output
    assert "active-learning-queue:1 is azureml://datastores/labeling" in said.output
    assert not cloud.asked("POST", "/labelingJobs/.*")


def test_an_environment_without_a_project_is_told_the_way_out(project: Path) -> None:
    said = run(project, "--check", env="base")

    assert said.exit_code == 1
    assert "add --env azure" in said.output


def test_what_azure_refuses_ends_the_command_without_a_secret(
    project: Path, cloud: Arm, identity: Identity
) -> None:
    cloud.add(
        "GET", "/labelingJobs/.*", lambda _: Answer(403, {"error": {"code": "No"}})
    )

    said = run(project, "--check")

    assert said.exit_code == 1
    assert "AzureML Data Scientist" in said.output
    assert not [each for each in identity.issued if each in said.output]
