import io
import re
import struct
import zlib
from collections.abc import Mapping
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from active_learning.errors import DataError, SchemaError, SettingsError
from active_learning.evaluation.curves import CURVE_COLUMNS, summarize
from active_learning.pipelines.simulate.report import (
    ASKED_COLUMNS,
    IMAGES_PER_STRATEGY,
    plot_learning_curves,
    render_report,
    render_table,
)
from active_learning.reporting import MUTED, PALETTE

RANDOM = [0.5, 0.6, 0.7, 0.8, 0.8, 0.8]  # final accuracy 0.8, 600 labels
QUICK = [0.5, 0.7, 0.8, 0.9, 0.9, 0.9]  # there with 300 labels: half of them saved
SLOW = [0.5, 0.5, 0.6, 0.6, 0.7, 0.7]  # never there
BARE = [0.5, 0.6, 0.7, 0.8, 0.8, 0.8]  # there with 400, as random itself
VOID = {
    "area",
    "br",
    "hr",
    "img",
    "input",
    "link",
    "meta",
    "source",
    "wbr",
    "path",
    "use",
}


def curves(**seeds: list[list[float]]) -> pd.DataFrame:
    """One list of accuracies per seed and strategy; 100 labels, then 100 a round."""
    rows = []
    for strategy, runs in seeds.items():
        for seed, accuracies in enumerate(runs):
            for number, accuracy in enumerate(accuracies):
                count = 100 * (number + 1)
                times = (8.0, np.nan, np.nan) if number == 0 else (2.0, 0.25, 0.25)
                scores = (accuracy, accuracy, np.nan if number == 0 else 0.5)
                rows.append((seed, strategy, number, count, *scores, *times))
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def named(strategy: str, runs: list[list[float]]) -> pd.DataFrame:
    return pd.concat([curves(random=[RANDOM] * len(runs)), curves(**{strategy: runs})])


def png(shade: int) -> bytes:
    """One gray pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixel = chunk(b"IDAT", zlib.compress(bytes([0, shade])))
    return b"\x89PNG\r\n\x1a\n" + header + pixel + chunk(b"IEND", b"")


def asked(*rows: tuple[str, int, int, int, str, str]) -> pd.DataFrame:
    """Rows of strategy, seed, round, rank, label and predicted label."""
    return pd.DataFrame(
        [(*row, 0.5, png(row[3])) for row in rows], columns=list(ASKED_COLUMNS)
    )


def report(
    table: pd.DataFrame,
    images: pd.DataFrame | None = None,
    settings: Mapping[str, object] | None = None,
) -> str:
    return render_report(
        table,
        summarize(table),
        asked() if images is None else images,
        settings or {},
    )


def headline(page: str) -> str:
    (heading,) = re.findall(r"<h1>(.*?)</h1>", page)
    return str(heading)


class Page(HTMLParser):
    """Elements with their attributes, the text, and what was left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
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

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_headline_says_labels_needed_and_the_share_saved() -> None:
    page = report(curves(random=[RANDOM] * 3, quick=[QUICK] * 3, slow=[SLOW] * 3))

    assert (
        headline(page) == "quick needed 300 labels where random needed 600: 50% saved"
    )


def test_headline_admits_that_one_seed_is_one_run() -> None:
    page = report(curves(random=[RANDOM], quick=[QUICK]))

    assert headline(page).endswith("50% saved, in a single run")
    assert "One seed is an anecdote" in page
    assert "no interval from one seed" in page
    assert "nan" not in Page(page).text


def test_headline_admits_a_target_never_reached() -> None:
    page = report(curves(random=[RANDOM] * 2, slow=[SLOW] * 2))

    assert headline(page) == (
        "Nothing was saved: slow never came to stay at the 80.0% where random ended"
    )
    assert "never</td>" in page


def test_headline_speaks_for_all_when_nobody_reached_the_target() -> None:
    page = report(curves(random=[RANDOM], slow=[SLOW], slower=[SLOW]))

    assert headline(page).startswith("Nothing was saved: no strategy came to stay")


def test_who_is_no_sooner_than_random_itself_saved_nothing() -> None:
    page = report(curves(random=[RANDOM] * 2, bare=[BARE] * 2))

    assert headline(page) == (
        "Nothing was saved: bare needed 400 labels where random needed 400"
    )
    assert "no sooner there than random itself" in page


