"""How a page is rendered: ``page.html.j2`` here, its blocks beside who fills them."""

from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from active_learning.reporting.plots import themed


def signed(points: float) -> str:
    """One decimal with its sign; a true minus, as a hyphen reads as a dash."""
    return f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")


def page_environment(folder: Path) -> Environment:
    """Escape everything, and fail on a name the template misspells.

    Args:
        folder: Where the page's own template is; it extends ``page.html.j2``, which
            asks for a ``verdict`` with a ``headline`` and a ``detail``.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "themed": themed,
        "count": lambda number: f"{number:,.0f}",
        "percent": lambda part: f"{part:.1%}",
        "signed": signed,
    }
    environment.tests["unknown"] = pd.isna
    return environment
