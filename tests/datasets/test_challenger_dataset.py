"""One file keeps a challenger of any trainer, and runs nothing from it."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from kedro.io import DatasetError
from tests.learning.builders import noise, pixels, same, untrained, weights
from tests.services.training import own_trainer
from tests.services.training.automl_cluster import CROP, RESIZE, network

from active_learning.datasets.challenger_dataset import ChallengerDataset
from active_learning.datasets.checkpoint_dataset import CheckpointDataset
from active_learning.errors import CheckpointError
from active_learning.learning.module import ImageClassifier
from active_learning.services.scoring.onnx_classifier import OnnxClassifier
from active_learning.services.training.onnx_images import Sizes, converted


def onnx_challenger(version: int = 1) -> OnnxClassifier:
    made = own_trainer.train(["a", "b"], {"version": version, "labels": "ä"})
    assert isinstance(made, OnnxClassifier)
    return made


def test_what_lightning_trained_is_the_checkpoint_that_it_was(tmp_path: Path) -> None:
    model = untrained()
    ChallengerDataset(filepath=str(tmp_path / "a.ckpt")).save(model)
    CheckpointDataset(filepath=str(tmp_path / "b.ckpt")).save(model)

    for reader in (ChallengerDataset, CheckpointDataset):
        for name in ("a.ckpt", "b.ckpt"):
            read = reader(filepath=str(tmp_path / name)).load()
            assert isinstance(read, ImageClassifier)
            assert same(weights(read), weights(model))


def test_an_onnx_challenger_comes_back_as_it_was(tmp_path: Path) -> None:
    place = ChallengerDataset(filepath=str(tmp_path / "challenger.ckpt"))
    model = onnx_challenger()

    place.save(model)
    read = place.load()

    assert isinstance(read, OnnxClassifier)
    assert (read.fingerprint, read.lineage) == (model.fingerprint, model.lineage)
    assert (read.classes, read.preprocessing) == (model.classes, model.preprocessing)
    images = pixels(noise(3, RESIZE, 3))
    np.testing.assert_array_equal(
        read.probabilities(images, 2, "cpu", ""),
        model.probabilities(images, 2, "cpu", ""),
    )


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    for name in ("a.ckpt", "b.ckpt"):
        ChallengerDataset(filepath=str(tmp_path / name)).save(onnx_challenger())
        os.utime(tmp_path / name, (0, 0))

    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()


def test_no_file_is_no_model_yet(tmp_path: Path) -> None:
    place = str(tmp_path / "none.ckpt")

    assert ChallengerDataset(filepath=place, optional=True).load() is None
    with pytest.raises(DatasetError, match="There is no model"):
        ChallengerDataset(filepath=place).load()


@pytest.mark.parametrize("damage", ["network", "description", "end", "pickle"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "challenger.ckpt"
    place = ChallengerDataset(filepath=str(path))
    place.save(onnx_challenger())
    content = path.read_bytes()
    if damage == "end":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "pickle":
        path.write_bytes(b"cos\nsystem\n(S'touch /tmp/was-run'\ntR.")
    else:
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        if damage == "network":
            # One that loads, and is another.
            classes, sizes = ["a", "b"], Sizes(RESIZE, CROP)
            other = converted(network(2, scale=2), classes, classes, sizes, "other")
            parts["model.onnx"] = other.content
        else:
            parts["model.json"] = parts["model.json"][:-9] + b"x" * 9
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, part)

    with pytest.raises((CheckpointError, DatasetError), match=r"challenger\.ckpt"):
        place.load()

    assert not Path("/tmp/was-run").exists()
