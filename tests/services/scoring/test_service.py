"""The service in its process: what it keeps, and whether it says so."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from tests.services.scoring.apps import opened
from tests.services.scoring.serving import (
    make_release,
    picture,
    put_up,
    table,
    told,
)

from active_learning.errors import SettingsError
from active_learning.services.scoring import service
from active_learning.services.scoring.settings import (
    MODEL_FOLDER,
    SETTINGS,
    model_folder,
    settings_from,
)
from active_learning.services.telemetry.collector import Prediction
from active_learning.services.telemetry.spool import Spool

ROOT = Path(__file__).parents[3]


def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait for a promise; the time is there to fail and not to measure."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


def ask(client: FlaskClient, number: int = 0) -> dict[str, Any]:
    response = client.post("/score", data=picture(number), content_type="image/png")
    assert response.status_code == 200, response.text
    said: dict[str, Any] = response.json
    return said


@pytest.fixture
def endpoint(tmp_path: Path) -> Path:
    """One with version 1 in production."""
    folder = tmp_path / "endpoint"
    put_up(folder, make_release(folder, 1))
    return folder


def test_an_answer_is_collected_as_it_was_given(tmp_path: Path, endpoint: Path) -> None:
    before = datetime.now(UTC)
    with opened(told(tmp_path)) as client:
        said = ask(client, 5)
    after = datetime.now(UTC)

    (row,) = table(tmp_path).to_pylist()
    assert row["prediction_id"] == said["prediction_id"]
    assert row["image_id"] == said["image_id"]
    assert row["label"] == said["label"]
    assert (
        dict(zip(row["classes"], row["probabilities"], strict=True))
        == said["probabilities"]
    )
    assert (row["model_name"], row["model_version"]) == ("small_cnn", 1)
    assert row["source"] == "online"
    assert before <= row["scored_at"] <= after
    assert said["collected"] is True
    assert (tmp_path / "images" / said["image_id"]).read_bytes() == picture(5)


def test_an_image_that_came_with_a_request_is_scored_by_its_id_alike(
    tmp_path: Path, endpoint: Path
) -> None:
    with opened(told(tmp_path)) as client:
        said = ask(client, 5)
        again = client.post("/score", json={"image_id": said["image_id"]}).json

    assert again["probabilities"] == said["probabilities"]
    assert again["image_id"] == said["image_id"]


def test_a_table_that_is_away_is_invisible_to_callers(
    tmp_path: Path, endpoint: Path
) -> None:
    tables = tmp_path / "tables"
    tables.write_text("no folder")
    with opened(told(tmp_path)) as client:
        ids = {ask(client, number)["prediction_id"] for number in range(5)}
        until(lambda: client.get("/health").json["collector"]["last_error"])
        assert client.get("/health").json["collector"]["waiting"] == 5
        assert client.get("/ready").status_code == 200

        tables.unlink()
        until(lambda: client.get("/health").json["collector"]["waiting"] == 0)

    assert set(table(tmp_path)["prediction_id"].to_pylist()) == ids


def test_a_spool_that_is_full_fails_no_answer(tmp_path: Path, endpoint: Path) -> None:
    tables = tmp_path / "tables"
    tables.write_text("no folder")
    settings = told(tmp_path, spool={"max_rows": 2})
    with opened(settings) as client:
        collected = [ask(client, number)["collected"] for number in range(4)]
        assert client.get("/health").json["not_collected"] == 2
        tables.unlink()
        until(lambda: client.get("/health").json["collector"]["waiting"] == 0)
        assert ask(client)["collected"]

    assert collected == [True, True, False, False]
    assert len(table(tmp_path)) == 3


def test_an_archive_that_is_away_is_invisible_to_callers(
    tmp_path: Path, endpoint: Path
) -> None:
    settings = told(tmp_path)
    archive = tmp_path / "images" / ".online"
    archive.write_text("no folder")
    with opened(settings) as client:
        said = [ask(client, number) for number in range(5)]
        until(lambda: client.get("/health").json["collector"]["last_error"])
        assert client.get("/health").json["collector"]["waiting"] == 5
        assert not (tmp_path / "tables").exists()

        archive.unlink()
        until(lambda: client.get("/health").json["collector"]["waiting"] == 0)

    assert all(one["collected"] for one in said)
    assert len(table(tmp_path)) == 5
    for number, one in enumerate(said):
        assert (tmp_path / "images" / one["image_id"]).read_bytes() == picture(number)


def test_an_image_is_scored_by_its_id_before_it_is_archived(
    tmp_path: Path, endpoint: Path
) -> None:
    settings = told(tmp_path)
    (tmp_path / "images" / ".online").write_text("no folder")
    with opened(settings) as client:
        one, other = ask(client, 5), ask(client, 6)
        again = client.post("/score", json={"image_id": one["image_id"]})
        strange = client.post("/score", json={"image_id": ".online/no/such.png"})

    assert one["image_id"] != other["image_id"]
    assert again.json["probabilities"] == one["probabilities"]
    assert strange.status_code == 404


def test_what_cannot_be_kept_is_answered_all_the_same(
    tmp_path: Path, endpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = told(tmp_path)
    (tmp_path / "spool.sqlite").mkdir()
    with opened(settings) as client:
        said = [ask(client, number) for number in range(3)]
        health = client.get("/health")

    assert [one["collected"] for one in said] == [False] * 3
    assert all("image_id" in one for one in said)
    assert health.status_code == 200
    assert health.json["not_collected"] == 3
    assert caplog.text.count("Answers go on and are not collected") == 1


def test_an_answer_is_not_kept_where_its_caller_says_so(
    tmp_path: Path, endpoint: Path
) -> None:
    with opened(told(tmp_path)) as client:
        answer = client.post(
            "/score",
            data=picture(0),
            content_type="image/png",
            headers={"x-collect": "false"},
        )
        kept = ask(client, 1)

    assert answer.status_code == 200
    assert answer.json["collected"] is False
    assert table(tmp_path)["prediction_id"].to_pylist() == [kept["prediction_id"]]
    images = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in images] == [picture(1)]


def test_nothing_is_kept_where_that_was_asked_for(
    tmp_path: Path, endpoint: Path
) -> None:
    with opened(told(tmp_path, collect=False)) as client:
        said = ask(client)
        assert client.get("/health").json["collector"] is None

    assert said["collected"] is False
    assert "image_id" not in said
    assert not (tmp_path / "images" / ".online").exists()
    assert not (tmp_path / "spool.sqlite").exists()


def test_what_a_killed_process_acknowledged_is_delivered_by_the_next(
    tmp_path: Path, endpoint: Path
) -> None:
    spool = Spool(tmp_path / "spool.sqlite", 10)
    waiting = Prediction.of(
        "a.png", [1.0], ["x"], "m", 1, "online", datetime.now(UTC), "left-behind"
    )
    spool.put([waiting.to_json()])
    spool.close()

    with opened(told(tmp_path)):
        until((tmp_path / "tables" / "predictions").exists)

    assert table(tmp_path)["prediction_id"].to_pylist() == ["left-behind"]


def test_each_row_bears_the_version_that_answered(
    tmp_path: Path, endpoint: Path
) -> None:
    two = make_release(endpoint, 2)
    with opened(told(tmp_path)) as client:
        said = [ask(client)]
        put_up(endpoint, two)
        until(lambda: ask(client)["model_version"] == 2)
        said.append(ask(client))

    rows = {row["prediction_id"]: row for row in table(tmp_path).to_pylist()}
    assert [rows[one["prediction_id"]]["model_version"] for one in said] == [1, 2]


def test_a_caller_names_a_deployment_and_is_told_which_answered(
    tmp_path: Path, endpoint: Path
) -> None:
    put_up(endpoint, make_release(endpoint, 2), make_release(endpoint, 3))

    def version(client: FlaskClient, **headers: str) -> tuple[int, str]:
        said = client.post(
            "/score", data=picture(), content_type="image/png", headers=headers
        )
        return said.json["model_version"], said.headers["azureml-model-deployment"]

    with opened(told(tmp_path)) as client:
        assert version(client) == (2, "blue")
        assert version(client, **{"azureml-model-deployment": "green"}) == (3, "green")
        lost = client.post(
            "/score",
            headers={"azureml-model-deployment": "red"},
            data=picture(),
            content_type="image/png",
        )

    assert lost.status_code == 404
    assert "blue, green" in lost.json["error"]


def test_readiness_tells_the_truth(tmp_path: Path) -> None:
    folder = tmp_path / "endpoint"
    with opened(told(tmp_path)) as client:
        for path in ("/", "/ready", "/health"):
            assert client.get(path).status_code == 503
        assert "kedro run" in client.get("/").json["error"]
        assert client.get("/health").json["ready"] is False
        refused = client.post("/score", data=picture(), content_type="image/png")
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]

        put_up(folder, make_release(folder, 1))
        until(lambda: client.get("/").status_code == 200)

        assert client.get("/ready").json == {"ready": True}
        health = client.get("/health").json
        assert health["ready"] is True
        assert [m["model_version"] for m in health["loaded"].values()] == [1]
        assert ask(client)["model_version"] == 1


def test_a_champion_that_is_damaged_is_not_ready_and_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "endpoint"
    release = make_release(folder, 1)
    (folder / "releases" / release.name / "model.onnx").write_bytes(b"damaged")
    put_up(folder, release)

    with opened(told(tmp_path)) as client:
        said = client.get("/")

    assert said.status_code == 503
    assert "SHA-256" in said.json["error"]


@pytest.mark.parametrize("place", ["", "classifier/7", "classifier/7/release"])
def test_a_managed_endpoint_serves_what_it_mounts(tmp_path: Path, place: str) -> None:
    release = make_release(tmp_path / "endpoint", 7)
    mounted = tmp_path / "mounted"
    shutil.copytree(tmp_path / "endpoint" / "releases" / release.name, mounted / place)

    with opened(told(tmp_path), mounted=str(mounted)) as client:
        assert client.get("/").status_code == 200
        assert ask(client)["model_version"] == 7

    assert not (tmp_path / "endpoint" / "workers").exists()


@pytest.mark.parametrize("fault", ["damaged", "nothing", "two"])
def test_a_mount_without_a_model_that_answers_ends_the_process(
    tmp_path: Path, fault: str
) -> None:
    release = make_release(tmp_path / "endpoint", 7)
    folder = tmp_path / "endpoint" / "releases" / release.name
    if fault == "damaged":
        (folder / "model.onnx").write_bytes(b"damaged")
    elif fault == "nothing":
        (folder / "model.json").unlink()
    else:
        make_release(tmp_path / "endpoint", 8)

    with pytest.raises(SystemExit) as end:  # noqa: SIM117
        with opened(told(tmp_path), mounted=str(tmp_path / "endpoint" / "releases")):
            pass

    assert end.value.code == 3


def test_a_process_that_was_told_nothing_says_how(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="kedro serve"):
        settings_from({})
    with pytest.raises(SettingsError, match="poll_s"):
        settings_from({SETTINGS: told(tmp_path, poll_s=0)})
    with pytest.raises(SettingsError, match="did you mean 'limits'"):
        settings_from({SETTINGS: told(tmp_path, limit={})})
    with pytest.raises(SettingsError, match="holds 0 releases"):
        model_folder({MODEL_FOLDER: str(tmp_path)})
    assert model_folder({}) is None


def test_telemetry_that_nobody_knows_is_named(tmp_path: Path) -> None:
    settings = told(tmp_path, telemetry={"backend": "lokal"})

    with pytest.raises(SystemExit) as end:  # noqa: SIM117
        with opened(settings):
            pass

    assert end.value.code == 3
    with pytest.raises(Exception, match="local"):
        service.ScoringService.of(settings_from({SETTINGS: settings}), None)


IMPORTS = """
import sys
from active_learning.services.scoring.wsgi import create_app
client = create_app().test_client()
answer = client.post("/score", data=open(sys.argv[1], "rb"), content_type="image/png")
assert answer.status_code == 200, answer.text
from active_learning.services.scoring import service
service.stop()
sys.stdout.write("IMPORTED " + " ".join(sys.modules))
"""
HEAVY = {
    "kedro",
    "matplotlib",
    "mlflow",
    "onnx",
    "onnxscript",
    "pytorch_lightning",
    "scipy",
    "sklearn",
    "torch",
    "torchvision",
}


def test_serving_imports_neither_torch_nor_kedro(
    tmp_path: Path, endpoint: Path
) -> None:
    (tmp_path / "image.png").write_bytes(picture())
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(tmp_path / "image.png")],
        cwd=ROOT,
        env={**os.environ, SETTINGS: told(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    modules = set(ran.stdout.rpartition("IMPORTED ")[2].split())
    assert not modules & HEAVY
    assert len(table(tmp_path)) == 1


def test_settings_travel_as_json(tmp_path: Path) -> None:
    settings = settings_from({SETTINGS: told(tmp_path)})

    assert settings_from({SETTINGS: settings.model_dump_json()}) == settings
    assert json.loads(settings.model_dump_json())["limits"]["images"] == 4
