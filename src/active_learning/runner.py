"""Branches side by side: a runner for pipelines that unroll into chains."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import wait as wait_for
from typing import TYPE_CHECKING, Any

from kedro.framework import project
from kedro.framework.hooks.manager import _create_hook_manager, _register_hooks
from kedro.io import AbstractDataset, CatalogConfigResolver, DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.runner import AbstractRunner, SequentialRunner
from kedro.runner.task import Task

if TYPE_CHECKING:
    from kedro.pipeline.node import Node
    from pluggy import PluginManager

# Not this module's name, under which Kedro lists every node that it skips.
logger = logging.getLogger("active_learning.branches")

# Configuration, what is in memory, and the names of what shall come back.
_Stock = tuple[CatalogConfigResolver, dict[str, Any], set[str]]
# How the name begins of a part that is one node outside of any branch.
_ALONE = "node:"

# Steps whose every run is told where a person ran that step.
_TALKERS = [
    f"active_learning.pipelines.{step}.nodes" for step in ("score", "label_ingest")
]
# Imported once by the server that forks the workers, and not by each of them.
_PRELOADED = [
    "active_learning.settings",
    "active_learning.learning.checkpoint",
    "active_learning.learning.evaluation",
    "active_learning.pipelines.simulate.pipeline",
    "active_learning.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
    "kedro_datasets.json",
]


class _Kept(MemoryDataset):
    """In memory until the branch is over, though its last node has read it."""

    def _release(self) -> None:
        """Stay: another branch asks for it."""


class BranchRunner(AbstractRunner):
    """Runs whole branches of a pipeline in worker processes.

    A branch is what shares the first two parts of its namespace, such as
    ``seed_0.margin``. Its nodes depend on each other and gain nothing from being sent
    out one by one, as Kedro's ``ParallelRunner`` does: here a worker gets a branch
    once, runs it in order with the project's hooks and ends with it, so that memory
    does not grow with the number of branches. A fork server has imported what all of
    them need. Nodes outside a branch run in this process. Each worker has its share of
    the cores; ``AL_WORKERS`` says how many there are, by default one a core.

    Use::

        $ kedro run --pipelines simulate --runner active_learning.runner.BranchRunner
    """

    def __init__(self, is_async: bool = False, max_workers: int | None = None) -> None:
        """Decide how many workers; none is started before ``run``.

        The fork server is, so that its imports go on beside those of this process.

        Raises:
            ValueError: ``max_workers`` or ``AL_WORKERS`` is not a positive number.
        """
        super().__init__(is_async=is_async)
        asked = _asked_workers() if max_workers is None else max_workers
        self._max_workers = self._validate_max_workers(asked)
        # A fork of a process with threads may deadlock; a fork server has none.
        methods = multiprocessing.get_all_start_methods()
        self._method = "forkserver" if "forkserver" in methods else "spawn"
        if self._method == "forkserver":
            forkserver.set_forkserver_preload(_PRELOADED)
            forkserver.ensure_running()

    def _get_executor(self, max_workers: int) -> ProcessPoolExecutor:
        # Not by the branches that are left: a run that is resumed for its last one
        # would add numbers in another order than one that was never stopped.
        share = max(1, (os.cpu_count() or 1) // self._max_workers)
        return ProcessPoolExecutor(
            max_workers,
            mp_context=multiprocessing.get_context(self._method),
            max_tasks_per_child=1,
            initializer=partial(
                _prepare_worker, project.PACKAGE_NAME, dict(os.environ), share
            ),
        )

    def _run(
        self,
        pipeline: Pipeline,
        catalog: DataCatalog,  # type: ignore[override]  # not the bare protocol
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
    ) -> None:
        parts = _part(pipeline)
        waiting = {name: _dependencies(part, parts) for name, part in parts.items()}
        n_branches = sum(name is not None for name in map(_branch_name, parts))
        wanted = pipeline.outputs().union(*(part.inputs() for part in parts.values()))
        done: set[str] = set()
        running: dict[Future[dict[str, Any]], str] = {}
        n_workers = min(self._max_workers, max(1, n_branches))
        with self._get_executor(n_workers) as pool:
            try:
                while waiting or running:
                    ready = [n for n, before in waiting.items() if before <= done]
                    if not ready and not running:
                        raise ValueError(
                            "These parts of the pipeline wait for each other: "
                            f"{', '.join(sorted(waiting))}. A branch runs in one go: "
                            "a node outside of it cannot stand between two of its own."
                        )
                    for name in ready:
                        # None waits inside the pool, which would start it after an
                        # error and end only with it.
                        if _branch_name(name) and len(running) == n_workers:
                            continue
                        del waiting[name]
                        part = parts[name]
                        if _branch_name(name) is None:
                            self._run_here(part, catalog, hook_manager, run_id)
                            done.add(name)
                        else:
                            future = pool.submit(
                                _run_branch, part, _stock(part, catalog, wanted), run_id
                            )
                            running[future] = name
                    if not running:
                        continue
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        for dataset, data in future.result().items():
                            catalog.save(dataset, data)
                        name = running.pop(future)
                        done.add(name)
                        logger.info("Branch %s is done", name)
            except BaseException:
                # The others would go on for minutes before anybody saw the error.
                for process in list((pool._processes or {}).values()):
                    process.terminate()
                logger.warning(
                    "The run has stopped. What is written is whole: the same command "
                    "with --only-missing-outputs goes on from there."
                )
                raise

    def _run_here(
        self,
        part: Pipeline,
        catalog: DataCatalog,
        hook_manager: PluginManager | None,
        run_id: str | None,
    ) -> None:
        for node in part.nodes:
            Task(
                node=node,
                catalog=catalog,
                hook_manager=hook_manager,
                is_async=self._is_async,
                run_id=run_id,
            ).execute()


def _branch_name(name: str) -> str | None:
    """The part's name where the part is a branch; ``None`` for a node by itself."""
    return None if name.startswith(_ALONE) else name


