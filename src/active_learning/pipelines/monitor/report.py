"""The monitor's report: one figure and one page of what production has been doing.

matplotlib is imported by what draws: a run of one namespace draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd

from active_learning.errors import SchemaError
from active_learning.reporting import (
    INK,
    LINE,
    MARKERS,
    MUTED,
    PALETTE,
    PAPER,
    add_legend,
    blank_figure,
    dress,
    inline_svg,
    page_environment,
)

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACTIVITY_COLUMNS: Final = (
    "day",
    "model_name",
    "model_version",
    "n",
    "confidence",
    "margin",
    "entropy",
)
CLASS_MIX_COLUMNS: Final = ("day", "model_version", "label", "n")
WINDOWS: Final = ("reference", "current")
SCORES: Final = {
    "confidence": "confidence, mean of each day",
    "margin": "margin, mean of each day",
    "entropy": "entropy in nats, mean of each day",
}
SIGNALS: Final = {
    "classes": ("predicted classes", "how often each class is named"),
    "confidence": ("confidence", "the probability of the named class"),
    "margin": ("margin", "its lead over the runner-up"),
    "entropy": ("entropy", "the doubt over all classes"),
    "embeddings": ("embeddings", "what the model sees in the images"),
}
PLURAL: Final = ("classes", "embeddings")
DAY: Final = pd.Timedelta(days=1)
DRAWN_VERSIONS: Final = 10
LONGEST_NAME: Final = 24  # of a class in a legend


class Verdict(NamedTuple):
    """What a reader in a hurry takes away."""

    headline: str
    detail: str


class Style(NamedTuple):
    """How a model version looks in every plot."""

    color: str
    marker: str


OLD: Final = Style(MUTED, ".")


class Timeline(NamedTuple):
    """What happened by day, the days without predictions among them.

    ``volume`` and each of ``scores`` have a column per model version, in the order of
    their first days; ``classes`` has each class's share of the day's predictions, the
    most frequent class first. Scores and shares of a day without predictions are NaN.
    """

    days: pd.DatetimeIndex
    volume: pd.DataFrame
    scores: dict[str, pd.DataFrame]
    classes: pd.DataFrame
    windows: dict[str, tuple[pd.Timestamp, pd.Timestamp]]


def plot_monitor(
    activity: pd.DataFrame,
    class_mix: pd.DataFrame,
    drift_report: Mapping[str, Any],
    accuracy_report: Mapping[str, Any],
) -> Any:  # a Figure; Kedro resolves a node's hints, and matplotlib is not there yet
    """Draw volume, scores and classes by day, and accuracy by model version.

    Takes what ``render_monitor`` takes. The windows that were compared are marked, the
    verdict is the title, and what is missing is said in its place.

    Returns:
        1800 x 1350 pixels when saved at its own resolution. It belongs to no pyplot
        session and needs no display.
    """
    names = _version_names(activity, accuracy_report)
    timeline = _timeline(activity, class_mix, drift_report, names)
    styles = _styles(timeline.volume)
    figure = blank_figure(14.4, 10.8)
    panels = figure.subplot_mosaic(
        [["volume", "confidence"], ["classes", "margin"], ["accuracy", "entropy"]]
    )
    _draw_volume(panels["volume"], timeline, styles)
    _draw_classes(panels["classes"], timeline)
    _draw_accuracy(panels["accuracy"], _audited(accuracy_report, names), styles)
    for score in SCORES:
        _draw_score(panels[score], timeline, score, styles)
    title = _verdict(activity, drift_report, accuracy_report).headline
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=15, weight="bold")
    return figure


def render_monitor(
    activity: pd.DataFrame,
    class_mix: pd.DataFrame,
    drift_report: Mapping[str, Any],
    accuracy_report: Mapping[str, Any],
) -> str:
    """Write the page that says whether someone has to look, whole in one file.

    Args:
        activity: One row per day and model version with ``ACTIVITY_COLUMNS``: how
            many predictions, and the means of their scores. May hold no row.
        class_mix: One row per day, version and class with ``CLASS_MIX_COLUMNS``. May
            hold no row.
        drift_report: ``until``, ``model_version``, the windows ``reference`` and
            ``current`` (``from``, ``until``, ``n``), ``signals`` (each a ``Shift``
            with its name and verdict), ``limits`` and the worst ``verdict``.
        accuracy_report: ``level`` and, ``by_version``, how many labels were audited,
            how many were right, the accuracy with its interval, and ``lure``.

    Returns:
        HTML that loads nothing from anywhere and escapes every name and value.

    Raises:
        SchemaError: A table lacks a column.
    """
    names = _version_names(activity, accuracy_report)
    timeline = _timeline(activity, class_mix, drift_report, names)
    audited = _audited(accuracy_report, names)
    return (
        page_environment(Path(__file__).parent)
        .get_template("report.html.j2")
        .render(
            verdict=_verdict(activity, drift_report, accuracy_report),
            drift=drift_report,
            periods={window: _period(drift_report[window]) for window in WINDOWS},
            until=_date(drift_report["until"]),
            signals=_signals(drift_report),
            audited=audited,
            has_lure=any(row["lure"] for row in audited),
            served=_served(drift_report, accuracy_report),
            level=f"{accuracy_report['level']:.0%}",
            n_predictions=int(activity["n"].sum()),
            n_days=len(timeline.days),
            n_versions=timeline.volume.shape[1],
            plots=_plots(timeline, audited),
            by_day=_by_day(activity, names),
            classes=_class_rows(class_mix, timeline),
        )
    )


def _version_names(
    activity: pd.DataFrame, accuracy_report: Mapping[str, Any]
) -> dict[tuple[str, int], str]:
    """Call versions by their number alone where all are of one model."""
    _check_columns("activity", activity, ACTIVITY_COLUMNS)
    keys = _version_keys(activity.to_dict("records"))
    keys += _version_keys(accuracy_report["by_version"])
    alone = len({model for model, _ in keys}) < 2
    return {
        (model, version): f"v{version}" if alone else f"{model} v{version}"
        for model, version in keys
    }


def _version_keys(rows: Iterable[Mapping[Any, Any]]) -> list[tuple[str, int]]:
    return [(str(row["model_name"]), int(row["model_version"])) for row in rows]


def _check_columns(table: str, frame: pd.DataFrame, columns: Iterable[str]) -> None:
    missing = [name for name in columns if name not in frame]
    if missing:
        raise SchemaError(f"The monitor's {table} lacks the columns {missing}.")


def _timeline(
    activity: pd.DataFrame,
    class_mix: pd.DataFrame,
    drift_report: Mapping[str, Any],
    names: Mapping[tuple[str, int], str],
) -> Timeline:
    """Lay both tables out on one calendar."""
    _check_columns("class mix", class_mix, CLASS_MIX_COLUMNS)
    known = activity.assign(
        day=_days(activity["day"]),
        version=[names[key] for key in _version_keys(activity.to_dict("records"))],
    ).sort_values(["day", "model_version", "model_name"])
    mix = class_mix.assign(day=_days(class_mix["day"]))
    seen = pd.concat([known["day"], mix["day"]])
    days = pd.DatetimeIndex(
        pd.date_range(seen.min(), seen.max(), freq="D") if len(seen) else []
    )
    versions = known["version"].unique()
    wide = {
        column: known.pivot(index="day", columns="version", values=column).reindex(
            index=days, columns=versions
        )
        for column in ("n", *SCORES)
    }
    counts = mix.groupby(["day", "label"])["n"].sum().unstack("label")
    by_size = counts.sum().sort_values(ascending=False, kind="stable").index
    return Timeline(
        days=days,
        volume=wide["n"].fillna(0),
        scores={score: wide[score] for score in SCORES},
        classes=counts.div(counts.sum(axis=1), axis=0).reindex(
            index=days, columns=by_size
        ),
        windows={
            window: (_moment(at["from"]), _moment(at["until"]))
            for window, at in ((w, drift_report[w]) for w in WINDOWS)
            if at["n"]
        },
    )


def _days(days: pd.Series[Any]) -> pd.Series[Any]:
    """Bare days of UTC, as an axis draws them."""
    return pd.to_datetime(days, utc=True).dt.tz_localize(None).dt.normalize()


def _moment(time: str) -> pd.Timestamp:
    """Bare UTC too; what names no zone is UTC."""
    moment = pd.Timestamp(time)
    return moment.tz_convert(None) if moment.tzinfo else moment


def _styles(volume: pd.DataFrame) -> dict[str, Style]:
    """Color and marker by version; all before the newest six look alike."""
    newest = volume.shape[1] - len(PALETTE)
    return {
        str(name): Style(PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)])
        if i >= newest
        else OLD
        for i, name in enumerate(volume)
    }


def _audited(
    accuracy_report: Mapping[str, Any], names: Mapping[tuple[str, int], str]
) -> list[dict[str, Any]]:
    """Give each version's accuracy with its name beside, in the report's order."""
    rows = accuracy_report["by_version"]
    return [
        {**row, "version": names[key]}
        for row, key in zip(rows, _version_keys(rows), strict=True)
    ]


def _draw_volume(axes: Axes, timeline: Timeline, styles: Mapping[str, Style]) -> None:
    """Stack each day's predictions, the oldest version at the bottom."""
    if _dress_days(axes, timeline, timeline.volume, "predictions per day"):
        old = timeline.volume.iloc[:, : -len(PALETTE)]
        new = timeline.volume.iloc[:, -len(PALETTE) :]
        layers = [("older versions", MUTED, old.sum(axis=1))] if old.shape[1] else []
        layers += [(str(name), styles[str(name)].color, new[name]) for name in new]
        _stack(axes, timeline.days, layers)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:,.0f}")


