"""The simulation's report: one plot, one page, one table for the terminal.

matplotlib is imported by what draws: a run of one namespace draws nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pandas as pd
from jinja2 import Environment

from active_learning.errors import SchemaError
from active_learning.evaluation.curves import (
    RANDOM,
    compare_with_random,
    final_accuracy,
    mean_curve,
    summarize,
)
from active_learning.reporting import (
    INK,
    MARKERS,
    MUTED,
    PALETTE,
    PAPER,
    add_legend,
    blank_figure,
    dress,
    inline_svg,
    page_environment,
    signed,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

ASKED_COLUMNS: Final = (
    "strategy",
    "seed",
    "round",
    "rank",
    "label",
    "predicted_label",
    "utility",
    "png",
)
IMAGES_PER_STRATEGY: Final = 8
ARROW_HEIGHT: Final = 0.4  # of the axes: under the curves, above the legend


class Saving(NamedTuple):
    """A strategy, its labels to random's final accuracy, and the percentage saved."""

    strategy: str
    labels: int
    percent: float


class Verdict(NamedTuple):
    """What a reader in a hurry takes away; ``best`` is the strategy it speaks of."""

    headline: str
    detail: str
    best: str | None
    saving: Saving | None


def plot_learning_curves(
    curves: pd.DataFrame,
) -> Any:  # a Figure; Kedro resolves a node's hints, and matplotlib is not there yet
    """Draw test accuracy by number of labels, with what was saved marked.

    Each line is a strategy's mean over seeds, its band reaches from the lowest seed to
    the highest. The level line is random's final accuracy; a ring marks the
    first point from which on a strategy stays at or above it.

    Returns:
        1200 x 675 pixels when saved at its own resolution. It belongs to no pyplot
        session and needs no display.
    """
    figure = blank_figure(9.6, 5.4)
    axes = figure.add_subplot(facecolor=PAPER)
    means = {name: mean_curve(curves, name) for name in _by_name(curves)}
    target = final_accuracy(curves, RANDOM)
    styles = _styles(list(means))
    lines = [_draw_curve(axes, mean, styles[name]) for name, mean in means.items()]
    _dress(axes, curves)
    _draw_savings(axes, means, summarize(curves), target, styles)
    columns = 1 if len(means) < 7 else 2
    add_legend(axes, lines, list(means), loc="lower right", ncols=columns)
    return figure


def _by_name(curves: pd.DataFrame) -> list[str]:
    """Strategies by name, random last."""
    return sorted(set(curves["strategy"]), key=lambda name: (name == RANDOM, name))


