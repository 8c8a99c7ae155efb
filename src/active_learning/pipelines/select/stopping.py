"""Whether more labels are worth their price: the stopping report and its words."""

import logging
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd

from active_learning.errors import DataError
from active_learning.evaluation.stopping import (
    Interval,
    accuracies_on,
    audits_to_tell,
    ceiling_of,
    fit_learning_curve,
    gain,
    has_plateaued,
    is_certain,
    is_stable,
    kappa,
    labels_to_gain,
    should_stop,
)
from active_learning.pipelines.select.params import SelectParams, Stopping

logger = logging.getLogger(__name__)

POINT: Final = 0.01  # the next point of accuracy
MINUS: Final = "\N{MINUS SIGN}"

Criterion = dict[str, Any]


def judge_stopping(
    known_labels: pd.DataFrame,
    audit_answers: pd.DataFrame,
    version_history: pd.DataFrame,
    version_agreement: pd.DataFrame,
    overall_uncertainty: pd.DataFrame,
    now: datetime,
    params: SelectParams,
) -> dict[str, Any]:
    """Say whether to go on asking for labels, and what the next point would cost.

    Args:
        known_labels: A row for each answer; a labeler's corrections of their own are
            one answer with what they correct.
        audit_answers: ``n_audited`` and ``n_right`` by ``model_version``, on images
            drawn blind.
        version_history: ``n_labels`` that were given before each ``model_version``
            first scored.
        version_agreement: How many images (``n``) of a ``model_version`` and its
            ``previous_version`` were called what: ``was`` and ``said``.
        overall_uncertainty: One row or none: ``mean_entropy`` and ``max_entropy`` of
            ``n_images`` without a label.
        now: Becomes ``as_of``.
        params: Uses ``stopping``.

    Returns:
        ``advice`` (``stop`` or ``go_on``) with a ``headline`` and a ``detail`` for who
        decides, the ``criteria`` (each ``on`` or off, and ``met``, which is ``None``
        where it is not known yet), what was spent, the learning ``curve`` and the
        ``price`` of the next point; plain values, for JSON. ``None`` stands for what is
        unknown or out of reach.
    """
    rules = params.stopping
    spent = _spent(known_labels, rules)
    curve, price = _follow_curve(audit_answers, version_history, spent, rules)
    criteria = [
        *_budgets(spent, rules),
        _plateau(audit_answers, rules),
        _stability(version_agreement, rules),
        _uncertainty(overall_uncertainty, rules),
    ]
    on = [criterion for criterion in criteria if criterion["on"]]
    stop = should_stop([criterion["met"] for criterion in on], rules.combine)
    headline, detail = _words(stop, on, price, rules)
    logger.log(logging.WARNING if stop else logging.INFO, "%s", headline)
    return {
        "as_of": now.isoformat(),
        "advice": "stop" if stop else "go_on",
        "headline": headline,
        "detail": detail,
        "combine": rules.combine,
        "act": rules.act,
        "level": rules.level,
        "spent": spent,
        "criteria": criteria,
        "curve": curve,
        "price": price,
    }


def heed_advice(
    ranked_candidates: pd.DataFrame,
    stopping_report: Mapping[str, Any],
    params: SelectParams,
) -> pd.DataFrame:
    """Ask for nothing more of the strategy while the advice is to stop, if told so.

    Args:
        ranked_candidates: What the strategy would ask for.
        stopping_report: Its ``advice`` and ``headline``.
        params: Uses ``stopping.act``.

    Returns:
        The candidates; none of them where the advice is to stop and acted on.
    """
    if stopping_report["advice"] != "stop" or not params.stopping.act:
        return ranked_candidates
    logger.warning(
        "The strategy %r asks for nothing, since select.stopping.act is true. %s",
        params.strategy,
        stopping_report["headline"],
    )
    return ranked_candidates.head(0)


