import numpy as np
import pytest
import torch
from tests.learning.builders import noise, pixels, same, train, untrained, weights

from active_learning.errors import CheckpointError, SettingsError
from active_learning.learning.module import ImageClassifier


@pytest.fixture(scope="module")
def classifier() -> ImageClassifier:
    """Has learned a little about noise; no test changes it."""
    return train(pixels(noise(12)), [0, 1, 2] * 4)


def test_probabilities_sum_to_one(classifier: ImageClassifier) -> None:
    p = classifier.probabilities(pixels(noise(10)), 4, "cpu", "Scoring")

    assert p.shape == (10, 3)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert (p >= 0).all()


@pytest.mark.parametrize("batch_size", [1, 3, 10, 1000])
def test_probabilities_do_not_depend_on_the_batch(
    classifier: ImageClassifier, batch_size: int
) -> None:
    images = pixels(noise(10))

    p = classifier.probabilities(images, batch_size, "cpu", "")

    together = classifier.probabilities(images, 5, "cpu", "")
    np.testing.assert_allclose(p, together, rtol=0, atol=1e-6)


def test_probabilities_of_an_image_do_not_depend_on_its_neighbors(
    classifier: ImageClassifier,
) -> None:
    bright = np.full((7, 28, 28, 1), 255, dtype=np.uint8)
    one = noise(1)

    alone = classifier.probabilities(pixels(one), 8, "cpu", "")
    among = classifier.probabilities(pixels([*bright, *one]), 8, "cpu", "")

    np.testing.assert_allclose(among[-1], alone[0], rtol=0, atol=1e-6)


def test_probabilities_come_in_the_order_of_the_images(
    classifier: ImageClassifier,
) -> None:
    images = noise(6)

    p = classifier.probabilities(pixels(images), 4, "cpu", "")

    backwards = classifier.probabilities(pixels(images[::-1]), 4, "cpu", "")
    np.testing.assert_allclose(backwards[::-1], p, rtol=0, atol=1e-6)


def test_no_images_have_no_probabilities_of_each_class(
    classifier: ImageClassifier,
) -> None:
    p = classifier.probabilities(pixels(noise(0)), 4, "cpu", "")

    assert p.shape == (0, 3)


@pytest.mark.parametrize("training", [True, False])
def test_asking_for_probabilities_changes_nothing(training: bool) -> None:
    classifier = untrained().train(training)
    before, device = weights(classifier), classifier.device

    classifier.probabilities(pixels(noise(4)), 4, "auto", "")

    assert all(module.training is training for module in classifier.modules())
    assert classifier.device == device
    assert same(weights(classifier), before)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_not_replaced_in_silence() -> None:
    with pytest.raises(SettingsError, match=r"'gpu' but .* 'auto' or 'cpu'"):
        untrained().probabilities(pixels(noise(1)), 1, "gpu", "")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_gives_the_same_probabilities_and_the_classifier_back() -> None:
    classifier = untrained()
    images = pixels(noise(4))

    there = classifier.probabilities(images, 4, "gpu", "")

    assert classifier.device == torch.device("cpu")
    here = classifier.probabilities(images, 4, "cpu", "")
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-4)


def test_a_classifier_says_what_it_is() -> None:
    classifier = untrained(classes=["b", "a"], lineage={"version": 3, "parent": 2})

    assert classifier.model_name == "small_cnn"
    assert classifier.classes == ("b", "a")
    assert classifier.version == 3
    assert classifier.lineage == {"version": 3, "parent": 2}
    assert classifier.preprocessing.height == 28


def test_its_answers_are_logits_in_the_order_of_the_classes(
    classifier: ImageClassifier,
) -> None:
    images = noise(4)

    logits = classifier.eval()(torch.from_numpy(images))

    p = classifier.probabilities(pixels(images), 4, "cpu", "")
    np.testing.assert_allclose(
        logits.double().softmax(dim=1).detach(), p, rtol=0, atol=1e-6
    )


def test_a_successor_keeps_every_old_row_and_every_old_weight(
    classifier: ImageClassifier,
) -> None:
    successor = classifier.successor(["a", "b", "c", "d", "e"], {"version": 2})

    old, new = weights(classifier), weights(successor)
    assert successor.classes == ("a", "b", "c", "d", "e")
    assert old.keys() == new.keys()
    grown = [name for name in old if old[name].shape != new[name].shape]
    assert [len(new[name]) for name in grown] == [5, 5]
    assert all(torch.equal(new[name][: len(old[name])], old[name]) for name in grown)
    assert all(torch.equal(new[n], old[n]) for n in old.keys() - set(grown))


def test_a_successor_answers_as_before_about_the_old_classes(
    classifier: ImageClassifier,
) -> None:
    images = pixels(noise(6))

    successor = classifier.successor(["a", "b", "c", "d"], {"version": 2})

    old = classifier.probabilities(images, 6, "cpu", "")
    new = successor.probabilities(images, 6, "cpu", "")[:, :3]
    np.testing.assert_allclose(
        new / new.sum(axis=1, keepdims=True), old, rtol=0, atol=1e-6
    )


def test_a_successor_shares_no_weight_with_its_parent() -> None:
    parent = untrained()
    before = weights(parent)

    successor = parent.successor(parent.classes, {"version": 2})
    with torch.no_grad():
        for parameter in successor.parameters():
            parameter.zero_()

    assert same(weights(parent), before)


@pytest.mark.parametrize("classes", [["b", "a", "c"], ["a", "b"], ["a", "b", "d", "c"]])
def test_a_successor_that_would_forget_a_class_is_refused(classes: list[str]) -> None:
    with pytest.raises(CheckpointError, match="do not begin"):
        untrained().successor(classes, {"version": 2})
