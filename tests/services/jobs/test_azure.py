"""The real client of Azure ML against a workspace in memory and blobs in Azurite."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.services.jobs.builders import ENVIRONMENT, SECRET, make_project, settings
from tests.services.jobs.builders import spec as make_spec
from tests.standins.arm import Answer, Arm, Asked, Fault, refused
from tests.standins.azurite import Azurite, azurite
from tests.standins.identity import Identity, identity
from tests.standins.tls import tls

pytest.importorskip("azure.ai.ml", reason="the extra 'azure' is not installed")

from azure.storage.blob import (
    ContainerClient,
)

from active_learning.services import azure
from active_learning.services.jobs import JobError
from active_learning.services.jobs.azure import AzureJobs
from active_learning.services.jobs.code import carried
from active_learning.services.jobs.entities import (
    Branch,
    command_job,
    job_schedule,
    run_line,
    scheduled_job,
    simulation_job,
)
from active_learning.services.jobs.settings import ScheduleSettings, SimulationSettings

__all__ = ["azurite", "identity", "tls"]

pytestmark = pytest.mark.azure

SCOPE = "/subscriptions/s/resourceGroups/g"
CODE = (
    f"azureml:{SCOPE}/providers/Microsoft.MachineLearningServices/workspaces/w"
    "/codes/uploaded/versions/1"
)
ENVIRONMENT_PATH = f"/environments/{ENVIRONMENT.name}/versions/{ENVIRONMENT.version}"


class Cloud:
    """A workspace, its storage and our client of it."""

    def __init__(self, arm: Arm, blobs: ContainerClient | None) -> None:
        self.arm = arm
        self.blobs = blobs
        self.jobs = AzureJobs(settings(), transport=arm.transport())

    def job(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.arm.workspace.jobs[name]["properties"]
        return found

    def ends(self, *statuses: str) -> None:
        """Give what a job's status is each time that it is asked for."""
        left = list(statuses)

        def answer(asked: Asked) -> Answer:
            job = self.arm.workspace.jobs.get(asked.found[0])
            if job is None:
                return refused(404, "NotFound", "no such job")
            status = left.pop(0) if len(left) > 1 else left[0]
            studio = {"Studio": {"endpoint": f"https://ml.azure.com/{job['name']}"}}
            properties = {**job["properties"], "status": status, "services": studio}
            return Answer(200, {**job, "properties": properties})

        self.arm.add("GET", "/jobs/([^/]+)", answer)


