"""What a labeling project says of itself, in the shapes that it may have."""

from typing import Any

import pytest

from active_learning.errors import LabelingError
from active_learning.services.labeling.azureml import (
    Export,
    Project,
    compare,
    export_of,
    project_of,
    same_folder,
)


def resource(categories: Any) -> dict[str, Any]:
    return {"name": "job-1", "properties": {"labelCategories": categories}}


def test_classes_are_read_by_their_titles() -> None:
    classes = {"a": {"displayName": "cat"}, "dog": {}, "cow": None}

    assert project_of(resource({"c": {"classes": classes}})) == Project(
        "job-1", "job-1", ("cat", "dog", "cow")
    )


def test_of_subclasses_only_the_leaves_can_be_chosen() -> None:
    pets = {"displayName": "pet", "subclasses": {"cat": {}, "dog": {"subclasses": {}}}}

    project = project_of(resource({"c": {"classes": {"pet": pets, "cow": {}}}}))

    assert project.classes == ("cat", "dog", "cow")


def test_what_is_no_project_is_refused() -> None:
    with pytest.raises(LabelingError, match=r"keys are \['value'\]"):
        project_of({"value": []})


def test_missing_and_strange_classes_are_told_apart() -> None:
    difference = compare(Project("1", "Pets", ("cat", "cow")), ["dog", "cat"])

    assert difference.missing == ("dog",)
    assert difference.strange == ("cow",)


def test_categories_that_are_not_said_are_no_empty_set_of_classes() -> None:
    with pytest.raises(LabelingError, match="2 known ones: 'cat', 'dog'"):
        compare(project_of(resource(None)), ["dog", "cat"])


@pytest.mark.parametrize(
    ("result", "export"),
    [
        ({}, Export(None, "")),
        (
            {"properties": {"containerName": "c", "snapshotPath": "/Labeling/x"}},
            Export(None, "c/Labeling/x"),
        ),
        (
            {"exportedRowCount": 3, "labeledAssetName": "labels"},
            Export(3, "labels"),
        ),
    ],
)
def test_what_an_export_says_is_taken_where_it_says_it(
    result: dict[str, Any], export: Export
) -> None:
    assert export_of(result) == export


def test_a_folder_has_a_short_and_a_long_name() -> None:
    short = "azureml://datastores/labeling/paths/queue/images/"
    long = (
        "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/labeling"
        "/paths/queue/images"
    )

    assert same_folder(short, long)
    assert not same_folder(short, short.replace("labeling", "images"))