def _draw_classes(axes: Axes, timeline: Timeline) -> None:
    """Stack the shares of the most frequent classes, and of all others together."""
    title = "predicted classes, share of each day"
    if _dress_days(axes, timeline, timeline.classes, title):
        shares = timeline.classes.fillna(0)
        top, rest = shares.iloc[:, : len(PALETTE)], shares.iloc[:, len(PALETTE) :]
        layers = [
            (str(label), color, top[label])
            for label, color in zip(top, PALETTE, strict=False)
        ]
        if rest.shape[1]:
            layers.append((f"{rest.shape[1]} others", LINE, rest.sum(axis=1)))
        _stack(axes, timeline.days, layers)
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(_percent)


def _stack(
    axes: Axes,
    days: pd.DatetimeIndex,
    layers: list[tuple[str, str, pd.Series[float]]],
) -> None:
    """Draw each layer as steps on top of the ones before it: name, color, heights."""
    edges = [_number(day) for day in [*days, days[-1] + DAY]]
    bottom = np.zeros(len(days))
    steps = []
    for _, color, heights in layers:
        top = bottom + heights.to_numpy(dtype=np.float64)
        steps.append(
            axes.stairs(top, edges, baseline=bottom, fill=True, color=color, lw=0)
        )
        bottom = top
    names = [name for name, *_ in layers]
    _name_at_the_side(axes, steps[::-1], names[::-1])


