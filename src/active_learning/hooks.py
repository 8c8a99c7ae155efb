"""Hooks: what is recorded while pipelines run. They record and never decide."""

from __future__ import annotations

import pkgutil
import re
import sys
import time
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from active_learning import pipelines
from active_learning.configuration import open_filesystems
from active_learning.errors import SettingsError
from active_learning.parameters import announce_parameters
from active_learning.pipelines.simulate.plan import announce, current_plan, make_plan

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

_ROUND = re.compile(
    r"(?P<branch>seed_\d+\.[^.]+)\.(?P<round>round_\d+)(\.(?P<step>\w+))?"
)
_SQLITE = "sqlite:///"
# The first node of each step whose seconds are told; evaluation is nobody's wait.
_STEPS = {"score": "score_images", "select": "draw_audit", "train": None}

# What is written into the active run when a node has measured it.
_MEASURED = {
    "judge_drift": "log_drift",
    "judge_stopping": "log_stopping",
    "measure_accuracy": "log_accuracy",
    "record_release": "log_release",
}


class SimulationHooks:
    """Tells the registry what to unroll, and notes how long each step took."""

    def __init__(self) -> None:
        """Nothing has been timed yet."""
        self._started = 0.0

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Announce the plan before the registry is read, and how URLs are reached.

        Raises:
            SettingsError: A parameter's section is misspelled; the nearest is named.
        """
        loader = context.config_loader
        open_filesystems(loader)
        parameters = loader["parameters"]
        _refuse_strange_sections(parameters)
        announce_parameters(parameters)
        images = parameters.get("images", loader["globals"]["images"])
        plan = make_plan(parameters, images)
        announce(plan)
        loader["parameters"] = plan.lay_out(parameters)

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node, catalog: DataCatalog) -> None:
        """Add the seconds to those of the round's step, before its result is saved."""
        seconds = time.perf_counter() - self._started
        place = _ROUND.fullmatch(node.namespace or "")
        if place is None or place["step"] not in _STEPS:
            return
        if node.short_name.startswith("evaluate"):
            return
        name = f"{place['branch']}.{place['round']}.step_times"
        times = catalog.load(name) if catalog.exists(name) else {}
        first = _STEPS[place["step"]]
        before = times.get(place["step"], 0.0) if node.short_name != first else 0.0
        catalog.save(name, {**times, place["step"]: before + seconds})


class TrackingHooks:
    """Keeps the books in MLflow: a model's figures, and those of a simulation."""

    def __init__(self) -> None:
        """There is no context yet."""
        self._context: KedroContext | None = None

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context, to which kedro-mlflow adds its settings.

        It opens the database then; one that is not there yet is made before.
        """
        self._context = context
        uri = str(context.config_loader["mlflow"]["server"]["mlflow_tracking_uri"])
        place = uri.removeprefix(_SQLITE)
        if place != uri and not Path(place).exists():
            from active_learning import tracking

            tracking.make_database(Path(place))

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Open the runs of a simulation, or go on in those it had."""
        if not _simulates(run_params) or self._context is None:
            return
        from active_learning import tracking

        books = self._context.mlflow  # type: ignore[attr-defined]  # kedro-mlflow's
        tracking.open_runs(
            current_plan(),
            experiment_id=books.tracking.experiment._experiment.experiment_id,
            tracking_uri=books.server.mlflow_tracking_uri,
            resume=bool(run_params["only_missing_outputs"] or run_params["namespaces"]),
        )

    @hook_impl
    def after_node_run(
        self, node: Node, catalog: DataCatalog, outputs: dict[str, Any]
    ) -> None:
        """Log what a round or an evaluation measured, before it is saved."""
        place = _ROUND.fullmatch(node.namespace or "")
        if node.short_name in ("measure_start", "measure_round") and place:
            from active_learning import tracking

            tracking.log_point(next(iter(outputs.values())), place["branch"])
        elif node.short_name == "evaluate_challenger" and place is None:
            _log_challenger(next(iter(outputs.values())), catalog)
        elif node.short_name in _MEASURED and place is None:
            from active_learning import tracking

            log = getattr(tracking, _MEASURED[node.short_name])
            log(next(iter(outputs.values())))

    @hook_impl
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Close the runs of a simulation and say where its report is."""
        if not _simulates(run_params):
            return
        from active_learning import tracking

        # A run of one namespace alone makes no report.
        made = "simulation_report" in pipeline.all_outputs()
        report = Path(_filepath(catalog, "simulation_report")) if made else None
        tracking.close_runs("FINISHED", report.parent if report else None)
        if report:
            sys.stdout.write(f"\n{catalog.load('simulation_table')}\n")
            sys.stdout.write(f"\nReport: {report}\n")

    @hook_impl
    def on_pipeline_error(self, run_params: dict[str, Any]) -> None:
        """Leave no run behind that seems to go on."""
        if _simulates(run_params):
            from active_learning import tracking

            tracking.close_runs("FAILED")


def _log_challenger(evaluation: dict[str, Any], catalog: DataCatalog) -> None:
    # The same figures of the same version are of a model that is in the books.
    before = catalog.load("evaluation") if catalog.exists("evaluation") else None
    if evaluation["accuracy"] is None or evaluation == before:
        return
    from active_learning import tracking

    model = catalog["challenger"]._describe()["filepath"]
    tracking.log_evaluation(evaluation, model)


def _simulates(run_params: dict[str, Any]) -> bool:
    return "simulate" in (run_params["pipeline_names"] or [])


def _filepath(catalog: DataCatalog, name: str) -> str:
    dataset = catalog[name]
    return str(dataset.filepath)  # type: ignore[attr-defined]  # an AtomicDataset


def _refuse_strange_sections(parameters: dict[str, Any]) -> None:
    known = [module.name for module in pkgutil.iter_modules(pipelines.__path__)]
    for name in parameters:
        if name not in (*known, "images"):
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise SettingsError(
                f"No pipeline has parameters called {name!r}.{hint} Known: "
                f"{', '.join(known)}."
            )
