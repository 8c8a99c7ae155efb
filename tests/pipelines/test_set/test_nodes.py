"""Which images are held out."""

import pandas as pd
import pytest

from active_learning.errors import TestSetError
from active_learning.imaging import LabeledImages
from active_learning.pipelines.test_set.nodes import freeze_test_set
from active_learning.pipelines.test_set.params import TestSetParams

FIFTH = TestSetParams(share=0.2, seed=0)
NOTHING = pd.DataFrame({"image_id": [], "reason": []})


def labeled(split: str = "", **sizes: int) -> LabeledImages:
    """So many images of each class."""
    rows = [
        (f"{label}/{n}.png", label, split, f"{label}{n}")
        for label, size in sizes.items()
        for n in range(size)
    ]
    columns = ["image_id", "label", "split", "content"]
    return LabeledImages(pd.DataFrame(rows, columns=columns), NOTHING)


def test_a_tree_with_a_test_folder_keeps_its_own() -> None:
    tree = LabeledImages(
        pd.concat([labeled("train", cat=5).table, labeled("test", dog=3).table]),
        NOTHING,
    )

    assert freeze_test_set(tree, FIFTH)["label"].tolist() == ["dog"] * 3


def test_each_class_gives_its_share() -> None:
    held_out = freeze_test_set(labeled(cat=50, dog=10), FIFTH)

    assert held_out["label"].value_counts().to_dict() == {"cat": 10, "dog": 2}


def test_a_class_of_two_gives_one_and_a_class_of_one_gives_none() -> None:
    held_out = freeze_test_set(labeled(cat=2, rare=1), FIFTH)

    assert held_out["label"].tolist() == ["cat"]


def test_the_choice_is_by_content_and_not_by_name() -> None:
    tree = labeled(cat=20)
    renamed = tree.table.assign(image_id=tree.table["image_id"].str[::-1])

    one = freeze_test_set(tree, FIFTH)
    two = freeze_test_set(LabeledImages(renamed, NOTHING), FIFTH)

    assert set(one["content"]) == set(two["content"])


def test_nothing_to_hold_out_is_an_error() -> None:
    with pytest.raises(TestSetError, match="each class has one"):
        freeze_test_set(labeled(cat=1, dog=1), FIFTH)