def _spent(known_labels: pd.DataFrame, rules: Stopping) -> dict[str, Any]:
    """Count what people have answered, and what it cost."""
    answers = known_labels.drop_duplicates(["image_id", "labeler"])
    labels = known_labels[known_labels["answer"].fillna("label") == "label"]
    n_answers, n_images = len(answers), int(labels["image_id"].nunique())
    price = rules.cost_per_label
    return {
        "answers": n_answers,
        "labeled_images": n_images,
        "answers_per_image": n_answers / n_images if n_images else None,
        "cost_per_label": price,
        "cost": None if price is None else n_answers * price,
        "currency": rules.currency,
    }


def _budgets(spent: Mapping[str, Any], rules: Stopping) -> list[Criterion]:
    n, most = spent["answers"], rules.max_labels
    cost, dearest = spent["cost"], rules.max_cost
    bound = "" if most is None else f" of {most:,}"
    paid = "No price of a label is set"
    if cost is not None:
        paid = f"{_money(cost, rules)} were spent"
    if dearest is not None:
        paid = f"{paid} of {_money(dearest, rules)}"
    return [
        {
            "name": "max_labels",
            "title": "Labels",
            "because": "the labels that were planned are spent",
            "on": most is not None,
            "met": None if most is None else n >= most,
            "value": n,
            "bound": most,
            "says": f"{n:,}{bound} answers were given.",
        },
        {
            "name": "max_cost",
            "title": "Money",
            "because": "the money that was planned is spent",
            "on": dearest is not None,
            # Without a price there is no bound either.
            "met": None if dearest is None or cost is None else cost >= dearest,
            "value": cost,
            "bound": dearest,
            "says": f"{paid}.",
        },
    ]


def _plateau(audit_answers: pd.DataFrame, rules: Stopping) -> Criterion:
    """Compare the newest audited version with the one so many before it."""
    bound, back = rules.plateau.min_gain, rules.plateau.versions
    audited = audit_answers[audit_answers["n_audited"] > 0]
    audited = audited.sort_values("model_version").tail(back + 1)
    criterion: Criterion = {
        "name": "plateau",
        "title": "Accuracy",
        "because": "the accuracy has stopped rising",
        "on": bound is not None,
        "met": None,
        "value": None,
        "low": None,
        "high": None,
        "bound": bound,
        "versions": [int(version) for version in audited["model_version"]],
    }
    if len(audited) <= back:
        return criterion | {
            "says": f"Not known yet: {_versions(len(audited))} audited, and "
            f"{back + 1} are compared."
        }
    ends = [
        (int(row["n_right"]), int(row["n_audited"]))
        for row in (audited.iloc[0], audited.iloc[-1])
    ]
    older, newer = criterion["versions"][0], criterion["versions"][-1]
    gained = gain(ends[0], ends[1], rules.level)
    found = (
        f"from version {older} to version {newer} the accuracy changed by "
        f"{_points(gained.gain)} points ({rules.level:.0%} interval "
        f"{_points(gained.low)} to {_points(gained.high)})"
    )
    criterion |= {"value": gained.gain, "low": gained.low, "high": gained.high}
    if bound is None:
        return criterion | {"says": f"{_capital(found)}."}
    met = has_plateaued(gained, bound)
    asked = f"{100 * bound:g}"
    if met is not None:
        verdict = "less than" if met else "no less than"
        found = f"{_capital(found)}, surely {verdict} the {asked} asked for"
        return criterion | {"met": met, "says": f"{found}."}
    right, n = (sum(values) for values in zip(*ends, strict=True))
    needed = audits_to_tell(right / n, bound, rules.level)
    return criterion | {
        "says": f"Not known yet: {found}; about {needed:,} audited labels of each "
        f"version would tell a plateau from a gain of {asked}."
    }


