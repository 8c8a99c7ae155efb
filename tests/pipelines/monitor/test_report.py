import io
import json
import re
import struct
from html.parser import HTMLParser
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from active_learning.errors import SchemaError
from active_learning.pipelines.monitor.report import (
    ACTIVITY_COLUMNS,
    CLASS_MIX_COLUMNS,
    plot_monitor,
    render_monitor,
)
from active_learning.reporting import PALETTE

VOID = {"br", "meta", "path", "use"}
MODEL = "small_cnn"
UNKNOWN = "\N{EN DASH}"
SIGNALS = ("classes", "confidence", "margin", "entropy", "embeddings")


def activity(*rows: tuple[str, int, int], model: str = MODEL) -> pd.DataFrame:
    """Rows of day of March, version and number of predictions."""
    return pd.DataFrame(
        [(day(d), model, version, n, 0.8, 0.6, 0.5) for d, version, n in rows],
        columns=list(ACTIVITY_COLUMNS),
    )


def class_mix(*rows: tuple[str, int, str, int]) -> pd.DataFrame:
    """Rows of day of March, version, class and number of predictions."""
    return pd.DataFrame(
        [(day(d), *rest) for d, *rest in rows], columns=list(CLASS_MIX_COLUMNS)
    )


def day(number: str) -> pd.Timestamp:
    return pd.Timestamp(f"2026-03-{number}", tz="UTC")


