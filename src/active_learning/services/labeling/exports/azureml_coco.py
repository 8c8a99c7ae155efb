"""Azure ML's COCO: images, categories, and one annotation without a box per image."""

from collections import Counter
from typing import Any

import pandas as pd

from active_learning.services.labeling.exports.documents import (
    Placed,
    lines_of,
    text_of,
)
from active_learning.services.labeling.exports.rows import Columns, answers

KEYS = ("images", "annotations", "categories")
SOURCE = "azureml"

# The most complete name first; the host of `coco_url` may be missing or made up.
_NAMES = ("absolute_url", "coco_url", "file_name")


def fits(document: object) -> bool:
    """Whether it is an object with COCO's three lists."""
    return isinstance(document, dict) and all(
        isinstance(document.get(key), list) for key in KEYS
    )


def read(document: dict[str, Any], text: str) -> pd.DataFrame:
    """Join annotations, images and categories by their ids, never by their order.

    Args:
        document: Its lists hold ``Placed`` elements.
        text: What it was read from, to tell the lines.
    """
    images, image_flaws = _by_id(document["images"], "image")
    classes, class_flaws = _by_id(document["categories"], "category")
    annotations: list[Placed] = document["annotations"]
    ids = [
        (_key(each.value, "image_id"), _key(each.value, "category_id"))
        for each in annotations
    ]
    count = Counter(image_id for image_id, _ in ids)
    names = {key: text_of(category.get("name")) for key, category in classes.items()}
    references: list[str] = []
    labels: list[str] = []
    flaws: list[str] = []
    for (_, annotation), (image_id, category_id) in zip(annotations, ids, strict=True):
        name = names.get(category_id)
        references.append(_reference(images.get(image_id, {})))
        labels.append(name or "")
        if not isinstance(annotation, dict):
            flaw = "the annotation is no object"
        elif image_id not in images:
            flaw = f"no image has the id {image_id}"
        elif category_id not in classes:
            flaw = f"no category has the id {category_id}"
        elif count[image_id] > 1:
            flaw = f"the image has {count[image_id]} annotations, not one"
        elif annotation.get("bbox") or annotation.get("segmentation"):
            flaw = "the annotation is of a part of the image, not of the whole"
        elif name is None:
            flaw = f"the category {category_id} has no name"
        else:
            flaw = image_flaws.get(image_id) or class_flaws.get(category_id, "")
        flaws.append(flaw)
    lines = lines_of(text, [each.at for each in annotations])
    columns = Columns(reference=references, label=labels, line=lines, flaw=flaws)
    return answers(columns, SOURCE)


def _by_id(
    elements: list[Placed], kind: str
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Objects by their ``id``, and what is wrong with an id."""
    found: dict[str, dict[str, Any]] = {}
    flaws: dict[str, str] = {}
    for _, element in elements:
        if not isinstance(element, dict):
            continue
        key = _key(element, "id")
        if key in found:
            flaws[key] = f"two elements are the {kind} {key}"
        found[key] = element
    return found, flaws


def _key(element: object, name: str) -> str:
    value = element.get(name) if isinstance(element, dict) else None
    # The kinds of ids that there are, without a further call for each.
    if type(value) is int:
        return str(value)
    return value if type(value) is str else text_of(value) or ""


def _reference(image: dict[str, Any]) -> str:
    """The first of its names that is one; empty where none is."""
    for key in _NAMES:
        name = image.get(key)
        if isinstance(name, str) and name and not name.isspace():
            return name
    return ""
