"""The folder of exports: what is read, what is passed over, what is waited for."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from kedro.io import DataCatalog, DatasetError

from active_learning.datasets import LabelExportsDataset

CSV = b"image_id,label\na.png,cat\n"


class GrowingFileSystem(MemoryFileSystem):
    """A memory where ``growing.csv`` is longer at every look."""

    protocol = "growing"
    grows = True
    store: dict[str, Any] = {}  # noqa: RUF012  # its base class keeps one like it
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.replace("growing:", "memory:"))
        return stripped

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        """Give what is there; then there is more."""
        data: bytes = super().cat_file(path, *args, **kwargs)
        if self.grows and path.endswith("growing.csv"):
            self.pipe_file(path, data + b"b.png,dog\n")
        return data


fsspec.register_implementation("growing", GrowingFileSystem, clobber=True)


def place(root: Path, *names: str, content: bytes = CSV) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def test_a_catalog_entry_reads_every_subfolder(tmp_path: Path) -> None:
    place(tmp_path, "b.csv", "coco/deep/a.csv")
    entry = {
        "type": "active_learning.datasets.LabelExportsDataset",
        "path": str(tmp_path),
        "settle_s": 0,
    }

    exports = DataCatalog.from_config({"label_exports": entry}).load("label_exports")

    assert list(exports) == ["b.csv", "coco/deep/a.csv"]
    assert exports["b.csv"]["reference"].tolist() == ["a.png"]


def test_any_place_that_fsspec_knows_is_read() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/exports/x/monday.csv", CSV)

    exports = LabelExportsDataset(path="memory://exports").load()

    memory.rm("/exports", recursive=True)
    assert list(exports) == ["x/monday.csv"]


def test_no_folder_is_no_answer_yet(tmp_path: Path) -> None:
    dataset = LabelExportsDataset(path=str(tmp_path / "nowhere"))

    assert dataset.load() == {}
    assert not dataset.exists()
    place(tmp_path, "nowhere/monday.csv")
    assert dataset.exists()


def test_the_name_of_a_file_says_nothing_about_its_format(tmp_path: Path) -> None:
    place(tmp_path, "labels.json", "labels", "labels.xyz", "MLTable")

    exports = LabelExportsDataset(path=str(tmp_path)).load()

    assert len(exports) == 4
    assert all(frame["label"].tolist() == ["cat"] for frame in exports.values())


def test_what_is_never_an_export_is_passed_over_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    needless = [
        *(".DS_Store", "Thumbs.db", "desktop.ini", "~$monday.csv", "README.md"),
        *("a.csv.part", "b.tmp", "c.crdownload", ".hidden/d.csv", "__MACOSX/e.csv"),
    ]
    place(tmp_path, *needless, content=b"\0\0")
    place(tmp_path, "monday.csv")

    with caplog.at_level(logging.INFO, logger="active_learning"):
        exports = LabelExportsDataset(path=str(tmp_path)).load()

    assert list(exports) == ["monday.csv"]
    assert "passed over" in caplog.text


def test_a_file_that_grows_is_left_for_the_next_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    grows = fsspec.filesystem("growing")
    grows.pipe_file("/exports/growing.csv", CSV)
    grows.pipe_file("/exports/still.csv", CSV)

    with caplog.at_level(logging.INFO, logger="active_learning"):
        exports = LabelExportsDataset(path="growing://exports").load()

    assert list(exports) == ["still.csv"]
    assert "'growing.csv'" in caplog.text

    grows.grows = False
    exports = LabelExportsDataset(path="growing://exports").load()

    assert exports["growing.csv"]["label"].tolist() == ["cat", "dog"]


def test_a_file_that_was_just_written_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    place(tmp_path, "new.csv", "old.csv")
    os.utime(tmp_path / "old.csv", (0, 0))

    exports = LabelExportsDataset(path=str(tmp_path), settle_s=3600).load()

    assert list(exports) == ["new.csv", "old.csv"]
    assert len(waits) == 1
    assert 0 < waits[0] <= 3600


def test_a_file_that_changes_while_it_is_waited_for_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_on_writing(_: float) -> None:
        place(tmp_path, "new.csv", content=CSV + b"b.png,dog\n")

    monkeypatch.setattr(time, "sleep", go_on_writing)
    place(tmp_path, "new.csv", "other.csv")

    exports = LabelExportsDataset(path=str(tmp_path), settle_s=3600).load()

    assert list(exports) == ["other.csv"]


@pytest.mark.parametrize(("written", "settle_s"), [(0, 3600), (2**33, 3600), (None, 0)])
def test_nothing_is_waited_for_that_is_old_ahead_of_our_clock_or_need_not_settle(
    written: int | None,
    settle_s: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    place(tmp_path, "monday.csv")
    if written is not None:
        os.utime(tmp_path / "monday.csv", (written, written))

    exports = LabelExportsDataset(path=str(tmp_path), settle_s=settle_s).load()

    assert list(exports) == ["monday.csv"]
    assert waits == []


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    place(tmp_path, "secret/monday.csv")
    root = tmp_path / "exports"
    root.mkdir()
    (root / "link.csv").symlink_to(tmp_path / "secret" / "monday.csv")

    (answers,) = LabelExportsDataset(path=str(root)).load().values()

    assert answers["reason"].item() == "it is a link that leaves the folder of exports"


def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    place(tmp_path, "good.csv", "locked.csv")
    (tmp_path / "locked.csv").chmod(0)
    if os.access(tmp_path / "locked.csv", os.R_OK):
        pytest.skip("this user may read every file")

    exports = LabelExportsDataset(path=str(tmp_path)).load()

    assert exports["good.csv"]["reason"].tolist() == [""]
    assert "permission" in exports["locked.csv"]["reason"].item()


def test_saving_is_refused_and_nothing_secret_is_shown(tmp_path: Path) -> None:
    dataset = LabelExportsDataset(
        path=str(tmp_path), credentials={"account_key": "hunter2"}
    )

    with pytest.raises(DatasetError, match=r"read-only.*Put an export") as caught:
        dataset.save("anything")  # type: ignore[arg-type]
    assert "hunter2" not in str(dataset) + str(caught.value)
