"""A folder per class, read as a table of labeled images."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from active_learning.errors import NoImagesError
from active_learning.imaging.places import Listing

SPLITS = ("train", "test")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabeledImages:
    """Images with the class their folder gives them.

    Attributes:
        table: ``image_id`` (unique, sorted), ``label``, ``split`` (``train``, ``test``
            or empty) and ``content`` (SHA-256 of the file, unique).
        set_aside: ``image_id`` (or a folder) and ``reason``, sorted, each once.
    """

    table: pd.DataFrame
    set_aside: pd.DataFrame


def label_by_folder(listing: Listing, survey: pd.DataFrame) -> LabeledImages:
    """Name each image's class by its folder and set aside what would mislead.

    ``train/`` and ``test/`` are splits when the root holds no other folder; the class
    folders then lie in them, else in the root. Deeper folders belong to their class.
    An image that lies in two classes teaches neither; one that lies in both splits
    stays in ``test`` alone; of copies in one class the first stays.

    Args:
        listing: What lies in the store.
        survey: ``image_id``, ``content`` and ``reason`` of the listing's images.

    Raises:
        NoImagesError: Not one image is left.
    """
    depth = int(_has_splits(listing))
    names = survey["image_id"].tolist()
    table = survey.assign(
        label=class_folders_of(names, listing),
        split=[name.split("/")[0] if depth else "" for name in names],
    ).sort_values("image_id", ignore_index=True)

    homeless = (table["reason"] == "") & (table["label"] == "")
    table.loc[homeless, "reason"] = "it lies in no class folder"
    _set_aside_contradictions(table)
    _set_aside_leaks(table)
    _set_aside_copies(table)

    folders = _class_folders(listing, depth)
    names = [*survey["image_id"], *listing.skipped]
    filled = {"/".join(name.split("/")[: depth + 1]) for name in names}
    reasons = dict(listing.skipped)
    reasons |= {
        folder: "the class folder holds no image"
        for folder in folders
        if folder not in filled
    }
    usable = table["reason"] == ""
    left_out = table.loc[~usable]
    reasons |= dict(zip(left_out["image_id"], left_out["reason"], strict=True))
    rows = table.loc[usable, ["image_id", "label", "split", "content"]]
    set_aside = pd.DataFrame(
        sorted(reasons.items()), columns=["image_id", "reason"], dtype=object
    )
    if rows.empty:
        first = set_aside.iloc[0]
        raise NoImagesError(
            f"No labeled images: all {len(set_aside)} names were set aside; the first "
            f"is {first['image_id']!r}: {first['reason']}. Put each class's images "
            "into a folder of the class's name, or type `make data` for the default "
            "images."
        )
    images = LabeledImages(rows.reset_index(drop=True), set_aside)
    _warn(images, folders, depth)
    return images


def class_folders_of(image_ids: Sequence[str], listing: Listing) -> list[str]:
    """The class that each image's folder gives it; empty where it lies in none.

    Args:
        image_ids: Of images in the store.
        listing: What lies there; tells whether classes lie below splits.
    """
    depth = int(_has_splits(listing))
    parts = [name.split("/") for name in image_ids]
    return [path[depth] if len(path) > depth + 1 else "" for path in parts]


def _has_splits(listing: Listing) -> bool:
    top = {folder for folder in listing.folders if "/" not in folder}
    if top & set(SPLITS) and top - set(SPLITS):
        _log.warning(
            "The folders %s are taken for classes, not for splits, since %r lies "
            "beside them.",
            sorted(top & set(SPLITS)),
            min(top - set(SPLITS)),
        )
    return bool(top) and top <= set(SPLITS)


def _class_folders(listing: Listing, depth: int) -> list[str]:
    return [folder for folder in listing.folders if folder.count("/") == depth]


def _set_aside_contradictions(table: pd.DataFrame) -> None:
    usable = table[table["reason"] == ""]
    labels = usable.groupby("content")["label"].agg("nunique")
    torn = usable[usable["content"].isin(labels.index[labels > 1])]
    for _, copies in torn.groupby("content"):
        first = copies.drop_duplicates("label").sort_values("label")
        places = " and ".join(
            f"{label!r} ({image_id})"
            for label, image_id in zip(first["label"], first["image_id"], strict=True)
        )
        table.loc[copies.index, "reason"] = (
            f"the same image lies in {len(first)} classes: {places}"
        )


def _set_aside_leaks(table: pd.DataFrame) -> None:
    usable = table[table["reason"] == ""]
    test = usable[usable["split"] == "test"].drop_duplicates("content")
    twin = dict(zip(test["content"], test["image_id"], strict=True))
    leaks = usable[(usable["split"] == "train") & usable["content"].isin(twin.keys())]
    table.loc[leaks.index, "reason"] = [
        f"the same image lies in the test split: {twin[content]}"
        for content in leaks["content"]
    ]


def _set_aside_copies(table: pd.DataFrame) -> None:
    usable = table[table["reason"] == ""]
    copies = usable[usable.duplicated("content")]
    kept = usable.drop_duplicates("content")
    first = dict(zip(kept["content"], kept["image_id"], strict=True))
    table.loc[copies.index, "reason"] = [
        f"it is a copy of {first[content]}" for content in copies["content"]
    ]


def _warn(images: LabeledImages, folders: list[str], depth: int) -> None:
    counts = images.table.groupby(["split", "label"]).size()
    for folder in folders:
        split, label = folder.split("/") if depth else ("", folder)
        n_images = int(counts.get((split, label), 0))
        if n_images < 2:
            _log.warning(
                "Class folder %r has %s.",
                folder,
                "a single usable image" if n_images else "no usable image",
            )
    if len(images.set_aside):
        first = images.set_aside.iloc[0]
        _log.warning(
            "%d names were set aside; the first is %r: %s.",
            len(images.set_aside),
            first["image_id"],
            first["reason"],
        )
