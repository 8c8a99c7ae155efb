"""What a command beside Kedro's own is told, as a run would read it."""

from pathlib import Path
from typing import Any

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
    return loader