def test_a_saving_that_chance_could_explain_is_called_so() -> None:
    lucky = [0.5, 0.8, 0.9, 1.0, 1.0, 1.0]
    unlucky = [0.5, 0.5, 0.7, 0.8, 0.8, 0.8]

    page = report(curves(random=[RANDOM] * 2, margin=[lucky, unlucky]))

    assert headline(page).endswith("saved, a gap that chance could explain")
    assert "won 1 of 2 seeds" in page


def test_random_alone_is_compared_with_nothing() -> None:
    page = report(curves(random=[RANDOM]))

    assert headline(page).startswith("Only random sampling ran")


def test_the_fewest_labels_win_over_the_larger_area() -> None:
    sooner = [0.5, 0.7, 0.8, 0.8, 0.8, 0.8]
    larger = [0.5, 0.79, 0.79, 0.95, 0.95, 0.95]

    page = report(curves(random=[RANDOM], larger=[larger], sooner=[sooner]))

    assert headline(page).startswith("sooner needed 300 labels")


def test_equal_labels_go_to_the_larger_area() -> None:
    larger = [0.5, 0.7, 0.8, 0.95, 0.95, 0.95]

    page = report(curves(random=[RANDOM], a_quick=[QUICK], larger=[larger]))

    assert headline(page).startswith("larger needed 300 labels")


def test_gain_stands_beside_its_interval_and_the_seeds_won() -> None:
    # Areas 0.80, 0.80 and 0.60 beside random's 0.71: +9, +9 and -11 points, whose
    # deviation is 11.5; t is 4.303 with two degrees of freedom.
    page = report(curves(random=[RANDOM] * 3, mixed=[QUICK, QUICK, SLOW]))

    assert "won 2 of 3 seeds" in page
    assert "<td>+2.3 <small>(\N{MINUS SIGN}26.4 to +31.0)</small></td>" in page


@pytest.mark.parametrize(
    ("n_seeds", "caveat"),
    [
        (1, "One seed is an anecdote"),
        (3, "3 seeds are few"),
        (10, "10 seeds show large effects, not small ones"),
        (50, "50 seeds settle chance, on this data alone"),
    ],
)
def test_what_is_not_proved_depends_on_the_seeds(n_seeds: int, caveat: str) -> None:
    short = [accuracies[-2:] for accuracies in (RANDOM, QUICK)]
    page = report(curves(random=[short[0]] * n_seeds, quick=[short[1]] * n_seeds))

    (list_of_limits,) = re.findall(r"What this does not prove.*?</ul>", page, re.DOTALL)
    assert list_of_limits.count("seed") >= 1
    assert caveat in list_of_limits
    for subject in ("One dataset", "One network", "A stream", "oracle never errs"):
        assert subject in list_of_limits


@pytest.mark.parametrize(
    "settings",
    [
        {"oracle": {"noise": 0.1}},
        {"simulate": {"variants": {"noisy": {"oracle": {"noise": 0.1}}}}},
    ],
    ids=["everywhere", "in a variant"],
)
def test_an_oracle_that_errs_is_not_said_to_be_right(
    settings: dict[str, object],
) -> None:
    page = report(curves(random=[RANDOM]), None, settings)

    assert "oracle never errs" not in page
    assert "errs by the dice" in page


def test_a_variant_is_explained_where_there_is_one() -> None:
    variants = {"simulate": {"variants": {"three": {"oracle": {"labelers": 3}}}}}
    table = named("random (three)", [QUICK])

    assert "Strategy (variant)" in report(table, None, variants)
    assert "Strategy (variant)" not in report(named("quick", [QUICK]))


def test_page_loads_nothing_and_runs_nothing() -> None:
    page = report(
        curves(random=[RANDOM] * 2, quick=[QUICK] * 2),
        asked(("quick", 0, 1, 1, "bag", "coat")),
    )

    assert "http" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert not {"script", "link", "iframe", "object"} & {
        tag for tag, _ in Page(page).elements
    }
    for image in Page(page).all("img"):
        assert str(image["src"]).startswith("data:image/png;base64,")


