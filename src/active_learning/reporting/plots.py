"""The look of every plot, and how one becomes part of a page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which white paper swallows, and without
# black, which dark paper does. The shapes say the same for whoever sees no color.
PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS: Final = ("o", "s", "^", "D", "v", "P")
# The page swaps these for its own variables, so that the plot follows its scheme.
INK: Final = "#1b222b"
MUTED: Final = "#5c6673"
LINE: Final = "#e1e5ea"
PAPER: Final = "#fefefe"
SCHEME: Final = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    PAPER: "surface",
    PALETTE[0]: "blue",
}


def blank_figure(width: float, height: float) -> Figure:
    """Give paper of a size in inches, 125 dots each.

    It belongs to no pyplot session and needs no display.
    """
    from matplotlib.figure import Figure

    return Figure(
        figsize=(width, height), dpi=125, layout="constrained", facecolor=PAPER
    )


def dress(axes: Axes) -> None:
    """Give axes a quiet grid, two spines and the ink of the page."""
    axes.grid(color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(color=LINE, labelcolor=MUTED)


def add_legend(
    axes: Axes, lines: Sequence[Artist], names: Sequence[str], **where: Any
) -> None:
    """Name what was drawn; a dollar in a name is no formula.

    Args:
        axes: Where.
        lines: One thing drawn per name.
        names: In the same order.
        where: Keywords of ``Axes.legend``, which has many.
    """
    legend = axes.legend(
        lines, list(names), facecolor=PAPER, edgecolor="none", framealpha=1, **where
    )
    for text in legend.get_texts():
        text.set(color=INK, parse_math=False)


def inline_svg(figure: Figure, prefix: str = "") -> Markup:
    """Turn a figure into an SVG element in the page's own font and colors.

    Args:
        figure: Any; equal figures give equal text.
        prefix: Comes before every id, on a page with more plots than one.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    # The salt makes equal figures give equal bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "learning curves"}):
        figure.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns(:xlink)?|width|height|version)="[^"]*"', "", svg, count=5)
    # Inside tags alone: a name in the plot may hold anything but an angle bracket.
    svg = re.sub(
        r"<[^>]+>",
        lambda tag: re.sub(r'( id="|"#|url\(#)', rf"\g<1>{prefix}", tag[0]),
        svg,
    )
    return Markup(themed(svg))  # noqa: S704  # Matplotlib has escaped what is inside


def themed(text: str) -> str:
    """Swap the plot's colors for the page's variables."""
    for color, name in SCHEME.items():
        text = text.replace(color, f"var(--{name})")
    return text
