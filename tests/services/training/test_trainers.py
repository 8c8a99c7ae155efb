"""What every trainer promises: a newcomer is tested by being registered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.pipelines.deploy.builders import Digits, deployed
from tests.pipelines.train.test_nodes import (
    NO_TESTS,
    manifest,
    params,
    training_set,
)
from tests.services.training.automl_cluster import (
    PLACE,
    automl_params,
    cluster,
)
from tests.standins.arm import arm
from tests.standins.identity import identity
from tests.standins.tls import tls

from active_learning.datasets.challenger_dataset import ChallengerDataset
from active_learning.datasets.training_asset_dataset import TrainingAssetDataset
from active_learning.errors import (
    CheckpointError,
    LabelsError,
    SettingsError,
    TestSetError,
    UnknownNameError,
)
from active_learning.imaging import ImageStore
from active_learning.learning.protocol import Classifier
from active_learning.pipelines.train.nodes import evaluate, train_challenger
from active_learning.pipelines.train.params import TrainParams
from active_learning.schemas import fingerprint
from active_learning.services.deployment import connect
from active_learning.services.scoring.export import origin
from active_learning.services.training import TRAINERS, trainer_named

__all__ = ["arm", "cluster", "identity", "tls"]

OWN = "tests.services.training.own_trainer.train"
# The same weights again; on a GPU, AutoML promises none.
EXACT = ("lightning", OWN)

Train = Callable[..., Classifier]


def settings(trainer: str, **changes: Any) -> TrainParams:
    changed = {"min_new_labels": 0, **changes}
    if trainer == "automl":
        return automl_params(**changed)
    return params(trainer=trainer, **changed)


def asset(tmp_path: Path) -> TrainingAssetDataset:
    return TrainingAssetDataset(
        filepath=str(tmp_path / "training_set.parquet"),
        versions=str(tmp_path / "versions"),
        asset="training-set",
        workspace=PLACE,
        datastore="loop",
        images_datastore="images",
    )


@pytest.fixture(params=[*TRAINERS, OWN])
def trainer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def train(
    trainer: str,
    store: ImageStore,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Train:
    """Train by one trainer, with a workspace behind it where it needs one."""
    if trainer == "automl":
        request.getfixturevalue("cluster")

    def run(
        labels: pd.DataFrame,
        champion: Classifier | None = None,
        tests: pd.DataFrame = NO_TESTS,
        last: Classifier | None = None,
        **changes: Any,
    ) -> Classifier:
        if trainer == "automl":
            asset(tmp_path).save(labels)
        return train_challenger(
            labels, store, champion, tests, settings(trainer, **changes), last
        )

    return run


def test_a_challenger_keeps_its_lineage(train: Train, store: ImageStore) -> None:
    labels = training_set(store, a="dark", b="dark", e="light", f="light")

    first = train(labels.iloc[[0, 3]])
    second = train(labels, first)

    assert (first.version, second.version) == (1, 2)
    assert second.lineage["parent"] == 1
    assert second.lineage["n_labels"] == 4
    assert second.lineage["training_set"] == fingerprint(labels)
    assert second.lineage["batches"] == ["monday"]


def test_new_classes_follow_the_champions(train: Train, store: ImageStore) -> None:
    first = train(training_set(store, a="m", f="z"))

    second = train(training_set(store, a="m", b="a", f="z"), first)
    third = train(training_set(store, a="b", b="a"), second)

    assert first.classes == ("m", "z")
    assert second.classes == ("m", "z", "a")
    assert third.classes == ("m", "z", "a", "b")
    pixels = store.pixels(["a.png", "f.png"], third.preprocessing).pixels
    said = third.probabilities(pixels, 2, "cpu", "")
    assert said.shape == (2, 4)
    np.testing.assert_allclose(said.sum(axis=1), 1)


def test_a_test_image_is_never_trained_on(train: Train, store: ImageStore) -> None:
    labels = training_set(store, a="dark", f="light")
    tests = manifest(store, a="dark").assign(image_id="elsewhere.png")

    with pytest.raises(TestSetError, match=r"1 of 2 .*'a\.png'"):
        train(labels, tests=tests)


@pytest.mark.parametrize("labels", [{}, {"a": "dark"}])
def test_one_class_is_no_classifier(
    train: Train, store: ImageStore, labels: dict[str, str]
) -> None:
    with pytest.raises(LabelsError, match="two or more"):
        train(training_set(store, **labels))


def test_the_same_seed_is_the_same_model(
    train: Train, trainer: str, store: ImageStore
) -> None:
    labels = training_set(store, a="dark", b="dark", e="light", f="light")
    one, two = train(labels), train(labels)

    pixels = store.pixels(["a.png", "f.png"], one.preprocessing).pixels
    said = [model.probabilities(pixels, 2, "cpu", "") for model in (one, two)]
    assert one.lineage == two.lineage
    if trainer in EXACT:
        np.testing.assert_array_equal(*said)


def test_embeddings_come_with_the_probabilities(
    train: Train, store: ImageStore
) -> None:
    model = train(training_set(store, a="dark", f="light"))

    pixels = store.pixels(["a.png", "b.png", "f.png"], model.preprocessing).pixels
    said, seen = model.look(pixels, 2, "cpu", "")

    np.testing.assert_array_equal(said, model.probabilities(pixels, 2, "cpu", ""))
    assert seen.dtype == np.float32
    assert len(seen) == 3


def test_a_challenger_is_measured_on_the_test_set(
    train: Train, trainer: str, store: ImageStore
) -> None:
    tests = manifest(store, b="dark", e="light", d="gray")
    model = train(training_set(store, a="dark", f="light"), tests=tests)

    figures = evaluate(model, tests, store, settings(trainer))

    assert (figures["version"], figures["n_labels"], figures["n_test"]) == (1, 2, 3)
    # A class the model does not know is a class it misses.
    assert figures["recall"]["gray"] == 0
    if trainer != "lightning":  # two steps teach a network nothing
        assert figures["accuracy"] == 2 / 3


def test_nothing_new_trains_nothing(train: Train, store: ImageStore) -> None:
    labels = training_set(store, a="dark", f="light")
    champion = train(labels)
    more = training_set(store, a="dark", b="dark", f="light")

    assert train(labels, champion, min_new_labels=1) is champion
    left = train(more, champion, min_new_labels=1)
    assert left is not champion
    assert train(more, champion, last=left, min_new_labels=1) is left


def test_a_challenger_is_kept_in_one_file(
    train: Train, store: ImageStore, tmp_path: Path
) -> None:
    model = train(training_set(store, a="dark", f="light"))
    place = ChallengerDataset(filepath=str(tmp_path / "challenger.ckpt"))

    place.save(model)
    kept = place.load()

    assert kept is not None
    assert (kept.classes, kept.lineage) == (model.classes, model.lineage)
    pixels = store.pixels(["a.png", "f.png"], model.preprocessing).pixels
    np.testing.assert_array_equal(
        kept.probabilities(pixels, 2, "cpu", ""),
        model.probabilities(pixels, 2, "cpu", ""),
    )


def test_a_challenger_is_released_and_trained_on_from_there(
    train: Train,
    trainer: str,
    store: ImageStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = training_set(store, a="dark", f="light")
    tests = manifest(store, b="dark", e="light")
    endpoint = connect(
        "local", str(tmp_path / "endpoint"), service_url="", load_timeout_s=1
    )
    given = Digits(store, labels, tests)

    def release(model: Classifier) -> dict[str, Any]:
        import mlflow

        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
        try:
            return deployed(model, given, endpoint)  # type: ignore[arg-type]
        finally:
            mlflow.set_tracking_uri(before)

    monkeypatch.chdir(tmp_path)
    first = train(labels, tests=tests)
    said, again = release(first), release(first)
    champion = endpoint.state.champion
    assert said["decision"] == "promoted", said["reasons"]
    assert again["decision"] == "unchanged"
    assert champion is not None
    on = origin(endpoint.folder(champion))
    second = train(training_set(store, a="dark", c="dark", f="light"), on, tests)

    assert type(on) is type(first)
    assert (on.classes, on.lineage) == (first.classes, first.lineage)
    assert second.version == 2
    parity = said["parity"]
    assert (parity["n"], parity["same_top"]) == (2, True)
    if trainer != "lightning":
        # There was nothing to compare the network with, and its card says so.
        assert on.lineage["exported_from"] == "itself"
        assert parity["max_difference"] == 0


def test_a_dotted_path_is_a_trainer() -> None:
    from tests.services.training import own_trainer

    assert trainer_named(OWN) is own_trainer.train


@pytest.mark.parametrize(
    "name",
    [
        "lightening",
        "no_such_package.train",
        "tests.services.training.own_trainer.no_such_function",
        "tests.services.training.own_trainer.not_a_function",
        "",
    ],
)
def test_a_trainer_that_nobody_knows_is_told_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match="Known: automl, lightning; a dotted"):
        trainer_named(name)


def test_a_misspelled_trainer_stops_the_run(store: ImageStore) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'lightning'"):
        train_challenger(
            training_set(store, a="dark", f="light"),
            store,
            None,
            NO_TESTS,
            params(trainer="lightening"),
        )


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("sort_classes", r"gave a model of the classes \['a', 'm', 'z'\]"),
        ("forget_lineage", "has lost"),
    ],
)
def test_a_trainer_that_breaks_its_promise_is_named(
    store: ImageStore, function: str, said: str
) -> None:
    own = f"tests.services.training.own_trainer.{function}"
    first = train_challenger(
        training_set(store, a="m", f="z"), store, None, NO_TESTS, params(trainer=OWN)
    )

    with pytest.raises(CheckpointError, match=said) as raised:
        train_challenger(
            training_set(store, a="m", b="a", f="z"),
            store,
            first,
            NO_TESTS,
            params(trainer=own),
        )

    assert own in str(raised.value)


@pytest.mark.parametrize("start", ["previous", "shrink_perturb"])
def test_lightning_does_not_go_on_from_another_trainers_model(
    store: ImageStore, start: str
) -> None:
    labels = training_set(store, a="m", f="z", b="a")
    other = train_challenger(labels[:2], store, None, NO_TESTS, params(trainer=OWN))
    init = {**params().init.model_dump(), "start": start}

    with pytest.raises(CheckpointError) as raised:
        train_challenger(labels, store, other, NO_TESTS, params(init=init))

    said = str(raised.value)
    assert "Version 1" in said
    assert "by_brightness that Lightning did not train" in said
    assert "train.init.start to 'scratch' or 'pretrained'" in said


def test_lightning_begins_anew_with_another_trainers_classes(store: ImageStore) -> None:
    labels = training_set(store, a="m", f="z", b="a")
    other = train_challenger(labels[:2], store, None, NO_TESTS, params(trainer=OWN))
    init = {**params().init.model_dump(), "start": "scratch"}

    second = train_challenger(labels, store, other, NO_TESTS, params(init=init))

    assert (second.version, second.classes) == (2, ("m", "z", "a"))


def test_automl_without_a_workspace_says_where_one_is(store: ImageStore) -> None:
    with pytest.raises(SettingsError, match=r"'--env azure'.*AZURE_SUBSCRIPTION_ID"):
        train_challenger(
            training_set(store, a="dark", f="light"),
            store,
            None,
            NO_TESTS,
            params(trainer="automl"),
        )
