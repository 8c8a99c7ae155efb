"""What the catalog keeps in files it keeps in blobs as well, by the URL alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from threading import Barrier
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fsspec.config import conf
from kedro.io import DatasetError
from PIL import Image
from tests.learning.builders import same, untrained, weights
from tests.standins.azurite import Azurite, azurite, azurite_oauth, container
from tests.standins.identity import identity
from tests.standins.proxy import CUT, Proxy
from tests.standins.tls import tls

from active_learning.datasets import (
    AtomicDataset,
    CheckpointDataset,
    ImageListDataset,
    ImageStoreDataset,
    LabelExportsDataset,
    LabelingQueueDataset,
    ManifestDataset,
)
from active_learning.datasets.snapshot_dataset import SnapshotDataset
from active_learning.errors import CheckpointError, FrozenError
from active_learning.files import filesystem_at
from active_learning.imaging import ImageStore
from active_learning.imaging.places import place_at
from active_learning.schemas import DISPUTED_LABELS
from active_learning.services.labeling import LabelingQueue

__all__ = ["azurite", "azurite_oauth", "container", "identity", "tls"]

pytestmark = pytest.mark.azure

FIRST = pd.DataFrame({"image_id": ["a"], "label": ["cat"], "content": ["9f86"]})
OTHER = FIRST.assign(label="dog")

# What an environment that names the account does, in a process of its own.
KEYLESS = """
import sys
from active_learning.datasets import AtomicDataset, ManifestDataset
import pandas as pd

root = sys.argv[1]
assert not [name for name in sys.modules if name.startswith(("adlfs", "azure."))]
entry = {"type": "json.JSONDataset", "filepath": f"{root}/report.json"}
AtomicDataset(dataset=entry).save({"accuracy": 0.5})
table = pd.DataFrame({"image_id": ["a"], "label": ["cat"], "content": ["9f86"]})
ManifestDataset(filepath=f"{root}/test_set.parquet", frozen=True).save(table)
print(AtomicDataset(dataset=entry).load())
print(ManifestDataset(filepath=f"{root}/test_set.parquet").load()["label"].item())
"""

LOCAL = """
import sys
from active_learning.datasets import AtomicDataset, CheckpointDataset, ManifestDataset
from active_learning.datasets.snapshot_dataset import SnapshotDataset
from active_learning.imaging.places import place_at

folder = sys.argv[1]
ManifestDataset(filepath=f"{folder}/a.parquet").exists()
CheckpointDataset(filepath=f"{folder}/a.ckpt", optional=True).load()
SnapshotDataset(schema="DISPUTED_LABELS", filepath=f"{folder}/b.parquet").load()
place_at(folder, None).listing("")
wrapped = {"type": "json.JSONDataset", "filepath": f"{folder}/a.json"}
AtomicDataset(dataset=wrapped).save({})
print([name for name in sys.modules if name.startswith(("adlfs", "azure", "aiohttp"))])
"""


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[Proxy]:
    with Proxy(azurite.ports["blob"]) as started:
        yield started


@pytest.fixture
def root(
    azurite: Azurite, proxy: Proxy, container: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A URL that fsspec's own settings make reachable, by way of the proxy."""
    options = azurite.storage_options(blob=proxy.port)
    said = {**options, "retries": 3, "back_off_s": 0.001}
    monkeypatch.setitem(conf, "abfs", said)
    return azurite.place(container, "loop")


@pytest.fixture
def photos(tmp_path: Path) -> ImageStore:
    """Forty images on this machine."""
    for number in range(40):
        write_png(tmp_path / f"{number:02d}.png", number)
    return ImageStore(str(tmp_path), cache=None, max_pixels=100)


def write_png(path: Path, shade: int) -> None:
    Image.fromarray(np.full((4, 4), shade, dtype=np.uint8)).save(path)


def asked(n_images: int) -> pd.DataFrame:
    columns = ["request_id", "image_id", "predicted_label", "rank", "round"]
    rows = [(f"r{n}", f"{n:02d}.png", "cat", n, 1) for n in range(n_images)]
    return pd.DataFrame(rows, columns=columns)


def names(root: str) -> list[str]:
    filesystem, path = filesystem_at(root)
    return sorted(name.removeprefix(f"{path}/") for name in filesystem.find(path))


