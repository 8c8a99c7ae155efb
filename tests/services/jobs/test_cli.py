"""The commands, each in a process of its own that finds Azure by variables alone."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.services.jobs.builders import (
    AZURE_JOB,
    AZURE_SCHEDULES,
    PLACES,
    SECRET,
    command,
    make_project,
)
from tests.standins.arm import Answer, Arm, Asked, refused
from tests.standins.azurite import Azurite, azurite
from tests.standins.identity import Identity, identity
from tests.standins.tls import tls

pytest.importorskip("azure.ai.ml", reason="the extra 'azure' is not installed")

from azure.ai.ml import load_job

__all__ = ["azurite", "identity", "tls"]

pytestmark = [pytest.mark.azure, pytest.mark.slow]

HIDDEN = {"MY_PASSWORD": "a-password-nobody-sees", "GITHUB_TOKEN": "ghp_nobodysees"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("jobs") / "project")


@pytest.fixture
def arm(azurite: Azurite) -> Iterator[Arm]:
    with Arm(azurite.signed(azurite.make_container())) as listening:
        yield listening


def ended(arm: Arm, status: str) -> None:
    """Every job has come to its end when it is asked for."""

    def answer(asked: Asked) -> Answer:
        job = arm.workspace.jobs.get(asked.found[0])
        if job is None:
            return refused(404, "NotFound", "no such job")
        return Answer(
            200, {**job, "properties": {**job["properties"], "status": status}}
        )

    arm.add("GET", "/jobs/([^/]+)", answer)


def cloud(arm: Arm, identity: Identity) -> dict[str, str]:
    return {**PLACES, **HIDDEN, **identity.environment(), **arm.environment()}


def test_a_pipeline_is_submitted_and_gives_no_secret_away(
    project: Path, arm: Arm, identity: Identity
) -> None:
    ended(arm, "Completed")

    ran = command(
        project,
        AZURE_JOB,
        *("--pipeline", "select", "--name", "select-1", "--wait"),
        *("--params", "select.budget=7"),
        env=cloud(arm, identity),
    )

    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "select-1: Completed" in ran.stdout
    sent = arm.workspace.jobs["select-1"]["properties"]
    assert sent["command"] == (
        "kedro run --pipelines select --env azure --params select.budget=7"
    )
    assert sent["environmentVariables"]["AL_STORAGE_ACCOUNT"] == "alstorage"
    said = [
        ran.stdout,
        ran.stderr,
        *(json.dumps(a.body, default=str) for a in arm.requests),
    ]
    secrets = [*HIDDEN.values(), SECRET, identity.secret, *identity.issued]
    assert not [one for one in secrets if any(one in text for text in said)]


def test_a_job_that_fails_ends_the_command_with_1(
    project: Path, arm: Arm, identity: Identity
) -> None:
    ended(arm, "Failed")

    ran = command(
        project,
        AZURE_JOB,
        *("--pipeline", "train", "--name", "train-1", "--wait"),
        env=cloud(arm, identity),
    )

    assert ran.returncode == 1
    assert "train-1 ended as Failed. Its log: " in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_dry_run_prints_what_loads_again(project: Path) -> None:
    ran = command(
        project,
        AZURE_JOB,
        *("--pipeline", "train", "--nodes", "2", "--dry-run"),
        env={**PLACES, **HIDDEN},
    )

    assert ran.returncode == 0, ran.stderr[-2000:]
    said = yaml.safe_load(ran.stdout)
    assert said["resources"] == {"instance_count": 2}
    assert said["compute"] == "azureml:gpu"
    loaded = load_job(io.StringIO(ran.stdout))
    assert loaded._validate().passed
    assert load_job(io.StringIO(yaml.safe_dump(said)))._validate().passed
    assert not [one for one in HIDDEN.values() if one in ran.stdout]


def test_schedules_that_are_off_are_not_among_those_printed(project: Path) -> None:
    ran = command(project, AZURE_SCHEDULES, "--dry-run", env=PLACES)

    assert ran.returncode == 0, ran.stderr[-2000:]
    score, its_job, select, _ = yaml.safe_load_all(ran.stdout)
    assert score["name"] == "active-learning-score"
    assert score["create_job"] == "score.yml"
    assert load_job(io.StringIO(yaml.safe_dump(its_job)))._validate().passed
    assert select["trigger"]["expression"] == "0 6 * * 1"


@pytest.mark.parametrize(
    ("options", "without", "error"),
    [
        (["--pipeline", "train"], "AL_ADX_CLUSTER", "are not set here: AL_ADX_CLUSTER"),
        (["--pipeline", "train"], "AZURE_RESOURCE_GROUP", "'AZURE_RESOURCE_GROUP'"),
        (["--pipeline", "trian"], "", "No pipeline is called 'trian'"),
        (["--pipeline", "train", "--env", "base"], "", "says nothing about jobs"),
        (
            ["--pipeline", "train", "--params", f"x={HIDDEN['MY_PASSWORD']}"],
            "",
            "the first is MY_PASSWORD",
        ),
    ],
)
def test_what_is_wrong_is_said_before_azure_is_asked(
    project: Path, options: list[str], without: str, error: str
) -> None:
    told = {**PLACES, **HIDDEN}
    told.pop(without, None)

    ran = command(project, AZURE_JOB, *options, "--dry-run", env=told)

    assert ran.returncode == 1
    assert error in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr
    assert HIDDEN["MY_PASSWORD"] not in ran.stderr