def _styles(strategies: list[str]) -> dict[str, dict[str, str]]:
    """Color, marker and dashes by strategy, the same in the plot and on the page."""
    others = sorted(set(strategies) - {RANDOM})
    styles = {
        name: {
            "color": PALETTE[i % len(PALETTE)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": ("-", "-.", ":")[i // len(PALETTE) % 3],
        }
        for i, name in enumerate(others)
    }
    return styles | {RANDOM: {"color": MUTED, "marker": "", "linestyle": "--"}}


def _draw_curve(axes: Axes, mean: pd.DataFrame, style: dict[str, str]) -> Line2D:
    counts = mean["n_labels"].to_numpy()
    if mean["n_seeds"].iloc[0] > 1:
        axes.fill_between(
            counts,
            mean["accuracy_min"].to_numpy(),
            mean["accuracy_max"].to_numpy(),
            color=style["color"],
            alpha=0.14,
            linewidth=0,
        )
    (line,) = axes.plot(
        counts,
        mean["accuracy_mean"].to_numpy(),
        linewidth=2,
        markersize=5,
        markevery=max(1, len(counts) // 10),
        **style,  # type: ignore[arg-type]  # the stub wants a type for each keyword
    )
    return line


def _draw_savings(
    axes: Axes,
    means: dict[str, pd.DataFrame],
    summary: pd.DataFrame,
    target: float,
    styles: dict[str, dict[str, str]],
) -> None:
    """Mark random's final accuracy, where the others reach it, and the best saving."""
    total = int(means[RANDOM]["n_labels"].iloc[-1])
    axes.axhline(target, color=MUTED, linewidth=1, zorder=1)
    axes.annotate(
        f"random's final accuracy {target:.1%}",
        (0, target),
        xycoords=("axes fraction", "data"),
        xytext=(6, 5),
        textcoords="offset points",
        color=MUTED,
        fontsize=10,
    )
    for row in _others_that_reached(summary).to_dict("records"):
        labels, color = row["labels_to_random_final"], styles[row["strategy"]]["color"]
        mean = means[row["strategy"]]
        there = float(mean.loc[mean["n_labels"] == labels, "accuracy_mean"].iloc[0])
        axes.vlines(labels, 0, there, color=color, linewidth=1, linestyle=":")
        axes.plot(labels, there, "o", color=color, mfc=PAPER, mew=2, ms=9, zorder=4)
    saving = _saving(summary)
    if saving is not None:
        color = styles[saving.strategy]["color"]
        _draw_arrow(axes, saving, total, target, color)


def _draw_arrow(
    axes: Axes, saving: Saving, total: int, target: float, color: str
) -> None:
    """Span the labels that were not needed, and say how many."""
    best, labels, percent = saving
    bottom, top = axes.get_ylim()
    height = bottom + ARROW_HEIGHT * (top - bottom)
    axes.vlines(total, height, target, color=MUTED, linewidth=1, linestyle=":")
    axes.annotate(
        "",
        (labels, height),
        (total, height),
        arrowprops={
            "arrowstyle": "<->",
            "color": color,
            "linewidth": 1.5,
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )
    axes.annotate(
        f"{best}: {labels:,} labels instead of {total:,}, {percent:.0f}% saved",
        (total, height),
        xytext=(-2, 7),
        textcoords="offset points",
        color=INK,
        fontsize=10,
        ha="right",
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 2},
        parse_math=False,
    )


def _dress(axes: Axes, curves: pd.DataFrame) -> None:
    """Set limits, ticks, names and title."""
    n_seeds = curves["seed"].nunique()
    meaning = (
        f"mean of {n_seeds} seeds, band from the lowest seed to the highest"
        if n_seeds > 1
        else "one seed, so no band: how far chance moves a curve is unknown"
    )
    counts, heights = curves["n_labels"], curves["test_accuracy"]
    margin = 0.03 * (counts.max() - counts.min())
    room = 0.04 * (heights.max() - heights.min()) + 1e-3
    axes.set_ylim(heights.min() - room, min(1.0, heights.max() + 2 * room))
    axes.set_xlim(counts.min() - margin, counts.max() + margin)
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(lambda part, _: f"{100 * part:.4g}%")
    axes.set_xlabel("labels", color=INK)
    axes.set_ylabel("test accuracy", color=INK)
    axes.set_title(meaning, loc="left", color=MUTED, fontsize=11, pad=12)
    dress(axes)


def render_report(
    curves: pd.DataFrame,
    summary: pd.DataFrame,
    asked: pd.DataFrame,
    settings: Mapping[str, Any],
) -> str:
    """Write the page a decision can be taken from, whole in one file.

    Args:
        curves: Complete learning curves.
        summary: Of those curves, by ``summarize``; may have been through a CSV file.
        asked: One row per image that a strategy asked for, with ``ASKED_COLUMNS``;
            ``png`` holds the bytes of a small PNG. Of each strategy the page shows
            the first eight by round and rank of the lowest seed. May hold no row.
        settings: Parameters of the run; mappings may nest.

    Returns:
        HTML that loads nothing from anywhere and escapes every name and value.
    """
    gains = compare_with_random(curves)
    verdict = _verdict(curves, summary, gains)
    baseline = mean_curve(curves, RANDOM)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            verdict=verdict,
            rows=_strategy_rows(summary, gains),
            random=RANDOM,
            best=verdict.best and _row_of(verdict.best, summary, gains),
            target=final_accuracy(curves, RANDOM),
            random_final=_row_of(RANDOM, summary, gains),
            n_seeds=int(curves["seed"].nunique()),
            n_rounds=int(curves["round"].max()),
            first_labels=int(baseline["n_labels"].iloc[0]),
            total_labels=int(baseline["n_labels"].iloc[-1]),
            plot=inline_svg(plot_learning_curves(curves)),
            points=_curve_points(curves, list(summary["strategy"])),
            asked=_gallery(asked, list(summary["strategy"])),
            times=_times(curves, list(summary["strategy"])),
            settings=list(_flat(settings)),
            errs=_errs(settings),
            variants=bool(_variants(settings)),
            styles=_styles(list(summary["strategy"])),
        )
    )


