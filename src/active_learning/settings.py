"""Kedro's settings: hooks, and how configuration is found and merged."""

import atexit
import gc
import sys
import warnings
from pathlib import PurePosixPath

from kedro.config import OmegaConfigLoader
from omegaconf.resolvers import oc

from active_learning.acquisition import candidate_order, needs_embeddings
from active_learning.catalog import Catalog
from active_learning.hooks import SimulationHooks, TrackingHooks
from active_learning.lenience import LenientHooks
from active_learning.parameters import announced
from active_learning.pipelines.simulate.plan import experiment

# Some five thousand modules are imported before the first model learns, and nothing of
# them is garbage: to look for it took a tenth of the start.
gc.set_threshold(10_000, 50)


@atexit.register
def _end_at_once() -> None:
    """Do not look through all of them once more when nothing is left to do."""
    # DuckDB takes what is still there for a leak, and tells so line by line.
    if "_duckdb" not in sys.modules:
        gc.freeze()


# Kedro's and kedro-mlflow's own use of OmegaConf, and names that a simulation makes.
warnings.filterwarnings("ignore", "(?s)register_new_resolver", UserWarning)
warnings.filterwarnings("ignore", "One or more dataset names contain '.'", UserWarning)
# kedro-mlflow defines a model class that this project does not use.
warnings.filterwarnings("ignore", "(?s).*Add type hints to the `predict`", UserWarning)


def stem(place: str) -> str:
    """The last part of a path, for a file's name that says what it belongs to."""
    return PurePosixPath(place).stem


def looks_at_embeddings(strategy: str, over: str, near_duplicates: str) -> int:
    """1 when ``select`` needs embeddings, for a query's parameter, else 0."""
    return int(near_duplicates == "embedding" or needs_embeddings(strategy, over))


# The files that commands beside Kedro's own read.
_COMMANDS = ("serving", "labeling", "watch", "azure_tables", "azure_batch", "jobs")

HOOKS = (SimulationHooks(), TrackingHooks(), LenientHooks())

DATA_CATALOG_CLASS = Catalog
CONFIG_LOADER_CLASS = OmegaConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # What they are told; and kedro-mlflow's.
    "config_patterns": {
        name: [f"{name}*", f"{name}*/**", f"**/{name}*"]
        for name in (*_COMMANDS, "mlflow")
    },
    # An overlay holds only the leaves that differ.
    "merge_strategy": dict.fromkeys(("parameters", "globals", *_COMMANDS), "soft"),
    "custom_resolvers": {
        "oc.env": oc.env,
        # The folder of a simulation, named by what decides its rounds.
        "experiment": experiment,
        "stem": stem,
        # What a query is asked with is what a pipeline is told.
        "parameter": announced,
        "candidate_order": candidate_order,
        "needs_embeddings": looks_at_embeddings,
    },
}
