"""``kedro join-training``: the other nodes of a training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from kedro.framework.cli.utils import _split_params, env_option

if TYPE_CHECKING:
    from kedro.framework.startup import ProjectMetadata

_LIGHTNING = "lightning"


@click.command("join-training")
@click.option(
    "--params",
    type=click.UNPROCESSED,
    default="",
    callback=_split_params,
    help="Those of the first node.",
)
@env_option
@click.pass_obj
def join_training(
    metadata: ProjectMetadata, params: dict[str, Any], env: str | None
) -> None:
    """Train beside a `kedro run --pipelines train` on the first of several nodes.

    It reads what train reads, works on the same model and ends. It writes nothing:
    neither a dataset nor a run in MLflow, which are the first node's. Azure ML starts
    it on the other nodes of a job; MASTER_ADDR, MASTER_PORT and NODE_RANK say where
    they meet.
    """
    from kedro.framework.context import KedroContext
    from kedro.framework.hooks.manager import _create_hook_manager, _register_hooks
    from kedro.framework.project import settings

    from active_learning.configuration import configuration_of
    from active_learning.errors import ActiveLearningError
    from active_learning.pipelines.train.nodes import train_challenger
    from active_learning.pipelines.train.pipeline import create_pipeline

    _refuse_the_first_node()
    # Paths in conf are relative to the project.
    os.chdir(metadata.project_path)
    # The project's own hooks alone: kedro-mlflow's would start a run.
    hooks = _create_hook_manager()
    _register_hooks(hooks, settings.HOOKS)
    context = KedroContext(
        project_path=Path(metadata.project_path),
        config_loader=configuration_of(Path(metadata.project_path), env, params),
        env=env,
        package_name=metadata.package_name,
        hook_manager=hooks,
        runtime_params=params,  # type: ignore[arg-type]  # a converter hides its type
    )
    context._pipelines_to_validate = ["train"]
    try:
        hooks.hook.after_context_created(context=context)
        _refuse_another_trainer(context.config_loader["parameters"]["train"])
        catalog = context.catalog
        node = next(n for n in create_pipeline().nodes if n.func is train_challenger)
        node.run({name: catalog.load(name) for name in node.inputs})
    except ActiveLearningError as exc:
        raise click.ClickException(str(exc)) from exc


def _refuse_another_trainer(params: dict[str, Any]) -> None:
    if params["trainer"] != _LIGHTNING:
        raise click.ClickException(
            f"train.trainer is {params['trainer']!r}: nodes join the training of "
            f"{_LIGHTNING!r} alone. Train without --nodes."
        )


def _refuse_the_first_node() -> None:
    rank = os.environ.get("NODE_RANK", "")
    if not rank.isdecimal() or int(rank) == 0:
        raise click.ClickException(
            f"NODE_RANK is {rank!r}: only nodes 1 and up join a training. The first "
            "one runs 'kedro run --pipelines train', which saves what was trained."
        )