def _draw_score(
    axes: Axes, timeline: Timeline, score: str, styles: Mapping[str, Style]
) -> None:
    """Draw one score's means, a line per version that breaks on days without any."""
    table = timeline.scores[score]
    if _dress_days(axes, timeline, table, SCORES[score]):
        noons = [_number(day + DAY / 2) for day in timeline.days]
        for name in table:
            color, marker = styles[str(name)]
            axes.plot(noons, table[name], color=color, marker=marker, lw=1.6, ms=4)


def _draw_accuracy(
    axes: Axes,
    audited: list[dict[str, Any]],
    styles: Mapping[str, Style],
) -> None:
    """Draw each version's accuracy on its interval, the newest on top."""
    from matplotlib.lines import Line2D

    rows = [row for row in audited if row["n_audited"]][-DRAWN_VERSIONS:]
    if not _dress_panel(axes, "accuracy of audited predictions", bool(rows)):
        return
    for height, row in enumerate(rows):
        color = styles.get(row["version"], OLD).color
        _draw_interval(axes, row, height, Style(color, "o"))
        if row["lure"]:
            _draw_interval(axes, row["lure"], height - 0.25, Style(color, "D"))
    names = [f"{row['version']}, {row['n_audited']:,} audited" for row in rows]
    axes.set_yticks(range(len(rows)), names, parse_math=False)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    lowest = min(min(row["low"], (row["lure"] or row)["low"]) for row in rows)
    axes.set_xlim(max(0.0, np.floor(20 * lowest - 0.5) / 20), 1.005)
    axes.xaxis.set_major_formatter(_percent)
    axes.grid(visible=False, axis="y")
    if any(row["lure"] for row in rows):
        shapes = [Line2D([], [], color=MUTED, marker=m, mfc=PAPER) for m in "oD"]
        _name_at_the_side(axes, shapes, ["drawn blindly", "drawn by doubt, LURE"])


def _draw_interval(
    axes: Axes, estimate: Mapping[str, Any], height: float, style: Style
) -> None:
    color, marker = style
    axes.plot((estimate["low"], estimate["high"]), (height, height), color=color, lw=2)
    part = min(max(estimate["accuracy"], 0.0), 1.0)
    axes.plot(part, height, color=color, marker=marker, mfc=PAPER, mew=2, ms=8)


def _percent(part: float, _: object = None) -> str:
    return f"{100 * part:.4g}%"


