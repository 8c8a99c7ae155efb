import logging
from collections.abc import Mapping

import pandas as pd
import pytest

from active_learning.errors import NoImagesError
from active_learning.imaging.labeled import LabeledImages, label_by_folder
from active_learning.imaging.places import Listing


def labeled(
    contents: Mapping[str, str],
    folders: list[str],
    skipped: Mapping[str, str] | None = None,
    reasons: Mapping[str, str] | None = None,
) -> LabeledImages:
    """Images by name with their contents; ``reasons`` for those that are unusable."""
    survey = pd.DataFrame({"image_id": list(contents), "content": contents.values()})
    survey["reason"] = [(reasons or {}).get(name, "") for name in contents]
    listing = Listing(list(contents), dict(skipped or {}), folders)
    return label_by_folder(listing, survey)


def rows(images: LabeledImages) -> list[tuple[str, str, str]]:
    columns = images.table[["image_id", "label", "split"]]
    return [tuple(row) for row in columns.itertuples(index=False)]


def set_aside(images: LabeledImages) -> dict[str, str]:
    return dict(images.set_aside.itertuples(index=False))


def test_class_folders_in_the_root_have_no_split() -> None:
    images = labeled({"b/1.png": "1", "a/2.png": "2"}, ["a", "b"])

    assert rows(images) == [("a/2.png", "a", ""), ("b/1.png", "b", "")]
    assert list(images.table.columns) == ["image_id", "label", "split", "content"]


def test_train_and_test_folders_are_splits() -> None:
    images = labeled(
        {"test/a/1.png": "1", "train/a/2.png": "2"},
        ["test", "test/a", "train", "train/a"],
    )

    assert rows(images) == [
        ("test/a/1.png", "a", "test"),
        ("train/a/2.png", "a", "train"),
    ]


def test_a_train_folder_alone_is_a_split_and_no_class() -> None:
    images = labeled({"train/a/1.png": "1"}, ["train", "train/a"])

    assert rows(images) == [("train/a/1.png", "a", "train")]


def test_train_beside_another_folder_is_a_class_and_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    images = labeled({"train/1.png": "1", "plane/2.png": "2"}, ["plane", "train"])

    assert [label for _, label, _ in rows(images)] == ["plane", "train"]
    assert "taken for classes" in caplog.text


def test_deeper_folders_belong_to_their_class() -> None:
    images = labeled({"a/x/y/1.png": "1", "a/x/2.png": "2"}, ["a", "a/x", "a/x/y"])

    assert {label for _, label, _ in rows(images)} == {"a"}


def test_names_are_kept_as_they_are() -> None:
    images = labeled({"Ärmel lang/bild 1.png": "1"}, ["Ärmel lang"])

    assert rows(images) == [("Ärmel lang/bild 1.png", "Ärmel lang", "")]


def test_the_same_image_in_two_classes_teaches_neither() -> None:
    images = labeled(
        {"a/1.png": "same", "a/2.png": "same", "b/3.png": "same", "b/4.png": "4"},
        ["a", "b"],
    )

    assert [name for name, _, _ in rows(images)] == ["b/4.png"]
    reason = "the same image lies in 2 classes: 'a' (a/1.png) and 'b' (b/3.png)"
    assert set_aside(images) == dict.fromkeys(["a/1.png", "a/2.png", "b/3.png"], reason)


def test_two_classes_across_the_splits_contradict_each_other_too() -> None:
    images = labeled(
        {"test/a/1.png": "same", "train/b/1.png": "same", "train/b/2.png": "2"},
        ["test", "test/a", "train", "train/b"],
    )

    assert [name for name, _, _ in rows(images)] == ["train/b/2.png"]


def test_of_copies_in_one_class_the_first_stays() -> None:
    images = labeled({"a/2.png": "same", "a/1.png": "same"}, ["a"])

    assert rows(images) == [("a/1.png", "a", "")]
    assert set_aside(images) == {"a/2.png": "it is a copy of a/1.png"}


def test_an_image_in_both_splits_is_only_tested_on() -> None:
    images = labeled(
        {"test/a/1.png": "same", "train/a/1.png": "same", "train/a/2.png": "2"},
        ["test", "test/a", "train", "train/a"],
    )

    assert [name for name, _, _ in rows(images)] == ["test/a/1.png", "train/a/2.png"]
    reason = "the same image lies in the test split: test/a/1.png"
    assert set_aside(images) == {"train/a/1.png": reason}


def test_unusable_files_are_no_copies_of_each_other() -> None:
    images = labeled(
        {"a/1.png": "", "b/2.png": "", "a/3.png": "3"},
        ["a", "b"],
        reasons={"a/1.png": "empty", "b/2.png": "empty"},
    )

    assert set_aside(images) == {"a/1.png": "empty", "b/2.png": "empty"}


def test_what_the_store_skipped_is_set_aside_too() -> None:
    images = labeled({"a/1.png": "1"}, ["a"], skipped={"a/2.gif": "its suffix"})

    assert set_aside(images) == {"a/2.gif": "its suffix"}


def test_an_empty_class_is_set_aside_and_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    images = labeled({"a/1.png": "1", "a/2.png": "2"}, ["a", "a/empty", "b"])

    assert set_aside(images) == {"b": "the class folder holds no image"}
    assert "Class folder 'b' has no usable image" in caplog.text


def test_a_class_of_one_image_is_kept_and_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    images = labeled({"a/1.png": "1", "b/2.png": "2", "b/3.png": "3"}, ["a", "b"])

    assert len(images.table) == 3
    assert "Class folder 'a' has a single usable image" in caplog.text
    assert "'b'" not in caplog.text


def test_images_without_a_class_folder_are_set_aside() -> None:
    images = labeled({"1.png": "1", "a/2.png": "2"}, ["a"])

    assert set_aside(images) == {"1.png": "it lies in no class folder"}


@pytest.mark.parametrize(
    ("name", "folders"),
    [("1.png", []), ("train/1.png", ["train"])],
    ids=["flat", "split without classes"],
)
def test_no_labeled_image_at_all_says_what_a_tree_looks_like(
    name: str, folders: list[str]
) -> None:
    with pytest.raises(
        NoImagesError, match=r"first is .* in no class folder.*make data"
    ):
        labeled({name: "1"}, folders)


def test_nothing_is_warned_of_when_all_is_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        labeled({"a/1.png": "1", "a/2.png": "2"}, ["a"])

    assert caplog.text == ""
