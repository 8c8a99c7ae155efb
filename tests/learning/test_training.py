import json
import logging
import os
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.learning.builders import (
    STILL,
    UNMIRRORED,
    digits,
    noise,
    pixels,
    same,
    train,
    weights,
)

from active_learning.errors import CheckpointError
from active_learning.imaging.pixels import IntArray, PixelArray, Shard, UInt8Array
from active_learning.learning.checkpoint import save_classifier
from active_learning.learning.module import ImageClassifier

DIGITS = [str(digit) for digit in range(10)]
WELL = {"min_steps": 150, "batch_size": 32, "augmentation": UNMIRRORED}
PLAIN = {"averaging": 0, "label_smoothing": 0}
ROOT = Path(__file__).parents[2]

STATES: dict[str, Callable[[], Any]] = {
    "torch": lambda: torch.get_rng_state().numpy().tobytes(),
    "numpy": lambda: pickle.dumps(np.random.get_state()),
    "python": random.getstate,
}


class CountedPixels(PixelArray):
    """Counts how many batches are read from it."""

    n_batches = 0

    def take(self, rows: IntArray) -> UInt8Array:
        self.n_batches += 1
        return super().take(rows)


def counted(n: int) -> CountedPixels:
    return CountedPixels([Shard(noise(n), None)], np.arange(n), (28, 28, 1))


def accuracy(classifier: ImageClassifier) -> float:
    images, targets = digits(300, 800)
    likely = classifier.probabilities(images, 500, "cpu", "").argmax(axis=1)
    return float((likely == targets).mean())


def probability_of(
    number: int, classifier: ImageClassifier, images: PixelArray
) -> float:
    return float(classifier.probabilities(images, 100, "cpu", "")[:, number].mean())


def parameters(classifier: ImageClassifier) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in classifier.named_parameters()}


