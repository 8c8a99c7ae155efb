"""The environments that Azure ML builds, made of the project's own lock file."""

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from active_learning.errors import SettingsError

PYTHON = "3.11"
# Microsoft's image for jobs and endpoints. A wheel of torch brings CUDA with it, so
# that a node with a GPU needs no image of its own.
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"

_LOCK = "requirements.lock"
_PROJECT = "pyproject.toml"
# What an endpoint's entry scripts import. Neither torch nor kedro nor mlflow comes with
# any of it.
_SERVING = (
    "adlfs",
    "azure-identity",
    "azure-kusto-data",
    "azure-kusto-ingest",
    "fsspec",
    "numpy",
    "onnxruntime",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "requests",
    "threadpoolctl",
    "tqdm",
)
_NODE = {
    "extra": "",
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": f"{PYTHON}.0",
    "python_version": PYTHON,
    "sys_platform": "linux",
}


@dataclass(frozen=True)
class EnvironmentSpec:
    """An environment as Azure ML takes it.

    Args:
        name: Of its versions together.
        version: A hash of the content: the same content is the same version.
        image: A container image with conda.
        conda: What is installed into it, each package with its version.
    """

    name: str
    version: str
    image: str
    conda: Mapping[str, Any]

    @property
    def reference(self) -> str:
        """As jobs and deployments name it."""
        return f"azureml:{self.name}:{self.version}"


def training_environment(project: Path | None = None) -> EnvironmentSpec:
    """What any pipeline runs in, with a GPU or without.

    Args:
        project: The project's folder; the one around the working directory if not said.

    Raises:
        SettingsError: See ``pinned``.
    """
    project = project or find_project()
    wanted = _declared(project, "azure", "serve")
    return _environment("active-learning-training", pinned(wanted, project))


def serving_environment(project: Path | None = None) -> EnvironmentSpec:
    """What an endpoint scores in: no training, no tracking and no pipelines.

    Args:
        project: The project's folder; the one around the working directory if not said.

    Raises:
        SettingsError: See ``pinned``.
    """
    project = project or find_project()
    extra = {canonicalize_name(one.name): one for one in _extra(project, "serve")}
    declared = _declared(project, "azure")
    known = {canonicalize_name(one.name): one for one in declared} | extra
    names = [*map(canonicalize_name, _SERVING), *extra]
    wanted = [known.get(name, Requirement(name)) for name in names]
    return _environment("active-learning-serving", pinned(wanted, project))


def pinned(wanted: Iterable[Requirement], project: Path) -> list[str]:
    """Some packages and all that they need, in the versions of the lock file.

    What a package needs is read from its installed distribution, as a Linux machine
    with Python 3.11 would need it.

    Args:
        wanted: The packages, with their extras.
        project: The project's folder.

    Returns:
        ``name==version`` by name.

    Raises:
        SettingsError: A package is not installed, or not in the lock file.
    """
    locked = _locked(project / _LOCK)
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [one for one in wanted if _applies(one, "")]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name not in locked:
            raise SettingsError(
                f"{one.name} is needed and not in {_LOCK}, which has {len(locked)} "
                "packages: add it with its version."
            )
        found[name] = f"{name}=={locked[name]}"
        for extra in ("", *one.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += [n for n in _needs(name) if _applies(n, extra)]
    return [found[name] for name in sorted(found)]


def find_project() -> Path:
    """The project around the working directory.

    Raises:
        SettingsError: There is none.
    """
    from kedro.utils import find_kedro_project

    found = find_kedro_project(Path.cwd())
    if found is None:
        raise SettingsError(f"{Path.cwd()} is not inside a Kedro project.")
    return Path(found)


def _environment(name: str, packages: list[str]) -> EnvironmentSpec:
    conda = {
        "name": name,
        "channels": ["conda-forge"],
        "dependencies": [f"python={PYTHON}", "pip", {"pip": packages}],
    }
    content = json.dumps([IMAGE, conda], sort_keys=True)
    version = sha256(content.encode()).hexdigest()[:12]
    return EnvironmentSpec(name=name, version=version, image=IMAGE, conda=conda)


def _needs(name: str) -> Iterator[Requirement]:
    try:
        lines = requires(name) or []
    except PackageNotFoundError as exc:
        raise SettingsError(
            f"{name} is not installed, so that what it needs cannot be told: pip "
            f"install --constraint {_LOCK} 'active-learning-loop[azure,serve]'"
        ) from exc
    return map(Requirement, lines)


def _applies(one: Requirement, extra: str) -> bool:
    return one.marker is None or one.marker.evaluate({**_NODE, "extra": extra})


def _declared(project: Path, *extras: str) -> list[Requirement]:
    said = tomllib.loads((project / _PROJECT).read_text(encoding="utf-8"))["project"]
    own = [Requirement(line) for line in said["dependencies"]]
    return own + [one for extra in extras for one in _extra(project, extra)]


def _extra(project: Path, extra: str) -> list[Requirement]:
    said = tomllib.loads((project / _PROJECT).read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in said["optional-dependencies"][extra]]


def _locked(file: Path) -> dict[str, str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version.strip() for name, version in pairs}
