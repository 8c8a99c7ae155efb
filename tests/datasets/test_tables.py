"""Tables, manifests and other files: whole or not there, and never mixed up."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import DatasetError

from active_learning.datasets import (
    AtomicDataset,
    ClockDataset,
    LabelExportsDataset,
    LabelingQueueDataset,
    ManifestDataset,
    TableDataset,
)
from active_learning.errors import FrozenError
from active_learning.imaging import ImageStore
from active_learning.schemas import TABLES
from active_learning.services.labeling import LabelingQueue
from active_learning.texts import TEXT


def set_aside(*names: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": list(names), "reason": "cut off"})


def labels(*names: str, label: str = "cat") -> pd.DataFrame:
    """One label for each image; its id is the image's name."""
    return pd.DataFrame(
        {
            "label_id": list(names),
            "image_id": list(names),
            "label": label,
            "labeler": "ann",
            "labeled_at": pd.Timestamp("2000-01-01", tz="UTC"),
            "batch_id": "1",
            "source": "csv",
            "request_id": "",
            "answer": "label",
        }
    )


def manifest(**images: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": list(images),
            "label": list(images.values()),
            "content": [f"content of {name}" for name in images],
        }
    )


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


# --- tables ---


def test_arrow_holds_the_same_texts(tmp_path: Path) -> None:
    TableDataset(table="labels", path=str(tmp_path)).save(labels("a.png", "b.png"))

    python = TableDataset(table="labels", path=str(tmp_path)).load()
    arrow = TableDataset(table="labels", path=str(tmp_path), texts="arrow").load()

    assert arrow["image_id"].dtype == TEXT
    assert arrow.astype(python.dtypes).equals(python)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_a_part_is_empty_and_not_an_error(
    name: str, tmp_path: Path
) -> None:
    table = TableDataset(table=name, path=str(tmp_path / "nowhere"))

    rows = table.load()

    assert rows.empty
    assert list(rows.columns) == TABLES[name].schema.names
    assert not table.exists()


def test_every_save_adds_rows(tmp_path: Path) -> None:
    table = TableDataset(table="labels", path=str(tmp_path))

    table.save(labels("a"))
    table.save(labels("b", "c"))

    assert sorted(table.load()["image_id"]) == ["a", "b", "c"]


def test_a_row_that_was_appended_twice_counts_once(tmp_path: Path) -> None:
    table = TableDataset(table="labels", path=str(tmp_path))

    table.save(labels("a", "b"))
    table.save(labels("b"))

    assert sorted(table.load()["label_id"]) == ["a", "b"]


def test_what_was_saved_comes_back_as_it_was(tmp_path: Path) -> None:
    table = TableDataset(table="labels", path=str(tmp_path))
    rows = labels("größe 1.png", label='Größe, mit "Komma"')

    table.save(rows)

    pd.testing.assert_frame_equal(table.load(), rows, check_dtype=False)


def test_a_named_part_is_written_once_more_and_not_twice(tmp_path: Path) -> None:
    part = TableDataset(table="labels", path=str(tmp_path), part="round_01")

    part.save(labels("a"))
    part.save(labels("b"))

    assert part.load()["image_id"].tolist() == ["b"]


def test_a_named_part_without_rows_exists(tmp_path: Path) -> None:
    # A round in which nothing was rejected is a finished round.
    part = TableDataset(table="labels", path=str(tmp_path), part="round_01")

    part.save(labels())

    assert part.exists()
    assert part.load().empty


def test_a_temporary_file_is_no_part(tmp_path: Path) -> None:
    table = TableDataset(table="labels", path=str(tmp_path))
    table.save(labels("a"))
    (tmp_path / ".part.parquet.0123.tmp").write_bytes(b"half of a par")
    (tmp_path / ".hidden.parquet").write_bytes(b"half of a par")

    assert table.load()["image_id"].tolist() == ["a"]


def test_a_damaged_part_is_named_and_the_rest_still_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = TableDataset(table="labels", path=str(tmp_path))
    table.save(labels("a"))
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")

    assert table.load()["image_id"].tolist() == ["a"]
    assert "'damaged.parquet'" in caplog.text
    assert (tmp_path / "damaged.parquet.damaged").exists()