def close(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(
        torch.allclose(one[name], two[name], rtol=0, atol=1e-6) for name in one
    )


@pytest.fixture(scope="module")
def reader() -> ImageClassifier:
    """Reads digits; no test changes it."""
    return train(*digits(0, 300), classes=DIGITS, recipe=WELL)


@pytest.fixture(scope="module")
def champion() -> ImageClassifier:
    """Has learned a little about noise; no test changes it."""
    return train(pixels(noise(12)), [0, 1, 2] * 4)


def test_it_learns_to_read_digits(reader: ImageClassifier) -> None:
    assert accuracy(reader) > 0.75  # chance is 0.1


def test_equal_seeds_give_equal_weights_whatever_happened_before() -> None:
    images = pixels(noise(12))
    one = train(images, [0, 1, 2] * 4, seed=7)
    torch.rand(3)
    np.random.default_rng().random()
    random.seed(3)
    two = train(images, [0, 1, 2] * 4, seed=7)

    assert same(weights(one), weights(two))


def test_another_seed_gives_other_weights() -> None:
    images = pixels(noise(12))

    one = train(images, [0, 1, 2] * 4, seed=1)
    two = train(images, [0, 1, 2] * 4, seed=2)

    assert not same(weights(one), weights(two))


def test_the_seed_decides_the_augmentation(champion: ImageClassifier) -> None:
    # One image: there is no order to decide, and the weights are the champion's.
    image = pixels(noise(1))

    one, two, again = (train(image, [0], champion, seed=seed) for seed in (1, 2, 1))

    assert same(weights(one), weights(again))
    assert not same(weights(one), weights(two))


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_random_states_are_left_as_they_were(state: Callable[[], Any]) -> None:
    before = state()

    train(pixels(noise(12)), [0, 1, 2] * 4)

    assert state() == before


@pytest.mark.parametrize("start", ["previous", "shrink_perturb"])
def test_the_champion_is_not_changed_by_its_successor(
    champion: ImageClassifier, start: str
) -> None:
    before, lineage = weights(champion), champion.lineage
    was_training = champion.training

    successor = train(
        pixels(noise(12)),
        [0, 1, 2, 3] * 3,
        champion,
        classes=["a", "b", "c", "d"],
        init={"start": start},
        recipe={"learning_rate": 0.01},
    )

    assert same(weights(champion), before)
    assert champion.classes == ("a", "b", "c")
    assert (champion.lineage, champion.training) == (lineage, was_training)
    assert successor.version == champion.version + 1


def test_previous_goes_on_from_what_the_champion_knows(reader: ImageClassifier) -> None:
    still = {**WELL, **STILL, "min_steps": 8}
    previous = train(*digits(0, 300), reader, classes=DIGITS, recipe=still)
    scratch = train(
        *digits(0, 300),
        reader,
        classes=DIGITS,
        recipe=still,
        init={"start": "scratch"},
    )

    assert close(parameters(previous), parameters(reader))
    assert accuracy(previous) > accuracy(reader) - 0.1
    assert accuracy(scratch) < 0.5


def test_scratch_ignores_the_champion(champion: ImageClassifier) -> None:
    images, scratch = pixels(noise(12)), {"start": "scratch"}

    beside = train(images, [0, 1, 2] * 4, champion, init=scratch)
    alone = train(images, [0, 1, 2] * 4, None, init=scratch)

    assert same(weights(beside), weights(alone))


def test_shrink_perturb_is_so_much_champion_plus_so_much_noise(
    champion: ImageClassifier,
) -> None:
    images, targets = pixels(noise(12)), [0, 1, 2] * 4
    init = {"start": "shrink_perturb", "shrink": 0.3, "perturb": 0.2}
    fresh = train(images, targets, init={"start": "scratch"}, recipe=STILL)

    shrunk = train(images, targets, champion, init=init, recipe=STILL)

    old, new = parameters(champion), parameters(fresh)
    assert close(
        parameters(shrunk), {name: 0.3 * old[name] + 0.2 * new[name] for name in old}
    )


@pytest.mark.parametrize("start", ["previous", "shrink_perturb"])
def test_before_the_first_round_there_is_only_scratch_to_start_from(
    start: str,
) -> None:
    images, targets = pixels(noise(12)), [0, 1, 2] * 4

    first = train(images, targets, None, init={"start": start})

    scratch = train(images, targets, None, init={"start": "scratch"})
    assert same(weights(first), weights(scratch))


@pytest.mark.parametrize("start", ["pretrained", "previous"])
@pytest.mark.parametrize("kind", ["state_dict", "checkpoint"])
def test_the_first_round_starts_from_the_weights_in_a_file(
    champion: ImageClassifier, tmp_path: Path, start: str, kind: str
) -> None:
    path = tmp_path / "weights.pt"
    if kind == "checkpoint":
        save_classifier(champion, path)
    else:
        torch.save(champion.network.state_dict(), path)

    first = train(
        pixels(noise(10)),
        [0, 1] * 5,
        classes=["x", "y"],
        network={"weights": str(path)},
        init={"start": start},
        recipe=STILL,
    )

    theirs, ours = parameters(champion), parameters(first)
    body = {name for name in theirs if ours[name].shape == theirs[name].shape}
    assert len(body) == len(theirs) - 2  # all but the head's weight and bias
    assert close({n: ours[n] for n in body}, {n: theirs[n] for n in body})


@pytest.mark.parametrize("start", ["previous", "shrink_perturb"])
def test_another_network_than_the_champion_is_refused(
    champion: ImageClassifier, start: str
) -> None:
    with pytest.raises(CheckpointError, match=r"champion's network is .* 'scratch'"):
        train(pixels(noise(2)), [0, 1], champion, network={"width": 5})


def test_another_preprocessing_than_the_champion_is_refused(
    champion: ImageClassifier,
) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessing is .* 'scratch'"):
        train(pixels(noise(2)), [0, 1], champion, preprocessing={"mean": [0.1]})


def test_another_preprocessing_is_no_obstacle_when_starting_from_scratch(
    champion: ImageClassifier,
) -> None:
    scratch = train(
        pixels(noise(4)),
        [0, 1] * 2,
        champion,
        preprocessing={"mean": [0.1]},
        init={"start": "scratch"},
    )

    assert scratch.preprocessing.mean == (0.1,)


def test_a_champion_of_another_library_is_refused() -> None:
    class Forest:
        version = 1

    with pytest.raises(CheckpointError, match="cannot go on from a Forest"):
        train(pixels(noise(2)), [0, 1], Forest())


@pytest.mark.parametrize(
    "classes", [["b", "a", "c", "d"], ["z", "a", "b", "c"], ["a", "b"]]
)
def test_classes_that_do_not_begin_with_the_champions_are_refused(
    champion: ImageClassifier, classes: list[str]
) -> None:
    with pytest.raises(CheckpointError, match="keeps its classes in order"):
        train(pixels(noise(2)), [0, 1], champion, classes=classes)


def test_a_new_label_is_learned_beside_the_old_ones() -> None:
    images, targets = digits(0, 300)
    early = np.flatnonzero(targets < 8)
    seen = pixels(images.take(early))
    eight = train(seen, targets[early], classes=DIGITS[:8], recipe=WELL)

    ten = train(images, targets, eight, classes=DIGITS, recipe=WELL)

    others, actual = digits(300, 800)
    found = ten.probabilities(others, 500, "cpu", "").argmax(axis=1)
    assert ten.classes == tuple(DIGITS)
    assert (found == actual)[actual < 8].mean() > 0.7
    assert (found == actual)[actual >= 8].mean() > 0.5


def test_a_new_label_leaves_the_weights_of_the_old_ones(
    champion: ImageClassifier,
) -> None:
    grown = train(
        pixels(noise(4)),
        [0, 1, 2, 3],
        champion,
        classes=["a", "b", "c", "d"],
        recipe=STILL,
    )

    old, new = parameters(champion), parameters(grown)
    head = [name for name in old if old[name].shape != new[name].shape]
    assert len(head) == 2  # its weight and its bias
    assert all(len(new[name]) == 4 for name in head)
    assert close({n: new[n][:3] for n in head}, {n: old[n] for n in head})


@pytest.mark.parametrize(
    ("balance", "low", "high"),
    [("none", 0.0, 0.25), ("class_weights", 0.35, 0.65), ("sampler", 0.35, 0.65)],
)
def test_balance_makes_a_rare_class_count(
    balance: str, low: float, high: float
) -> None:
    # The same four images in both classes: what is learned is how often each occurs.
    images = pixels(np.tile(noise(4), (10, 1, 1, 1)))
    targets = [0] * 36 + [1] * 4

    classifier = train(
        images,
        targets,
        classes=["common", "rare"],
        recipe={
            **PLAIN,
            "balance": balance,
            "min_steps": 60,
            "batch_size": 40,
            "learning_rate": 0.01,
        },
    )

    assert low < probability_of(1, classifier, pixels(noise(4))) < high


@pytest.mark.parametrize("balance", ["class_weights", "sampler"])
def test_a_class_without_images_does_not_outweigh_the_others(balance: str) -> None:
    images = pixels(np.tile(noise(4), (10, 1, 1, 1)))

    classifier = train(
        images,
        [0, 1] * 20,
        classes=["a", "b", "void"],
        recipe={
            "averaging": 0,
            "label_smoothing": 0.3,
            "balance": balance,
            "min_steps": 60,
            "learning_rate": 0.01,
        },
    )

    assert probability_of(2, classifier, pixels(noise(4))) < 1 / 3


def test_early_stopping_ends_a_round_that_learns_nothing() -> None:
    images = counted(8)
    patience = {"patience": 2, "min_delta": 0.5}

    train(
        images,
        [0, 1] * 4,
        recipe={**STILL, "min_steps": 50, "early_stopping": patience},
    )

    assert images.n_batches <= 5  # an epoch is one batch


def test_without_early_stopping_a_round_goes_to_its_end() -> None:
    images = counted(8)

    train(
        images,
        [0, 1] * 4,
        recipe={**STILL, "min_steps": 50, "early_stopping": None},
    )

    assert images.n_batches >= 50


def test_early_stopping_lets_a_round_that_learns_go_on() -> None:
    images = counted(8)
    patience = {"patience": 10, "min_delta": 0}

    train(
        images,
        [0, 1] * 4,
        recipe={
            "min_steps": 50,
            "learning_rate": 0.003,
            "early_stopping": patience,
        },
    )

    assert images.n_batches >= 30


@pytest.mark.parametrize(
    ("n", "recipe", "n_batches"),
    [
        (8, {"min_steps": 7, "min_epochs": 1}, 7),
        (8, {"min_steps": 1, "min_epochs": 3}, 3),
        (40, {"min_steps": 1, "min_epochs": 2}, 6),
    ],
)
def test_a_round_has_the_steps_and_the_epochs_that_it_must_have(
    n: int, recipe: dict[str, int], n_batches: int
) -> None:
    images = counted(n)

    train(images, [0, 1] * (n // 2), recipe=recipe)  # 16 images a batch

    assert images.n_batches == n_batches


def test_training_says_how_long_it_was(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "active_learning"):
        train(pixels(noise(10)), [0, 1] * 5, recipe={"min_steps": 5})

    assert re.search(r"version 1 of small_cnn on 10 images: 5 steps", caplog.text)


@pytest.mark.parametrize("n", [1, 17])
def test_no_number_of_images_is_too_few_or_leaves_one_over(n: int) -> None:
    # 16 images a batch: of 17 one would be alone, and have no batch statistics.
    classifier = train(pixels(noise(n)), [0] * n)

    assert all(value.isfinite().all() for value in weights(classifier).values())


def test_half_precision_trains_on_a_cpu() -> None:
    half = train(
        *digits(0, 300),
        classes=DIGITS,
        recipe=WELL,
        hardware={"precision": "bf16-mixed"},
    )

    assert accuracy(half) > 0.5
    assert {value.dtype for value in half.parameters()} == {torch.float32}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_challenger_comes_back_from_the_gpu() -> None:
    challenger = train(pixels(noise(4)), [0, 1] * 2, hardware={"accelerator": "gpu"})

    assert challenger.device == torch.device("cpu")


def test_a_challenger_travels_without_what_it_was_trained_on() -> None:
    challenger = train(pixels(noise(300)), [0, 1, 2] * 100)

    assert len(pickle.dumps(challenger)) < noise(300).nbytes


TWO_PROCESSES = """
import json
import os
import sys
from pathlib import Path

from active_learning.imaging.pixels import PixelArray
from tests.learning.builders import digits, noise, pixels, same, train, weights


class LoggedPixels(PixelArray):
    def take(self, rows):
        with (Path(sys.argv[2]) / str(os.getpid())).open("a") as log:
            print(json.dumps(rows.tolist()), file=log)
        return super().take(rows)


def read_digits():
    images, targets = digits(0, 300)
    images.__class__ = LoggedPixels
    recipe = {"min_steps": 80, "augmentation": {"flip": False}}
    classes = [str(digit) for digit in range(10)]
    reader = train(images, targets, classes=classes, recipe=recipe, hardware=HARDWARE)
    unseen, actual = digits(300, 800)
    likely = reader.probabilities(unseen, 500, "cpu", "").argmax(axis=1)
    return {"accuracy": float((likely == actual).mean())}


def compare_seeds():
    # One image: there is no order to decide, and the weights are the champion's.
    champion = train(pixels(noise(12)), [0, 1, 2] * 4)
    one, two, again = (
        weights(train(pixels(noise(1)), [0], champion, seed=seed, hardware=HARDWARE))
        for seed in (1, 2, 1)
    )
    return {"equal": same(one, again), "different": not same(one, two)}


HARDWARE = {"devices": 2, "strategy": sys.argv[1]}
if __name__ == "__main__":
    print("started")
    answer = globals()[sys.argv[3]]()
    (Path(sys.argv[2]) / "answer.json").write_text(json.dumps(answer))
"""


def in_two_processes(folder: Path, strategy: str, what: str) -> dict[str, Any]:
    """Run a function of the script above; a spawned process must find it in a file."""
    script, answer = folder / "script.py", folder / "answer.json"
    script.write_text(TWO_PROCESSES, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, script, strategy, folder, what],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.count("started") == 1  # two processes train, one command runs
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "auto"])
def test_two_processes_train_one_model_on_all_images(
    tmp_path: Path, strategy: str
) -> None:
    answer = in_two_processes(tmp_path, strategy, "read_digits")

    assert answer["accuracy"] > 0.6
    ranks = [
        [json.loads(line) for line in log.read_text().splitlines()]
        for log in tmp_path.glob("[0-9]*")
    ]
    # 300 images in batches of 16 for each of two: 10 batches an epoch and process.
    one, two = ({row for batch in rank[:10] for row in batch} for rank in ranks)
    assert one | two == set(range(300))
    assert len(one & two) <= 20  # what fills the last batches


@pytest.mark.slow
def test_the_seed_decides_the_augmentation_in_two_processes(tmp_path: Path) -> None:
    answer = in_two_processes(tmp_path, "ddp", "compare_seeds")

    assert answer == {"equal": True, "different": True}
