"""What the pages of several pipelines share: colors, plots inside a page, its skeleton.

matplotlib is imported by what draws: who only asks for a color draws nothing.
"""

from active_learning.reporting.pages import page_environment, signed
from active_learning.reporting.plots import (
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
)

__all__ = [
    "INK",
    "LINE",
    "MARKERS",
    "MUTED",
    "PALETTE",
    "PAPER",
    "add_legend",
    "blank_figure",
    "dress",
    "inline_svg",
    "page_environment",
    "signed",
]