def drift(n: int = 300, version: int | None = 2, **verdicts: str) -> dict[str, Any]:
    """A report of two windows, the 1st to the 3rd and to the 5th of March."""
    signals = []
    for signal in SIGNALS:
        verdict = verdicts.get(signal, "stable" if n else "too_few")
        psi, js, p_value = (
            (0.31, 0.22, 0.0004) if verdict == "drift" else (0.01, 0.02, 0.625)
        )
        sizes = {"psi": psi, "js": js, "statistic": 1.0, "p_value": p_value}
        counts = {"n_reference": n, "n_current": n // 2}
        signals.append({"signal": signal, **sizes, **counts, "verdict": verdict})
    there = {signal["verdict"] for signal in signals}
    worst = next(v for v in ("drift", "too_few", "stable") if v in there)
    return {
        "until": "2026-03-05T12:00:00+00:00",
        "model_version": version,
        "reference": {"from": "2026-03-01T00:00:00Z", "until": "2026-03-03", "n": n},
        "current": {"from": "2026-03-03", "until": "2026-03-05", "n": n // 2},
        "signals": signals,
        "limits": {"psi": 0.2, "js": 0.1, "p_value": 0.01, "min_rows": 100},
        "verdict": worst,
    }


def audit(version: int, n_right: int, n: int, lure: Any = None) -> dict[str, Any]:
    return {
        "model_name": MODEL,
        "model_version": version,
        "n_audited": n,
        "n_right": n_right,
        "accuracy": n_right / n if n else None,
        "low": 0.71 if n else 0.0,
        "high": 0.89 if n else 1.0,
        "lure": lure,
    }


def accuracy(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"level": 0.95, "by_version": list(rows)}


WEEK = activity(("01", 1, 100), ("02", 1, 200), ("03", 2, 90), ("04", 2, 60))
MIX = class_mix(
    ("01", 1, "bag", 50),
    ("01", 1, "coat", 50),
    ("02", 1, "bag", 100),
    ("02", 1, "coat", 100),
    ("03", 2, "bag", 90),
    ("04", 2, "coat", 30),
    ("04", 2, "bag", 30),
)
LURE = {"accuracy": 0.777, "low": 0.666, "high": 0.888, "n": 55, "round": 4}


def page(
    table: pd.DataFrame = WEEK,
    mix: pd.DataFrame = MIX,
    moved: dict[str, Any] | None = None,
    right: dict[str, Any] | None = None,
) -> str:
    return render_monitor(table, mix, moved or drift(), right or accuracy())


def figure(
    table: pd.DataFrame = WEEK,
    mix: pd.DataFrame = MIX,
    moved: dict[str, Any] | None = None,
    right: dict[str, Any] | None = None,
) -> Figure:
    return plot_monitor(table, mix, moved or drift(), right or accuracy())


def panel(drawn: Figure, title: str) -> Any:
    (axes,) = [
        axes for axes in drawn.axes if axes.get_title(loc="left").startswith(title)
    ]
    return axes


def steps(drawn: Figure, title: str) -> list[StepPatch]:
    """What is stacked in a panel, the lowest first."""
    patches = panel(drawn, title).patches
    return [patch for patch in patches if isinstance(patch, StepPatch)]


class Page(HTMLParser):
    """Elements with their attributes, the text, and what was left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def words(text: str) -> str:
    return " ".join(Page(text).text.split())


def headline(text: str) -> str:
    (heading,) = re.findall(r"<h1>(.*?)</h1>", text)
    return str(heading)


def row_of(text: str, name: str) -> list[str]:
    """Cells of the table row with that name, tags off."""
    (row,) = re.findall(rf'<tr>\s*<th scope="row">{name}.*?</tr>', text, re.DOTALL)
    cells = re.findall(r"<td.*?</td>", row, re.DOTALL)
    return [re.sub(r"<.*?>", "", cell).strip() for cell in cells]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ({}, "No drift: production looks like the reference"),
        (
            {"confidence": "drift"},
            "Drift: confidence has moved away from the reference",
        ),
        (
            {"classes": "drift", "embeddings": "drift", "margin": "too_few"},
            "Drift: predicted classes and embeddings have moved away from the "
            "reference",
        ),
        (
            {"classes": "drift"},
            "Drift: predicted classes have moved away from the reference",
        ),
        (dict.fromkeys(SIGNALS[:4], "drift"), "Drift: 4 of 5 signals have moved"),
        (
            {"embeddings": "too_few"},
            "Too few predictions to tell whether anything has moved",
        ),
    ],
)
def test_headline_says_what_moved(verdicts: dict[str, str], expected: str) -> None:
    assert headline(page(moved=drift(**verdicts))) == expected
    assert figure(moved=drift(**verdicts)).get_suptitle() == expected


def test_headline_admits_that_nothing_was_collected() -> None:
    text = page(WEEK.iloc[:0], MIX.iloc[:0], drift(n=0, version=None))

    assert headline(text).startswith("Nothing to monitor yet")


def test_an_empty_page_says_so_in_every_section() -> None:
    text = page(WEEK.iloc[:0], MIX.iloc[:0], drift(n=0, version=None))

    assert "<svg" not in text
    assert text.count("No prediction has been collected yet.") == 3
    assert "No model version has been audited yet" in text
    assert row_of(text, "Margin") == [UNKNOWN, UNKNOWN, UNKNOWN, "0", "0", "… too few"]
    assert "nan" not in words(text).lower()


def test_no_signal_at_all_is_said_too() -> None:
    text = page(moved={**drift(), "signals": [], "verdict": "too_few"})

    assert "No signal could be compared yet." in text
    assert headline(text).startswith("Too few predictions")


def test_an_empty_plot_says_so_in_every_panel() -> None:
    drawn = figure(WEEK.iloc[:0], MIX.iloc[:0], drift(n=0, version=None))

    assert [text.get_text() for a in drawn.axes for text in a.texts] == [
        "nothing yet"
    ] * 6


def test_lead_says_how_often_the_compared_version_was_right() -> None:
    text = page(right=accuracy(audit(1, 9, 10), audit(2, 80, 100)))

    assert (
        "Version 2 was right on 80 of 100 audited images: 80.0% "
        "(95% interval 71.0% to 89.0%)." in words(text)
    )


@pytest.mark.parametrize("rows", [[], [audit(1, 9, 10)], [audit(2, 0, 0)]])
def test_lead_admits_that_nobody_audited_the_version(rows: list[Any]) -> None:
    text = page(right=accuracy(*rows))

    assert "How often the model is right is unknown" in words(text)
    assert "no audited label of version 2 yet" in words(text)


def test_signals_stand_beside_their_limits_and_verdicts() -> None:
    text = page(moved=drift(confidence="drift", margin="too_few"))

    assert row_of(text, "Confidence") == [
        *("0.310", "0.220", "&lt; 0.001", "300", "150", "▲ drift")
    ]
    assert row_of(text, "Entropy") == [
        *("0.010", "0.020", "0.625", "300", "150", "✓ stable")
    ]
    assert row_of(text, "Margin")[-1] == "… too few"
    for limit in ("PSIlimit 0.2", "JS distancelimit 0.1", "p-valuelimit 0.01"):
        assert limit in words(text)


def test_what_is_over_its_limit_stands_out() -> None:
    assert page(moved=drift()).count('class="over"') == 0
    assert page(moved=drift(entropy="drift")).count('class="over"') == 2


def test_a_signal_of_another_name_is_shown_by_it() -> None:
    moved = drift(margin="drift")
    moved["signals"][2]["signal"] = "brightness"

    text = page(moved=moved)

    assert headline(text).startswith("Drift: brightness has moved")
    assert row_of(text, "Brightness")[-1] == "▲ drift"


def test_a_limit_of_zero_is_a_limit() -> None:
    moved = drift()
    moved["limits"] = {**moved["limits"], "psi": 0.0}

    assert 'class="over"' in page(moved=moved)


def test_accuracy_stands_beside_its_interval_and_its_labels() -> None:
    text = page(right=accuracy(audit(1, 45, 60), audit(2, 0, 0)))

    assert row_of(text, "v1") == ["60", "45", "75.0%", "71.0% to 89.0%"]
    assert row_of(text, "v2") == ["0", UNKNOWN, "unknown", UNKNOWN]


def test_lure_stands_beside_the_audit_where_there_is_one() -> None:
    without = page(right=accuracy(audit(2, 80, 100)))
    with_it = page(right=accuracy(audit(1, 45, 60), audit(2, 80, 100, LURE)))

    assert "LURE" not in without
    assert row_of(with_it, "v2")[-1] == "77.7% (66.6% to 88.8%, 55 labels)"
    assert row_of(with_it, "v1")[-1] == UNKNOWN
    assert "LURE trusts the logged chances" in with_it


@pytest.mark.parametrize(
    ("n", "few"), [(1, "1 audited label is few"), (245, "245 audited labels are few")]
)
def test_few_audited_labels_are_called_few(n: int, few: str) -> None:
    assert few in words(page(right=accuracy(audit(2, 1, n))))


def test_enough_audited_labels_are_not() -> None:
    assert "few." not in words(page(right=accuracy(audit(2, 200, 246))))


def test_versions_are_compared_with_care_where_there_are_several() -> None:
    several = page(right=accuracy(audit(1, 45, 60), audit(2, 80, 100)))
    alone = page(activity(("01", 2, 9)), class_mix(), right=accuracy(audit(2, 80, 100)))

    assert "Versions were audited at different times" in several
    assert "A new model version moves these signals, too" in several
    assert "Versions were audited at different times" not in alone
    assert "A new model version moves these signals, too" not in alone


def test_tiles_count_predictions_days_and_versions() -> None:
    text = page(right=accuracy(audit(1, 45, 60), audit(2, 80, 100)))

    tiles = re.findall(r'"figure">(.*?)</dd><dd class="beside">(.*?)</dd>', text)
    assert tiles[-2:] == [
        ("100", "160 over all versions"),
        ("450", "4 days, 2 model versions"),
    ]


def test_class_shares_are_of_the_days_in_each_window() -> None:
    text = page()

    # 150 of 300 on the 1st and 2nd, 120 of 150 on the 3rd and 4th.
    assert row_of(text, "bag") == ["270", "50.0%", "80.0%", "+30.0"]
    assert row_of(text, "coat") == ["180", "50.0%", "20.0%", "\N{MINUS SIGN}30.0"]


def test_class_shares_of_a_window_without_days_are_unknown() -> None:
    text = page(mix=MIX[MIX["day"] >= day("03")])

    assert row_of(text, "bag") == ["120", UNKNOWN, "80.0%", UNKNOWN]


def test_days_are_told_from_the_newest_on() -> None:
    days = re.findall(r'<th scope="row">(2026-03-\d\d)</th><td>(v\d)</td>', page())

    assert days == [
        ("2026-03-04", "v2"),
        ("2026-03-03", "v2"),
        ("2026-03-02", "v1"),
        ("2026-03-01", "v1"),
    ]


def test_versions_of_two_models_are_told_apart() -> None:
    both = pd.concat([WEEK, activity(("04", 2, 7), model="wide_cnn")])

    text = page(both)

    assert "<td>small_cnn v2</td><td>60</td>" in text
    assert "<td>wide_cnn v2</td><td>7</td>" in text


def test_page_loads_nothing_and_runs_nothing() -> None:
    text = page(right=accuracy(audit(2, 80, 100, LURE)))

    assert "http" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not {"script", "link", "iframe", "object", "img"} & {
        tag for tag, _ in Page(text).elements
    }


def test_page_is_well_formed_and_accessible() -> None:
    text = page(moved=drift(margin="drift"), right=accuracy(audit(2, 80, 100, LURE)))
    parsed = Page(text)

    assert parsed.open == []
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in parsed.elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids
        assert tag != "th" or attributes.get("scope") in {"col", "row"}
        for reference in re.findall(r"#([\w-]+)\)|^#(.+)", str(attributes)):
            assert next(filter(None, reference)) in ids
    drawn = [a for _, a in parsed.elements if a.get("role") == "img"]
    assert len(drawn) == text.count("<svg") == 4
    assert all(attributes["aria-label"] for attributes in drawn)


def test_every_name_is_text_and_never_markup() -> None:
    evil = '<script>alert("x")</script>'
    text = page(
        pd.concat([WEEK, activity(("04", 3, 9), model=evil)]),
        class_mix(("04", 2, evil, 3), ("04", 2, '"><img src=x onerror=alert(1)>', 3)),
        right=accuracy({**audit(3, 1, 2), "model_name": evil}),
    )

    assert not {"script", "img"} & {tag for tag, _ in Page(text).elements}
    assert evil in Page(text).text
    assert '"><img src=x onerror=alert(1)>' in Page(text).text


@pytest.mark.parametrize("name", [r"$\frac$", "_private", "a_b^c", "x" * 200])
def test_every_name_stands_in_the_legend_as_it_is(name: str) -> None:
    mix = class_mix(("04", 2, name, 3), ("04", 2, "bag", 2))

    legend = panel(figure(mix=mix), "predicted classes").get_legend()
    names = [text.get_text() for text in legend.get_texts()]

    assert names[0] == "bag"
    assert names[1] == (name if len(name) < 25 else "x" * 23 + "…")
    assert "<svg" in page(mix=mix)


def test_volume_stacks_the_versions_of_a_day() -> None:
    table = activity(("01", 1, 10), ("01", 2, 20), ("02", 2, 5))

    old, new = steps(figure(table, class_mix()), "predictions")

    np.testing.assert_array_equal(old.get_data().values, [10, 0])
    np.testing.assert_array_equal(new.get_data().baseline, [10, 0])
    np.testing.assert_array_equal(new.get_data().values, [30, 5])


def test_a_day_without_predictions_is_a_gap_and_no_guess() -> None:
    drawn = figure(activity(("01", 1, 10), ("04", 1, 20)), class_mix())

    volume = steps(drawn, "predictions")[0].get_data().values
    *_, line = panel(drawn, "confidence").get_lines()
    np.testing.assert_array_equal(volume, [10, 0, 0, 20])
    np.testing.assert_array_equal(line.get_ydata(), [0.8, np.nan, np.nan, 0.8])


def test_all_but_the_newest_versions_look_alike() -> None:
    count = len(PALETTE) + 3
    table = activity(*[(f"{v:02d}", v, 10) for v in range(1, count + 1)])

    legend = panel(figure(table), "predictions").get_legend()
    names = [text.get_text() for text in legend.get_texts()]

    lines = panel(figure(table, class_mix()), "entropy").get_lines()[-count:]
    looks = [(line.get_color(), line.get_marker()) for line in lines]
    assert names == [*[f"v{v}" for v in range(count, 3, -1)], "older versions"]
    assert len(set(looks[:3])) == 1
    assert len(set(looks)) == 1 + len(PALETTE)


def test_rare_classes_are_drawn_together() -> None:
    mix = class_mix(*[("04", 2, f"class {i:02d}", 100 - i) for i in range(10)])

    legend = panel(figure(mix=mix), "predicted classes").get_legend()
    names = [text.get_text() for text in legend.get_texts()]

    assert names == ["4 others", *[f"class {i:02d}" for i in range(5, -1, -1)]]


def test_shares_of_a_day_add_up() -> None:
    layers = steps(figure(), "predicted classes")

    np.testing.assert_allclose(layers[0].get_data().values, [0.5, 0.5, 1, 0.5])
    np.testing.assert_allclose(layers[1].get_data().values, 1)


def test_windows_are_marked_where_there_are_days() -> None:
    marked = [text.get_text() for text in panel(figure(), "margin").texts]
    later = [
        text.get_text()
        for text in panel(figure(WEEK.iloc[2:], MIX.iloc[4:]), "margin").texts
    ]

    assert marked == ["reference", "current"]
    assert later == ["current"]


def test_accuracy_is_drawn_on_its_interval_the_newest_on_top() -> None:
    drawn = figure(right=accuracy(audit(1, 45, 60), audit(2, 80, 100, LURE)))
    axes = panel(drawn, "accuracy")
    lines = [(list(a.get_xdata()), a.get_ydata()[0]) for a in axes.get_lines()]

    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "v1, 60 audited",
        "v2, 100 audited",
    ]
    assert ([0.71, 0.89], 0) in lines
    assert ([0.75], 0) in lines
    assert ([0.8], 1) in lines
    assert ([0.777], 0.75) in lines


def test_plot_is_1800_pixels_wide_and_leaves_no_trace_in_pyplot() -> None:
    buffer = io.BytesIO()

    figure().savefig(buffer)

    assert struct.unpack(">II", buffer.getvalue()[16:24]) == (1800, 1350)
    assert plt.get_fignums() == []


def test_plots_on_the_page_follow_the_color_scheme() -> None:
    text = page(right=accuracy(audit(2, 80, 100)))

    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert "var(--ink)" in svg or "var(--muted)" in svg
        assert not re.search(r"#(1b222b|5c6673|e1e5ea|fefefe|000000|ffffff)", svg)


def test_equal_tables_give_equal_pages() -> None:
    naive = WEEK.assign(day=WEEK["day"].dt.tz_localize(None))

    assert page() == page(WEEK.iloc[::-1], MIX.iloc[::-1])
    assert page() == page(naive)


def test_reports_read_back_from_their_files_give_the_same_page() -> None:
    moved, right = drift(margin="drift"), accuracy(audit(1, 0, 0), audit(2, 8, 10))
    read_back = [json.loads(json.dumps(report)) for report in (moved, right)]

    assert page(moved=moved, right=right) == page(WEEK, MIX, *read_back)


@pytest.mark.parametrize("draw", [page, figure])
def test_tables_without_their_columns_are_refused(draw: Any) -> None:
    with pytest.raises(SchemaError, match=r"activity lacks the columns \['entropy'\]"):
        draw(WEEK.drop(columns="entropy"))
    with pytest.raises(SchemaError, match=r"class mix lacks the columns \['label'\]"):
        draw(WEEK, MIX.drop(columns="label"))


def test_inputs_are_left_as_they_were() -> None:
    table, mix = WEEK.iloc[::-1].copy(), MIX.iloc[::-1].copy()
    moved, right = drift(), accuracy(audit(2, 8, 10))
    before = table.copy(), mix.copy(), json.dumps([moved, right])

    page(table, mix, moved, right)
    figure(table, mix, moved, right)

    pd.testing.assert_frame_equal(table, before[0])
    pd.testing.assert_frame_equal(mix, before[1])
    assert json.dumps([moved, right]) == before[2]