def test_the_same_rows_saved_again_are_the_same_part(tmp_path: Path) -> None:
    table = TableDataset(table="labels", path=str(tmp_path))

    table.save(labels("a", "b"))
    table.save(labels("a", "b"))

    assert len(list(tmp_path.glob("*.parquet"))) == 1


def test_an_inbox_forgets_what_was_loaded_when_it_is_confirmed(tmp_path: Path) -> None:
    inbox = TableDataset(table="labels", path=str(tmp_path), inbox=True)
    inbox.save(labels("a"))
    inbox.load()
    inbox.save(labels("b"))

    inbox.confirm()

    assert inbox.load()["image_id"].tolist() == ["b"]


def test_nothing_is_deleted_from_a_table_that_is_no_inbox(tmp_path: Path) -> None:
    table = TableDataset(table="labels", path=str(tmp_path))
    table.save(labels("a"))
    table.load()

    with pytest.raises(DatasetError, match="is no inbox"):
        table.confirm()

    assert len(table.load()) == 1


def test_rows_of_another_table_are_refused(tmp_path: Path) -> None:
    table = TableDataset(table="labels", path=str(tmp_path))

    with pytest.raises(DatasetError, match="Columns missing"):
        table.save(set_aside("a"))

    assert list(tmp_path.iterdir()) == []


def test_an_unknown_table_is_refused_at_once() -> None:
    with pytest.raises(DatasetError, match="there are"):
        TableDataset(table="lables", path="anywhere")


def test_four_processes_append_while_one_reads(tmp_path: Path) -> None:
    writer = textwrap.dedent(
        """
        import sys
        import pandas as pd
        from active_learning.datasets import TableDataset
        table = TableDataset(table="set_aside", path=sys.argv[1])
        for n in range(25):
            name = f"{sys.argv[2]}-{n}"
            table.save(pd.DataFrame({"image_id": [name], "reason": ["x"]}))
        """
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", writer, str(tmp_path), str(n)])
        for n in range(4)
    ]
    table = TableDataset(table="set_aside", path=str(tmp_path))
    seen = [0]
    while any(process.poll() is None for process in processes):
        seen.append(len(table.load()))

    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert seen == sorted(seen)
    assert table.load()["image_id"].nunique() == 100


# --- a full disk ---


SAVES = {
    "table": (
        "TableDataset(table='set_aside', path=folder)",
        "pd.DataFrame({'image_id': [str(n) * 9 for n in range(99_999)], 'reason': ''})",
    ),
    "manifest": (
        "ManifestDataset(filepath=folder + '/m.parquet')",
        "pd.DataFrame({c: [c + str(n) * 9 for n in range(99_999)]"
        " for c in ('image_id', 'label', 'content')})",
    ),
    "atomic": (
        "AtomicDataset(dataset={'type': 'json.JSONDataset',"
        " 'filepath': folder + '/a.json'})",
        "list(range(999_999))",
    ),
}


