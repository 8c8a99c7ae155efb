"""Of a broken export the good rows are read and the bad one is named with its line."""

import os
from pathlib import Path

import pandas as pd
import pytest
from tests.services.labeling.exports.broken import (
    CASES,
    GOOD,
    MINIMAL,
    Case,
    coco,
    line,
    lines,
    task,
    tasks,
)

from active_learning.imaging.places import place_at
from active_learning.schemas import ANSWERS, to_arrow
from active_learning.services.labeling.exports import read, read_folder

SEEN = {name: case for name, case in CASES.items() if not case.ingested}


def lay(folder: Path, files: dict[str, bytes]) -> dict[str, pd.DataFrame]:
    """Put files into a folder and read it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return read_folder(place_at(str(folder), None), settle_s=0)


def read_rows(exports: dict[str, pd.DataFrame]) -> set[tuple[str, str]]:
    """File name and label of what could be read."""
    rows = pd.concat(exports.values())
    rows = rows[rows["reason"] == ""]
    names = rows["reference"].str.replace("\\", "/").str.rpartition("/")[2]
    return set(zip(names, rows["label"], strict=True))


@pytest.mark.parametrize("case", SEEN.values(), ids=SEEN)
def test_the_good_rows_are_read_and_the_bad_one_is_named(
    case: Case, tmp_path: Path
) -> None:
    exports = lay(tmp_path, case.files)

    assert read_rows(exports) == {("a.png", "cat"), ("b.png", "dog")}
    batch_id, number = case.where
    bad = exports[batch_id].query("reason != ''")
    assert bad["line"].iloc[0] == number
    assert case.reason in bad["reason"].iloc[0]
    for frame in exports.values():
        assert frame["line"].is_monotonic_increasing
        to_arrow(frame, ANSWERS)


@pytest.mark.parametrize("case", SEEN.values(), ids=SEEN)
def test_mended_it_brings_what_was_missing(case: Case, tmp_path: Path) -> None:
    lay(tmp_path, case.files)

    exports = lay(tmp_path, case.mended)

    assert ("c.png", "cat") in read_rows(exports)


def test_there_are_enough_broken_exports() -> None:
    assert len(CASES) >= 30


@pytest.mark.parametrize(
    "data",
    [
        GOOD["good.csv"].decode().encode("utf-16"),
        GOOD["good.csv"],
        coco((1, 1), (2, 2)),
        lines(line("a.png", "cat"), line("b.png", "dog")),
        tasks(task("a.png", "cat"), task("b.png", "dog")),
        tasks(MINIMAL),
    ],
    ids=["UTF-16", "CSV", "COCO", "JSON Lines", "Label Studio", "JSON_MIN"],
)
def test_a_file_cut_off_anywhere_is_read_or_refused(data: bytes) -> None:
    for end in range(0, len(data), len(data) // 15):
        to_arrow(read(data[:end]), ANSWERS)


def test_one_bad_row_of_a_million_is_found() -> None:
    rows = [b"image-%d.png,cat" % number for number in range(1_000_000)]
    rows[765_432] = b"image-765432.png"

    answers = read(b"image_id,label\n" + b"\n".join(rows))

    bad = answers[answers["reason"] != ""]
    assert len(answers) == 1_000_000
    assert bad["line"].tolist() == [765_434]
    assert "'image-765432.png'" in bad["reason"].item()
    assert (answers["line"] == range(2, 1_000_002)).all()


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("image_id,label\na.png,hunter2\n")
    exports = tmp_path / "exports"
    exports.mkdir()
    os.symlink(secret, exports / "link.csv")
    os.symlink(tmp_path, exports / "folder")

    found = lay(exports, {"good.csv": b"image_id,label\na.png,cat\n"})

    assert read_rows(found) == {("a.png", "cat")}
    assert "link that leaves" in found["link.csv"]["reason"].item()
    assert "link that leaves" in found["folder"]["reason"].item()