def test_page_is_well_formed_and_accessible() -> None:
    page = Page(
        report(
            curves(random=[RANDOM] * 2, quick=[QUICK] * 2),
            asked(("quick", 0, 1, 1, "bag", "coat"), ("random", 0, 1, 1, "bag", "bag")),
            {"simulate": {"rounds": 5}},
        )
    )

    assert page.open == []
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert all(cell.get("scope") in {"col", "row"} for cell in page.all("th"))
    assert all(image["alt"] for image in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids
    assert {"name": "color-scheme", "content": "light dark"} in page.all("meta")


def test_every_name_is_text_and_never_markup() -> None:
    evil = '<script>alert("x")</script>'
    page = report(
        named(evil, [QUICK] * 2),
        asked((evil, 0, 1, 1, '"><img src=x onerror=alert(1)>', "<b>coat</b>")),
        {"<i>key</i>": "<u>value</u>"},
    )

    tags = {tag for tag, _ in Page(page).elements}
    assert not tags & {"script", "i", "u", "b"}
    assert len(Page(page).all("img")) == 1
    assert "onerror" not in Page(page).all("img")[0]
    assert evil in Page(page).text


def test_a_dollar_in_a_name_is_no_formula() -> None:
    page = report(named(r"$\frac$", [QUICK] * 2))

    assert Page(page).text.count(r"$\frac$") > 2


def test_gallery_shows_first_images_of_first_seed_by_round_and_rank() -> None:
    page = report(
        curves(random=[RANDOM] * 2, quick=[QUICK] * 2),
        asked(
            ("quick", 0, 2, 1, "third", "third"),
            ("quick", 0, 1, 2, "second", "second"),
            ("quick", 0, 1, 1, "first", "wrong guess"),
            ("quick", 1, 1, 1, "other seed", "other seed"),
        ),
    )

    assert [image["alt"] for image in Page(page).all("img")] == [
        "first, predicted as wrong guess",
        "second, predicted as second",
        "third, predicted as third",
    ]
    assert "the model was wrong on 1 of these 3" in page


def test_gallery_ends_after_a_handful_per_strategy() -> None:
    many = [("quick", 0, 1, rank, "bag", "bag") for rank in range(1, 60)]

    page = report(curves(random=[RANDOM], quick=[QUICK]), asked(*many))

    assert len(Page(page).all("img")) == IMAGES_PER_STRATEGY


def test_images_without_their_columns_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"lack the columns \['png'\]"):
        report(curves(random=[RANDOM], quick=[QUICK]), asked().drop(columns="png"))


def test_settings_appear_with_dotted_names() -> None:
    settings = {"simulate": {"seeds": [0, 1], "pool": {"size": 15000}}, "env": "base"}

    text = Page(report(curves(random=[RANDOM], quick=[QUICK]), None, settings)).text

    for name, value in [
        ("simulate.seeds", "0, 1"),
        ("simulate.pool.size", "15000"),
        ("env", "base"),
    ]:
        assert f"{name}{value}" in text


def test_time_per_round_leaves_the_first_model_to_the_run() -> None:
    page = report(curves(random=[RANDOM], quick=[QUICK]))

    # 5 rounds of 2 + 0.25 + 0.25 s, and 8 s for the first model: 20.5 s.
    row = "<td>2.00</td><td>0.25</td><td>0.25</td><td>2.50</td><td>0.3</td>"
    assert page.count(row) == 2


def test_figures_behind_the_plot_are_there_for_who_cannot_see_it() -> None:
    page = report(curves(random=[RANDOM], quick=[QUICK]))

    assert '<th scope="row">300</th><td>80.0%</td><td>70.0%</td>' in page


def test_plot_on_the_page_follows_the_color_scheme() -> None:
    (svg,) = re.findall(
        r"<svg.*?</svg>", report(curves(random=[RANDOM], quick=[QUICK])), re.DOTALL
    )

    assert "var(--ink)" in svg
    assert "var(--surface)" in svg
    assert not re.search(r"#(1b222b|fefefe|000000|ffffff)", svg)
    assert ">random<" in svg


def test_equal_runs_give_equal_pages() -> None:
    table = curves(random=[RANDOM] * 2, quick=[QUICK] * 2)

    assert report(table) == report(table.iloc[::-1])


def test_a_summary_read_back_from_its_file_gives_the_same_page() -> None:
    table = curves(random=[RANDOM] * 2, quick=[QUICK] * 2, slow=[SLOW] * 2)
    summary = summarize(table)
    read_back = pd.read_csv(io.StringIO(summary.to_csv(index=False)))

    assert render_table(summary) == render_table(read_back)
    assert render_report(table, summary, asked(), {}) == render_report(
        table, read_back, asked(), {}
    )


