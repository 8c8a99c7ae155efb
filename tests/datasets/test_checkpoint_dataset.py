import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kedro.io import DataCatalog, DatasetError
from tests.learning.builders import same, untrained, weights

from active_learning.datasets import CheckpointDataset
from active_learning.learning.module import ImageClassifier


def dataset(folder: Path, optional: bool = False) -> CheckpointDataset:
    path = folder / "06_models" / "challenger.ckpt"
    return CheckpointDataset(filepath=str(path), optional=optional)


def loaded(source: CheckpointDataset) -> ImageClassifier:
    classifier = source.load()
    assert classifier is not None
    return classifier


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """No file grows beyond so many bytes: what a full disk does to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("optional", [True, False])
def test_a_saved_classifier_is_loaded(tmp_path: Path, optional: bool) -> None:
    classifier = untrained(["Größe", "b"])

    dataset(tmp_path).save(classifier)

    read = loaded(dataset(tmp_path, optional))
    assert read.classes == ("Größe", "b")
    assert same(weights(read), weights(classifier))
    assert files(tmp_path) == ["challenger.ckpt"]


def test_a_later_classifier_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    dataset(tmp_path).save(untrained(lineage={"version": 1}))
    dataset(tmp_path).save(untrained(lineage={"version": 2}))

    assert loaded(dataset(tmp_path)).version == 2
    assert files(tmp_path) == ["challenger.ckpt"]


def test_no_model_yet_is_none_where_it_may_be_missing(tmp_path: Path) -> None:
    assert dataset(tmp_path, optional=True).load() is None


def test_a_missing_model_says_which_command_makes_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'kedro run --pipelines train' makes one"):
        dataset(tmp_path).load()


def test_a_model_exists_once_it_is_saved(tmp_path: Path) -> None:
    assert not dataset(tmp_path, optional=True).exists()

    dataset(tmp_path).save(untrained())

    assert dataset(tmp_path, optional=True).exists()


@pytest.mark.parametrize("optional", [True, False])
def test_a_damaged_model_is_no_missing_model(tmp_path: Path, optional: bool) -> None:
    dataset(tmp_path).save(untrained())
    path = tmp_path / "06_models" / "challenger.ckpt"
    os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(DatasetError, match="It is damaged, or"):
        dataset(tmp_path, optional).load()


def test_a_save_that_fails_leaves_the_old_model_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, scratch = tmp_path / "models", tmp_path / "scratch"
    scratch.mkdir()
    # Where Lightning's own writer keeps what it has not finished.
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    dataset(models).save(untrained(lineage={"version": 1}))

    with full_disk(5_000), pytest.raises(DatasetError, match="File too large"):
        dataset(models).save(untrained(lineage={"version": 2}))

    assert loaded(dataset(models)).version == 1
    assert files(models) == ["challenger.ckpt"]
    assert files(scratch) == []


def test_a_first_save_that_fails_leaves_no_model(tmp_path: Path) -> None:
    with full_disk(5_000), pytest.raises(DatasetError):
        dataset(tmp_path).save(untrained())

    assert files(tmp_path) == []
    assert dataset(tmp_path, optional=True).load() is None


def test_a_save_that_fails_at_the_last_moment_leaves_all_as_it_was(
    tmp_path: Path,
) -> None:
    # A folder has the model's name: the file is written, and cannot take its place.
    folder = tmp_path / "06_models" / "challenger.ckpt"
    folder.mkdir(parents=True)
    (folder / "old").touch()

    with pytest.raises(DatasetError, match=r"[Dd]irectory"):
        dataset(tmp_path).save(untrained())

    assert files(tmp_path) == ["old"]


def test_the_next_save_after_a_failed_one_succeeds(tmp_path: Path) -> None:
    with full_disk(5_000), pytest.raises(DatasetError):
        dataset(tmp_path).save(untrained())

    dataset(tmp_path).save(untrained(lineage={"version": 7}))

    assert loaded(dataset(tmp_path)).version == 7


def test_a_catalog_entry_makes_one(tmp_path: Path) -> None:
    entry = {
        "type": "active_learning.datasets.CheckpointDataset",
        "filepath": str(tmp_path / "champion.ckpt"),
        "optional": True,
    }
    catalog = DataCatalog.from_config({"champion": entry})

    assert catalog.load("champion") is None
    catalog.save("champion", untrained())
    assert catalog.load("champion").classes == ("a", "b", "c")


def test_describing_a_model_loads_no_torch() -> None:
    code = (
        "import sys; from active_learning.datasets import CheckpointDataset; "
        "d = CheckpointDataset(filepath='nowhere.ckpt', optional=True); "
        "d.exists(), d.load(), repr(d); "
        "print(*{'torch', 'pytorch_lightning'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert ran.stdout.strip() == ""
