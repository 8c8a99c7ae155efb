"""``kedro label``: what it is told, and what it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kedro.config import OmegaConfigLoader
from tests.datasets.test_labeling_queue_dataset import FIRST
from tests.services.labeling.studio import TOKEN, studio_running

from active_learning.datasets import LabelingQueueDataset
from active_learning.imaging import ImageStore
from active_learning.services.labeling import LabelingQueue
from active_learning.settings import CONFIG_LOADER_ARGS

PROJECT = Path(__file__).parents[3]


def label(
    data: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k != "LABEL_STUDIO_API_KEY"}
    return subprocess.run(
        [sys.executable, "-m", "kedro", "label", *options],
        cwd=PROJECT,
        env={**inherited, "AL_DATA": str(data), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_turn_with_a_server_elsewhere(store: ImageStore, tmp_path: Path) -> None:
    place = tmp_path / "03_primary/labeling_queue"
    LabelingQueueDataset(path=str(place)).save(LabelingQueue(FIRST, store))

    with studio_running() as studio:
        ran = label(
            tmp_path,
            *("--once", "--url", studio.url, "--project", "Pets"),
            *("--params", "label.images=uploaded,label.labelers_per_image=3"),
            LABEL_STUDIO_API_KEY=TOKEN,
        )

    assert ran.returncode == 0, ran.stderr
    assert "2 new requests, 2 wait, 0 new answers" in ran.stdout
    (project,) = studio.projects
    assert project["title"] == "Pets"
    assert project["maximum_annotations"] == 3
    assert len(studio.uploads) == 2
    assert TOKEN not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--once"], "LABEL_STUDIO_API_KEY is not set"),
        (["--once", "--params", "label.imges=served"], "did you mean 'images'?"),
        (["--url", "http://there"], "a token that http://there shows"),
    ],
)
def test_an_error_says_the_way_out_and_shows_no_traceback(
    options: list[str], said: str, tmp_path: Path
) -> None:
    ran = label(tmp_path, *options)

    assert ran.returncode == 1
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_places_are_those_of_the_catalog(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from active_learning.parameters import announce_parameters

    monkeypatch.setenv("AL_DATA", str(tmp_path))
    patterns = {**CONFIG_LOADER_ARGS["config_patterns"], "labeling": ["**/labeling*"]}
    arguments = {**CONFIG_LOADER_ARGS, "config_patterns": patterns}
    loader = OmegaConfigLoader(str(PROJECT / "conf"), env="base", **arguments)
    announce_parameters(loader["parameters"])

    told, catalog = loader["labeling"]["label"], loader["catalog"]

    assert told["queue"] == catalog["labeling_queue"]["path"]
    assert told["exports"] == catalog["label_exports"]["path"]
    assert told["labels"] == catalog["known_labels"]["path"]
    assert loader["labeling"]["label_studio"]["data"].startswith(str(tmp_path))