def _stability(version_agreement: pd.DataFrame, rules: Stopping) -> Criterion:
    """Average the agreement of the latest successive versions."""
    rule = rules.stability
    pairs = [
        _agreement(rows, rule.min_images)
        for _, rows in version_agreement.groupby("model_version", sort=True)
    ][-rule.pairs :]
    kappas = [pair["kappa"] for pair in pairs]
    known = [float("nan") if value is None else value for value in kappas]
    mean = float(np.mean(known)) if len(known) == rule.pairs else float("nan")
    criterion: Criterion = {
        "name": "stability",
        "title": "Predictions",
        "because": "the predictions have stopped changing",
        "on": rule.kappa is not None,
        "met": None if rule.kappa is None else is_stable(known, rule.pairs, rule.kappa),
        "value": None if math.isnan(mean) else mean,
        "bound": rule.kappa,
        "pairs": pairs,
    }
    if math.isnan(mean):
        measured = sum(value is not None for value in kappas)
        return criterion | {
            "says": f"Not known yet: {measured} of the last {rule.pairs} changes of "
            f"version can be judged; each needs {rule.min_images:,} unlabeled images "
            "that both versions scored."
        }
    asked = "" if rule.kappa is None else f"; {rule.kappa:g} is asked for"
    changes = "changes of version" if rule.pairs > 1 else "change of version"
    return criterion | {
        "says": f"Over the last {rule.pairs} {changes}, answers agreed with a kappa of "
        f"{mean:.3f} (1 is always){asked}."
    }


def _agreement(rows: pd.DataFrame, min_images: int) -> dict[str, Any]:
    """Kappa of one pair of versions, from its contingency table."""
    both = rows[rows["was"].fillna("") != ""]
    names = sorted({*both["was"], *both["said"]})
    table = both.pivot_table(
        index="was", columns="said", values="n", aggfunc="sum", fill_value=0
    ).reindex(index=names, columns=names, fill_value=0)
    n = int(both["n"].sum())
    found = kappa(table.to_numpy()) if n >= min_images else float("nan")
    return {
        "previous_version": int(rows["previous_version"].iloc[0]),
        "model_version": int(rows["model_version"].iloc[0]),
        "n_images": n,
        "kappa": None if math.isnan(found) else found,
    }


def _uncertainty(overall_uncertainty: pd.DataFrame, rules: Stopping) -> Criterion:
    """Look at how much the champion doubts where nobody has labeled."""
    rule = rules.uncertainty
    criterion: Criterion = {
        "name": "uncertainty",
        "title": "Doubt",
        "because": "the model has little doubt left",
        "on": rule.at_most is not None,
        "met": None,
        "value": None,
        "bound": rule.at_most,
    }
    if overall_uncertainty.empty:
        return criterion | {"says": "Not known yet: no unlabeled image was scored."}
    row = overall_uncertainty.iloc[0]
    value = float(row[f"{rule.over}_entropy"])
    blind = f"{math.log(row['n_classes']):.3f} is a blind guess"
    of = {"mean": "the mean doubt", "max": "the largest doubt"}[rule.over]
    asked = "" if rule.at_most is None else f"; at most {rule.at_most:g} is asked for"
    return criterion | {
        "met": None if rule.at_most is None else is_certain(value, rule.at_most),
        "value": value,
        "n_images": int(row["n_images"]),
        "says": f"Over {int(row['n_images']):,} unlabeled images {of} is {value:.3f} "
        f"nats, where {blind}{asked}.",
    }


