"""Nodes of ``monitor``."""

import logging
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from active_learning.drift import (
    Shift,
    compare_counts,
    compare_samples,
    verdict,
    worst,
)
from active_learning.evaluation.production import lure, wilson
from active_learning.pipelines.monitor.params import MonitorParams
from active_learning.services.telemetry.parts import Parts

logger = logging.getLogger(__name__)

_COUNTED = ("classes", "confidence", "margin", "entropy")


def ingest_predictions(
    scored_batch: pd.DataFrame, spooled_predictions: pd.DataFrame
) -> pd.DataFrame:
    """Take in what was scored in batches and what a service still holds.

    Both are emptied when the result is saved, and not before: killed in between, they
    are taken in once more, and every reader counts a prediction once.

    Args:
        scored_batch: Predictions of ``score``.
        spooled_predictions: Predictions that a scoring service answered and could not
            deliver.

    Returns:
        Both, each ``prediction_id`` once, in the columns of ``schemas.PREDICTIONS``.
    """
    both = [frame for frame in (scored_batch, spooled_predictions) if len(frame)]
    every = pd.concat(both, ignore_index=True) if both else scored_batch
    logger.info(
        "Took in %d predictions of batches and %d that waited in the spool",
        len(scored_batch),
        len(spooled_predictions),
    )
    return every.drop_duplicates("prediction_id", ignore_index=True)


def compact_tables(
    predictions: Parts, embeddings: Parts, params: MonitorParams
) -> dict[str, Any]:
    """Merge what piled up into large parts, which are quicker to ask.

    Returns:
        What was merged, deleted and found double, by table.
    """
    return {
        table.table: table.compact(**params.compaction.model_dump())._asdict()
        for table in (predictions, embeddings)
    }


def judge_drift(
    histograms: pd.DataFrame,
    embedding_sample: pd.DataFrame,
    activity: pd.DataFrame,
    now: datetime,
    params: MonitorParams,
) -> dict[str, Any]:
    """Compare the current window with the reference window before it.

    Args:
        histograms: ``signal``, ``period`` (``current`` or ``reference``), ``bucket``
            and ``n``: counted by the engine.
        embedding_sample: ``period`` and ``vector``, drawn blind by the engine.
        activity: ``model_version`` of what was scored lately, by day.
        now: The end of the current window.
        params: Uses the windows and ``limits``.

    Returns:
        ``signals`` with size, p-value and verdict of each, the windows, the limits and
        the worst ``verdict``; plain values, for JSON.
    """
    shifts = {signal: _counted(histograms, signal) for signal in _COUNTED}
    shifts["embeddings"] = compare_samples(
        _vectors(embedding_sample, "reference"), _vectors(embedding_sample, "current")
    )
    limits = params.limits
    verdicts = {
        signal: verdict(shift, limits.psi, limits.js, limits.p_value, limits.min_rows)
        for signal, shift in shifts.items()
    }
    turn = now - timedelta(days=params.current_days)
    start = turn - timedelta(days=params.reference_days)
    seen = shifts["classes"]
    versions = activity.sort_values("day")["model_version"]
    report = {
        "until": now.isoformat(),
        "model_version": int(versions.iloc[-1]) if len(versions) else None,
        "reference": _window(start, turn, seen.n_reference),
        "current": _window(turn, now, seen.n_current),
        "signals": [
            {"signal": signal, **shift._asdict(), "verdict": verdicts[signal]}
            for signal, shift in shifts.items()
        ],
        "limits": limits.model_dump(),
        "verdict": worst(verdicts.values()),
    }
    drifted = [signal for signal, said in verdicts.items() if said == "drift"]
    logger.log(
        logging.WARNING if drifted else logging.INFO,
        "%d predictions in the last %d days: %s",
        seen.n_current,
        params.current_days,
        f"drift of {', '.join(drifted)}" if drifted else report["verdict"],
    )
    return report


def measure_accuracy(
    audit_answers: pd.DataFrame, draws: pd.DataFrame, params: MonitorParams
) -> dict[str, Any]:
    """Say how often each version was right in production, and how sure that is.

    Args:
        audit_answers: ``n_audited`` and ``n_right`` by model, on images drawn blind.
        draws: Images that the strategy ``power`` drew with a known probability:
            ``round``, ``rank``, ``propensity``, ``population`` and ``right``, which is
            null where no answer has come.
        params: Uses ``level``.

    Returns:
        ``by_version`` with the accuracy on the audit sample, its Wilson interval and,
        where a whole round of draws was answered, the LURE estimate; plain values, for
        JSON.
    """
    by_version = []
    for row in audit_answers.to_dict("records"):
        version, n, n_right = (
            int(row[name]) for name in ("model_version", "n_audited", "n_right")
        )
        low, high = wilson(n_right, n, params.level)
        by_version.append(
            {
                "model_name": str(row["model_name"]),
                "model_version": version,
                "n_audited": n,
                "n_right": n_right,
                "accuracy": n_right / n if n else None,
                "low": low,
                "high": high,
                "lure": _lure(draws[draws["model_version"] == version], params),
            }
        )
    return {"level": params.level, "by_version": by_version}


def _counted(histograms: pd.DataFrame, signal: str) -> Shift:
    counts = histograms[histograms["signal"] == signal].pivot_table(
        index="bucket", columns="period", values="n", aggfunc="sum", fill_value=0
    )
    counts = counts.reindex(columns=["reference", "current"], fill_value=0)
    return compare_counts(
        counts["reference"].to_numpy(dtype=np.int64),
        counts["current"].to_numpy(dtype=np.int64),
    )


def _vectors(
    sample: pd.DataFrame, period: str
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    vectors = sample.loc[sample["period"] == period, "vector"].tolist()
    size = len(sample["vector"].iloc[0]) if len(sample) else 0
    return np.array(vectors, dtype=np.float64).reshape(len(vectors), size)


def _window(start: datetime, end: datetime, n: int) -> dict[str, Any]:
    return {"from": start.isoformat(), "until": end.isoformat(), "n": n}


def _lure(draws: pd.DataFrame, params: MonitorParams) -> dict[str, Any] | None:
    """The estimate of the latest round whose every draw was answered."""
    for _, one in sorted(draws.groupby("round"), key=lambda pair: -int(str(pair[0]))):
        drawn = one.sort_values("rank")
        # A gap in the ranks is a draw that was passed over, as a near-duplicate is.
        whole = drawn["rank"].tolist() == list(range(1, len(drawn) + 1))
        if whole and drawn["right"].notna().all():
            estimate = lure(
                drawn["right"].to_numpy(dtype=bool),
                drawn["propensity"].to_numpy(dtype=np.float64),
                int(drawn["population"].iloc[0]),
                params.level,
            )
            return {**estimate._asdict(), "round": int(drawn["round"].iloc[0])}
    return None