def _name_at_the_side(axes: Axes, drawn: Sequence[Artist], names: list[str]) -> None:
    short = [
        n if len(n) <= LONGEST_NAME else f"{n[: LONGEST_NAME - 1]}…" for n in names
    ]
    beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.02)}
    add_legend(axes, drawn, short, fontsize=9, handlelength=1.2, **beside)


def _dress_days(
    axes: Axes, timeline: Timeline, table: pd.DataFrame, title: str
) -> bool:
    """Give axes a calendar with both windows marked; tell whether there is anything."""
    if not _dress_panel(axes, title, not table.empty):
        return False
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    start, end = _number(timeline.days[0]), _number(timeline.days[-1] + DAY)
    axes.set_xlim(start, end)
    # matplotlib's dates have no types.
    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.xaxis.get_offset_text().set_color(MUTED)
    for window, (since, until) in timeline.windows.items():
        left, right = max(_number(since), start), min(_number(until), end)
        if left < right:
            _mark_window(axes, window, left, right)
    return True


def _number(moment: pd.Timestamp) -> float:
    """Count days from 1970 on, as a calendar axis does."""
    return float((moment - pd.Timestamp(0)) / DAY)


def _mark_window(axes: Axes, window: str, left: float, right: float) -> None:
    """Bracket one stretch of time above the axes, and shade it below."""
    now = window == "current"
    color = INK if now else MUTED
    axes.axvspan(left, right, color=MUTED, alpha=0.1, lw=0, zorder=0)
    axes.plot(
        [left, right],
        [1.02, 1.02],
        transform=axes.get_xaxis_transform(),
        color=color,
        lw=3,
        solid_capstyle="butt",
        clip_on=False,
    )
    # The names run away from where the windows meet, so that they never do.
    axes.annotate(
        window,
        (left if now else right, 1.02),
        xycoords=("data", "axes fraction"),
        xytext=(2 if now else -2, 4),
        textcoords="offset points",
        ha="left" if now else "right",
        color=color,
        fontsize=9,
    )


def _dress_panel(axes: Axes, title: str, filled: bool) -> bool:
    """Dress axes and name them, or say that they have nothing to show."""
    axes.set_facecolor(PAPER)
    axes.set_title(title, loc="left", color=MUTED, fontsize=11, pad=22)
    if filled:
        dress(axes)
        return True
    axes.set_axis_off()
    axes.text(0, 0.95, "nothing yet", transform=axes.transAxes, color=MUTED)
    return False


def _plots(timeline: Timeline, audited: list[dict[str, Any]]) -> dict[str, Markup]:
    """Draw each section's own plot; a section with nothing to show has none."""
    styles = _styles(timeline.volume)
    plots: dict[str, Figure] = {}
    if not timeline.volume.empty:
        volume, scores = blank_figure(9.6, 3.2), blank_figure(9.6, 6.6)
        _draw_volume(volume.add_subplot(), timeline, styles)
        scores.set_layout_engine("constrained", hspace=0.1)
        for score, axes in zip(SCORES, scores.subplots(3, sharex=True), strict=True):
            _draw_score(axes, timeline, score, styles)
        plots |= {"volume": volume, "scores": scores}
    if not timeline.classes.empty:
        classes = blank_figure(9.6, 3.4)
        _draw_classes(classes.add_subplot(), timeline)
        plots["classes"] = classes
    n_rows = sum(row["n_audited"] > 0 for row in audited)
    if n_rows:
        accuracy = blank_figure(9.6, 1.3 + 0.55 * min(n_rows, DRAWN_VERSIONS))
        _draw_accuracy(accuracy.add_subplot(), audited, styles)
        plots["accuracy"] = accuracy
    return {name: inline_svg(plot, f"{name}-") for name, plot in plots.items()}


def _verdict(
    activity: pd.DataFrame,
    drift_report: Mapping[str, Any],
    accuracy_report: Mapping[str, Any],
) -> Verdict:
    """Say in one sentence whether someone has to look, then what is known."""
    current, reference = drift_report["current"], drift_report["reference"]
    if activity.empty and not current["n"]:
        return Verdict(
            "Nothing to monitor yet: no prediction has been collected",
            "Predictions appear here once the model has scored images or answered "
            "requests, and the monitor has run after that.",
        )
    moved = [s["signal"] for s in drift_report["signals"] if s["verdict"] == "drift"]
    counts = (
        f"{current['n']:,} predictions of {_period(current)} stand beside "
        f"{reference['n']:,} of {_period(reference)}"
    )
    if drift_report["verdict"] == "drift":
        headline = f"Drift: {_moved(moved, len(drift_report['signals']))}"
        detail = f"{counts}. Look at what arrives before trusting the answers."
    elif drift_report["verdict"] == "too_few":
        headline = "Too few predictions to tell whether anything has moved"
        least = drift_report["limits"]["min_rows"]
        detail = f"{counts}; a signal needs {least:,} in each window."
    else:
        headline = "No drift: production looks like the reference"
        detail = f"{counts}, and no signal has moved by more than its limits."
    return Verdict(headline, f"{detail} {_known(drift_report, accuracy_report)}")