def figure() -> Any:
    drawn, axes = plt.subplots()
    axes.plot([1, 2])
    plt.close(drawn)
    return drawn


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("json.JSONDataset", {"accuracy": 0.5}),
        ("text.TextDataset", "<html>Größe</html>"),
        ("pandas.CSVDataset", pd.DataFrame({"seed": [1], "accuracy": [0.5]})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reports_are_kept_in_blobs(root: str, kind: str, data: Any) -> None:
    entry: dict[str, Any] = {"type": kind, "filepath": f"{root}/a/report"}
    if kind.startswith("pandas"):
        entry = {**entry, "save_args": {"index": False}}
    dataset = AtomicDataset(dataset=entry)
    assert not dataset.exists()

    dataset.save(data)

    pd.testing.assert_frame_equal(
        pd.DataFrame([{"read": AtomicDataset(dataset=entry).load()}]).map(str),
        pd.DataFrame([{"read": data}]).map(str),
    )
    assert dataset.exists()
    assert names(root) == ["a/report"]


def test_plots_are_kept_in_blobs(root: str) -> None:
    target = f"{root}/a/plot.png"
    entry = {"type": "matplotlib.MatplotlibDataset", "filepath": target}

    AtomicDataset(dataset={**entry, "save_args": {"format": "png"}}).save(figure())

    filesystem, path = filesystem_at(target)
    with Image.open(BytesIO(filesystem.cat_file(path))) as image:
        assert image.format == "PNG"


def test_a_report_that_is_throttled_is_saved(root: str, proxy: Proxy) -> None:
    entry = {"type": "json.JSONDataset", "filepath": f"{root}/report.json"}
    proxy.on = lambda method, path: method == "PUT"
    proxy.faults.extend([503, 429, CUT])

    AtomicDataset(dataset=entry).save({"accuracy": 0.5})

    assert not proxy.faults
    assert AtomicDataset(dataset=entry).load() == {"accuracy": 0.5}


def test_a_report_in_a_blob_is_shown_as_kedro_viz_shows_it(root: str) -> None:
    entry = {"type": "json.JSONDataset", "filepath": f"{root}/report.json"}
    AtomicDataset(dataset=entry).save({"accuracy": 0.5})

    preview = AtomicDataset(dataset=entry).preview

    assert preview.__annotations__["return"]
    assert json.loads(preview()) == {"accuracy": 0.5}
    plain = {"type": "text.TextDataset", "filepath": f"{root}/a.html"}
    assert not hasattr(AtomicDataset(dataset=plain), "preview")


def test_a_container_that_is_missing_is_named_with_its_account(
    root: str, azurite: Azurite
) -> None:
    target = azurite.place("nowhere", "report.json")
    entry = {"type": "json.JSONDataset", "filepath": target}

    with pytest.raises(FileNotFoundError, match=f"'nowhere'.*'{azurite.account}'"):
        AtomicDataset(dataset=entry).save({})
    with pytest.raises(DatasetError, match="no file at abfs://nowhere@"):
        AtomicDataset(dataset=entry).load()
    assert not AtomicDataset(dataset=entry).exists()


def test_what_may_be_absent_is_absent(root: str) -> None:
    entry = {"type": "json.JSONDataset", "filepath": f"{root}/none.json"}

    assert AtomicDataset(dataset=entry, absent={}).load() == {}


def test_a_manifest_is_kept_with_its_versions(root: str) -> None:
    manifest = ManifestDataset(
        filepath=f"{root}/training_set.parquet", versions=f"{root}/training_sets"
    )
    assert not manifest.exists()
    with pytest.raises(DatasetError, match="no manifest at abfs://"):
        manifest.load()

    manifest.save(FIRST)
    assert manifest.load()["label"].item() == "cat"
    manifest.save(OTHER)

    assert manifest.load()["label"].item() == "dog"
    kept = [
        f"{root}/{name}" for name in names(root) if name.startswith("training_sets")
    ]
    assert sorted(ManifestDataset(filepath=n).load()["label"].item() for n in kept) == [
        "cat",
        "dog",
    ]


def test_a_manifest_that_did_not_change_is_not_downloaded_again(
    root: str, proxy: Proxy
) -> None:
    manifest = ManifestDataset(filepath=f"{root}/test_set.parquet")
    manifest.save(FIRST)
    manifest.load()
    proxy.requests.clear()

    manifest.load()

    assert [method for method, _ in proxy.requests] == ["HEAD"]


def test_a_frozen_manifest_stays(root: str) -> None:
    manifest = ManifestDataset(filepath=f"{root}/test_set.parquet", frozen=True)
    manifest.save(FIRST)

    manifest.save(FIRST)
    with pytest.raises(DatasetError, match="frozen with other images") as told:
        manifest.save(OTHER)

    assert isinstance(told.value.__cause__, FrozenError)
    assert manifest.load()["label"].item() == "cat"


@pytest.mark.parametrize("second", [FIRST, OTHER], ids=["the same", "another"])
def test_of_two_writers_of_a_frozen_manifest_the_first_is_right(
    root: str, proxy: Proxy, second: pd.DataFrame
) -> None:
    target = f"{root}/test_set.parquet"

    def meanwhile() -> None:
        proxy.on = lambda method, path: False
        ManifestDataset(filepath=target, frozen=True).save(FIRST)

    # Both have seen that there is none; the other one's upload comes first.
    proxy.on = lambda method, path: method == "PUT"
    proxy.faults.append(meanwhile)
    slower = ManifestDataset(filepath=target, frozen=True)

    if second is OTHER:
        with pytest.raises(DatasetError, match="frozen with other images"):
            slower.save(second)
    else:
        slower.save(second)

    assert not proxy.faults
    assert ManifestDataset(filepath=target).load()["label"].item() == "cat"


def test_a_snapshot_is_replaced(root: str) -> None:
    def snapshot() -> SnapshotDataset:
        return SnapshotDataset(schema="DISPUTED_LABELS", filepath=f"{root}/a.parquet")

    def disputes(name: str) -> pd.DataFrame:
        frame: pd.DataFrame = DISPUTED_LABELS.empty_table().to_pandas()
        known = {"image_id": name, "n_answers": 1, "model_version": 0}
        return frame.reindex(range(1)).assign(priority=0.5, **known)

    assert snapshot().load().empty
    assert not snapshot().exists()

    snapshot().save(disputes("a"))
    snapshot().save(disputes("b"))

    assert snapshot().load()["image_id"].tolist() == ["b"]
    assert snapshot().exists()


def test_a_classifier_is_kept_in_a_blob(root: str) -> None:
    target = f"{root}/06_models/challenger.ckpt"
    assert CheckpointDataset(filepath=target, optional=True).load() is None
    with pytest.raises(DatasetError, match="no model at abfs://"):
        CheckpointDataset(filepath=target).load()
    classifier = untrained(["cat", "dog"])

    CheckpointDataset(filepath=target).save(classifier)

    read = CheckpointDataset(filepath=target).load()
    assert read is not None
    assert same(weights(read), weights(classifier))
    assert names(root) == ["06_models/challenger.ckpt"]


def test_a_blob_that_is_no_classifier_is_named_by_its_url(root: str) -> None:
    target = f"{root}/challenger.ckpt"
    filesystem, path = filesystem_at(target)
    filesystem.pipe_file(path, b"no model")

    with pytest.raises(DatasetError) as told:
        CheckpointDataset(filepath=target).load()

    assert isinstance(told.value.__cause__, CheckpointError)
    assert target in str(told.value.__cause__)


def test_images_are_listed_and_read(root: str, photos: ImageStore) -> None:
    place = place_at(root, None)
    for name in ("00.png", "01.png"):
        place.write(name, photos.read(name))

    listed = ImageListDataset(filepath=root).load()
    store = ImageStoreDataset(filepath=root, cache=None, max_pixels=100).load()

    assert listed["image_id"].tolist() == ["00.png", "01.png"]
    assert store.fingerprints(["01.png"]) == photos.fingerprints(["01.png"])


def test_a_queue_is_staged_in_blobs_several_images_at_a_time(
    root: str, photos: ImageStore, proxy: Proxy
) -> None:
    queue = LabelingQueueDataset(path=f"{root}/queue", fs_args={"at_once": 4})
    together = Barrier(4, timeout=60)
    proxy.on = lambda method, path: method == "PUT" and "/images/" in path
    proxy.faults.extend([together.wait] * 40)

    queue.save(LabelingQueue(asked(40), photos))

    assert proxy.crossing.most == 4
    staged = queue.load()
    assert staged.requests["request_id"].tolist() == [f"r{n}" for n in range(40)]
    assert staged.images.image_ids() == photos.image_ids()
    assert staged.images.fingerprints(photos.image_ids()) == photos.fingerprints(
        photos.image_ids()
    )


def test_staging_that_was_interrupted_is_done_by_doing_it_again(
    root: str, photos: ImageStore, proxy: Proxy
) -> None:
    queue = LabelingQueueDataset(path=f"{root}/queue")
    proxy.on = lambda method, path: "17.png" in path
    proxy.faults.extend([503] * 1000)
    with pytest.raises(DatasetError, match="answers 503"):
        queue.save(LabelingQueue(asked(40), photos))
    assert not queue.exists()

    proxy.faults.clear()
    queue.save(LabelingQueue(asked(40), photos))
    once = {name: place_at(root, None).read(name) for name in names(root)}
    queue.save(LabelingQueue(asked(40), photos))

    assert {name: place_at(root, None).read(name) for name in names(root)} == once
    assert len(queue.load().requests) == 40


def test_an_image_that_changed_after_it_was_staged_is_refused(
    root: str, photos: ImageStore
) -> None:
    queue = LabelingQueueDataset(path=f"{root}/queue")
    queue.save(LabelingQueue(asked(3), photos))
    for number in (1, 2):
        write_png(Path(photos.root, f"{number:02d}.png"), 200)
    more = asked(4)

    with pytest.raises(DatasetError, match=r"2 of 4 images .* first: 'images/01\.png'"):
        queue.save(LabelingQueue(more, photos))

    assert len(queue.load().requests) == 3


def test_exports_are_found_among_blobs_and_read_several_at_a_time(
    root: str, proxy: Proxy
) -> None:
    exports = LabelExportsDataset(
        path=f"{root}/Labeling/export", fs_args={"at_once": 4}
    )
    assert not exports.exists()
    assert exports.load() == {}
    place = place_at(f"{root}/Labeling/export", None)
    for number in range(20):
        row = f"image_id,label\n{number}.png,cat\n".encode()
        place.write(f"csv/{number:02d}/labeledDatapoints.csv", row)
    together = Barrier(4, timeout=60)
    proxy.on = lambda method, path: path.endswith(".csv") and method == "GET"
    proxy.faults.extend([together.wait] * 20)

    answers = exports.load()

    assert exports.exists()
    assert list(answers) == [f"csv/{n:02d}/labeledDatapoints.csv" for n in range(20)]
    assert [frame["reference"].item() for frame in answers.values()] == [
        f"{number}.png" for number in range(20)
    ]


def test_an_export_that_changes_while_it_is_read_is_left_for_the_next_run(
    root: str, proxy: Proxy
) -> None:
    place = place_at(f"{root}/exports", None)
    for name in ("a.csv", "b.csv", "c.csv"):
        place.write(name, b"image_id,label\nx.png,cat\n")

    def change() -> None:
        proxy.on = lambda method, path: False
        place.write("a.csv", b"image_id,label\nx.png,dog\ny.png,dog\n")
        place.remove("b.csv")

    # As the first of them is read, and all are listed already.
    proxy.on = lambda method, path: method == "GET" and path.endswith("a.csv")
    proxy.faults.append(change)
    first = LabelExportsDataset(path=f"{root}/exports").load()
    later = LabelExportsDataset(path=f"{root}/exports").load()

    assert "a.csv" not in first
    assert "c.csv" in first
    assert len(later["a.csv"]) == 2
    assert "b.csv" not in later


def test_a_token_is_enough_and_no_key_is_needed(azurite_oauth: Azurite) -> None:
    root = azurite_oauth.place(azurite_oauth.make_container(), "loop")

    ran = subprocess.run(
        [sys.executable, "-c", KEYLESS, root],
        env={**os.environ, **azurite_oauth.environment()},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout == "{'accuracy': 0.5}\ncat\n"


def test_local_files_import_nothing_of_azure(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LOCAL, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(ran.stdout.replace("'", '"')) == []