def _environment() -> Environment:
    """Add the one filter that this page alone uses."""
    environment = page_environment(Path(__file__).parent)
    environment.filters["seconds"] = lambda s: (
        "\N{EN DASH}" if pd.isna(s) else f"{s:,.2f}"
    )
    return environment


def _others_that_reached(summary: pd.DataFrame) -> pd.DataFrame:
    """Rows of strategies that came to stay at random's final accuracy, fewest first.

    Ties keep the summary's order, in which the larger area comes first.
    """
    others = summary[summary["strategy"] != RANDOM]
    return others.dropna(subset="labels_to_random_final").sort_values(
        "labels_to_random_final", kind="stable"
    )


def _saving(summary: pd.DataFrame) -> Saving | None:
    """Find the strategy that needed the fewest labels; None where nothing was saved.

    Who is there no earlier than random's own mean curve saved nothing, though that may
    be before random's last round.
    """
    reached = _others_that_reached(summary).to_dict("records")
    if not reached:
        return None
    best = Saving(
        str(reached[0]["strategy"]),
        int(reached[0]["labels_to_random_final"]),
        float(reached[0]["labels_saved_pct"]),
    )
    own = summary.set_index("strategy")["labels_to_random_final"][RANDOM]
    sooner = best.percent > 0 if pd.isna(own) else best.labels < own
    return best if sooner else None


def _verdict(
    curves: pd.DataFrame, summary: pd.DataFrame, gains: pd.DataFrame
) -> Verdict:
    """Say in one sentence what was saved, and no more than the seeds can carry."""
    if gains.empty:
        return Verdict(
            "Only random sampling ran: there is nothing to compare it with yet",
            "Add a strategy to simulate.strategies to see what it saves.",
            None,
            None,
        )
    target = final_accuracy(curves, RANDOM)
    total = int(mean_curve(curves, RANDOM)["n_labels"].iloc[-1])
    own = _row_of(RANDOM, summary, gains)["labels_to_random_final"]
    reached = _others_that_reached(summary)
    others = summary[summary["strategy"] != RANDOM]
    best = str((others if reached.empty else reached)["strategy"].iloc[0])
    row = _row_of(best, summary, gains)
    saving = _saving(summary)
    if saving is not None:
        headline = _boast(saving, total, row)
    elif reached.empty:
        whose = f"{best} never" if len(gains) == 1 else "no strategy"
        headline = (
            f"Nothing was saved: {whose} came to stay at the {target:.1%} where "
            "random ended"
        )
    else:
        headline = (
            f"Nothing was saved: {best} needed {row['labels_to_random_final']:,.0f} "
            f"labels where random needed {total if pd.isna(own) else own:,.0f}"
        )
    held = (
        "its mean curve ended just below that"
        if pd.isna(own)
        else f"its mean curve held that from {own:,.0f} labels on"
    )
    detail = (
        f"Random sampling got {total:,} labels and ended at {target:.1%} test "
        f"accuracy; {held}. {_lead(row)}"
    )
    return Verdict(headline, detail, best, saving)


def _boast(saving: Saving, total: int, row: dict[str, Any]) -> str:
    """State a saving, with its doubt in the same breath."""
    boast = (
        f"{saving.strategy} needed {saving.labels:,} labels where random needed "
        f"{total:,}: {saving.percent:.0f}% saved"
    )
    if row["n_seeds"] == 1:
        return f"{boast}, in a single run"
    if row["gain_low"] <= 0:
        return f"{boast}, a gap that chance could explain"
    return boast


def _lead(row: dict[str, Any]) -> str:
    """Say how far a strategy was from random over the whole budget, and how surely."""
    gain, n_seeds = row["gain_points"], row["n_seeds"]
    side = "ahead of" if gain >= 0 else "behind"
    lead = (
        f"Averaged over the whole budget, {row['strategy']} was {abs(gain):.1f} points "
        f"{side} random"
    )
    if n_seeds == 1:
        return f"{lead}; with one seed nobody can say how much of that is luck."
    return (
        f"{lead} (95% interval {signed(row['gain_low'])} to "
        f"{signed(row['gain_high'])}) and won {row['seeds_won']:.0f} of "
        f"{n_seeds} seeds."
    )


