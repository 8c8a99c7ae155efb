import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.learning.builders import (
    COLOR,
    noise,
    pixels,
    same,
    train,
    untrained,
    weights,
)

from active_learning.errors import CheckpointError
from active_learning.learning.checkpoint import load_classifier, save_classifier
from active_learning.learning.module import ImageClassifier

NAMES = ["Größe M", "日本", "T-shirt/top", "a b", ""]
LINEAGE = {
    "version": 3,
    "parent": 2,
    "n_labels": 250,
    "training_set": "3f2a",
    "batches": ["export-1", "Größe"],
}


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "Größe" / "challenger.ckpt"


@pytest.fixture
def saved(path: Path) -> bytes:
    path.parent.mkdir()
    save_classifier(untrained(), path)
    return path.read_bytes()


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a checkpoint holds, and save it as a whole file."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


@pytest.mark.usefixtures("saved")
def test_a_classifier_comes_back_with_the_probabilities_that_it_had(
    path: Path,
) -> None:
    classifier, images = train(pixels(noise(12)), [0, 1, 2] * 4), pixels(noise(9))
    save_classifier(classifier, path)

    read = load_classifier(path)

    before = classifier.probabilities(images, 4, "cpu", "")
    assert read.probabilities(images, 4, "cpu", "").tobytes() == before.tobytes()
    assert same(weights(read), weights(classifier))


@pytest.mark.usefixtures("saved")
def test_a_classifier_comes_back_with_all_that_it_says(path: Path) -> None:
    classifier = untrained(NAMES, LINEAGE, preprocessing=COLOR)
    save_classifier(classifier, path)

    read = load_classifier(path)

    assert read.classes == tuple(NAMES)
    assert read.lineage == LINEAGE
    assert read.version == 3
    assert read.model_name == "small_cnn"
    assert read.preprocessing == classifier.preprocessing


@pytest.mark.usefixtures("saved")
def test_a_classifier_that_learned_a_new_class_comes_back_with_it(path: Path) -> None:
    grown = untrained().successor(["a", "b", "c", "d"], LINEAGE)
    save_classifier(grown, path)

    read = load_classifier(path)

    assert read.classes == ("a", "b", "c", "d")
    assert same(weights(read), weights(grown))


@pytest.mark.usefixtures("saved")
def test_class_names_of_numpy_come_back_as_plain_ones(path: Path) -> None:
    names = np.array(["a", "b", "c"])
    for classifier in (
        untrained(names),  # type: ignore[arg-type]  # what a table's values() gives
        untrained(["a"]).successor(list(names), LINEAGE),
    ):
        save_classifier(classifier, path)

        assert load_classifier(path).classes == ("a", "b", "c")


@pytest.mark.usefixtures("saved")
def test_a_classifier_comes_back_ready_to_score(path: Path) -> None:
    read = load_classifier(path)

    assert not read.training
    assert read.device == torch.device("cpu")


@pytest.mark.parametrize("training", [True, False])
def test_saving_leaves_the_classifier_as_it_was(path: Path, training: bool) -> None:
    path.parent.mkdir()
    classifier = untrained().train(training)
    before = weights(classifier)

    save_classifier(classifier, path)

    assert same(weights(classifier), before)
    assert classifier.training is training


@pytest.mark.usefixtures("saved")
def test_saving_and_loading_leave_random_states_as_they_were(path: Path) -> None:
    classifier = untrained()
    before = torch.get_rng_state(), random.getstate()

    save_classifier(classifier, path)
    load_classifier(path)

    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


@pytest.mark.usefixtures("saved")
def test_lightning_reads_it_without_our_help(path: Path) -> None:
    classifier = untrained(NAMES, LINEAGE)
    save_classifier(classifier, path)

    read = ImageClassifier.load_from_checkpoint(path, weights_only=True)

    assert read.classes == tuple(NAMES)
    assert same(weights(read), weights(classifier))


@pytest.mark.usefixtures("saved")
def test_a_checkpoint_holds_no_state_of_training(path: Path) -> None:
    save_classifier(train(pixels(noise(12)), [0, 1, 2] * 4), path)

    content = torch.load(path, weights_only=True)

    assert not {"optimizer_states", "lr_schedulers"} & content.keys()


