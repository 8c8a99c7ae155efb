import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import DatasetError
from pydantic import ValidationError

from active_learning.datasets import ImageListDataset, OracleDataset, TableDataset
from active_learning.schemas import ANSWERS, LABEL_REQUESTS, to_arrow


def ask(table: Path, number: int, *names: str) -> None:
    """Requests of one round, as ``select`` records them."""
    requests = pd.DataFrame({"image_id": names}).assign(
        request_id=[f"{number}-{name}" for name in names],
        round=number,
        strategy="random",
        utility=0.0,
        rank=1,
        propensity=1.0,
        population=10,
        audit=False,
        model_name="small_cnn",
        model_version=1,
        requested_at=pd.Timestamp("2000-01-01", tz="UTC"),
    )
    TableDataset(table="label_requests", path=str(table)).save(
        requests[LABEL_REQUESTS.names]
    )


def oracle(images: Path, table: Path, **changes: Any) -> OracleDataset:
    return OracleDataset(filepath=str(images), requests=str(table), **changes)


def test_every_request_is_answered_by_its_folder(digits: Path, tmp_path: Path) -> None:
    ask(tmp_path, 0, "0/0000.png", "1/0001.png")
    ask(tmp_path, 1, "2/0002.png")

    exports = oracle(digits, tmp_path).load()

    assert list(exports) == ["oracle-0000", "oracle-0001"]
    first = exports["oracle-0000"]
    assert dict(zip(first["reference"], first["label"], strict=True)) == {
        "0/0000.png": "0",
        "1/0001.png": "1",
    }
    assert len(to_arrow(first, ANSWERS)) == 2
    assert set(first["request_id"]) == {"0-0/0000.png", "0-1/0001.png"}
    assert set(first["labeler"]) == {"oracle"}


def test_the_same_requests_have_the_same_answers(digits: Path, tmp_path: Path) -> None:
    ask(tmp_path, 0, "0/0000.png")

    twice = [oracle(digits, tmp_path).load()["oracle-0000"] for _ in range(2)]

    pd.testing.assert_frame_equal(*twice)


def test_a_wrong_answer_is_another_class_of_the_folder(
    digits: Path, tmp_path: Path
) -> None:
    ask(tmp_path, 0, *(f"0/{number:04d}.png" for number in range(0, 300, 10)))

    (answers,) = oracle(digits, tmp_path, noise=1.0).load().values()

    assert "0" not in set(answers["label"])
    assert set(answers["label"]) <= set("123456789")
    assert len(set(answers["label"])) > 4


def test_a_request_is_answered_by_each_labeler(digits: Path, tmp_path: Path) -> None:
    ask(tmp_path, 0, "0/0000.png", "1/0001.png")

    (answers,) = oracle(digits, tmp_path, labelers=3).load().values()

    assert sorted(answers["labeler"]) == sorted(["oracle", "oracle-2", "oracle-3"] * 2)


def test_what_is_asked_again_goes_to_another_labeler(
    digits: Path, tmp_path: Path
) -> None:
    ask(tmp_path, 3, "0/0000.png")
    ask(tmp_path, 1, "0/0000.png", "1/0001.png")

    exports = oracle(digits, tmp_path).load()

    assert exports["oracle-0001"]["labeler"].tolist() == ["oracle", "oracle"]
    assert exports["oracle-0003"]["labeler"].tolist() == ["oracle-2"]


def test_later_requests_change_no_answer(digits: Path, tmp_path: Path) -> None:
    names = [f"0/{number:04d}.png" for number in range(40)]
    sloppy = {"noise": 0.5, "abstain": 0.3, "labelers": 2, "seed": 4}
    ask(tmp_path, 0, *names)
    before = oracle(digits, tmp_path, **sloppy).load()["oracle-0000"]
    ask(tmp_path, 1, *names[::-2])

    after = oracle(digits, tmp_path, **sloppy).load()["oracle-0000"]

    pd.testing.assert_frame_equal(after, before)


def test_one_class_folder_leaves_nothing_to_confuse(
    digits: Path, tmp_path: Path
) -> None:
    shutil.copytree(digits / "0", tmp_path / "images" / "0")
    ask(tmp_path / "table", 0, "0/0000.png")

    with pytest.raises(DatasetError, match=r"Set oracle\.noise to 0"):
        oracle(tmp_path / "images", tmp_path / "table", noise=0.1).load()


def test_an_oracle_that_cannot_be_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        oracle(tmp_path, tmp_path, labelers=0)


def test_nobody_asked_is_no_answer(digits: Path, tmp_path: Path) -> None:
    assert oracle(digits, tmp_path).load() == {}


def test_an_image_without_a_class_is_left_unanswered(
    digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ask(tmp_path, 0, "0/0000.png", "gone.png")

    exports = oracle(digits, tmp_path).load()

    assert exports["oracle-0000"]["reference"].tolist() == ["0/0000.png"]
    assert "1 of 2 requests unanswered" in caplog.text


def test_an_oracle_is_not_told_anything(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="read-only"):
        oracle(digits, tmp_path).save({})  # type: ignore[arg-type]


def test_a_stream_is_the_same_draw_at_every_look(digits: Path) -> None:
    every = ImageListDataset(filepath=str(digits)).load()["image_id"]
    some = [
        ImageListDataset(filepath=str(digits), at_most=100).load()["image_id"].tolist()
        for _ in range(2)
    ]

    assert some[0] == some[1] == sorted(some[0])
    assert len(some[0]) == 100
    assert set(some[0]) < set(every)
    assert len({name[0] for name in some[0]}) == 10


def test_fewer_images_than_the_stream_are_all_of_them(digits: Path) -> None:
    listed = ImageListDataset(filepath=str(digits), at_most=10_000).load()

    assert len(listed) == 1797