def _moved(signals: list[str], n_signals: int) -> str:
    """Name the signals while they are few enough to read."""
    if len(signals) > 3:
        return f"{len(signals)} of {n_signals} signals have moved"
    words = [SIGNALS.get(signal, (signal,))[0] for signal in signals]
    last = " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
    plural = len(words) > 1 or signals[0] in PLURAL
    return f"{last} {'have' if plural else 'has'} moved away from the reference"


def _known(drift_report: Mapping[str, Any], accuracy_report: Mapping[str, Any]) -> str:
    """Say how often the model is right, and how surely."""
    row = _served(drift_report, accuracy_report)
    if row is None or not row["n_audited"]:
        return (
            "How often the model is right is unknown: no audited label has come back."
        )
    return (
        f"Version {row['model_version']} was right on {row['n_right']:,} of "
        f"{row['n_audited']:,} audited images: {row['accuracy']:.1%} "
        f"({accuracy_report['level']:.0%} interval {row['low']:.1%} to "
        f"{row['high']:.1%})."
    )


def _served(
    drift_report: Mapping[str, Any], accuracy_report: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """Find the audit of the version that was compared; None where there is none."""
    rows: list[Mapping[str, Any]] = [
        row
        for row in accuracy_report["by_version"]
        if row["model_version"] == drift_report["model_version"]
    ]
    return rows[-1] if rows else None


def _signals(drift_report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Put beside each size how much of its limit it fills."""
    limits = drift_report["limits"]
    return [
        {
            **signal,
            "name": SIGNALS.get(signal["signal"], (signal["signal"],))[0],
            "meaning": SIGNALS.get(signal["signal"], ("", ""))[1],
            "empty": not (signal["n_reference"] and signal["n_current"]),
            # In percent of a bar whose middle is the limit.
            "bars": {
                size: 50 * min(2.0, signal[size] / limits[size])
                if limits[size]
                else 100
                for size in ("psi", "js")
            },
        }
        for signal in drift_report["signals"]
    ]


def _by_day(
    activity: pd.DataFrame, names: Mapping[tuple[str, int], str]
) -> list[dict[str, Any]]:
    """Tell the figures behind the plots, the newest day first."""
    newest = activity.assign(day=_days(activity["day"])).sort_values(
        ["day", "model_version", "model_name"], ascending=False
    )
    rows = [{str(k): v for k, v in row.items()} for row in newest.to_dict("records")]
    return [
        {**row, "day": f"{row['day']:%Y-%m-%d}", "version": names[key]}
        for row, key in zip(rows, _version_keys(rows), strict=True)
    ]


def _class_rows(class_mix: pd.DataFrame, timeline: Timeline) -> list[dict[str, Any]]:
    """Count each class, and its share on the days that begin in either window.

    A share is NaN where its window has no such day.
    """
    days = _days(class_mix["day"])
    table = pd.DataFrame({"n": class_mix.groupby("label")["n"].sum()})
    for window in WINDOWS:
        start, end = timeline.windows.get(window, (pd.NaT, pd.NaT))
        inside = class_mix[(days >= start) & (days < end)]
        counts = inside.groupby("label")["n"].sum().reindex(table.index, fill_value=0)
        table[window] = counts / counts.sum() if counts.sum() else np.nan
    table["change"] = 100 * (table["current"] - table["reference"])
    by_size = table.sort_values("n", ascending=False, kind="stable").reset_index()
    return [{str(k): v for k, v in row.items()} for row in by_size.to_dict("records")]


def _date(time: str) -> str:
    moment = _moment(time)
    return f"{moment.day} {moment:%B %Y}"


def _period(window: Mapping[str, Any]) -> str:
    """Write a stretch of time in whole days, its month and year once if they can be."""
    start, end = _moment(window["from"]), _moment(window["until"])
    first = f"{start.day} {start:%B %Y}"
    if start.year == end.year:
        first = (
            f"{start.day}" if start.month == end.month else f"{start.day} {start:%B}"
        )
    return f"{first} to {_date(window['until'])}"
