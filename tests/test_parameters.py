"""Parameters that do not hold together are refused, with the way out."""

from pathlib import Path
from typing import Any

import pytest
from kedro.config import OmegaConfigLoader
from pydantic import ValidationError

from active_learning.pipelines.deploy.params import DeployParams
from active_learning.pipelines.label_ingest.params import LabelIngestParams
from active_learning.pipelines.monitor.params import MonitorParams
from active_learning.pipelines.score.params import ScoreParams
from active_learning.pipelines.select.params import SelectParams
from active_learning.pipelines.simulate.params import SimulateParams
from active_learning.pipelines.start.params import StartParams
from active_learning.pipelines.test_set.params import TestSetParams
from active_learning.pipelines.train.params import TrainParams
from active_learning.services.labeling.oracle import OracleParams
from active_learning.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).parents[1] / "conf"


def configured(section: str, env: str = "base", **changes: Any) -> dict[str, Any]:
    """A section as configured, with some values changed."""
    loader = OmegaConfigLoader(str(CONF), env=env, **CONFIG_LOADER_ARGS)
    return {**loader["parameters"][section], **changes}


@pytest.mark.parametrize("env", ["base", "simulation", "label_noise"])
@pytest.mark.parametrize(
    ("section", "model"),
    [
        ("deploy", DeployParams),
        ("label_ingest", LabelIngestParams),
        ("monitor", MonitorParams),
        ("oracle", OracleParams),
        ("score", ScoreParams),
        ("select", SelectParams),
        ("simulate", SimulateParams),
        ("start", StartParams),
        ("test_set", TestSetParams),
        ("train", TrainParams),
    ],
)
def test_what_is_configured_is_valid(env: str, section: str, model: Any) -> None:
    assert model.model_validate(configured(section, env))


def test_the_full_experiment_is_that_of_the_reference() -> None:
    full = SimulateParams.model_validate(configured("simulate", "simulation"))

    assert full.model_dump() == {
        "rounds": 30,
        "strategies": ("random", "least_confidence", "margin", "entropy"),
        "seeds": (0, 1, 2),
        "pool_size": 15_000,
        "initial_labels": 200,
        "labels_per_round": 50,
        "stream_size": 500,
        "variants": {},
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"over": "power"}, "Known: .*margin"),
        ({"strategy": "power", "over": "badge"}, "which knows margin"),
        ({"budget": 10_001}, "brings back 10,000 at most"),
        ({"max_class_share": 0}, "greater than 0"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        SelectParams.model_validate(configured("select", **changes))


def test_a_misspelled_parameter_is_told_the_nearest() -> None:
    with pytest.raises(ValidationError, match="did you mean 'budget'"):
        SelectParams.model_validate(configured("select", bugdet=7))


def test_a_misspelled_nested_parameter_is_told_the_nearest() -> None:
    train = configured("train")
    train["recipe"]["lerning_rate"] = 0.1

    with pytest.raises(ValidationError, match="did you mean 'learning_rate'"):
        TrainParams.model_validate(train)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"strategies": ["margin"]}, "lacks 'random'"),
        ({"strategies": ["random", "margn"]}, "Did you mean 'margin'"),
        ({"strategies": ["random", "random"]}, "each once"),
        ({"seeds": []}, "one or more"),
        ({"stream_size": 1501}, "need a pool of 15010"),
        ({"labels_per_round": 1501}, "cannot be chosen out of 1500"),
        ({"rounds": 0}, "greater than 0"),
        ({"seeds": [-1]}, "greater than or equal to 0"),
    ],
)
def test_a_simulation_that_cannot_be_is_refused(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        SimulateParams.model_validate(configured("simulate", **changes))


def test_several_strategies_and_seeds_can_be_typed_with_a_plus() -> None:
    typed = SimulateParams.model_validate(
        configured("simulate", strategies="random+entropy", seeds="3+5")
    )

    assert typed.strategies == ("random", "entropy")
    assert typed.seeds == (3, 5)


def test_pretrained_without_weights_is_refused() -> None:
    train = configured("train")
    train["init"]["start"] = "pretrained"

    with pytest.raises(ValidationError, match=r"network\.weights is null"):
        TrainParams.model_validate(train)