@pytest.fixture
def _signed_in(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in identity.environment().items():
        monkeypatch.setenv(name, value)
    azure.credential.cache_clear()
    yield
    azure.credential.cache_clear()


@pytest.fixture
def cloud(_signed_in: None) -> Cloud:
    """No code can be uploaded to it."""
    return Cloud(Arm(), None)


@pytest.fixture
def whole_cloud(_signed_in: None, azurite: Azurite) -> Cloud:
    """With storage for code."""
    name = azurite.make_container()
    blobs = ContainerClient(azurite.url, name, credential=azurite.credential)
    return Cloud(Arm(azurite.signed(name)), blobs)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("1")
    return tmp_path / "code"


def registered(code: Path, **changes: Any) -> Any:
    """A job whose code is in the workspace already."""
    spec = make_spec(code, **changes)
    line = run_line("select", "azure", "", 1)
    job = command_job(spec, "select", line, name="job-1")
    return {**job, "code": CODE}


def test_a_job_arrives_as_it_was_described(whole_cloud: Cloud, code: Path) -> None:
    line = run_line("train", "azure", "train.seed=7", 2)
    job = command_job(make_spec(code), "train", line, nodes=2, name="job-1")

    submitted = whole_cloud.jobs.submit(job, ENVIRONMENT)

    assert submitted.name == "job-1"
    sent = whole_cloud.job("job-1")
    assert sent["jobType"] == "Command"
    assert sent["command"] == line
    assert sent["computeId"].endswith("/computes/gpu")
    assert sent["environmentId"].endswith(ENVIRONMENT_PATH)
    assert sent["environmentVariables"] == {"AL_STORAGE_ACCOUNT": "alstorage"}
    assert sent["identity"] == {"identityType": "Managed"}
    assert sent["distribution"] == {
        "distributionType": "PyTorch",
        "processCountPerInstance": 1,
    }
    assert sent["resources"]["instanceCount"] == 2
    assert sent["limits"]["timeout"] == "PT1H"
    assert sent["experimentName"] == "loop"
    assert sent["tags"] == {"commit": "abc", "pipelines": "train"}


def test_what_is_uploaded_is_code_and_configuration_alone(
    whole_cloud: Cloud, tmp_path: Path
) -> None:
    project = make_project(tmp_path / "project")
    names = ("src", "conf", "pyproject.toml", "requirements.lock")

    versions = []
    for number in (1, 2):
        with carried(project, names) as copy:
            line = run_line("select", "azure", "", 1)
            job = command_job(make_spec(copy), "select", line, name=f"job-{number}")
            whole_cloud.jobs.submit(job, ENVIRONMENT)
        versions.append(whole_cloud.job(f"job-{number}")["codeId"])

    assert whole_cloud.blobs is not None
    sent = {
        blob.name.partition("/")[2]: whole_cloud.blobs.download_blob(
            blob.name
        ).readall()
        for blob in whole_cloud.blobs.list_blobs()
    }
    wanted = {"pyproject.toml", "conf/base/globals.yml", "conf/azure/jobs/jobs.yml"}
    assert wanted <= sent.keys()
    # A folder of ours that is called as one that is ignored.
    assert "src/active_learning/pipelines/data/nodes.py" in sent
    assert not [name for name, data in sent.items() if SECRET.encode() in data]
    # Equal code is one version of it.
    assert versions[0] == versions[1]


def test_an_environment_is_registered_once(cloud: Cloud, code: Path) -> None:
    cloud.jobs.submit(registered(code), ENVIRONMENT)
    cloud.jobs.submit({**registered(code), "name": "job-2"}, ENVIRONMENT)

    (put,) = cloud.arm.asked("PUT", "/environments/.*")
    assert put.path == ENVIRONMENT_PATH
    assert put.body["properties"]["image"] == ENVIRONMENT.image
    assert "kedro==1.7.0" in put.body["properties"]["condaFile"]


def test_the_same_name_is_the_same_job(cloud: Cloud, code: Path) -> None:
    first = cloud.jobs.submit(registered(code), ENVIRONMENT)
    second = cloud.jobs.submit(registered(code), ENVIRONMENT)

    assert first.name == second.name
    assert len(cloud.arm.asked("PUT", "/jobs/job-1")) == 1


def test_an_answer_that_is_lost_starts_no_second_job(cloud: Cloud, code: Path) -> None:
    cloud.arm.faults.append(Fault("PUT", "/jobs/", 503, done=True, headers=SOON))

    cloud.jobs.submit(registered(code), ENVIRONMENT)

    puts = cloud.arm.asked("PUT", "/jobs/.*")
    assert [put.path for put in puts] == ["/jobs/job-1"] * 2
    assert puts[0].body == puts[1].body
    assert list(cloud.arm.workspace.jobs) == ["job-1"]


SOON = {"Retry-After": "0"}


@pytest.mark.parametrize("status", [429, 503])
def test_a_workspace_that_is_busy_is_asked_again(
    cloud: Cloud, code: Path, status: int
) -> None:
    cloud.arm.faults += [Fault("GET", "/computes", status, headers=SOON)] * 2

    assert cloud.jobs.submit(registered(code), ENVIRONMENT).name == "job-1"


def test_a_compute_that_is_missing_is_named_before_anything_is_uploaded(
    cloud: Cloud, code: Path
) -> None:
    cloud.arm.workspace.computes = {"gpu"}

    with pytest.raises(
        JobError, match=r"no compute called 'cpu'.*az ml compute create"
    ):
        cloud.jobs.submit(registered(code), ENVIRONMENT)

    assert not cloud.arm.asked("PUT", ".*")


@pytest.mark.parametrize(
    ("status", "way_out"),
    [
        (401, "az login"),
        (403, "AzureML Data Scientist"),
        (404, "AZUREML_WORKSPACE_NAME"),
        (409, "may be repeated"),
    ],
)
def test_a_refusal_says_what_to_do(
    cloud: Cloud, code: Path, status: int, way_out: str
) -> None:
    signed = "https://store/x?sv=1&sig=abcdefghijk&se=2 Bearer abc.def"
    cloud.arm.add("PUT", "/jobs/.*", lambda _: refused(status, "No", signed))

    with pytest.raises(JobError) as caught:
        cloud.jobs.submit(registered(code), ENVIRONMENT)

    assert way_out in str(caught.value)
    assert "abcdefghijk" not in str(caught.value)
    assert "abc.def" not in str(caught.value)


def test_a_job_that_is_waited_for_ends_well(cloud: Cloud, code: Path) -> None:
    cloud.jobs.submit(registered(code), ENVIRONMENT)
    cloud.ends("Queued", "Running", "Completed")

    assert cloud.jobs.wait("job-1").status == "Completed"


@pytest.mark.parametrize("end", ["Failed", "Canceled"])
def test_a_job_that_fails_says_where_its_log_is(
    cloud: Cloud, code: Path, end: str
) -> None:
    cloud.jobs.submit(registered(code), ENVIRONMENT)
    cloud.ends("Running", end)

    with pytest.raises(JobError, match=f"ended as {end}") as caught:
        cloud.jobs.wait("job-1")

    assert "https://ml.azure.com/job-1" in str(caught.value)
    assert "az ml job download --name job-1" in str(caught.value)


def test_a_workspace_that_is_away_for_a_moment_is_no_reason_to_give_up_on_a_job(
    cloud: Cloud, code: Path
) -> None:
    cloud.jobs.submit(registered(code), ENVIRONMENT)
    cloud.ends("Running", "Running", "Completed")
    cloud.arm.faults += [Fault("GET", "/jobs/", 503, headers=SOON)]

    assert cloud.jobs.wait("job-1").status == "Completed"


def test_a_job_that_breaks_the_schema_is_refused_here(cloud: Cloud, code: Path) -> None:
    wrong = {**registered(code), "compte": "cpu"}

    with pytest.raises(JobError, match="compte"):
        cloud.jobs.submit(wrong, ENVIRONMENT)

    assert not cloud.arm.requests


STEPS = {
    "prepare": Branch(("test_set", "prepare"), ()),
    "seed_0_start": Branch(("seed_0.start",), ("prepare",)),
    "seed_0_random": Branch(("seed_0.random",), ("seed_0_start",)),
    "seed_0_margin": Branch(("seed_0.margin",), ("seed_0_start",)),
    "report": Branch((), ("seed_0_random", "seed_0_margin")),
}


def test_a_simulation_arrives_as_steps_that_wait_for_each_other(
    whole_cloud: Cloud, code: Path
) -> None:
    simulation = SimulationSettings(
        env="simulation",
        images="azureml://datastores/images/paths/digits",
        data="azureml://datastores/loop/paths/simulation",
    )
    job = simulation_job(
        make_spec(code), STEPS, simulation=simulation, params="a=1", name="sim-1"
    )

    whole_cloud.jobs.submit(job, ENVIRONMENT)

    sent = whole_cloud.job("sim-1")
    assert sent["jobType"] == "Pipeline"
    # Steps whose inputs are equal run all the same, or nothing would be resumed.
    assert sent["settings"]["force_rerun"] is True
    for name, step in STEPS.items():
        inputs = sent["jobs"][name]["inputs"]
        waits = [value["value"] for key, value in inputs.items() if key != "images"]
        assert waits == [
            f"${{{{parent.jobs.{before}.outputs.data}}}}" for before in step.after
        ]
        place = sent["jobs"][name]["outputs"]["data"]
        assert place["uri"].endswith("datastores/loop/paths/simulation")
        assert place["mode"] == "ReadWriteMount"
    # All steps carry one version of the code.
    assert len({put.path for put in whole_cloud.arm.asked("PUT", "/codes/.*")}) == 1


def schedules(code: Path, *names: str) -> dict[str, Any]:
    made = {}
    for name in names:
        told = ScheduleSettings(
            enabled=True, pipelines=name, cron="0 6 * * *", time_zone="UTC"
        )
        job = scheduled_job(make_spec(code), name, run_line(name, "azure", "", 1))
        made[f"{name}.yml"] = (job_schedule(name, told, f"{name}.yml"), job)
    return made


def enabled(arm: Arm) -> dict[str, bool]:
    return {
        name: schedule["properties"]["isEnabled"]
        for name, schedule in arm.workspace.schedules.items()
    }


def test_schedules_are_applied_and_applied_again(
    whole_cloud: Cloud, code: Path
) -> None:
    wanted = schedules(code, "score", "select")

    first = whole_cloud.jobs.apply(wanted, ENVIRONMENT)
    before = json.dumps(whole_cloud.arm.workspace.schedules)
    second = whole_cloud.jobs.apply(wanted, ENVIRONMENT)

    ours = {"active-learning-score": "applied", "active-learning-select": "applied"}
    assert first == second == ours
    assert json.dumps(whole_cloud.arm.workspace.schedules) == before
    sent = whole_cloud.arm.workspace.schedules["active-learning-score"]["properties"]
    assert sent["trigger"]["expression"] == "0 6 * * *"
    assert sent["trigger"]["timeZone"] == "UTC"
    job = sent["action"]["jobDefinition"]
    # Azure ML schedules pipeline jobs alone.
    assert job["jobType"] == "Pipeline"
    assert job["settings"]["force_rerun"] is True


def test_a_schedule_that_is_off_is_ended_and_others_go_on(
    whole_cloud: Cloud, code: Path
) -> None:
    whole_cloud.jobs.apply(schedules(code, "score", "select"), ENVIRONMENT)
    theirs = whole_cloud.arm.workspace.schedules["active-learning-score"]
    whole_cloud.arm.workspace.schedules["theirs"] = {**theirs, "name": "theirs"}

    done = whole_cloud.jobs.apply(schedules(code, "score"), ENVIRONMENT)

    assert done == {
        "active-learning-score": "applied",
        "active-learning-select": "disabled",
    }
    assert enabled(whole_cloud.arm) == {
        "active-learning-score": True,
        "active-learning-select": False,
        "theirs": True,
    }
    assert whole_cloud.jobs.disable() == {"active-learning-score": "disabled"}
    assert whole_cloud.jobs.disable() == {}