@pytest.mark.parametrize("what", SAVES)
def test_a_full_disk_leaves_no_half_written_file(what: str, tmp_path: Path) -> None:
    dataset, data = SAVES[what]
    script = textwrap.dedent(
        f"""
        import resource, signal, sys
        import pandas as pd
        from active_learning.datasets import *
        folder = sys.argv[1]
        data = {data}
        # A file may grow to 10 kB and then every write fails, as on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        {dataset}.save(data)
        """
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode != 0
    assert "too large" in ran.stderr
    assert list(tmp_path.iterdir()) == []


# --- manifests ---


def test_a_manifest_comes_back_with_its_rows(tmp_path: Path) -> None:
    dataset = ManifestDataset(filepath=str(tmp_path / "m.parquet"))

    dataset.save(manifest(a="cat", b="dog"))

    pd.testing.assert_frame_equal(dataset.load(), manifest(a="cat", b="dog"))


def test_a_manifest_that_was_changed_by_hand_is_found_out(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    dataset = ManifestDataset(filepath=str(file))
    dataset.save(manifest(a="cat", b="dog"))
    manifest(a="dog", b="dog").to_parquet(file)

    with pytest.raises(DatasetError, match="changed by hand") as caught:
        dataset.load()
    assert isinstance(caught.value.__cause__, FrozenError)


def test_a_frozen_manifest_takes_no_other_images(tmp_path: Path) -> None:
    dataset = ManifestDataset(filepath=str(tmp_path / "m.parquet"), frozen=True)
    dataset.save(manifest(a="cat", b="dog"))

    dataset.save(manifest(b="dog", a="cat"))
    with pytest.raises(DatasetError, match="is frozen"):
        dataset.save(manifest(a="cat", b="cat"))

    assert dataset.load()["label"].tolist() == ["cat", "dog"]


# --- the rest ---


def test_a_report_is_made_anew_and_a_result_is_not(tmp_path: Path) -> None:
    place = {"type": "json.JSONDataset", "filepath": str(tmp_path / "a.json")}
    result = AtomicDataset(dataset=place)
    report = AtomicDataset(dataset=place, remake=True)

    result.save({"a": 1})

    assert result.exists()
    assert not report.exists()
    assert report.load() == {"a": 1}
    assert hidden(tmp_path) == []


def test_what_may_be_absent_loads_as_it_is_told(tmp_path: Path) -> None:
    place = {"type": "json.JSONDataset", "filepath": str(tmp_path / "a.json")}

    assert AtomicDataset(dataset=place, absent={}).load() == {}
    with pytest.raises(DatasetError):
        AtomicDataset(dataset=place).load()


def test_a_failing_save_leaves_the_old_file(tmp_path: Path) -> None:
    place = {"type": "json.JSONDataset", "filepath": str(tmp_path / "a.json")}
    dataset = AtomicDataset(dataset=place)
    dataset.save({"a": 1})

    with pytest.raises(DatasetError):
        dataset.save({"a": object()})

    assert dataset.load() == {"a": 1}
    assert hidden(tmp_path) == []


def test_a_wrapped_dataset_may_lie_anywhere() -> None:
    place = {"type": "json.JSONDataset", "filepath": "memory://somewhere/a.json"}
    dataset = AtomicDataset(dataset=place)

    dataset.save({"a": 1})

    assert dataset.exists()
    assert dataset.load() == {"a": 1}


def test_the_clock_tells_utc_and_a_simulated_one_stands_still() -> None:
    assert str(ClockDataset().load().tzinfo) == "UTC"
    still = ClockDataset(at="2000-01-01T01:00:00+01:00", days="3")
    assert still.load().isoformat() == "2000-01-04T00:00:00+00:00"


@pytest.mark.parametrize(
    "dataset", [ClockDataset(), LabelExportsDataset(path="nowhere")]
)
def test_what_is_only_read_says_so(dataset: Any) -> None:
    with pytest.raises(DatasetError, match="read-only"):
        dataset.save("anything")


def test_the_queue_holds_the_images_beside_the_list(
    store: ImageStore, tmp_path: Path
) -> None:
    queue = LabelingQueueDataset(path=str(tmp_path / "queue"))
    requests = pd.DataFrame(
        {
            "request_id": ["1", "2"],
            "image_id": ["a.png", "b.png"],
            "predicted_label": ["cat", "dog"],
            "rank": [1, 2],
        }
    )

    queue.save(LabelingQueue(requests, store))
    queue.save(LabelingQueue(requests, store))

    waiting = queue.load()
    assert waiting.requests["request_id"].astype(str).tolist() == ["1", "2"]
    assert waiting.images.image_ids() == ["a.png", "b.png"]
    assert waiting.images.read("a.png") == store.read("a.png")
    assert hidden(tmp_path) == []


def test_data_paths_follow_one_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from kedro.config import OmegaConfigLoader

    from active_learning.settings import CONFIG_LOADER_ARGS

    monkeypatch.setenv("AL_DATA", str(tmp_path))
    conf = Path(__file__).parents[2] / "conf"
    loader = OmegaConfigLoader(str(conf), env="base", **CONFIG_LOADER_ARGS)

    places = [loader["globals"]["images"], *loader["globals"]["paths"].values()]

    assert all(place.startswith(f"{tmp_path}{os.sep}") for place in places)
