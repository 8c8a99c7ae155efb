"""What is released is what was trained, whole or not at all."""

import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.learning.builders import (
    COLOR,
    digits,
    noise,
    pixels,
    same,
    train,
    untrained,
    weights,
)
from torch import nn

from active_learning.errors import ExportError
from active_learning.learning.checkpoint import load_classifier
from active_learning.learning.module import ImageClassifier
from active_learning.services.scoring.export import Parity, export
from active_learning.services.scoring.model import InferenceModel

IMAGES = noise(37)


def lively(classifier: ImageClassifier, images: Any) -> ImageClassifier:
    """Random weights under which the answers differ from image to image."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for module in classifier.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        for _ in range(20):
            classifier.train()(torch.from_numpy(images))
    return classifier.eval()


@pytest.fixture(scope="module")
def classifier() -> ImageClassifier:
    return lively(untrained(lineage={"version": 4, "parent": 3, "n_labels": 9}), IMAGES)


def test_a_release_holds_what_serves_and_what_training_goes_on_from(
    classifier: ImageClassifier, tmp_path: Path
) -> None:
    before = weights(classifier)
    release = tmp_path / "releases" / "000004"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parity = export(classifier, IMAGES, release)

    names = {"model.onnx", "model.json", "checkpoint.ckpt"}
    assert {path.name for path in release.iterdir()} == names
    assert os.listdir(release.parent) == ["000004"]
    assert parity.passed
    assert parity.n == len(IMAGES)
    card = json.loads((release / "model.json").read_text())
    assert card["parity"] == parity._asdict()
    assert InferenceModel.load(release).lineage == classifier.lineage
    assert same(weights(load_classifier(release / "checkpoint.ckpt")), before)
    assert same(weights(classifier), before)


def test_the_same_weights_are_the_same_file_wherever_they_are_exported(
    classifier: ImageClassifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.INFO):
        export(classifier, IMAGES, tmp_path / "one")
        monkeypatch.chdir(tmp_path)
        export(load_classifier(tmp_path / "one/checkpoint.ckpt"), IMAGES, Path("two"))

    one, two = ((tmp_path / n / "model.onnx").read_bytes() for n in ("one", "two"))
    assert one == two
    assert b".py" not in one  # of no file that it was traced through
    assert not caplog.records
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_networks_of_torchvision_answer_alike(name: str, tmp_path: Path) -> None:
    light = np.linspace(0.1, 1, 9)[:, None, None, None]
    images = (noise(9, side=32, channels=3) * light).astype(np.uint8)
    size = {**COLOR, "height": 32, "width": 32}
    network = untrained(network={"name": name}, preprocessing=size)
    classifier = lively(network, images)

    parity = export(classifier, images, tmp_path / "release")

    model = InferenceModel.load(tmp_path / "release")
    for n in (1, 2, 9):
        said, seen = model.look(pixels(images[:n]), 4, "cpu", "")
        expected, features = classifier.look(pixels(images[:n]), 4, "cpu", "")
        np.testing.assert_allclose(said, expected, atol=1e-4)
        scale = np.abs(features).max()
        np.testing.assert_allclose(seen, features, atol=1e-3 * scale)
    assert np.ptp(expected, axis=0).max() > 0.1
    assert parity.max_difference > 0


def test_a_new_class_is_exported_with_the_others(
    classifier: ImageClassifier, tmp_path: Path
) -> None:
    grown = classifier.successor(["a", "b", "c", "d"], {"version": 5})

    export(grown, IMAGES, tmp_path / "release")

    model = InferenceModel.load(tmp_path / "release")
    assert model.classes == ("a", "b", "c", "d")
    assert model.answer(IMAGES).shape == (37, 4)


def test_an_image_size_that_halves_unevenly_is_exported_too(tmp_path: Path) -> None:
    # Four poolings leave 7 of 30 pixels, which adaptive pooling cuts into 4 and 4.
    images = noise(5, side=30)
    size = {"height": 30, "width": 30}
    classifier = lively(untrained(preprocessing=size), images)

    assert export(classifier, images, tmp_path / "release").passed


class Doubting(ImageClassifier):
    """Says other things when it is asked than its weights do."""

    def look(self, *asked: Any) -> Any:
        said, seen = super().look(*asked)
        return np.roll(said, 1, axis=1), seen


class Absent(ImageClassifier):
    """Sees other features when it is asked than its weights do."""

    def look(self, *asked: Any) -> Any:
        said, seen = super().look(*asked)
        return said, seen + np.abs(seen).max()


def disguised(classifier: ImageClassifier, as_a: type[ImageClassifier]) -> Any:
    copy = as_a(**{k: classifier.hparams[k] for k in classifier.hparams})
    copy.load_state_dict(classifier.state_dict())
    return copy.eval()


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Doubting, "answers otherwise .* 37 of 37"), (Absent, "other embeddings")],
)
def test_an_export_that_answers_otherwise_is_refused_and_nothing_is_left(
    classifier: ImageClassifier,
    tmp_path: Path,
    kind: type[ImageClassifier],
    words: str,
) -> None:
    with pytest.raises(ExportError, match=words):
        export(disguised(classifier, kind), IMAGES, tmp_path / "release")

    assert list(tmp_path.iterdir()) == []


def test_no_images_prove_nothing(classifier: ImageClassifier, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no image to try"):
        export(classifier, IMAGES[:0], tmp_path / "release")

    assert list(tmp_path.iterdir()) == []


class Unknown(nn.Module):
    """An operation that ONNX has no word for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.linalg.eigvals(x[..., :2, :2]).real.sum()


def test_a_network_without_a_form_in_onnx_is_refused(
    classifier: ImageClassifier, tmp_path: Path
) -> None:
    strange = classifier.successor(classifier.classes, {"version": 5})
    strange.network.features[1] = Unknown()  # type: ignore[index,union-attr,operator]

    with pytest.raises(ExportError, match=r"no form in ONNX.*train\.network\.name"):
        export(strange, IMAGES, tmp_path / "release")

    assert list(tmp_path.iterdir()) == []


def test_a_release_is_written_once(classifier: ImageClassifier, tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()

    with pytest.raises(FileExistsError, match="written once"):
        export(classifier, IMAGES, release)

    assert list(release.iterdir()) == []


@pytest.mark.parametrize(
    ("parity", "passed"),
    [
        (Parity(3, 1e-4, True), True),
        (Parity(3, 1.1e-4, True), False),
        (Parity(3, 0.0, False), False),
        (Parity(0, 0.0, True), False),
        (Parity(3, float("nan"), True), False),
    ],
)
def test_parity_is_a_small_difference_the_same_class_and_some_images(
    parity: Parity, passed: bool
) -> None:
    assert parity.passed is passed


def test_a_trained_classifier_is_as_right_after_its_export(tmp_path: Path) -> None:
    images, targets = digits(0, 200)
    classifier = train(images, targets, classes=[str(n) for n in range(10)])

    export(classifier, images, tmp_path / "release")

    said = InferenceModel.load(tmp_path / "release").answer(
        images.take(np.arange(len(images)))
    )
    expected = classifier.probabilities(images, 64, "cpu", "")
    assert (said.argmax(axis=1) == expected.argmax(axis=1)).all()
