"""A training set is a version of a data asset, which our own readers read back too."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from kedro.io import DatasetError
from tests.pipelines.train.test_nodes import training_set
from tests.services.training.automl_cluster import PLACE, Cluster, cluster
from tests.standins.arm import Fault, arm
from tests.standins.azurite import Azurite, azurite, container
from tests.standins.identity import identity
from tests.standins.tls import tls

from active_learning.datasets.label_exports_dataset import LabelExportsDataset
from active_learning.datasets.manifest_dataset import ManifestDataset
from active_learning.datasets.training_asset_dataset import TrainingAssetDataset
from active_learning.files import filesystem_at
from active_learning.imaging import ImageStore
from active_learning.schemas import fingerprint
from active_learning.services.labeling.references import resolve

__all__ = ["arm", "azurite", "cluster", "container", "identity", "tls"]

pytestmark = pytest.mark.azure

ODD = ["ö ü.png", "50%41.png", "a?b=c.png", "hash#1.png", "quote'\".png"]


@pytest.fixture
def account(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    """Blobs that URLs reach in this process."""
    from fsspec.config import conf

    monkeypatch.setitem(conf, "abfs", azurite.storage_options())
    return azurite


def dataset(root: str, **changes: Any) -> TrainingAssetDataset:
    return TrainingAssetDataset(
        **{
            "filepath": f"{root}/training_set.parquet",
            "versions": f"{root}/versions",
            "asset": "training-set",
            "workspace": PLACE,
            "datastore": "loop",
            "images_datastore": "images",
            **changes,
        }
    )


def labels(*image_ids: str) -> pd.DataFrame:
    """Cats, and a dog last."""
    frame = pd.DataFrame({"image_id": image_ids, "label": "cat", "batch_id": "monday"})
    frame.loc[frame.index[-1], "label"] = "dög"
    return frame.assign(content=[f"{name} {n}" for n, name in enumerate(image_ids)])


def registered(cluster: Cluster) -> dict[str, Any]:
    return cluster.arm.workspace.assets.get(("data", "training-set"), {})


def test_a_training_set_in_blobs_is_a_data_asset(
    cluster: Cluster, account: Azurite, container: str
) -> None:
    frame = labels("a.png", "pool/b.png")
    root = account.place(container, "sets")

    dataset(root, images_path="/store/").save(frame)

    version = fingerprint(frame)[:16]
    (made,) = registered(cluster).items()
    scope = (
        f"azureml://subscriptions/{PLACE['subscription']}/resourcegroups/"
        f"{PLACE['resource_group']}/workspaces/{PLACE['name']}/datastores"
    )
    assert made[0] == version
    assert made[1]["properties"] | {"description": ""} == {
        "dataType": "mltable",
        "dataUri": f"{scope}/loop/paths/sets/versions/{version}/",
        "description": "",
        "isAnonymous": False,
        "referencedUris": [],
    }
    filesystem, folder = filesystem_at(f"{root}/versions/{version}")
    lines = filesystem.cat_file(f"{folder}/annotations.jsonl").decode().splitlines()
    assert lines == [
        f'{{"image_url": "{scope}/images/paths/store/a.png", "label": "cat"}}',
        f'{{"image_url": "{scope}/images/paths/store/pool/b.png", "label": "dög"}}',
    ]
    assert yaml.safe_load(filesystem.cat_file(f"{folder}/MLTable")) == {
        "paths": [{"file": "./annotations.jsonl"}],
        "transformations": [
            {
                "read_json_lines": {
                    "encoding": "utf8",
                    "invalid_lines": "error",
                    "include_path_column": False,
                }
            },
            {
                "convert_column_types": [
                    {"columns": "image_url", "column_type": "stream_info"}
                ]
            },
        ],
    }
    pd.testing.assert_frame_equal(dataset(root).load(), frame)


def test_it_is_the_manifest_that_it_was(cluster: Cluster, tmp_path: Path) -> None:
    frame = labels("a.png", "b.png")
    dataset(str(tmp_path)).save(frame)

    plain = ManifestDataset(filepath=str(tmp_path / "training_set.parquet"))
    kept = tmp_path / "versions" / f"{fingerprint(frame)[:16]}.parquet"

    pd.testing.assert_frame_equal(plain.load(), frame)
    pd.testing.assert_frame_equal(pd.read_parquet(kept), frame)


def test_our_own_reader_of_exports_reads_it_back(
    cluster: Cluster, tmp_path: Path
) -> None:
    frame = labels("a.png", "pool/b.png", *ODD)
    dataset(str(tmp_path / "sets")).save(frame)

    exports = LabelExportsDataset(path=str(tmp_path / "sets/versions"), settle_s=0)
    answers = pd.concat(
        [one for name, one in exports.load().items() if name.endswith(".jsonl")]
    )

    known = set(frame["image_id"])
    found = resolve(answers["reference"].tolist(), (), lambda: known)
    assert not answers["reason"].any()
    assert not found["reason"].any()
    read = dict(zip(found["image_id"], answers["label"], strict=True))
    assert read == dict(zip(frame["image_id"], frame["label"], strict=True))


def test_the_same_training_set_is_the_same_version(
    cluster: Cluster, tmp_path: Path
) -> None:
    frame = labels("a.png", "b.png", "c.png")
    place = dataset(str(tmp_path))

    place.save(frame)
    place.save(frame[::-1].reset_index(drop=True))
    place.save(frame[1:])

    assert list(registered(cluster)) == [
        fingerprint(frame)[:16],
        fingerprint(frame[1:])[:16],
    ]
    assert len(cluster.arm.asked("PUT", "/data/.*")) == 2


@pytest.mark.parametrize(
    ("status", "way"),
    [
        (403, "the role 'AzureML Data Scientist'"),
        (401, "'az login'"),
        (503, "Run again when it answers"),
        (0, "Run again when it answers"),
    ],
)
def test_a_workspace_that_refuses_leaves_the_manifest_as_it_was(
    cluster: Cluster, tmp_path: Path, status: int, way: str
) -> None:
    old, new = labels("a.png", "b.png"), labels("a.png", "b.png", "c.png")
    place = dataset(str(tmp_path))
    place.save(old)
    at_once = {"retry-after-ms": "1"}
    cluster.arm.faults = [
        Fault("PUT", "/data/", status, headers=at_once) for _ in range(20)
    ]

    with pytest.raises(DatasetError, match="did not register the data") as raised:
        place.save(new)
    before = place.load()
    cluster.arm.faults = []
    place.save(new)

    assert way in str(raised.value)
    pd.testing.assert_frame_equal(before, old)
    pd.testing.assert_frame_equal(place.load(), new)
    assert list(registered(cluster))[-1] == fingerprint(new)[:16]


def test_a_registration_whose_answer_was_lost_is_not_made_twice(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.arm.faults = [
        Fault("PUT", "/data/", 503, headers={"retry-after-ms": "1"}, done=True)
    ]
    frame = labels("a.png", "b.png")

    dataset(str(tmp_path)).save(frame)

    assert list(registered(cluster)) == [fingerprint(frame)[:16]]


def test_what_nobody_can_train_on_is_no_asset(
    cluster: Cluster, tmp_path: Path, store: ImageStore
) -> None:
    nothing = training_set(store, a="dark")[:0]
    place = dataset(str(tmp_path))

    place.save(nothing)

    assert place.load().empty
    assert not cluster.arm.requests


def test_no_secret_is_in_the_files(
    cluster: Cluster, account: Azurite, container: str
) -> None:
    root = account.place(container, "sets")

    dataset(root).save(labels("a.png", "b.png"))

    filesystem, folder = filesystem_at(root)
    for file in filesystem.find(folder):
        assert account.key.encode() not in filesystem.cat_file(file)
    assert account.key not in repr(dataset(root))
