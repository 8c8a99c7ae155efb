import re
import subprocess
import sys
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from active_learning.reporting import (
    INK,
    PALETTE,
    add_legend,
    blank_figure,
    dress,
    inline_svg,
    page_environment,
    signed,
)

VERDICT = {"headline": "All <is> well", "detail": "So far."}


def plot(name: str = "a") -> Figure:
    figure = blank_figure(4, 3)
    axes = figure.add_subplot()
    dress(axes)
    add_legend(axes, axes.plot([1, 2], marker="o", color=PALETTE[1]), [name])
    return figure


def page(folder: Path, template: str) -> str:
    (folder / "report.html.j2").write_text('{% extends "page.html.j2" %}' + template)
    return (
        page_environment(folder).get_template("report.html.j2").render(verdict=VERDICT)
    )


def test_a_page_says_its_verdict_escaped_in_title_and_heading(tmp_path: Path) -> None:
    text = page(tmp_path, "{% block main %}<p>main</p>{% endblock %}")

    assert "<title>All &lt;is&gt; well</title>" in text
    assert "<h1>All &lt;is&gt; well</h1>" in text
    assert "<main>\n<p>main</p></main>" in text


def test_a_misspelt_name_is_no_empty_place(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="verdikt"):
        page(tmp_path, "{% block main %}{{ verdikt }}{% endblock %}")


def test_filters_write_numbers_for_people(tmp_path: Path) -> None:
    block = "{% block main %}{{ 1234.4|count }} {{ 0.1234|percent }}{% endblock %}"

    assert "1,234 12.3%" in page(tmp_path, block)
    assert [signed(-1.25), signed(0.5)] == ["\N{MINUS SIGN}1.2", "+0.5"]


def test_equal_plots_give_equal_text() -> None:
    assert inline_svg(plot()) == inline_svg(plot())


def test_a_plot_takes_its_colors_from_the_page() -> None:
    svg = inline_svg(plot())

    assert "var(--ink)" in svg
    assert INK not in svg
    assert PALETTE[1] in svg


def test_two_plots_with_prefixes_share_no_id() -> None:
    one, two = inline_svg(plot(), "one-"), inline_svg(plot(), "two-")

    ids = [re.findall(r' id="([^"]*)"', svg) for svg in (one, two)]
    assert not set(ids[0]) & set(ids[1])
    for svg, own in zip((one, two), ids, strict=True):
        references = re.findall(r'url\(#(.*?)\)|href="#(.*?)"', svg)
        assert references
        assert {a or b for a, b in references} <= set(own)


def test_a_prefix_leaves_names_alone() -> None:
    name = 'see id="#1" or url(#2)'

    assert f">{name}</text>" in inline_svg(plot(name), "one-")


def test_a_dollar_in_a_name_is_no_formula() -> None:
    assert r">$\frac$</text>" in inline_svg(plot(r"$\frac$"))


def test_who_only_asks_for_a_color_imports_no_matplotlib() -> None:
    code = "import sys, active_learning.reporting; print('matplotlib' in sys.modules)"

    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert ran.stdout.strip() == "False"