def _follow_curve(
    audit_answers: pd.DataFrame,
    version_history: pd.DataFrame,
    spent: Mapping[str, Any],
    rules: Stopping,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit the learning curve and read the price of the next point off it."""
    by_version = audit_answers.merge(
        version_history[["model_version", "n_labels"]], on="model_version"
    ).sort_values(["n_labels", "model_version"])
    points = [
        {name: int(row[name]) for name in _POINT_COLUMNS}
        for row in by_version[by_version["n_audited"] > 0].to_dict("records")
    ]
    curve: dict[str, Any] = {"points": points, "says": "", "ceiling": None, "line": []}
    price: dict[str, Any] = {"points": POINT, "labels": None, "cost": None}
    columns = [[point[name] for point in points] for name in _POINT_COLUMNS[1:]]
    try:
        fitted = fit_learning_curve(*columns)
    except DataError as exc:
        why = f"Not known yet: {exc}"
        return curve | {"says": why}, price | {"says": why}
    now = spent["labeled_images"]
    more = labels_to_gain(fitted, now, POINT, rules.level)
    ceiling = ceiling_of(fitted, rules.level)
    grid = np.geomspace(points[0]["n_labels"], 2 * max(now, columns[0][-1]), 60)
    curve |= {
        "ceiling": ceiling._asdict(),
        "exponent": fitted.exponent,
        "accuracy": float(accuracies_on(fitted, now)),
        "line": np.stack([grid, accuracies_on(fitted, grid)], axis=1).tolist(),
        "says": f"However many labels are added, the curve does not exceed "
        f"{ceiling.value:.1%} ({rules.level:.0%} interval {ceiling.low:.1%} to "
        f"{ceiling.high:.1%}).",
    }
    per_label = (spent["answers_per_image"] or 1.0) * (rules.cost_per_label or 0.0)
    cost = Interval(*(value * per_label for value in more)) if per_label else None
    price |= {
        "labels": _plain(more),
        "cost": None if cost is None else _plain(cost),
        "says": _price_words(more, cost, ceiling, rules),
    }
    return curve, price


_POINT_COLUMNS: Final = ("model_version", "n_labels", "n_right", "n_audited")


def _price_words(
    more: Interval, cost: Interval | None, ceiling: Interval, rules: Stopping
) -> str:
    if math.isinf(more.value):
        at_least = ""
        if math.isfinite(more.low):
            at_least = f" If it is not, it costs at least {more.low:,.0f} labels."
        return (
            "The next point of accuracy is above where the learning curve ends, "
            f"{ceiling.value:.1%}: more labels are not expected to bring it.{at_least}"
        )
    words = (
        f"The next point of accuracy costs about {more.value:,.0f} labels "
        f"({_between(more, '{:,.0f}')})"
    )
    if cost is None:
        return f"{words}."
    money = _money(cost.value, rules)
    return f"{words}, or {money} ({_between(cost, '{:,.2f}')})."


def _between(interval: Interval, form: str) -> str:
    low, high = form.format(interval.low), form.format(interval.high)
    if math.isinf(interval.high):
        return f"at least {low}; audit more to know how many at most"
    return f"between {low} and {high}"


def _words(
    stop: bool, on: list[Criterion], price: Mapping[str, Any], rules: Stopping
) -> tuple[str, str]:
    """A sentence for who decides, and what it rests on."""
    met = [criterion for criterion in on if criterion["met"]]
    unknown = [criterion for criterion in on if criterion["met"] is None]
    if not on:
        headline = "Go on: no criterion is switched on"
    elif stop:
        headline = f"Stop: {_because(met)}"
    elif len(unknown) == len(on):
        headline = "Go on: too little was measured to tell whether to stop"
    elif met:
        headline = f"Go on: {_because(met)}, but the others do not say stop yet"
    else:
        headline = "Go on: nothing says that more labels are wasted"
    rule = "One of them is enough" if rules.combine == "any" else "All of them must be"
    counts = (
        f"Of {len(on)} criteria {len(met)} {'is' if len(met) == 1 else 'are'} met and "
        f"{len(unknown)} not known yet. {rule} to stop."
    )
    return headline, f"{counts} {price['says']}"


def _because(criteria: list[Criterion]) -> str:
    words = [str(criterion["because"]) for criterion in criteria]
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _versions(number: int) -> str:
    words = {0: "no version was", 1: "1 version was"}
    return words.get(number, f"{number} versions were")


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _points(part: float) -> str:
    return f"{100 * part:+.1f}".replace("-", MINUS)


def _money(amount: float, rules: Stopping) -> str:
    return f"{amount:,.2f} {rules.currency}"


def _plain(interval: Interval) -> dict[str, float | None]:
    """As JSON has it, which knows no infinity."""
    return {
        name: value if math.isfinite(value) else None
        for name, value in interval._asdict().items()
    }