def test_a_full_experiment_fits_in_an_email() -> None:
    steps = np.linspace(0.5, 0.9, 31).tolist()
    names = ("random", "margin", "entropy", "least_confidence")
    table = curves(**{name: [steps] * 5 for name in names})
    images = asked(
        *[(n, 0, 1, rank, "bag", "coat") for n in names for rank in range(50)]
    )
    images["png"] = [png(0) + bytes(20_000)] * len(images)

    assert len(report(table, images).encode()) < 1_500_000


def test_inputs_are_left_as_they_were() -> None:
    table = curves(random=[RANDOM] * 2, quick=[QUICK] * 2).iloc[::-1]
    images = asked(("quick", 0, 1, 2, "bag", "bag"), ("quick", 0, 1, 1, "bag", "bag"))
    before = table.copy(), images.copy()

    report(table, images)

    pd.testing.assert_frame_equal(table, before[0])
    pd.testing.assert_frame_equal(images, before[1])


def lines(figure: Figure) -> dict[str, tuple[str, str]]:
    """Color and dashes by name in the legend."""
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return {
        text.get_text(): (to_hex(line.get_color()), str(line.get_linestyle()))
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_random_is_dashed_and_gray_and_the_others_are_told_apart() -> None:
    table = curves(random=[RANDOM], a=[QUICK], b=[SLOW])

    assert lines(plot_learning_curves(table)) == {
        "a": (PALETTE[0], "-"),
        "b": (PALETTE[1], "-"),
        "random": (MUTED, "--"),
    }


def test_more_strategies_than_colors_still_differ() -> None:
    names = [f"strategy_{i:02d}" for i in range(3 * len(PALETTE))]
    table = curves(random=[RANDOM], **{name: [QUICK] for name in names})

    looks = lines(plot_learning_curves(table))

    assert len(set(looks.values())) == len(names) + 1


def test_plot_marks_the_target_and_what_was_saved() -> None:
    figure = plot_learning_curves(curves(random=[RANDOM], quick=[QUICK], slow=[SLOW]))

    assert "random's final accuracy 80.0%" in words(figure)
    assert "quick: 300 labels instead of 600, 50% saved" in words(figure)


def test_plot_boasts_of_nothing_when_nothing_was_saved() -> None:
    figure = plot_learning_curves(curves(random=[RANDOM], bare=[BARE], slow=[SLOW]))

    assert not [text for text in words(figure) if "saved" in text]


@pytest.mark.parametrize(
    ("n_seeds", "title", "n_bands"),
    [(1, "one seed, so no band", 0), (3, "mean of 3 seeds, band from the lowest", 2)],
)
def test_plot_says_what_its_bands_are(n_seeds: int, title: str, n_bands: int) -> None:
    figure = plot_learning_curves(
        curves(random=[RANDOM] * n_seeds, quick=[QUICK] * n_seeds)
    )
    axes = figure.axes[0]

    assert axes.get_title(loc="left").startswith(title)
    bands = [band for band in axes.collections if isinstance(band, PolyCollection)]
    assert len(bands) == n_bands


def test_plot_is_1200_pixels_wide_and_leaves_no_trace_in_pyplot() -> None:
    buffer = io.BytesIO()

    plot_learning_curves(curves(random=[RANDOM], quick=[QUICK])).savefig(buffer)

    assert struct.unpack(">II", buffer.getvalue()[16:24]) == (1200, 675)
    assert plt.get_fignums() == []


def test_plot_of_an_unfinished_run_is_refused() -> None:
    with pytest.raises(DataError, match="2 of 12 rounds are missing"):
        plot_learning_curves(curves(random=[RANDOM], quick=[QUICK]).head(10))


def test_plot_without_random_is_refused() -> None:
    with pytest.raises(SettingsError, match="random"):
        plot_learning_curves(curves(quick=[QUICK]))


def test_table_lines_up_and_shows_labels_and_spreads() -> None:
    table = curves(
        random=[RANDOM, RANDOM], quick=[QUICK, QUICK], slow=[SLOW, [0.5] * 6]
    )

    assert render_table(summarize(table)).splitlines() == [
        "strategy  seeds      AUBC %  final %  labels to random's  saved",
        "--------  -----  ----------  -------  ------------------  -----",
        "quick         2  80.0 ± 0.0     90.0                 300    50%",
        "random        2  71.0 ± 0.0     80.0                 400    33%",
        "slow          2  55.0 ± 7.1     58.3               never      -",
    ]


def test_table_of_one_seed_invents_no_spread() -> None:
    assert "±" not in render_table(summarize(curves(random=[RANDOM], quick=[QUICK])))
