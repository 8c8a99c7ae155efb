"""A project whose pipelines become jobs, with all that a job must not carry."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from active_learning.services.environments import EnvironmentSpec
from active_learning.services.jobs.entities import JobSpec
from active_learning.services.jobs.settings import JobsSettings

ROOT = Path(__file__).parents[3]

JOBS = """
jobs:
  workspace: ${globals:workspace}
  experiment: active-learning-loop
  compute: cpu
  computes: {train: gpu}
  identity: managed
  client_id: null
  timeout_s: 3600
  poll_s: 0.01
  variables: [AL_STORAGE_ACCOUNT, AL_ADX_CLUSTER, AL_ADX_DATABASE]
  variables_if_set: [AL_STORAGE_HOST]
  code: [src, conf, pyproject.toml, requirements.lock]

simulation:
  env: base
  images: azureml://datastores/images/paths/digits
  data: azureml://datastores/loop/paths/simulation

schedules:
  score: {enabled: true, pipelines: "score,monitor", cron: "0 * * * *", time_zone: UTC}
  monitor: {enabled: false, pipelines: monitor, cron: "5 * * * *", time_zone: UTC}
  select: {enabled: true, pipelines: select, cron: "0 6 * * 1", time_zone: UTC}
"""
GLOBALS = """
workspace:
  subscription: ${oc.env:AZURE_SUBSCRIPTION_ID}
  resource_group: ${oc.env:AZURE_RESOURCE_GROUP}
  name: ${oc.env:AZUREML_WORKSPACE_NAME}
"""
SECRET = "a-secret-that-stays-here"
TRAPS = {
    ".env": SECRET,
    ".git/config": SECRET,
    ".venv/lib/module.py": SECRET,
    "conf/azure/credentials.yml": SECRET,
    "conf/local/credentials.yml": SECRET,
    "conf/local/jobs.yml": SECRET,
    "data/01_raw/images/a.png": SECRET,
    "notebooks/tries.ipynb": SECRET,
    "src/active_learning/__pycache__/cli.cpython-311.pyc": SECRET,
    "src/active_learning/run.log": SECRET,
    "src/own.secret": SECRET,
}
PLACES = {
    "AZURE_SUBSCRIPTION_ID": "00000000-0000-0000-0000-00000000c0de",
    "AZURE_RESOURCE_GROUP": "rg-loop",
    "AZUREML_WORKSPACE_NAME": "aml-loop",
    "AL_STORAGE_ACCOUNT": "alstorage",
    "AL_ADX_CLUSTER": "https://loop.westeurope.kusto.windows.net",
    "AL_ADX_DATABASE": "loop",
}
# A command of ours, whether or not Kedro lists it.
_COMMAND = """
import sys
from importlib import import_module
from pathlib import Path
from kedro.framework.startup import bootstrap_project
module, name = sys.argv.pop(1).rsplit(".", 1)
metadata = bootstrap_project(Path.cwd())
getattr(import_module(module), name)(obj=metadata)
"""
AZURE_JOB = "active_learning.services.jobs.cli.azure_job"
AZURE_SCHEDULES = "active_learning.services.jobs.cli.azure_schedules"
AZURE_SIMULATE = "active_learning.pipelines.simulate.cli.azure_simulate"
JOIN_TRAINING = "active_learning.pipelines.train.cli.join_training"


def make_project(root: Path, jobs: str = JOBS) -> Path:
    """A copy of this project with its own ``conf/azure``, and what must stay there."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copytree(
        ROOT / "src",
        root / "src",
        ignore=shutil.ignore_patterns("__pycache__", "*.eg*"),
    )
    for env in ("base", "simulation"):
        shutil.copytree(ROOT / "conf" / env, root / "conf" / env)
    for name in (
        "pyproject.toml",
        "requirements.lock",
        ".gitignore",
        "conf/logging.yml",
    ):
        shutil.copyfile(ROOT / name, root / name)
    written = {"conf/azure/jobs/jobs.yml": jobs, "conf/azure/globals.yml": GLOBALS}
    for name, text in {**TRAPS, **written}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    with (root / ".gitignore").open("a") as ignored:
        ignored.write("*.secret\n")
    return root


def command(
    project: Path, name: str, *options: str, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, with nothing in it but these variables."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", _COMMAND, name, *options],
        cwd=project,
        env={**kept, "PYTHONPATH": str(project / "src"), **env},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def settings(**changes: Any) -> JobsSettings:
    """Settings that hold together; a keyword changes one."""
    said = {
        "workspace": {"subscription": "s", "resource_group": "g", "name": "w"},
        "experiment": "loop",
        "compute": "cpu",
        "computes": {"train": "gpu"},
        "identity": "managed",
        "client_id": None,
        "timeout_s": 3600,
        "poll_s": 0.01,
        "variables": ("AL_STORAGE_ACCOUNT",),
        "variables_if_set": ("AL_STORAGE_HOST",),
        "code": ("src",),
    }
    return JobsSettings.model_validate({**said, **changes})


def spec(code: Path, **changes: Any) -> JobSpec:
    """What all jobs of a test have in common."""
    return JobSpec(
        settings=settings(**changes),
        variables={"AL_STORAGE_ACCOUNT": "alstorage"},
        environment=ENVIRONMENT,
        code=str(code),
        tags={"commit": "abc"},
    )


ENVIRONMENT = EnvironmentSpec(
    name="active-learning-training",
    version="0123456789ab",
    image="mcr.microsoft.com/azureml/some:1",
    conda={"name": "x", "dependencies": ["python=3.11", {"pip": ["kedro==1.7.0"]}]},
)
