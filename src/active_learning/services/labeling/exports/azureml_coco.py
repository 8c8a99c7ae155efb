"""Azure ML's COCO: images, categories, and one annotation without a box per image."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from active_learning.services.labeling.exports.documents import Elements, text_of
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
        document: Its lists are ``Elements``.
        text: What it was read from, to tell the lines.
    """
    images, image_flaws = _by_id(document["images"], "image")
    classes, class_flaws = _by_id(document["categories"], "category")
    annotations: Elements = document["annotations"]
    image_ids = _ids(annotations, "image_id")
    class_ids = _ids(annotations, "category_id")
    for key, n in _repeated(image_ids).items():
        image_flaws.setdefault(key, f"the image has {n} annotations, not one")
    references = {key: _reference(image) for key, image in images.items()}
    names = {key: text_of(category.get("name")) for key, category in classes.items()}
    for key, name in names.items():
        if name is None:
            class_flaws.setdefault(key, f"the category {key} has no name")
    image_why = _Why(images, image_flaws, "image")
    class_why = _Why(classes, class_flaws, "category")
    columns = Columns(
        reference=[references.get(image_id, "") for image_id in image_ids],
        label=[names.get(class_id) or "" for class_id in class_ids],
        line=annotations.lines(text),
        flaw=[
            _flaw(annotation) or image_why[image_id] or class_why[class_id]
            for annotation, image_id, class_id in zip(
                annotations, image_ids, class_ids, strict=True
            )
        ],
    )
    return answers(columns, SOURCE)


class _Why(dict[str, str]):
    """What is wrong with what has an id: nothing, what is known, or that none has."""

    def __init__(self, ids: Iterable[str], flaws: dict[str, str], kind: str) -> None:
        super().__init__((key, flaws.get(key, "")) for key in ids)
        self._kind = kind

    def __missing__(self, key: str) -> str:
        return f"no {self._kind} has the id {key}"


def _flaw(annotation: Any) -> str:
    if not isinstance(annotation, dict):
        return "the annotation is no object"
    if annotation.get("bbox") or annotation.get("segmentation"):
        return "the annotation is of a part of the image, not of the whole"
    return ""


def _by_id(
    elements: Iterable[Any], kind: str
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Objects by their ``id``, and what is wrong with an id."""
    objects = [element for element in elements if isinstance(element, dict)]
    ids = _ids(objects, "id")
    flaws = {key: f"two elements are the {kind} {key}" for key in _repeated(ids)}
    return dict(zip(ids, objects, strict=True)), flaws


def _repeated(ids: Sequence[str]) -> dict[str, int]:
    """How often each id stands there that does so more than once."""
    if len(set(ids)) == len(ids):
        return {}
    return {key: n for key, n in Counter(ids).items() if n > 1}


def _ids(elements: Iterable[Any], name: str) -> list[str]:
    """The ids that elements give; empty where one gives none."""
    values = [each.get(name) if isinstance(each, dict) else None for each in elements]
    if set(map(type, values)) == {int}:
        return list(map(str, values))
    return [text_of(value) or "" for value in values]


def _reference(image: dict[str, Any]) -> str:
    """The first of its names that is one; empty where none is."""
    for key in _NAMES:
        name = image.get(key)
        if isinstance(name, str) and name and not name.isspace():
            return name
    return ""
