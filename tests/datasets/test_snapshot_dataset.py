"""A present state is replaced whole, and is empty before there is any."""

from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DatasetError

from active_learning.datasets import ManifestDataset
from active_learning.datasets.snapshot_dataset import SnapshotDataset
from active_learning.schemas import DISPUTED_LABELS


def disputes(*names: str) -> pd.DataFrame:
    frame = DISPUTED_LABELS.empty_table().to_pandas().reindex(range(len(names)))
    return frame.assign(image_id=names, priority=0.5, n_answers=1, model_version=0)


def snapshot(folder: Path) -> SnapshotDataset:
    return SnapshotDataset(schema="DISPUTED_LABELS", filepath=f"{folder}/a.parquet")


def test_nothing_saved_yet_is_a_table_without_rows(tmp_path: Path) -> None:
    dataset = snapshot(tmp_path)

    assert dataset.load().empty
    assert list(dataset.load().columns) == DISPUTED_LABELS.names
    assert not dataset.exists()


def test_a_save_replaces_what_was_there(tmp_path: Path) -> None:
    snapshot(tmp_path).save(disputes("a", "b"))

    snapshot(tmp_path).save(disputes("c"))

    assert snapshot(tmp_path).load()["image_id"].tolist() == ["c"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_nothing_is_a_state_like_any_other(tmp_path: Path) -> None:
    snapshot(tmp_path).save(disputes("a"))

    snapshot(tmp_path).save(disputes())

    assert snapshot(tmp_path).load().empty


def test_rows_that_do_not_fit_leave_the_old_ones(tmp_path: Path) -> None:
    snapshot(tmp_path).save(disputes("a"))

    with pytest.raises(DatasetError, match="Columns missing"):
        snapshot(tmp_path).save(disputes("b").drop(columns="reason"))

    assert snapshot(tmp_path).load()["image_id"].tolist() == ["a"]


def test_a_schema_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no schema 'DISPUTES'"):
        SnapshotDataset(schema="DISPUTES", filepath=str(tmp_path))


def test_a_manifest_keeps_each_version_under_its_fingerprint(tmp_path: Path) -> None:
    versions = tmp_path / "versions"
    present = str(tmp_path / "training_set.parquet")
    manifest = ManifestDataset(filepath=present, versions=str(versions))
    first = pd.DataFrame({"image_id": ["a"], "label": ["cat"], "content": ["9f86"]})

    manifest.save(first)
    manifest.save(first.assign(label="dog"))
    manifest.save(first)

    kept = [ManifestDataset(filepath=str(file)) for file in versions.iterdir()]
    assert sorted(one.load()["label"].item() for one in kept) == ["cat", "dog"]
    assert manifest.load()["label"].item() == "cat"
