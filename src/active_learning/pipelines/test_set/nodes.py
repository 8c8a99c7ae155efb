"""Nodes of ``test-set``."""

import numpy as np
import pandas as pd

from active_learning.errors import TestSetError
from active_learning.imaging import LabeledImages
from active_learning.pipelines.test_set.params import TestSetParams
from active_learning.schemas import MANIFEST


def freeze_test_set(
    labeled_images: LabeledImages, params: TestSetParams
) -> pd.DataFrame:
    """Take the tree's own test images, or draw a share of each class.

    Args:
        labeled_images: Its ``table`` has ``image_id``, ``label``, ``content`` and
            ``split``: ``test`` where the tree has a test folder.
        params: ``share`` and ``seed`` are for a tree without one.

    Returns:
        Columns of ``schemas.MANIFEST``, by ``image_id``. A class of one image gives
        none: it is needed to learn from.

    Raises:
        TestSetError: Not one image is left to test on.
    """
    table = labeled_images.table
    chosen = table[table["split"] == "test"]
    if chosen.empty:
        generator = np.random.default_rng(params.seed)
        # By content, so that renaming files does not draw another test set.
        shuffled = table.sort_values(["label", "content"]).sample(
            frac=1, random_state=generator
        )
        sizes = shuffled.groupby("label")["image_id"].transform("size")
        place = shuffled.groupby("label").cumcount()
        quota = np.minimum((sizes * params.share).round().clip(lower=1), sizes - 1)
        chosen = shuffled[place < quota]
    if chosen.empty:
        raise TestSetError(
            f"None of {len(table)} labeled images can be held out: each class has one "
            "image. Add images, or give the tree a test folder of its own."
        )
    manifest: pd.DataFrame = chosen.sort_values("image_id")[MANIFEST.names]
    return manifest.reset_index(drop=True)
