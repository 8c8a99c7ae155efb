"""Every name a pipeline uses is declared, in every environment."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec.config
import pytest
from kedro.framework.project import settings
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from mlflow.tracking import fluent

from active_learning.pipeline_registry import LOOP, register_pipelines

PROJECT = Path(__file__).parents[1]
CONF = PROJECT / "conf"

# What lives no longer than the run that made it, and why that is right.
PASSING = {
    "answers",
    "audit_candidates",
    "audit_sample",
    "batch",
    "candidates",
    "changed_labels",
    "checked_answers",
    "compaction",
    "every_label",
    "exported_challenger",
    "first_asked",
    "incoming_images",
    "judged_challenger",
    "known_labels",
    "label_exports",
    "label_requests",
    "labeled_embeddings",
    "labeling_queue",
    "learning_curve",
    "new_labels",
    "past_rejections",
    "past_requests",
    "ranked_candidates",
    "registered_challenger",
    "requests",
    "rollout",
    "scored_images",
    "second_opinions",
    "settled_labels",
    "simulation_settings",
    "training_lineage",
    "wanted_candidates",
}


# What commands that a laptop has no use for are told.
OF_AZURE_ALONE = {
    "deploy/azure_batch.yml",
    "jobs/jobs.yml",
    "labeling/azure_labeling.yml",
}
# Where a cloud would be.
PLACES = {
    "AL_ADX_CLUSTER": "https://cluster.region.kusto.windows.net",
    "AL_ADX_DATABASE": "loop",
    "AL_ENDPOINT": "active-learning",
    "AL_ENDPOINT_CLIENT_ID": "00000000-0000-0000-0000-000000000001",
    "AL_ENDPOINT_IDENTITY_ID": "/subscriptions/s/resourceGroups/g/identity",
    "AL_LABELING_CONTAINER": "azureml-blobstore",
    "AL_STORAGE_ACCOUNT": "account",
    "AZUREML_WORKSPACE_NAME": "workspace",
    "AZURE_RESOURCE_GROUP": "group",
    "AZURE_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000002",
}


@dataclass(frozen=True)
class Project:
    """The catalog of an environment and the pipelines that use it."""

    catalog: DataCatalog
    pipelines: dict[str, Pipeline]
    data: Path


@pytest.fixture(scope="module", params=["base", "simulation", "label_noise", "azure"])
def project(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    data = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AL_DATA", str(data))
        # A session chooses MLflow's experiment for the whole process; it ends here.
        patch.setattr(fluent, "_active_experiment_id", None)
        patch.setenv("MLFLOW_EXPERIMENT_ID", "")
        patch.delenv("MLFLOW_EXPERIMENT_ID")
        if request.param == "azure":
            # A run says how blobs are reached; that ends with this test.
            patch.setitem(fsspec.config.conf, "abfs", {})
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{data}/mlflow.db")
            for name, value in PLACES.items():
                patch.setenv(name, value)
        patch.chdir(PROJECT)
        bootstrap_project(PROJECT)
        # Two rounds show every name that thirty would.
        few = {"simulate": {"rounds": 2, "seeds": [0]}}
        with KedroSession.create(
            PROJECT, env=request.param, runtime_params=few
        ) as session:
            catalog = session.load_context().catalog
            assert isinstance(catalog, DataCatalog)
            yield Project(catalog, dict(register_pipelines()), data)


def every_name(pipeline: Pipeline) -> set[str]:
    return {name for name in pipeline.datasets() if not name.startswith("param")}


def test_every_name_is_declared_or_known_to_pass(project: Project) -> None:
    names = {n for p in project.pipelines.values() for n in every_name(p)}

    undeclared = {
        name
        for name in names
        if name not in project.catalog and name.rpartition(".")[2] not in PASSING
    }

    assert undeclared == set()


def test_what_a_pipeline_reads_from_outside_is_declared(project: Project) -> None:
    for pipeline in project.pipelines.values():
        free = {n for n in pipeline.inputs() if not n.startswith("param")}
        assert all(name in project.catalog for name in free)


def test_every_declared_dataset_can_be_built(project: Project) -> None:
    for pipeline in project.pipelines.values():
        for name in every_name(pipeline):
            assert name not in project.catalog or project.catalog[name] is not None


def test_nothing_but_the_loop_is_a_pattern(project: Project) -> None:
    # A catch-all would turn a misspelled name into memory.
    patterns = set(project.catalog.config_resolver.list_patterns())
    kedros_own = set(DataCatalog.default_runtime_patterns)

    assert all(re.match(r"\{seed\}\.", name) for name in patterns - kedros_own)
    assert "misspelled" not in project.catalog


def test_a_name_finds_the_factory_that_kedro_itself_would_find(
    project: Project,
) -> None:
    kedros_own = project.catalog.config_resolver
    ours = settings.DATA_CATALOG_CLASS(config_resolver=kedros_own).config_resolver
    names = {n for p in project.pipelines.values() for n in p.datasets()}
    found = {name: kedros_own.match_dataset_pattern(name) for name in names}

    assert type(kedros_own) is not type(ours)
    assert {n for n in names if n.endswith("curve_point")} <= {
        name for name, pattern in found.items() if pattern
    }
    assert {name: ours.match_dataset_pattern(name) for name in names} == found


def test_no_data_lies_outside_the_data_folder(project: Project) -> None:
    simulate = project.pipelines["simulate"]
    places = [
        str(value)
        for name in every_name(simulate)
        if name in project.catalog
        for key, value in project.catalog[name]._describe().items()
        if key in ("filepath", "path")
    ]

    assert places
    assert all(place.startswith((str(project.data), "abfs://")) for place in places)


def test_an_overlay_holds_only_what_base_has_too() -> None:
    overlays = [path for path in CONF.glob("*/*/*.yml") if "base" not in path.parts]

    assert overlays
    for path in overlays:
        place = path.relative_to(CONF).relative_to(path.parts[-3])
        assert (CONF / "base" / place).exists() or place.as_posix() in OF_AZURE_ALONE


def test_the_registry_is_the_loop_and_what_is_beside_it() -> None:
    names = list(register_pipelines())

    assert names[:6] == [
        *("__default__", "score", "monitor", "select", "label-ingest", "train")
    ]
    assert {"data", "test-set", "simulate"} <= set(names)


def test_the_default_is_one_turn_of_the_loop(project: Project) -> None:
    pipelines = project.pipelines

    turn = {node.name for node in pipelines["__default__"].nodes}

    assert turn == {n.name for step in LOOP for n in pipelines[step].nodes}


def test_a_simulated_round_holds_the_nodes_of_production(project: Project) -> None:
    pipelines = project.pipelines
    production = {
        node.name
        for step in ("score", "select", "label-ingest", "train")
        for node in pipelines[step].nodes
    }

    place = "seed_0.margin.round_01."
    simulated = {
        node.name.removeprefix(place)
        for node in pipelines["simulate"].nodes
        if node.name.startswith(place)
    }

    # The champion was evaluated in the round that trained it; nobody asks a replay when
    # to stop, or for a report on each round's answers.
    assert production - simulated == {
        "label_ingest.report_ingestion",
        "select.heed_advice",
        "select.judge_stopping",
        "select.render_stopping",
        "train.evaluate_champion",
    }
    functions = {n.name: n.func for step in LOOP for n in pipelines[step].nodes}
    for node in pipelines["simulate"].nodes:
        name = node.name.removeprefix(place)
        assert name not in functions or node.func is functions[name]
