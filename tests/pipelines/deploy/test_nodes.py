"""A better challenger takes over, a worse one never does, and the reason is written."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from tests.pipelines.deploy.builders import (
    NAME,
    Digits,
    deployed,
    digits_in,
    params,
    rolled_back,
)
from tests.services.deployment.builders import local, worker

from active_learning.errors import EndpointError, TestSetError
from active_learning.pipelines.deploy.nodes import (
    export_challenger,
    raise_failure,
    roll_out_challenger,
)
from active_learning.schemas import fingerprint
from active_learning.services.deployment.local import LocalEndpoint


@pytest.fixture(scope="module")
def images(digits: Path) -> Digits:
    return digits_in(digits)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking server's database, with an experiment of which no run was made."""
    root = tmp_path_factory.mktemp("mlflow")
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    client.create_experiment("deploy", artifact_location=str(root / "artifacts"))
    return root / "mlflow.db"


@pytest.fixture(autouse=True)
def server(tmp_path: Path, books: Path) -> Iterator[str]:
    """A tracking server of files, whose experiment is active."""
    before = mlflow.get_tracking_uri()
    shutil.copy(books, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("deploy")
    yield uri
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("warehouse")


@pytest.fixture
def endpoint(tmp_path: Path, warehouse: Path) -> Iterator[LocalEndpoint]:
    """Nothing is up; what an earlier test exported need not be exported again."""
    root = tmp_path / "endpoint"
    shutil.copytree(warehouse, root / "releases")
    yield local(root)
    for folder in (root / "releases").iterdir():
        if (warehouse / folder.name).exists() or folder.name.startswith("."):
            continue
        shutil.copytree(folder, warehouse / folder.name)


def roles() -> dict[str, str]:
    versions = MlflowClient().search_model_versions(f"name = '{NAME}'")
    return {v.tags["model_version"]: v.tags["role"] for v in versions}


def test_better_ones_take_over_one_after_the_other(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    first = deployed(images.challenger(1, spoiled=0.2), images, endpoint)
    second = deployed(images.challenger(2), images, endpoint)

    assert [first["decision"], second["decision"]] == ["promoted", "promoted"]
    champion = endpoint.state.champion
    assert champion is not None
    assert champion.model_version == 2
    assert second["champion"]["model_version"] == 1
    assert second["challenger"]["name"] == champion.name
    figures = second["accuracy"]
    assert figures["n"] == len(images.test_set)
    assert figures["difference"] == pytest.approx(
        figures["challenger"] - figures["champion"]
    )
    assert 0 < figures["low"] < figures["difference"] < figures["high"]
    assert set(second["recall"]) == set("0123456789")
    assert second["parity"]["n"] == 20
    assert second["test_set"] == fingerprint(images.test_set)
    assert second["training_set"] == fingerprint(images.training_set)
    assert second["decided_at"] == "2026-01-01T00:00:00+00:00"
    assert json.loads(json.dumps(second)) == second
    assert roles() == {"1": "retired", "2": "champion"}


def test_a_worse_one_does_not(images: Digits, endpoint: LocalEndpoint) -> None:
    deployed(images.challenger(1), images, endpoint)

    refused = deployed(images.challenger(2, spoiled=0.2), images, endpoint)

    assert refused["decision"] == "refused"
    (reason,) = refused["reasons"][:1]
    figures = refused["accuracy"]
    assert f"{figures['challenger']:.4f} against {figures['champion']:.4f}" in reason
    assert figures["difference"] < -0.05
    assert endpoint.state.champion is not None
    assert endpoint.state.champion.model_version == 1
    assert roles() == {"1": "champion"}
    raise_failure(refused)


def test_one_that_forgot_a_class_does_not(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    deployed(images.challenger(1, spoiled=0.2), images, endpoint)

    refused = deployed(
        images.challenger(2, blind_to="7"),
        images,
        endpoint,
        # However good it is elsewhere.
        tolerance=0.5,
    )

    assert refused["decision"] == "refused"
    (collapse,) = refused["reasons"][1:]
    assert "Recall of '7' falls from" in collapse
    assert "to 0.0000" in collapse
    assert refused["recall"]["7"]["challenger"] == 0


def test_one_with_fewer_classes_does_not(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    deployed(images.challenger(1, spoiled=0.2), images, endpoint)

    refused = deployed(
        images.challenger(2, classes="012345678"), images, endpoint, tolerance=0.9
    )

    assert refused["decision"] == "refused"
    assert "1 of the champion's 10 classes are unknown" in refused["reasons"][0]
    assert "'9'" in refused["reasons"][0]


def test_one_with_classes_in_another_order_does_not(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    deployed(images.challenger(1, spoiled=0.2), images, endpoint)

    refused = deployed(
        images.challenger(2, classes="1023456789"), images, endpoint, tolerance=0.9
    )

    assert refused["decision"] == "refused"
    assert "number 0 is '1' instead of '0'" in refused["reasons"][0]


def test_one_that_learned_from_test_images_does_not(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    leaky = images.training_set.copy()
    # The same picture under another name.
    leaky.loc[5, "content"] = images.test_set.loc[0, "content"]
    leaking = Digits(images.images, leaky, images.test_set)

    refused = deployed(leaking.challenger(1), leaking, endpoint)

    assert refused["decision"] == "refused"
    (reason, _) = refused["reasons"]
    assert f"1 of {len(leaky)} images that it learned from" in reason
    assert repr(leaky.loc[5, "image_id"]) in reason
    assert endpoint.state.champion is None


def test_one_whose_training_set_is_unknown_does_not(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    others = Digits(images.images, images.training_set[1:], images.test_set)

    refused = deployed(others.challenger(1), images, endpoint)

    assert refused["decision"] == "refused"
    assert "What it learned from is unknown" in refused["reasons"][0]


def test_one_trained_from_an_earlier_champion_does_not(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    deployed(images.challenger(1, spoiled=0.2), images, endpoint)
    deployed(images.challenger(2, spoiled=0.1), images, endpoint, tolerance=0.5)

    refused = deployed(images.challenger(2), images, endpoint)

    assert refused["decision"] == "refused"
    assert "Version 2 is not newer than the champion's 2" in refused["reasons"][0]


def test_one_whose_export_answers_otherwise_does_not(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    challenger = images.challenger(1)
    # Logits that no number of 32 bits holds: neither form of it answers.
    next(iter(challenger.network.parameters())).data.fill_(float("nan"))

    refused = deployed(challenger, images, endpoint)

    assert refused["decision"] == "refused"
    assert "answers otherwise than its checkpoint" in refused["reasons"][0]
    assert endpoint.state.champion is None
    assert roles() == {}


def test_nothing_to_do_ends_well(images: Digits, endpoint: LocalEndpoint) -> None:
    none = deployed(None, images, endpoint)
    challenger = images.challenger(1)
    deployed(challenger, images, endpoint)
    again = deployed(challenger, images, endpoint)

    assert [none["decision"], again["decision"]] == ["unchanged", "unchanged"]
    assert "--pipelines train" in none["reasons"][0]
    assert "in production already" in again["reasons"][0]
    for release in (none, again):
        raise_failure(release)


def test_a_rollback_and_what_comes_after_it(
    images: Digits, endpoint: LocalEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    deployed(images.challenger(1, spoiled=0.2), images, endpoint)
    bad = images.challenger(2, spoiled=0.1)
    deployed(bad, images, endpoint, tolerance=0.5)

    back = rolled_back(images, endpoint)

    assert back["decision"] == "rolled_back"
    assert "Version 1 is in production again instead of 2" in back["reasons"][0]
    assert roles() == {"1": "champion", "2": "rolled_back"}
    # The same challenger lies there still, and is not taken for a new one.
    same = deployed(bad, images, endpoint, tolerance=0.5)
    assert same["decision"] == "refused"
    assert "rolled back" in same["reasons"][0]
    # A new one, trained from version 1, would be 2 again: predictions bear that.
    with caplog.at_level(logging.INFO):
        better = deployed(images.challenger(2), images, endpoint)
    assert better["decision"] == "promoted"
    assert better["challenger"]["model_version"] == 3
    assert "this one becomes 3" in caplog.text
    assert roles() == {"1": "retired", "2": "rolled_back", "3": "champion"}
    assert rolled_back(images, endpoint)["challenger"]["model_version"] == 1


def test_without_a_former_champion_there_is_no_way_back(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    deployed(images.challenger(1), images, endpoint)

    with pytest.raises(EndpointError, match="nothing to go back to"):
        rolled_back(images, endpoint)


def test_a_former_champion_that_is_damaged_does_not_come_back(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    deployed(images.challenger(1, spoiled=0.2), images, endpoint)
    second = deployed(images.challenger(2), images, endpoint)
    former = endpoint.folder(endpoint.state.history[-1])
    os.truncate(former / "model.onnx", 100)

    back = rolled_back(images, endpoint)

    assert back["decision"] == "failed"
    assert "cannot be brought up" in back["reasons"][0]
    assert endpoint.state.champion is not None
    assert endpoint.state.champion.name == second["challenger"]["name"]
    with pytest.raises(EndpointError, match="goes on as before"):
        raise_failure(back)


def test_mlflow_away_and_back(
    images: Digits,
    endpoint: LocalEndpoint,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    deployed(images.challenger(1, spoiled=0.2), images, endpoint)
    challenger = images.challenger(2)

    mlflow.set_tracking_uri("http://127.0.0.1:9")
    failed = deployed(challenger, images, endpoint)

    assert failed["decision"] == "failed"
    assert "registry at 'http://127.0.0.1:9'" in failed["reasons"][-1]
    assert endpoint.state.champion is not None
    assert endpoint.state.champion.model_version == 1
    with pytest.raises(EndpointError, match="The champion goes on as before"):
        raise_failure(failed)

    mlflow.set_tracking_uri(server)
    assert deployed(challenger, images, endpoint)["decision"] == "promoted"
    assert roles() == {"1": "retired", "2": "champion"}


def test_tags_that_could_not_be_set_are_set_by_the_next_run(
    images: Digits,
    endpoint: LocalEndpoint,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for version, spoiled in ((1, 0.2), (2, 0)):
        deployed(images.challenger(version, spoiled=spoiled), images, endpoint)

    mlflow.set_tracking_uri("http://127.0.0.1:9")
    back = rolled_back(images, endpoint)

    assert back["decision"] == "rolled_back"
    with pytest.raises(EndpointError, match="rolled back, and its version is not"):
        raise_failure(back)
    mlflow.set_tracking_uri(server)
    assert roles() == {"1": "retired", "2": "champion"}
    deployed(None, images, endpoint)
    assert roles() == {"1": "champion", "2": "rolled_back"}


def test_a_worker_that_cannot_load_it_leaves_the_old_one(
    images: Digits, endpoint: LocalEndpoint, tmp_path: Path
) -> None:
    deployed(images.challenger(1, spoiled=0.2), images, endpoint)
    challenger = images.challenger(2)
    exported = export_challenger(
        challenger, endpoint, images.test_set, images.images, params()
    )
    assert exported.challenger is not None

    with worker(tmp_path / "endpoint", exported.challenger.name):
        failed = deployed(challenger, images, endpoint)

    assert failed["decision"] == "failed"
    assert "the disk is on fire" in failed["reasons"][-1]
    assert endpoint.state.champion is not None
    assert endpoint.state.champion.model_version == 1
    assert roles() == {"1": "champion", "2": "challenger"}
    assert deployed(challenger, images, endpoint)["decision"] == "promoted"


def test_a_champion_that_changed_meanwhile_is_not_overrun(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    deployed(images.challenger(1, spoiled=0.2), images, endpoint)
    given = (endpoint, images.test_set, images.images, params())
    slow = export_challenger(images.challenger(2, spoiled=0.1), *given)
    deployed(images.challenger(2), images, endpoint)

    late = roll_out_challenger(slow.becomes("accepted"), *given)

    assert late.decision == "failed"
    assert "Run again" in late.reasons[-1]
    assert endpoint.state.champion is not None
    assert endpoint.state.champion != slow.challenger


def test_of_two_at_once_one_fails_and_says_so(
    images: Digits, endpoint: LocalEndpoint, tmp_path: Path
) -> None:
    with local(tmp_path / "endpoint").exclusive():
        late = deployed(images.challenger(1), images, endpoint)

    assert late["decision"] == "failed"
    assert "Another process deploys" in late["reasons"][-1]
    assert deployed(images.challenger(1), images, endpoint)["decision"] == "promoted"


def test_what_a_killed_run_left_up_goes_down(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    deployed(images.challenger(1), images, endpoint)
    worse = images.challenger(2, spoiled=0.2)
    exported = export_challenger(
        worse, endpoint, images.test_set, images.images, params()
    )
    assert exported.challenger is not None
    with endpoint.exclusive():
        endpoint.shift(endpoint.stage(exported.challenger), 10)

    # Whatever is decided next, half a roll-out does not go on.
    deployed(worse, images, endpoint)

    assert dict(endpoint.state.traffic) == {"blue": 100}
    assert len(endpoint.state.deployments) == 1


def test_a_second_run_uses_the_export_of_the_first(
    images: Digits, tmp_path: Path
) -> None:
    endpoint = local(tmp_path / "fresh")
    challenger = images.challenger(1)
    given = (endpoint, images.test_set, images.images, params())
    first = export_challenger(challenger, *given)
    assert first.challenger is not None
    made = (endpoint.folder(first.challenger) / "model.onnx").stat().st_ino

    second = export_challenger(challenger, *given)

    assert second == first
    assert (endpoint.folder(first.challenger) / "model.onnx").stat().st_ino == made


def test_a_damaged_export_is_made_again(images: Digits, tmp_path: Path) -> None:
    endpoint = local(tmp_path / "fresh")
    challenger = images.challenger(1)
    given = (endpoint, images.test_set, images.images, params())
    first = export_challenger(challenger, *given)
    assert first.challenger is not None
    os.truncate(endpoint.folder(first.challenger) / "model.onnx", 100)

    assert deployed(challenger, images, endpoint)["decision"] == "promoted"


def test_an_empty_test_set_decides_nothing(
    images: Digits, endpoint: LocalEndpoint
) -> None:
    none = Digits(images.images, images.training_set, images.test_set[:0])

    with pytest.raises(TestSetError, match="empty"):
        deployed(none.challenger(1), none, endpoint)
