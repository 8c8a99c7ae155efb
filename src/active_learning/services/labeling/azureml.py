"""What a labeling project of Azure Machine Learning says of itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveFloat

from active_learning.errors import LabelingError
from active_learning.parameters import Parameters


class AzureLabelingSettings(Parameters):
    """What ``kedro azure-labeling`` is told. ``conf/azure`` is the home of the values.

    Attributes:
        project: The labeling project's title, or its id.
        asset: The data asset that the project watches, made where there is none.
        folder: Where staged images lie, as a path in a datastore of the workspace, so
            that the project's incremental refresh finds new ones.
        start_export: Whether an export may be started: a preview API does it.
        format: Of an export.
        timeout_s: For each answer, and for an export to be written.
        poll_s: Between two looks at an export that is being written.
        retries: Of a question that Azure does not answer, ever later.
    """

    project: str = Field(min_length=1)
    asset: str = Field(min_length=1)
    folder: str = Field(pattern="^azureml://(.+/)?datastores/[^/]+/paths/.+/$")
    start_export: bool
    format: Literal["Coco", "CSV", "Dataset"]
    timeout_s: PositiveFloat
    poll_s: PositiveFloat
    retries: NonNegativeInt


class Project(NamedTuple):
    """A labeling project: its id, its title, and the classes that labelers choose from.

    ``classes`` is ``None`` where the API does not say.
    """

    id: str
    title: str
    classes: tuple[str, ...] | None


class Export(NamedTuple):
    """What was written: how many rows, and where, as far as the service says it."""

    rows: int | None
    place: str


class Difference(NamedTuple):
    """Classes that one side has and the other has not, each sorted.

    ``missing`` cannot be chosen by labelers; ``strange`` can, and nobody knew them.
    """

    missing: tuple[str, ...]
    strange: tuple[str, ...]


def project_of(resource: Mapping[str, Any]) -> Project:
    """Read a project as Azure Resource Manager gives it.

    Classes lie in ``labelCategories``: categories by their ids, in each its classes,
    which may have subclasses; of those, only the leaves are chosen from.

    Raises:
        LabelingError: It is no labeling project.
    """
    properties = resource.get("properties")
    name = resource.get("name")
    if not isinstance(properties, Mapping) or not isinstance(name, str):
        raise LabelingError(
            f"Azure ML gave something that is no labeling project: its keys are "
            f"{sorted(resource)[:8]}. Its preview API may have changed: export labels "
            "in the studio."
        )
    title = properties.get("displayName")
    categories = properties.get("labelCategories")
    classes = None
    if isinstance(categories, Mapping):
        found = [leaf for each in categories.values() for leaf in _leaves(each)]
        classes = tuple(dict.fromkeys(found))
    return Project(name, title if isinstance(title, str) else name, classes)


def compare(project: Project, known: Collection[str]) -> Difference:
    """Compare what labelers can choose with the classes that are known.

    Raises:
        LabelingError: The API does not say what they can choose.
    """
    if project.classes is None:
        raise LabelingError(
            f"Azure ML does not say what classes the labeling project "
            f"{project.title!r} offers. Compare them in the studio, under Label "
            f"categories, with the {len(known)} known ones: {_listed(known)}."
        )
    offered, expected = set(project.classes), set(known)
    return Difference(
        tuple(sorted(expected - offered)), tuple(sorted(offered - expected))
    )


def export_of(result: Mapping[str, Any]) -> Export:
    """Read what an export that has ended says of itself; nothing of it is promised."""
    told = result.get("properties")
    if not isinstance(told, Mapping):
        told = result
    rows = told.get("exportedRowCount")
    parts = [told.get(key) for key in ("containerName", "snapshotPath")]
    place = "/".join(part.strip("/") for part in parts if isinstance(part, str))
    asset = told.get("labeledAssetName")
    if not place and isinstance(asset, str):
        place = asset
    return Export(rows if isinstance(rows, int) else None, place)


def same_folder(one: str, other: str) -> bool:
    """Whether two spellings, long or short, are of one path in one datastore."""
    return _in_datastore(one) == _in_datastore(other)


def _in_datastore(path: str) -> str:
    return path.partition("datastores/")[2].strip("/")


def _leaves(category: object) -> list[str]:
    """The classes of a category, or the subclasses of a class, that can be chosen."""
    if not isinstance(category, Mapping):
        return []
    below = category.get("classes") or category.get("subclasses")
    if not isinstance(below, Mapping):
        return []
    leaves: list[str] = []
    for key, each in below.items():
        deeper = _leaves(each)
        title = each.get("displayName") if isinstance(each, Mapping) else None
        leaves += deeper or [title if isinstance(title, str) and title else key]
    return leaves


def _listed(names: Collection[str], longest: int = 10) -> str:
    first = ", ".join(repr(name) for name in sorted(names)[:longest])
    more = len(names) - longest
    return f"{first} and {more} more" if more > 0 else first
