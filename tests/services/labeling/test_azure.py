"""Labeling projects by their preview API: found, compared, exported from."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.standins.arm import (
    GROUP,
    SUBSCRIPTION,
    WORKSPACE,
    Answer,
    Arm,
    Asked,
    Fault,
    arm,
    refused,
)
from tests.standins.identity import Identity, identity
from tests.standins.tls import tls

from active_learning.errors import LabelingAwayError, LabelingError
from active_learning.services.azure import Workspace, credential
from active_learning.services.labeling.azure import LabelingProjects
from active_learning.services.labeling.azureml import Export, Project

__all__ = ["arm", "identity", "tls"]

pytestmark = pytest.mark.azure

PROJECT = Project("job-1", "Shoes and shirts", ("shirt", "shoe"))
FOLDER = "azureml://datastores/labeling/paths/queue/images/"


@pytest.fixture
def cloud(
    arm: Arm, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Arm]:
    """A workspace with one labeling project, and an identity that may see it."""
    for name, value in {**arm.environment(), **identity.environment()}.items():
        monkeypatch.setenv(name, value)
    credential.cache_clear()
    arm.add("GET", "/labelingJobs", _list)
    arm.add("GET", "/labelingJobs/([^/]+)", _get)
    yield arm
    credential.cache_clear()


def resource(**properties: Any) -> dict[str, Any]:
    return {
        "name": PROJECT.id,
        "properties": {"displayName": PROJECT.title} | properties,
    }


def categories() -> dict[str, Any]:
    classes = {"shirt": {"displayName": "shirt"}, "c2": {"displayName": "shoe"}}
    return {
        "Class": {"displayName": "Class", "multiSelect": "Disabled", "classes": classes}
    }


def _list(asked: Asked) -> Answer:
    if "skip" not in asked.query:
        link = f"{asked.host}{asked.scope}/labelingJobs?skip=1"
        other = {"name": "job-0", "properties": {"displayName": "Another"}}
        return Answer(200, {"value": [other], "nextLink": link})
    return Answer(200, {"value": [resource()]})


def _get(asked: Asked) -> Answer:
    if asked.found[0] != PROJECT.id:
        return refused(404, "ResourceNotFound", "no such job")
    # Categories are left out unless they are asked for.
    wanted = asked.query.get("includeLabelCategories") == "true"
    return Answer(200, resource(labelCategories=categories() if wanted else None))


def projects(timeout_s: float = 20, retries: int = 0) -> LabelingProjects:
    place = Workspace(subscription=SUBSCRIPTION, resource_group=GROUP, name=WORKSPACE)
    return LabelingProjects(place, timeout_s=timeout_s, poll_s=0.01, retries=retries)


@pytest.mark.usefixtures("cloud")
@pytest.mark.parametrize("name", [PROJECT.id, PROJECT.title])
def test_a_project_is_found_by_id_and_by_title(name: str) -> None:
    assert projects().find(name) == PROJECT


@pytest.mark.usefixtures("cloud")
def test_a_project_that_is_not_there_is_said_with_those_that_are() -> None:
    with pytest.raises(LabelingError, match="There are: Another, Shoes and shirts"):
        projects().find("Hats")


def test_two_projects_of_one_title_are_told_apart_by_their_ids(cloud: Arm) -> None:
    both = [resource(), {**resource(), "name": "job-2"}]
    cloud.add("GET", "/labelingJobs", lambda _: Answer(200, {"value": both}))

    with pytest.raises(LabelingError, match=r"2 labeling projects.*job-1, job-2"):
        projects().find(PROJECT.title)


def test_an_export_is_started_and_waited_for(cloud: Arm) -> None:
    looks = iter([202, 202, 200])

    def start(asked: Asked) -> Answer:
        place = f"{asked.host}{asked.scope}/labelingJobs/exports/7"
        return Answer(202, {}, {"Location": place, "Retry-After": "0"})

    def look(asked: Asked) -> Answer:
        status = next(looks)
        if status == 202:
            place = f"{asked.host}{asked.scope}/labelingJobs/exports/7"
            return Answer(202, {}, {"Location": place, "Retry-After": "0"})
        written = {
            "format": "Coco",
            "exportedRowCount": 12,
            "containerName": "azureml-blobstore-1",
            "snapshotPath": "Labeling/export/coco/7",
        }
        return Answer(200, written)

    cloud.add("POST", "/labelingJobs/job-1/exportLabels", start)
    cloud.add("GET", "/labelingJobs/exports/7", look)

    made = projects().export(PROJECT, "Coco")

    assert made == Export(12, "azureml-blobstore-1/Labeling/export/coco/7")
    (asked,) = cloud.asked("POST", "/labelingJobs/job-1/exportLabels")
    assert asked.body == {"format": "Coco"}
    assert asked.query["api-version"].endswith("-preview")


def test_an_export_that_is_not_written_in_time_may_come_later(cloud: Arm) -> None:
    def never(asked: Asked) -> Answer:
        place = f"{asked.host}{asked.scope}/labelingJobs/exports/7"
        return Answer(202, {}, {"Location": place, "Retry-After": "0"})

    cloud.add("POST", "/labelingJobs/job-1/exportLabels", never)
    cloud.add("GET", "/labelingJobs/exports/7", never)

    with pytest.raises(LabelingAwayError, match=r"not written after 0\.2 s"):
        projects(timeout_s=0.2).export(PROJECT, "Coco")

    # Who waits no longer does not look any longer either.
    cloud.add("GET", "/labelingJobs/exports/7", lambda _: Answer(200, {}))


@pytest.mark.parametrize(
    ("status", "error", "way_out"),
    [
        (401, LabelingError, "az login"),
        (403, LabelingError, "AzureML Data Scientist"),
        (404, LabelingError, "export in the studio"),
        (429, LabelingAwayError, "Try again later"),
        (503, LabelingAwayError, "Try again later"),
        (0, LabelingAwayError, "Try again later"),
    ],
)
def test_what_azure_refuses_is_told_with_a_way_out(
    cloud: Arm,
    identity: Identity,
    status: int,
    error: type[LabelingError],
    way_out: str,
) -> None:
    cloud.faults += [Fault("POST", "/labelingJobs/job-1/exportLabels", status)] * 9

    with pytest.raises(LabelingError, match=way_out) as refusal:
        projects().export(PROJECT, "CSV")

    assert type(refusal.value) is error
    for secret in (identity.secret, *identity.issued):
        assert secret not in str(refusal.value)


def test_what_fails_for_a_moment_is_asked_again(cloud: Arm) -> None:
    cloud.faults.append(Fault("GET", "/labelingJobs/job-1", 503))

    assert projects(retries=2).find(PROJECT.id) == PROJECT


def test_the_folder_of_staged_images_is_registered_once(cloud: Arm) -> None:
    first = projects().watch("queue", FOLDER)
    again = projects().watch("queue", FOLDER)
    moved = projects().watch("queue", FOLDER.replace("labeling", "elsewhere"))

    assert (first, again, moved) == ("1", "1", "2")
    versions = cloud.workspace.assets["data", "queue"]
    made = versions["1"]["properties"]
    assert made["dataType"] == "uri_folder"
    assert made["dataUri"].endswith("/datastores/labeling/paths/queue/images/")
