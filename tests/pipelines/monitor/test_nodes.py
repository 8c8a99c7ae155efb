"""What monitor takes in, and what it says of it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.test_parameters import configured

from active_learning.evaluation.production import lure, wilson
from active_learning.pipelines.monitor.nodes import (
    compact_tables,
    ingest_predictions,
    judge_drift,
    measure_accuracy,
)
from active_learning.pipelines.monitor.params import MonitorParams
from active_learning.schemas import TABLES
from active_learning.services.telemetry.parts import Parts

NOW = datetime(2000, 2, 1, tzinfo=UTC)
PARAMS = MonitorParams.model_validate(configured("monitor"))
NO_ACTIVITY = pd.DataFrame({"day": [], "model_version": []})
NO_SAMPLE = pd.DataFrame({"period": [], "vector": []})
NO_DRAWS = pd.DataFrame(
    columns=["model_version", "round", "rank", "propensity", "population", "right"]
)


def predictions(*ids: str) -> pd.DataFrame:
    return pd.DataFrame({"prediction_id": list(ids), "image_id": list(ids)})


def histograms(**counts: tuple[dict[str, int], dict[str, int]]) -> pd.DataFrame:
    """By signal: what was counted in the reference window and in the current one."""
    rows = [
        {"signal": signal, "period": period, "bucket": bucket, "n": n}
        for signal, windows in counts.items()
        for period, window in zip(("reference", "current"), windows, strict=True)
        for bucket, n in window.items()
    ]
    return pd.DataFrame(rows, columns=["signal", "period", "bucket", "n"])


def judged(counted: pd.DataFrame, sample: pd.DataFrame = NO_SAMPLE) -> dict[str, Any]:
    report = judge_drift(counted, sample, NO_ACTIVITY, NOW, PARAMS)
    json.dumps(report)  # it is for machines
    return {signal["signal"]: signal["verdict"] for signal in report["signals"]} | {
        "all": report["verdict"]
    }


def audited(n: int, n_right: int) -> pd.DataFrame:
    row = {"model_name": "small_cnn", "model_version": 3}
    return pd.DataFrame([row | {"n_audited": n, "n_right": n_right}])


def drawn(*right: bool | None, round_number: int = 1) -> pd.DataFrame:
    n = len(right)
    return pd.DataFrame(
        {
            "model_version": 3,
            "round": round_number,
            "rank": range(1, n + 1),
            "propensity": [0.1 * (m + 1) for m in range(n)],
            "population": 50,
            "right": pd.array(list(right), dtype="boolean"),
        }
    )


def test_batches_and_the_spool_are_taken_in_once_each() -> None:
    taken = ingest_predictions(predictions("a", "b"), predictions("b", "c"))

    assert taken["prediction_id"].tolist() == ["a", "b", "c"]


def test_nothing_new_is_nothing_taken_in() -> None:
    assert ingest_predictions(predictions(), predictions()).empty


def test_another_mix_of_classes_is_drift_and_the_same_is_none() -> None:
    before = {"cat": 500, "dog": 500}

    assert judged(histograms(classes=(before, {"cat": 480, "dog": 520})))[
        "classes"
    ] == ("stable")
    said = judged(histograms(classes=(before, {"cat": 900, "dog": 100})))
    assert said["classes"] == "drift"
    assert said["all"] == "drift"


def test_a_class_that_was_never_seen_before_counts() -> None:
    before, after = {"cat": 1000}, {"cat": 500, "dog": 500}

    assert judged(histograms(classes=(before, after)))["classes"] == "drift"


def test_few_rows_say_nothing() -> None:
    said = judged(histograms(classes=({"cat": 1000}, {"dog": 99})))

    assert said["classes"] == "too_few"


def test_images_that_look_otherwise_are_drift() -> None:
    rng = np.random.default_rng(0)
    sample = pd.DataFrame(
        {
            "period": ["reference"] * 300 + ["current"] * 300,
            "vector": [
                *rng.normal(0, 1, size=(300, 4)),
                *rng.normal(3, 1, size=(300, 4)),
            ],
        }
    )

    assert judged(histograms(), sample)["embeddings"] == "drift"


def test_the_windows_touch_and_end_now() -> None:
    report = judge_drift(histograms(), NO_SAMPLE, NO_ACTIVITY, NOW, PARAMS)

    assert report["until"] == report["current"]["until"] == NOW.isoformat()
    assert report["current"]["from"] == report["reference"]["until"]
    assert report["reference"]["from"] == "1999-12-28T00:00:00+00:00"


def test_the_accuracy_in_production_has_an_interval() -> None:
    report = measure_accuracy(audited(50, 40), NO_DRAWS, PARAMS)

    (version,) = report["by_version"]
    assert version["accuracy"] == 0.8
    assert (version["low"], version["high"]) == wilson(40, 50, 0.95)
    assert version["lure"] is None
    json.dumps(report)


def test_draws_with_known_probabilities_give_a_second_estimate() -> None:
    draws = drawn(True, False, True)

    report = measure_accuracy(audited(5, 4), draws, PARAMS)

    expected = lure([True, False, True], [0.1, 0.2, 0.3], 50, 0.95)
    assert report["by_version"][0]["lure"] == {**expected._asdict(), "round": 1}
    json.dumps(report)


@pytest.mark.parametrize(
    "unfinished",
    [drawn(True, None), drawn(True, True).iloc[1:]],
    ids=["an answer is missing", "a draw was passed over"],
)
def test_only_a_round_whose_every_draw_is_known_counts(
    unfinished: pd.DataFrame,
) -> None:
    whole = drawn(True, False)
    draws = pd.concat([whole, unfinished.assign(round=2)])

    report = measure_accuracy(audited(5, 4), draws, PARAMS)

    assert report["by_version"][0]["lure"]["round"] == 1


def test_parts_that_piled_up_are_merged(tmp_path: Path) -> None:
    predictions, embeddings = (
        Parts(tmp_path / "p", "predictions"),
        Parts(tmp_path / "e", "embeddings"),
    )
    for number in range(PARAMS.compaction.at_least):
        predictions.append(TABLES["predictions"].schema.empty_table(), f"{number}")

    done = compact_tables(predictions, embeddings, PARAMS)

    assert done["predictions"]["merged"] == PARAMS.compaction.at_least
    assert done["embeddings"]["merged"] == 0
    assert len(predictions.current()) == 1
