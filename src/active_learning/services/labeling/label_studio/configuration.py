"""A project's labeling configuration: one image, one choice among the classes."""

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from active_learning.errors import LabelingError
from active_learning.services.labeling.queue import CHOICES_TAG, IMAGE_TAG

# What a labeler chooses who cannot tell; an export of it is no label.
UNCLEAR = "unclear"


class Configuration(NamedTuple):
    """What a task needs to know of its project.

    Attributes:
        text: The XML.
        choices: The name of the tag in which a class is chosen.
        image: The name of the tag that shows the image.
        image_key: The key of a task's data that holds the image.
        classes: What can be chosen.
    """

    text: str
    choices: str
    image: str
    image_key: str
    classes: tuple[str, ...]


def configured(text: str, classes: Sequence[str]) -> Configuration:
    """A configuration in which every class can be chosen.

    What is there stays as it is, but for choices that are added; an empty one becomes
    ours.

    Raises:
        LabelingError: It does not ask for one class of one image.
    """
    root = _parsed(text)
    if not len(root):
        root = _new()
    choices, image = _only_choices(root)
    there = [choice.get("value", "") for choice in choices.iter("Choice")]
    missing = [name for name in classes if name not in there]
    for name in missing:
        _offer(choices, name)
    return Configuration(
        text=ElementTree.tostring(root, encoding="unicode") if missing else text,
        choices=choices.get("name", ""),
        image=image.get("name", ""),
        image_key=image.get("value", "").removeprefix("$"),
        classes=(*there, *missing),
    )


def _offer(choices: Element, name: str) -> None:
    """Add a choice behind the classes, and before that there is none."""
    last = choices[-1] if len(choices) else None
    before = last is not None and last.get("value") == UNCLEAR
    choices.insert(len(choices) - before, Element("Choice", value=name))


def _new() -> Element:
    root = Element("View")
    ElementTree.SubElement(root, "Image", name=IMAGE_TAG, value=f"${IMAGE_TAG}")
    choices = ElementTree.SubElement(
        root,
        "Choices",
        name=CHOICES_TAG,
        toName=IMAGE_TAG,
        choice="single",
        showInline="true",
        required="true",
    )
    ElementTree.SubElement(choices, "Choice", value=UNCLEAR, hotkey="u")
    return root


def _parsed(text: str) -> Element:
    # A server that was chosen and logged in to is no stranger. Comments are kept.
    parser = ElementTree.XMLParser(  # noqa: S314
        target=ElementTree.TreeBuilder(insert_comments=True)
    )
    try:
        return ElementTree.fromstring(text or "<View/>", parser)  # noqa: S314
    except ElementTree.ParseError as exc:
        raise LabelingError(
            f"The project's labeling configuration is no XML: {exc}. Repair it "
            "in Label Studio, under Settings, or choose another label.project."
        ) from exc


def _only_choices(root: Element) -> tuple[Element, Element]:
    images = {tag.get("name"): tag for tag in root.iter("Image")}
    found = [tag for tag in root.iter("Choices") if tag.get("toName") in images]
    single = [tag for tag in found if tag.get("choice", "single") != "multiple"]
    if len(found) != 1 or not single:
        raise LabelingError(
            "The project asks for something else: its labeling configuration has "
            f"{len(found)} <Choices> of an image, {len(single)} of them for one class. "
            'It needs exactly one <Choices choice="single"> whose toName is an '
            "<Image>. Choose another label.project, and a project is made."
        )
    return found[0], images[found[0].get("toName")]