def _strategy_rows(summary: pd.DataFrame, gains: pd.DataFrame) -> list[dict[str, Any]]:
    """One dict per strategy in the order of the summary, its gain beside it."""
    merged = summary.merge(gains.drop(columns="n_seeds"), on="strategy", how="left")
    return [{str(k): v for k, v in row.items()} for row in merged.to_dict("records")]


def _row_of(
    strategy: str, summary: pd.DataFrame, gains: pd.DataFrame
) -> dict[str, Any]:
    rows = _strategy_rows(summary, gains)
    return next(row for row in rows if row["strategy"] == strategy)


def _curve_points(
    curves: pd.DataFrame, strategies: list[str]
) -> list[tuple[int, list[float | None]]]:
    """Mean accuracies by count of labels, for readers who cannot see the plot."""
    means = {
        name: mean_curve(curves, name).set_index("n_labels")["accuracy_mean"]
        for name in strategies
    }
    table = pd.DataFrame(means)[strategies]
    return [
        (int(str(count)), [None if pd.isna(v) else float(v) for v in row])
        for count, row in zip(table.index, table.to_numpy(), strict=True)
    ]


def _gallery(
    asked: pd.DataFrame, strategies: list[str]
) -> list[tuple[str, list[dict[str, object]]]]:
    """Choose of each strategy the images it asked for first, as data URIs."""
    missing = [name for name in ASKED_COLUMNS if name not in asked]
    if missing:
        raise SchemaError(f"The images asked for lack the columns {missing}.")
    first_seed = asked[asked["seed"] == asked["seed"].min()]
    chosen = first_seed.sort_values(["round", "rank"]).groupby("strategy", sort=False)
    images = {
        str(name): [
            {
                "label": row.label,
                "predicted": row.predicted_label,
                "right": row.label == row.predicted_label,
                "round": row.round,
                "utility": f"{row.utility:.3f}",
                "src": f"data:image/png;base64,{base64.b64encode(row.png).decode()}",
            }
            for row in rows.head(IMAGES_PER_STRATEGY).itertuples()
        ]
        for name, rows in chosen
    }
    return [(name, images[name]) for name in strategies if name in images]


def _times(curves: pd.DataFrame, strategies: list[str]) -> list[dict[str, object]]:
    """Mean seconds per round by step, and of a whole run; round 0 in the run alone."""
    steps = ["train_s", "score_s", "select_s"]
    rounds = curves[curves["round"] > 0].groupby("strategy")[steps].mean()
    whole = curves.groupby("strategy")[steps].sum().sum(axis=1)
    n_seeds = curves["seed"].nunique()
    return [
        {
            "strategy": name,
            **{step: rounds.loc[name, step] for step in steps},
            "round_s": rounds.loc[name].sum(),
            "run_min": whole[name] / n_seeds / 60,
        }
        for name in strategies
    ]


def _variants(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What else was run, by name: the changed parameters by section."""
    variants: Mapping[str, Any] = settings.get("simulate", {}).get("variants", {})
    return variants


def _errs(settings: Mapping[str, Any]) -> bool:
    """Whether an answer of any branch may have been wrong."""
    changed = [settings, *_variants(settings).values()]
    return any(section.get("oracle", {}).get("noise", 0) for section in changed)


def _flat(settings: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names and readable values, in the order given."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{above}{name}", ", ".join(map(str, value))
        else:
            yield f"{above}{name}", str(value)


def render_table(summary: pd.DataFrame) -> str:
    """Lay the summary out for a terminal: one aligned line per strategy.

    Accuracies are percentages; what follows ± is the standard deviation over seeds.
    """
    header = ("strategy", "seeds", "AUBC %", "final %", "labels to random's", "saved")
    cells: list[tuple[str, ...]] = [header]
    for row in summary.to_dict("records"):
        never = pd.isna(row["labels_to_random_final"])
        spread = "" if pd.isna(row["aubc_std"]) else f" ± {100 * row['aubc_std']:.1f}"
        cells.append(
            (
                row["strategy"],
                f"{row['n_seeds']}",
                f"{100 * row['aubc_mean']:.1f}{spread}",
                f"{100 * row['final_accuracy_mean']:.1f}",
                "never" if never else f"{int(row['labels_to_random_final']):,}",
                "-" if never else f"{row['labels_saved_pct']:.0f}%",
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
        )
        for line in cells
    )
