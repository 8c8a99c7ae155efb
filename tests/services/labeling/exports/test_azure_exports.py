"""Exports as they lie in a workspace's container, beside what Azure ML keeps there."""

import json
from typing import Any

import pandas as pd
import pytest
from tests.standins.azurite import Azurite, azurite, container

from active_learning.datasets import LabelExportsDataset
from active_learning.services.labeling.references import resolve

__all__ = ["azurite", "container"]

pytestmark = pytest.mark.azure

ASKED = {"train/shoe/1 ü.png", "train/shirt/2.png", "a.png", "images/a.png"}
SAS = "sv=2023-11-03&sp=r&sig=c2VjcmV0%3D"
ACCOUNT = "https://alimages.blob.core.windows.net"
DATASTORE = (
    "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/labeling/paths"
)


def coco(**labels: str) -> bytes:
    """A COCO export: image URLs below the queue and their classes."""
    names = sorted(set(labels.values()))
    document = {
        "images": [
            {
                "id": number,
                "width": 28,
                "height": 28,
                "file_name": url.rpartition("labeling/")[2],
                "coco_url": f"AmlDatastore://{url.rpartition('labeling/')[2]}",
                "absolute_url": url,
                "date_captured": "2026-01-01T00:00:00Z",
            }
            for number, url in enumerate(labels, start=1)
        ],
        "annotations": [
            {
                "id": number,
                "category_id": names.index(label) + 1,
                "image_id": number,
                "area": 0.0,
            }
            for number, label in enumerate(labels.values(), start=1)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, 1)],
    }
    return json.dumps(document).encode()


def json_lines(**labels: str) -> bytes:
    rows = [{"image_url": url, "label": label} for url, label in labels.items()]
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


TREE: dict[str, bytes] = {
    "export/coco/0b1f/labels.json": coco(
        **{f"{ACCOUNT}/labeling/queue/images/train/shoe/1%20%C3%BC.png?{SAS}": "shoe"}
    ),
    "export/csv/7c2d/labeledDatapoints.csv": (
        f"Url,Label\n{ACCOUNT}/labeling/queue/images/train/shirt/2.png,shirt\n"
    ).encode(),
    "export/dataset/9e/MLTable": b"paths:\n  - file: ./train_annotations.jsonl\n",
    "export/dataset/9e/train_annotations.jsonl": json_lines(
        **{
            f"{DATASTORE}/queue/images/a.png": "shirt",
            "AmlDatastore://labeling/queue/images/images/a.png": "shoe",
        }
    ),
}
# Not documented, so of any kind: thumbnails, state, logs, JSON of the service's own.
JUNK: dict[str, bytes] = {
    "thumbnails/4f/train/shoe/1.png": b"\x89PNG\r\n",
    "4f8a/state.json": b'{"taskId": "4f8a", "labels": 7}',
    "4f8a/items.jsonl": b'{"id": 1}\n{"id": 2}\n',
    "4f8a/index.csv": b"item,worker\n1,2\n",
    "4f8a/tasks.parquet": b"PAR1",
    "export/coco/0b1f/_SUCCESS": b"",
    "export/snapshot.bin": b"\0\1",
}


def put(azurite: Azurite, container: str, tree: dict[str, bytes]) -> None:
    import fsspec

    files = fsspec.filesystem("abfs", **azurite.storage_options())
    for name, content in tree.items():
        files.pipe_file(f"{container}/Labeling/{name}", content)


def exports(azurite: Azurite, container: str) -> LabelExportsDataset:
    return LabelExportsDataset(
        path=azurite.place(container, "Labeling"),
        shared=True,
        fs_args=azurite.storage_options(),
    )


def answered(frames: dict[str, pd.DataFrame]) -> dict[str, str]:
    """The label of each image that an answer was found to be about."""
    every = pd.concat(frames.values())
    found = resolve(every["reference"].tolist(), ASKED, lambda: ASKED)
    assert not any(found["reason"]), found["reason"].tolist()
    return dict(zip(found["image_id"], every["label"], strict=True))


def test_exports_are_found_beside_what_azure_ml_keeps(
    azurite: Azurite, container: str
) -> None:
    put(azurite, container, TREE | JUNK)

    frames = exports(azurite, container).load()

    assert sorted(frames) == sorted(name for name in TREE if not name.endswith("Table"))
    assert not any(reason for frame in frames.values() for reason in frame["reason"])
    assert answered(frames) == {
        "train/shoe/1 ü.png": "shoe",
        "train/shirt/2.png": "shirt",
        "a.png": "shirt",
        "images/a.png": "shoe",
    }


def test_a_signature_in_a_url_goes_no_further(azurite: Azurite, container: str) -> None:
    put(azurite, container, TREE)

    frames = exports(azurite, container).load()

    said = "".join(frame.to_csv() for frame in frames.values())
    assert "sig=" not in said
    assert "c2VjcmV0" not in said


def test_a_folder_without_an_export_is_no_answer_and_no_rejection(
    azurite: Azurite, container: str
) -> None:
    put(azurite, container, JUNK)

    assert exports(azurite, container).load() == {}


@pytest.mark.parametrize("place", ["export/coco/1/labels.json", "project/labels.json"])
def test_every_export_counts_wherever_it_lies(
    azurite: Azurite, container: str, place: str
) -> None:
    put(
        azurite,
        container,
        {place: coco(**{f"{ACCOUNT}/labeling/queue/images/a.png": "x"})},
    )

    assert answered(exports(azurite, container).load()) == {"a.png": "x"}


def test_a_broken_export_is_rejected_and_not_passed_over(
    azurite: Azurite, container: str
) -> None:
    whole = TREE["export/coco/0b1f/labels.json"]
    put(azurite, container, {"export/coco/1/labels.json": whole[: len(whole) // 2]})

    (frame,) = exports(azurite, container).load().values()

    assert "it is no JSON" in frame["reason"].iloc[0]


@pytest.mark.parametrize(
    "reference",
    [
        f"{ACCOUNT}/labeling/queue/images/a.png",
        f"{ACCOUNT}/labeling/queue/images/a.png?{SAS}",
        f"{DATASTORE}/queue/images/a.png",
        "azureml://datastores/labeling/paths/queue/images/a.png",
        "AmlDatastore://queue/images/a.png",
        "AmlDatastore://labeling/queue/images/a.png",
        "abfss://labeling@alimages.dfs.core.windows.net/queue/images/a.png",
        "queue/images/a.png",
    ],
)
def test_a_staged_copy_is_its_image_and_no_other(reference: str) -> None:
    # The store has an image whose name ends like the staged copy's.
    found: Any = resolve([reference], ASKED, lambda: ASKED)

    assert found["image_id"].tolist() == ["a.png"]
