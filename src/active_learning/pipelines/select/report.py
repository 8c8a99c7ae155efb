"""The stopping report as a page for who decides about more labels.

matplotlib is imported by what draws: a project without a curve draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from active_learning.evaluation.production import wilson
from active_learning.reporting import (
    INK,
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
    from matplotlib.axes import Axes

# A single version is a point and no curve.
FEWEST_DRAWN: Final = 2


def render_stopping(stopping_report: Mapping[str, Any]) -> str:
    """Write the page that says whether to go on labeling, whole in one file.

    Args:
        stopping_report: As ``judge_stopping`` gives it, or as it was read from JSON.

    Returns:
        HTML that loads nothing from anywhere and escapes every name and value.
    """
    points = [
        {
            **point,
            "accuracy": point["n_right"] / point["n_audited"],
            "interval": wilson(
                point["n_right"], point["n_audited"], stopping_report["level"]
            ),
        }
        for point in stopping_report["curve"]["points"]
    ]
    return (
        page_environment(Path(__file__).parent)
        .get_template("stopping.html.j2")
        .render(
            verdict={
                "headline": stopping_report["headline"],
                "detail": stopping_report["detail"],
            },
            report=stopping_report,
            criteria=[
                {**criterion, "state": _state(criterion)}
                for criterion in stopping_report["criteria"]
            ],
            as_of=stopping_report["as_of"][:10],
            level=f"{stopping_report['level']:.0%}",
            points=points,
            plot=_plot(points, stopping_report),
        )
    )


def _state(criterion: Mapping[str, Any]) -> str:
    if not criterion["on"]:
        return "off"
    return {True: "met", False: "not_met", None: "unknown"}[criterion["met"]]


def _plot(points: list[dict[str, Any]], report: Mapping[str, Any]) -> Markup | None:
    """Draw the audited versions and the curve through them."""
    if len(points) < FEWEST_DRAWN:
        return None
    figure = blank_figure(9.6, 4.0)
    axes = figure.add_subplot()
    axes.set_facecolor(PAPER)
    dress(axes)
    drawn, names = [_draw_points(axes, points)], ["audited version, and its interval"]
    if report["curve"]["line"]:
        n_labels, accuracy = np.array(report["curve"]["line"]).T
        (line,) = axes.plot(n_labels, accuracy, color=PALETTE[1], lw=2, zorder=2)
        drawn.append(line)
        names.append("learning curve")
    now = report["spent"]["labeled_images"]
    drawn.append(axes.axvline(now, color=MUTED, lw=1.2, ls="--", zorder=1))
    names.append("labels today")
    axes.set_xlabel("labeled images", color=INK)
    axes.set_ylabel("accuracy of audited predictions", color=INK)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter(lambda part, _: f"{100 * part:.4g}%")
    add_legend(axes, drawn, names, loc="lower right", fontsize=10)
    return inline_svg(figure, "curve-")


def _draw_points(axes: Axes, points: list[dict[str, Any]]) -> Any:
    n_labels = [point["n_labels"] for point in points]
    accuracy = [point["accuracy"] for point in points]
    low, high = np.array([point["interval"] for point in points]).T
    axes.vlines(n_labels, low, high, color=PALETTE[0], lw=2, zorder=3)
    (dots,) = axes.plot(
        n_labels, accuracy, "o", color=PALETTE[0], mfc=PAPER, mew=2, ms=8, zorder=4
    )
    return dots
