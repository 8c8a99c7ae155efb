"""What a command beside Kedro's own is told, as a run would read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec.config
from kedro.config import AbstractConfigLoader
from kedro.framework.project import settings


def configuration_of(
    project: Path, env: str | None, params: dict[str, Any]
) -> AbstractConfigLoader:
    """The project's configuration in an environment.

    Args:
        project: The project's folder.
        env: Its overlay; ``None`` is the default one.
        params: What was typed goes before what is written.
    """
    loader: AbstractConfigLoader = settings.CONFIG_LOADER_CLASS(
        conf_source=str(project / settings.CONF_SOURCE),
        env=env,
        runtime_params=params,
        **settings.CONFIG_LOADER_ARGS,
    )
    open_filesystems(loader)
    return loader


def open_filesystems(loader: AbstractConfigLoader) -> None:
    """Let every URL be reached as ``globals.yml`` says: accounts and hosts, no key."""
    filesystems: dict[str, dict[str, Any]] = loader["globals"]["filesystems"]
    for protocol, options in filesystems.items():
        fsspec.config.conf[protocol] = options
