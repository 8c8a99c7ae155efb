from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.services.jobs.builders import settings, spec

from active_learning.errors import SettingsError
from active_learning.services.jobs import JobError
from active_learning.services.jobs.code import carried
from active_learning.services.jobs.entities import (
    command_job,
    image_link,
    known_pipelines,
    run_line,
    variables_of,
)
from active_learning.services.jobs.secrets import refuse_secrets, without_secrets
from active_learning.services.jobs.settings import ScheduleSettings, SimulationSettings


def test_one_node_runs_the_pipeline() -> None:
    line = run_line("label-ingest,train", "azure", "train.seed=1 2", 1)

    assert line == (
        "kedro run --pipelines label-ingest,train --env azure --params 'train.seed=1 2'"
    )


def test_of_several_nodes_the_first_runs_and_the_others_join() -> None:
    assert run_line("train", "azure", "", 2) == (
        'if [ "$NODE_RANK" = 0 ]; '
        "then kedro run --pipelines train --env azure --params train.hardware.nodes=2; "
        "else kedro join-training --env azure --params train.hardware.nodes=2; fi"
    )


def test_several_nodes_train_and_do_nothing_else() -> None:
    with pytest.raises(JobError, match="not on 'train,deploy'"):
        run_line("train,deploy", "azure", "", 2)


def test_nodes_are_asked_for_in_one_way() -> None:
    with pytest.raises(JobError, match="--nodes instead"):
        run_line("train", "azure", "train.hardware.nodes=4", 2)


def test_a_pipeline_has_its_own_cluster() -> None:
    job = command_job(spec(Path("code")), "train", "x")
    other = command_job(spec(Path("code")), "select", "x")
    chosen = command_job(spec(Path("code")), "train", "x", compute="big")

    clusters = [one["compute"] for one in (job, other, chosen)]
    assert clusters == ["azureml:gpu", "azureml:cpu", "azureml:big"]


def test_whoever_submits_can_be_who_a_job_is() -> None:
    job = command_job(spec(Path("code"), identity="user"), "train", "x")

    assert job["identity"] == {"type": "user_identity"}


def test_an_identity_among_several_is_named() -> None:
    named = variables_of(settings(client_id="an-id"), {"AL_STORAGE_ACCOUNT": "a"})

    assert named["AZURE_CLIENT_ID"] == "an-id"


def test_a_job_gets_the_variables_that_are_named_and_no_other() -> None:
    environ = {"AL_STORAGE_ACCOUNT": "a", "OTHER": "x", "AL_STORAGE_HOST": "h"}

    assert variables_of(settings(), environ) == {
        "AL_STORAGE_ACCOUNT": "a",
        "AL_STORAGE_HOST": "h",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def test_all_variables_that_are_missing_are_named() -> None:
    asked = settings(variables=("AL_A", "AL_B", "AL_C"))

    with pytest.raises(JobError, match=r"2 of 3 .* AL_A, AL_C"):
        variables_of(asked, {"AL_B": "x"})


@pytest.mark.parametrize(
    "name",
    ["AZURE_CLIENT_SECRET", "STORAGE_KEY", "GITHUB_TOKEN", "BLOB_SAS", "DB_PASSWORD"],
)
def test_a_variable_that_sounds_secret_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"the first is '{name}'"):
        settings(variables=("AL_STORAGE_ACCOUNT", name))


@pytest.mark.parametrize(
    "text",
    [
        "https://store.blob.core.windows.net/c?sv=1&sig=abc%3D",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=abc==",
        "mssql://user:password@host/db",
        "eyJhbGciOiJub25lIn0.eyJhIjoxfQ.",
    ],
)
def test_a_definition_with_the_form_of_a_secret_is_refused(text: str) -> None:
    with pytest.raises(JobError, match="Line 2 of the job") as caught:
        refuse_secrets(f"a: b\ncommand: run {text}\n", {})

    assert text not in str(caught.value)


def test_the_value_of_a_secret_variable_is_refused_wherever_it_stands() -> None:
    environ = {"MY_PASSWORD": "correct horse", "PLACE": "somewhere"}

    with pytest.raises(JobError, match="the first is MY_PASSWORD") as caught:
        refuse_secrets("command: run --params x=correct horse", environ)

    assert "correct horse" not in str(caught.value)
    refuse_secrets("command: run --params x=somewhere", environ)


def test_what_a_server_says_is_repeated_without_its_secrets() -> None:
    said = without_secrets("PUT https://a/b?sv=1&sig=abc%3D&se=2 Bearer eyJhbGciOi.x.y")

    assert said == "PUT https://a/b?sv=1&sig=***&se=2 Bearer ***"


@pytest.mark.parametrize("place", ["data/images", "https://a/b?sig=x", "abfs"])
def test_a_place_that_cannot_be_mounted_is_refused(place: str) -> None:
    good: dict[str, Any] = {"env": "base", "data": "azureml://datastores/a/paths/b"}

    with pytest.raises(ValidationError, match="no place that a job can mount"):
        SimulationSettings(**good, images=place)


def test_the_same_images_have_the_same_name_in_every_job() -> None:
    here = "azureml://datastores/a/paths/photos/cats and dogs/"

    assert image_link(here) == image_link(here)
    assert image_link(here) != image_link(here.replace("/a/", "/b/"))
    assert image_link(here).startswith("images/cats-and-dogs-")


def test_a_schedule_has_five_fields() -> None:
    with pytest.raises(ValidationError, match="minute, hour, day, month"):
        ScheduleSettings(enabled=True, pipelines="score", cron="6", time_zone="UTC")


def test_an_unknown_pipeline_is_refused_before_a_cluster_is_paid() -> None:
    with pytest.raises(SettingsError, match="'trian'"):
        known_pipelines("score,trian", ["score", "train"])


@pytest.mark.parametrize("name", ["../outside", "missing"])
def test_code_that_is_not_in_the_project_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "project").mkdir()

    with (
        pytest.raises(SettingsError, match=f"the first is '{name}'"),
        carried(tmp_path / "project", [name]),
    ):
        pass