def _part(pipeline: Pipeline) -> dict[str, Pipeline]:
    """Cut a pipeline into its branches and the single nodes outside of any."""
    members: dict[str, list[Node]] = {}
    for node in pipeline.nodes:
        namespace = (node.namespace or "").split(".")
        alone = len(namespace) < 2
        name = f"{_ALONE}{node.name}" if alone else ".".join(namespace[:2])
        members.setdefault(name, []).append(node)
    return {name: Pipeline(nodes) for name, nodes in members.items()}


def _dependencies(part: Pipeline, parts: Mapping[str, Pipeline]) -> set[str]:
    needed = part.inputs()
    return {name for name, other in parts.items() if needed & other.all_outputs()}


def _asked_workers() -> int | None:
    """What ``AL_WORKERS`` asks for; ``None`` where it is not set, empty or 0."""
    asked = os.environ.get("AL_WORKERS") or "0"
    if not asked.isdecimal():
        raise ValueError(f"AL_WORKERS is {asked!r}; use a number, 0 for one a core")
    return int(asked) or None


def _stock(part: Pipeline, catalog: DataCatalog, wanted: set[str]) -> _Stock:
    """What a worker needs of the catalog: its configuration and what is in memory."""
    held = {
        name: catalog.load(name)
        for name in part.inputs()
        if isinstance(catalog.get(name), MemoryDataset)
    }
    returned = {
        name
        for name in part.all_outputs() & wanted
        if isinstance(catalog.get(name), MemoryDataset)
    }
    return catalog.config_resolver, held, returned


def _run_branch(part: Pipeline, stock: _Stock, run_id: str | None) -> dict[str, Any]:
    """Run a branch in a worker; what it leaves in memory goes back."""
    resolver, held, returned = stock
    memory: dict[str, AbstractDataset[Any, Any]] = {
        **{name: MemoryDataset(data) for name, data in held.items()},
        **{name: _Kept() for name in returned},
    }
    catalog = DataCatalog(memory, config_resolver=resolver)
    hooks = _create_hook_manager()
    _register_hooks(hooks, project.settings.HOOKS)
    SequentialRunner().run(part, catalog, hooks, run_id)
    return {name: catalog.load(name) for name in returned}


def _prepare_worker(
    package: str | None, environment: dict[str, str], n_threads: int
) -> None:
    """Make a worker part of the project, and let it end when its parent does."""
    os.environ.update(environment)
    project.configure_project(str(package))
    # A line a node, thirty rounds long, would hide the line a round.
    for talker in ("kedro.pipeline", "active_learning.learning", *_TALKERS):
        logging.getLogger(talker).setLevel(logging.WARNING)
    os.environ["OMP_NUM_THREADS"] = str(n_threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n_threads)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    # A killed parent cannot end its workers, and they would write beside its successor.
    wait_for([sentinel])
    os._exit(1)