@pytest.mark.parametrize("place", ["state_dict", "hyper_parameters", "callbacks"])
@pytest.mark.usefixtures("saved")
def test_code_in_a_checkpoint_is_refused_and_not_run(
    path: Path, tmp_path: Path, place: str
) -> None:
    made = tmp_path / "made"
    changed(path, lambda content: content.update({place: {"x": Bomb(made)}}))

    with pytest.raises(CheckpointError, match="nothing in it was run"):
        load_classifier(path)

    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()  # it would have been


def test_a_file_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint '.*challenger\.ckpt'"):
        load_classifier(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"accuracy: 0.9\n", b"PK\x03\x04", b"\x80\x02", b"\x00" * 1000],
    ids=["empty", "blank", "text", "start of a zip", "start of a pickle", "zeros"],
)
def test_a_file_of_something_else_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"It is damaged, or .*: save a"):
        load_classifier(path)


def test_a_truncated_file_is_refused_wherever_it_ends(path: Path, saved: bytes) -> None:
    for length in range(0, len(saved), len(saved) // 40):
        path.write_bytes(saved[:length])

        with pytest.raises(CheckpointError, match="It is damaged, or"):
            load_classifier(path)


def test_a_weight_that_changed_on_the_disk_is_noticed(path: Path, saved: bytes) -> None:
    tensor = weights(untrained())["network.head.weight"].numpy().tobytes()
    start = saved.index(tensor)
    rotten = bytearray(saved)
    rotten[start + 3] ^= 1
    path.write_bytes(rotten)

    with pytest.raises(CheckpointError, match="It is damaged, or"):
        load_classifier(path)


@pytest.mark.parametrize("key", ["state_dict", "hyper_parameters"])
@pytest.mark.usefixtures("saved")
def test_a_checkpoint_without_its_parts_is_told_where_weights_belong(
    path: Path, key: str
) -> None:
    changed(path, lambda content: content.pop(key))

    with pytest.raises(CheckpointError, match=rf"lacks \['{key}'\].*network\.weights"):
        load_classifier(path)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), "text"], ids=repr)
@pytest.mark.usefixtures("saved")
def test_a_file_that_holds_no_dict_is_refused(path: Path, content: Any) -> None:
    torch.save(content, path)

    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_classifier(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0.1},
        {"network": {"depth": 3}},
        {"network": {"name": "small_cn", "weights": None, "width": 8}},
        {"preprocessing": {"height": -1}},
        {"classes": 3},
    ],
    ids=str,
)
@pytest.mark.usefixtures("saved")
def test_settings_that_are_not_ours_are_refused(
    path: Path, changes: dict[str, Any]
) -> None:
    changed(path, lambda content: content["hyper_parameters"].update(changes))

    with pytest.raises(CheckpointError, match="was not saved by an image classifier"):
        load_classifier(path)


@pytest.mark.parametrize("settings", [{}, [1], None], ids=repr)
@pytest.mark.usefixtures("saved")
def test_no_settings_at_all_are_refused(path: Path, settings: Any) -> None:
    changed(path, lambda content: content.update(hyper_parameters=settings))

    with pytest.raises(CheckpointError, match="was not saved by an image classifier"):
        load_classifier(path)


@pytest.mark.parametrize(
    "state",
    [{}, {"network.x": torch.ones(1)}, [1], {1: torch.ones(1)}],
    ids=["none", "a stranger", "a list", "no name"],
)
@pytest.mark.usefixtures("saved")
def test_weights_of_another_network_are_refused(path: Path, state: Any) -> None:
    changed(path, lambda content: content.update(state_dict=state))

    with pytest.raises(CheckpointError, match="weights of another network"):
        load_classifier(path)


@pytest.mark.usefixtures("saved")
def test_weights_of_another_width_are_refused(path: Path) -> None:
    other = untrained(network={"width": 5}).state_dict()
    changed(path, lambda content: content.update(state_dict=other))

    with pytest.raises(CheckpointError, match="weights of another network"):
        load_classifier(path)
