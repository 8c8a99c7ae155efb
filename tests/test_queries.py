"""Every question of the package: one contract, and answers to check by eye."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from active_learning.acquisition import sampling_keys
from active_learning.acquisition.wrappers import FLOOR, gumbel, weights
from active_learning.errors import QueryError
from active_learning.queries import names, query_text
from active_learning.schemas import TABLES
from active_learning.services.telemetry.kql import translated
from active_learning.services.telemetry.local import LocalTelemetry

Row = dict[str, Any]

# Day 1 is the first of January; every question is asked at the end of day 31.
UNTIL = "2000-02-01T00:00:00Z"
# For any query: each takes what it declares.
VALUES: dict[str, str | int] = {
    "rank_by": "margin",
    "over": "margin",
    "exponent": "1.0",
    "budget": 50,
    "window_days": 30,
    "current_days": 7,
    "reference_days": 14,
    "expire_after_days": 14,
    "across_versions": 0,
    "with_vectors": 1,
    "until": UNTIL,
}


def noon(day: int) -> pd.Timestamp:
    return pd.Timestamp("1999-12-31T12:00", tz="UTC") + pd.Timedelta(days=day)


def predicted(image_id: str, version: int = 2, day: int = 20, **changed: Any) -> Row:
    return {
        "prediction_id": f"{image_id} by {version} on {day}",
        "image_id": image_id,
        "source": "batch",
        "label": "cat",
        "confidence": 0.75,
        "margin": 0.5,
        "entropy": 0.5,
        "sampling_key": 0.5,
        "classes": ["cat", "dog"],
        "probabilities": [0.75, 0.25],
        "model_name": "small_cnn",
        "model_version": version,
        "scored_at": noon(day),
        **changed,
    }


def labeled(image_id: str, label: str = "cat", day: int = 25, **changed: Any) -> Row:
    by = changed.get("labeler", "ann")
    return {
        "label_id": f"{image_id} by {by} on {day}",
        "image_id": image_id,
        "label": label,
        "labeler": "ann",
        "labeled_at": noon(day),
        "batch_id": "1",
        "source": "csv",
        "request_id": "",
        **changed,
    }


def requested(image_id: str, version: int = 2, day: int = 25, **changed: Any) -> Row:
    return {
        "request_id": f"{image_id} by {version} on {day}",
        "image_id": image_id,
        "round": 1,
        "strategy": "margin",
        "utility": 0.5,
        "rank": 1,
        "propensity": 1.0,
        "population": 100,
        "audit": False,
        "model_name": "small_cnn",
        "model_version": version,
        "requested_at": noon(day),
        **changed,
    }


def skipped(image_id: str, day: int = 25, **changed: Any) -> Row:
    return labeled(image_id, label="", day=day, **{"answer": "skipped", **changed})


def in_test_set(image_id: str) -> Row:
    return {"image_id": image_id, "label": "cat", "content": "0123"}


def embedded(image_id: str, version: int = 2, x: float = 1.0) -> Row:
    return {"image_id": image_id, "model_version": version, "vector": [x, 0.5]}


class Asking:
    """Tables that are filled by hand, and questions to them."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self._telemetry = LocalTelemetry(folder, cache=cache)
        self.cache = cache

    def add(self, part: str = "part", **tables: list[Row]) -> None:
        for table, rows in tables.items():
            content = pa.Table.from_pylist(rows, schema=TABLES[table].schema)
            self._telemetry.append(table, content, part)

    def __call__(self, query: str, **changed: str | int) -> pd.DataFrame:
        text = query_text(query)
        declared = translated(text, self.cache).parameters
        values = {name: VALUES[name] for name in declared}
        return self._telemetry.query(text, {**values, **changed})

    def rows(self, query: str, columns: str, **changed: str | int) -> list[Any]:
        """Of the named columns; a single one's values are not wrapped."""
        wanted = self(query, **changed)[columns.split()]
        rows = wanted.itertuples(index=False, name=None)
        return [row[0] if len(row) == 1 else row for row in rows]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("translations")


@pytest.fixture
def ask(tmp_path: Path, cache: Path) -> Asking:
    return Asking(tmp_path, cache)


# --- the contract ---


def everything() -> Mapping[str, list[Row]]:
    """Something for every question to find."""
    return {
        "predictions": [
            predicted("old", version=1, day=12),
            predicted("free"),
            predicted("labeled", label="dog", day=28),
            predicted("audited", day=21),
            predicted("reference", day=15, confidence=1.0),
        ],
        "scored_batch": [predicted("just scored", version=3, day=31)],
        "embeddings": [
            embedded("free"),
            embedded("labeled", x=2.0),
            embedded("labeled", version=1),
        ],
        "labels": [labeled("labeled", label="dog"), labeled("audited")],
        "label_requests": [
            requested("audited", audit=True, strategy="random"),
            requested("labeled", strategy="power", propensity=0.25),
        ],
        "test_set": [in_test_set("test")],
    }


def comparable(answer: pd.DataFrame) -> pd.DataFrame:
    """Cells as text, so that vectors compare, and rows in an order of their own."""
    text = answer.map(str)
    return text.sort_values(list(text.columns), ignore_index=True)


@pytest.mark.parametrize("query", names())
def test_every_query_declares_only_what_both_engines_bind(
    query: str, cache: Path
) -> None:
    declared = translated(query_text(query), cache).parameters

    assert {parameter.type for parameter in declared.values()} <= {"string", "long"}
    assert set(declared) <= set(VALUES), "tell VALUES what to give for it"


@pytest.mark.parametrize("query", names())
def test_every_query_says_first_what_it_asks(query: str) -> None:
    assert query_text(query).startswith("// ")


@pytest.mark.parametrize("query", names())
def test_every_query_answers_on_empty_tables(query: str, ask: Asking) -> None:
    nothing = ask(query)

    assert nothing.empty
    ask.add(**everything())
    assert list(nothing.columns) == list(ask(query).columns)


@pytest.mark.parametrize("query", names())
def test_every_query_counts_a_row_once(query: str, ask: Asking) -> None:
    ask.add("one part", **everything())
    once = ask(query)

    ask.add("another part", **everything())

    assert len(once) > 0
    pd.testing.assert_frame_equal(comparable(ask(query)), comparable(once))


@pytest.mark.parametrize("query", names())
def test_every_query_takes_a_hostile_value_for_a_value(query: str, ask: Asking) -> None:
    ask.add(**everything())
    declared = translated(query_text(query), ask.cache).parameters
    texts = [name for name, value in declared.items() if value.type == "string"]

    for name in set(texts) - {"until", "exponent"}:
        plain = ask(query, **{name: "nothing"})
        for hostile in ('x" | take 0 //', "'; drop view predictions --", '"'):
            assert comparable(ask(query, **{name: hostile})).equals(comparable(plain))


@pytest.mark.parametrize("query", names())
def test_every_query_refuses_what_it_did_not_declare(query: str, ask: Asking) -> None:
    with pytest.raises(QueryError, match=r"unknown: \['nobody'\]"):
        ask(query, nobody="asked")


def test_an_unknown_query_is_told_which_there_are() -> None:
    with pytest.raises(FileNotFoundError, match=r"'candidate'.*'candidates'"):
        query_text("candidate")


# --- candidates ---


def test_what_needs_no_label_is_no_candidate(ask: Asking) -> None:
    ask.add(
        predictions=[
            *(predicted(name) for name in ("free", "labeled", "test")),
            *(predicted(name) for name in ("requested", "given up")),
            predicted("of another version", version=1),
            predicted("before the window", day=1),
            predicted("after the question", version=3, day=32),
        ],
        labels=[labeled("labeled", day=10)],
        test_set=[in_test_set("test")],
        label_requests=[requested("requested", day=25), requested("given up", day=10)],
    )

    answer = ask("candidates")

    assert answer["image_id"].tolist() == ["free", "given up"]
    assert answer["model_version"].tolist() == [2, 2]
    assert answer["population"].tolist() == [2, 2]
    assert answer["mass"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("days", "open_still"), [(6, False), (7, True)])
def test_a_request_that_nobody_answered_returns(
    days: int, open_still: bool, ask: Asking
) -> None:
    # Asked for at noon, six days and a half before the question.
    ask.add(predictions=[predicted("a")], label_requests=[requested("a", day=25)])

    assert ask("candidates", expire_after_days=days).empty is open_still


def test_a_newer_request_keeps_an_image_out(ask: Asking) -> None:
    ask.add(
        predictions=[predicted("a")],
        label_requests=[requested("a", day=5), requested("a", day=30)],
    )

    assert ask("candidates").empty


def test_the_champion_is_the_version_that_scored_last(ask: Asking) -> None:
    ask.add(predictions=[predicted("a", version=2), predicted("b", version=1, day=30)])

    assert ask.rows("candidates", "image_id model_version") == [("b", 1)]


@pytest.mark.parametrize(
    ("rank_by", "order", "utilities"),
    [
        ("margin", "bca", [0.75, 0.5, 0.25]),
        ("entropy", "acb", [0.75, 0.5, 0.25]),
        ("least_confidence", "cab", [0.75, 0.5, 0.25]),
        ("random", "cba", [0.75, 0.5, 0.25]),
    ],
)
def test_candidates_come_in_the_order_that_is_asked_for(
    rank_by: str, order: str, utilities: list[float], ask: Asking
) -> None:
    scores = ("margin", "entropy", "confidence", "sampling_key")
    values = {
        "a": (0.75, 0.75, 0.5, 0.25),
        "b": (0.25, 0.25, 0.75, 0.5),
        "c": (0.5, 0.5, 0.25, 0.75),
    }
    ask.add(
        predictions=[
            predicted(name, **dict(zip(scores, values[name], strict=True)))
            for name in "bca"
        ]
    )

    answer = ask("candidates", rank_by=rank_by)

    assert "".join(answer["image_id"]) == order
    assert answer["utility"].tolist() == utilities


def test_equal_candidates_come_by_name(ask: Asking) -> None:
    ask.add(predictions=[predicted(name) for name in "dbac"])

    assert ask.rows("candidates", "image_id") == ["a", "b", "c", "d"]


def test_an_image_that_was_scored_twice_is_one_candidate(ask: Asking) -> None:
    ask.add(predictions=[predicted("a", day=20), predicted("a", day=22)])

    answer = ask("candidates")

    assert answer["population"].tolist() == [1]
    assert answer["scored_at"].tolist() == [noon(22)]


def test_a_candidate_comes_with_all_that_was_said_of_it(ask: Asking) -> None:
    said = predicted("a", label="dog", probabilities=[0.25, 0.75], sampling_key=0.125)
    ask.add(predictions=[said])

    (row,) = ask("candidates").to_dict(orient="records")

    assert list(row["classes"]) == said.pop("classes")
    assert list(row["probabilities"]) == said.pop("probabilities")
    del said["source"]
    assert {name: row[name] for name in said} == said


@pytest.mark.parametrize("over", ["margin", "entropy", "least_confidence"])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 4.5, 60.0])
def test_power_draws_by_the_formula_of_the_strategy(
    over: str, exponent: float, ask: Asking
) -> None:
    images = [f"{number:02}.png" for number in range(40)]
    # The last two draw the least noise there is; the first has no utility at all.
    keys = np.append(sampling_keys(images[:-2], 2), [0.0, 0.5])
    utilities = np.linspace(0, 1, len(images))
    column = {"margin": "margin", "entropy": "entropy"}.get(over, "confidence")
    values = utilities if over == "entropy" else 1 - utilities
    ask.add(
        predictions=[
            predicted(image, sampling_key=key, **{column: value})
            for image, key, value in zip(images, keys, values, strict=True)
        ]
    )

    answer = ask("candidates", rank_by="power", over=over, exponent=str(exponent))

    floored = np.maximum(utilities, FLOOR)
    expected = pd.DataFrame(
        {
            "image_id": images,
            "utility": exponent * np.log(floored) + gumbel(keys),
            "weight": weights(utilities, exponent),
        }
    ).sort_values("utility", ascending=False, ignore_index=True)
    pd.testing.assert_frame_equal(answer[list(expected)], expected, rtol=1e-9)
    assert answer["mass"].iloc[0] == pytest.approx(expected["weight"].sum())
    assert answer["population"].iloc[0] == len(images)


def test_vectors_come_when_they_are_asked_for(ask: Asking) -> None:
    ask.add(
        predictions=[predicted("a"), predicted("b")],
        embeddings=[embedded("a", x=3.0), embedded("a", version=1, x=4.0)],
    )

    with_vectors = ask("candidates", with_vectors=1)
    without = ask("candidates", with_vectors=0)

    assert list(with_vectors["vector"].iloc[0]) == [3.0, 0.5]
    assert with_vectors["vector"].isna().tolist() == [False, True]
    assert without["vector"].isna().all()
    assert without["image_id"].tolist() == ["a", "b"]


@pytest.mark.parametrize(("budget", "n"), [(200, 1000), (201, 1100)])
def test_a_small_multiple_of_the_budget_comes_back(
    budget: int, n: int, ask: Asking
) -> None:
    ask.add(predictions=[predicted(f"{number:04}") for number in range(1100)])

    answer = ask("candidates", budget=budget)

    assert answer["image_id"].tolist() == [f"{number:04}" for number in range(n)]
    assert answer["population"].unique().tolist() == [1100]


HOSTILE = ["../../etc/passwd", "it's", 'x" | take 0 //', "größe, 1.png", "a\\'b"]


def test_a_hostile_name_is_a_name(ask: Asking) -> None:
    ask.add(
        predictions=[
            predicted(name, model_name='x" | take 0 //', label="';--")
            for name in [*HOSTILE, "a"]
        ],
        labels=[labeled("a")],
        embeddings=[embedded(name) for name in HOSTILE],
    )

    answer = ask("candidates")

    assert answer["image_id"].tolist() == sorted(HOSTILE)
    assert set(answer["model_name"]) == {'x" | take 0 //'}
    assert set(answer["label"]) == {"';--"}
    ask.add("later", labels=[labeled(name) for name in HOSTILE[1:]])
    assert ask.rows("candidates", "image_id") == HOSTILE[:1]
    assert ask.rows("labeled_embeddings", "image_id") == sorted(HOSTILE[1:])


def test_an_image_that_was_skipped_is_no_candidate(ask: Asking) -> None:
    ask.add(
        predictions=[predicted("a"), predicted("b"), predicted("c")],
        labels=[skipped("a"), skipped("b", answer="unclear")],
    )

    assert ask.rows("candidates", "image_id") == ["c"]


def test_a_label_without_a_name_hides_nobody(ask: Asking) -> None:
    ask.add(predictions=[predicted("a"), predicted("b")], labels=[labeled("a")])
    ask.add("nameless", labels=[{**labeled("?"), "image_id": None}])

    assert ask.rows("candidates", "image_id") == ["b"]


# --- the audit ---


def test_an_audit_draws_from_all_that_cannot_have_taught(ask: Asking) -> None:
    ask.add(
        predictions=[
            predicted("began", day=10, sampling_key=0.9),
            predicted("labeled before", sampling_key=0.1),
            predicted("asked for before", sampling_key=0.1),
            predicted("audited", sampling_key=0.1),
            predicted("test", sampling_key=0.1),
            predicted("labeled since", sampling_key=0.3),
            predicted("asked for since", sampling_key=0.2),
            predicted("audited for another", sampling_key=0.4),
            predicted("another's", version=1, day=9, sampling_key=0.1),
        ],
        labels=[labeled("labeled before", day=9), labeled("labeled since", day=22)],
        label_requests=[
            requested("asked for before", version=1, day=9),
            requested("asked for since", day=22),
            requested("audited", day=22, audit=True),
            requested("audited for another", version=1, day=22, audit=True),
        ],
        test_set=[in_test_set("test")],
    )
    eligible = ["asked for since", "labeled since", "audited for another", "began"]

    assert ask.rows("audit_candidates", "image_id", budget=2) == eligible[:2]
    assert ask.rows("audit_candidates", "image_id", budget=50) == eligible
    assert ask.rows("audit_candidates", "population", budget=2) == [4, 4]
    assert ask("audit_candidates", budget=0).empty


def test_an_answer_counts_for_the_image_and_the_latest_one_does(ask: Asking) -> None:
    audit = {"audit": True, "strategy": "random"}
    ask.add(
        predictions=[
            *(predicted(name) for name in ("right", "wrong", "corrected", "open")),
            predicted("right", version=1, label="dog"),
            predicted("not drawn"),
        ],
        label_requests=[
            *(requested(name, **audit) for name in ("right", "wrong", "corrected")),
            requested("open", **audit),
            requested("right", version=1, **audit),
            requested("not drawn"),
        ],
        labels=[
            labeled("right"),
            labeled("wrong", label="dog"),
            labeled("corrected", label="dog", day=25),
            labeled("corrected", label="cat", day=26),
            labeled("not drawn"),
        ],
    )

    answer = ask.rows("audit_answers", "model_name model_version n_audited n_right")

    assert answer == [("small_cnn", 1, 1, 0), ("small_cnn", 2, 3, 2)]


def audited(ask: Asking, *labels: Row) -> list[Any]:
    """How many answers of an audit of ``a`` count, and how many say cat."""
    audit = requested("a", audit=True, strategy="random")
    ask.add(predictions=[predicted("a")], label_requests=[audit], labels=list(labels))
    return ask.rows("audit_answers", "n_audited n_right")


CAST = {
    "one skips": ([("ann", ""), ("bob", "cat")], [(1, 1)]),
    "all skip": ([("ann", ""), ("bob", "")], []),
    "a majority": ([("ann", "cat"), ("bob", "cat"), ("eve", "dog")], [(1, 1)]),
    "a majority, late": ([("ann", "dog"), ("bob", "cat"), ("eve", "dog")], [(1, 0)]),
    "a tie, cat last": ([("ann", "dog"), ("bob", "cat")], [(1, 1)]),
    "a tie, dog last": ([("ann", "cat"), ("bob", "dog")], [(1, 0)]),
    "one changes": ([("ann", "dog"), ("bob", "cat"), ("ann", "cat")], [(1, 1)]),
    "one takes it back": ([("ann", "dog"), ("bob", "cat"), ("ann", "")], [(1, 1)]),
}


@pytest.mark.parametrize(("cast", "counted"), CAST.values(), ids=CAST)
def test_an_audit_counts_the_votes_of_several_labelers(
    cast: list[tuple[str, str]], counted: list[Any], ask: Asking
) -> None:
    votes = [
        labeled("a", label, day=day, labeler=by, answer="label" if label else "skipped")
        for day, (by, label) in enumerate(cast, start=20)
    ]

    assert audited(ask, *votes) == counted


def test_an_audit_counts_the_labels_of_older_parts(ask: Asking) -> None:
    # Those have no column `answer`.
    assert audited(ask, labeled("a", answer=None)) == [(1, 1)]


def test_a_draw_that_was_skipped_is_open_still(ask: Asking) -> None:
    power = {"strategy": "power", "propensity": 0.25}
    ask.add(
        predictions=[predicted("a"), predicted("b")],
        label_requests=[
            requested("a", rank=1, **power),
            requested("b", rank=2, **power),
        ],
        labels=[skipped("a"), skipped("b"), labeled("b", labeler="bob")],
    )

    right = ask("draws").astype({"right": "object"}).fillna("open")["right"]

    assert right.tolist() == ["open", 1]


def test_draws_come_in_their_order_with_the_answers_there_are(ask: Asking) -> None:
    power = {"strategy": "power", "propensity": 0.25}
    ask.add(
        predictions=[
            *(predicted(name) for name in ("a", "b", "c", "audited", "best")),
            predicted("d", version=1),
        ],
        label_requests=[
            requested("a", rank=3, **power),
            requested("b", rank=1, **power),
            requested("c", rank=2, **power),
            requested("audited", **power, audit=True),
            requested("best"),
            requested("d", version=1, **power),
        ],
        labels=[labeled("a"), labeled("b", label="dog"), labeled("d"), labeled("best")],
    )

    answer = ask("draws").astype({"right": "object"}).fillna("open")

    columns = ["model_version", "round", "rank", "propensity", "population", "right"]
    assert answer[columns].to_numpy().tolist() == [
        [1, 1, 1, 0.25, 100, 1],
        [2, 1, 1, 0.25, 100, 0],
        [2, 1, 2, 0.25, 100, "open"],
        [2, 1, 3, 0.25, 100, 1],
    ]


# --- what was said before ---


def test_what_the_asking_version_had_said_comes_back(ask: Asking) -> None:
    ask.add(
        predictions=[
            predicted("a", label="dog", probabilities=[0.25, 0.75]),
            predicted("a", version=1, day=10),
            predicted("b"),
            predicted("never asked for"),
        ],
        label_requests=[requested("a"), requested("b", audit=True)],
        labels=[labeled("a", day=26)],
    )

    rows = ask.rows("asked_probabilities", "image_id label model_name model_version")

    assert rows == [("a", "dog", "small_cnn", 2), ("b", "cat", "small_cnn", 2)]
    first = ask("asked_probabilities").iloc[0]
    assert list(first["classes"]) == ["cat", "dog"]
    assert list(first["probabilities"]) == [0.25, 0.75]


def test_no_version_that_may_have_learned_from_an_answer_is_asked(ask: Asking) -> None:
    ask.add(
        predictions=[
            predicted(name, version=version, day=10 * version)
            for name in ("asked twice", "asked again", "labeled before", "skipped")
            for version in (1, 2)
        ],
        label_requests=[
            requested("asked twice", version=1, day=11),
            requested("asked twice", version=2, day=21),
            requested("asked again", version=1, day=11),
            requested("asked again", version=2, day=21),
            requested("labeled before", version=2, day=21),
            requested("skipped", version=1, day=11),
            requested("skipped", version=2, day=21),
        ],
        labels=[
            labeled("asked twice", day=22),
            labeled("asked again", day=12),
            labeled("asked again", day=23),
            labeled("labeled before", day=5),
            skipped("skipped", day=12),
        ],
    )

    rows = ask.rows("asked_probabilities", "image_id model_version")

    assert rows == [("asked again", 1), ("asked twice", 2), ("skipped", 1)]


# --- what was said ---


def test_the_newest_version_has_seen_what_is_not_ingested_yet(ask: Asking) -> None:
    ask.add(
        predictions=[predicted("a", version=1), predicted("b"), predicted("c")],
        scored_batch=[predicted("c"), predicted("d", day=21)],
    )

    seen = sorted(ask.rows("scored_images", "image_id model_version"))

    assert seen == [("b", 2), ("c", 2), ("d", 2)]


def test_two_windows_are_counted_each_for_itself(ask: Asking) -> None:
    ask.add(
        predictions=[
            # The current window is days 25 to 31, the reference 11 to 24.
            predicted("a", day=31, confidence=0.99, margin=0.98, entropy=0.06),
            predicted("b", day=25, confidence=1.0, margin=1.0, entropy=0.0),
            predicted("c", day=24, label="dog", confidence=0.52, margin=0.04),
            predicted("d", day=11, confidence=0.52, margin=0.04),
            predicted("too early", day=10),
            predicted("another's", version=1, day=12, label="eel"),
        ]
    )
    columns = "signal period bucket n"

    assert ask.rows("histograms", columns) == [
        ("classes", "current", "cat", 2),
        ("classes", "reference", "cat", 1),
        ("classes", "reference", "dog", 1),
        ("confidence", "current", "19", 1),
        ("confidence", "current", "20", 1),
        ("confidence", "reference", "10", 2),
        ("entropy", "current", "0", 2),
        ("entropy", "reference", "5", 2),
        ("margin", "current", "19", 1),
        ("margin", "current", "20", 1),
        ("margin", "reference", "0", 2),
    ]
    across = ask.rows("histograms", columns, across_versions=1)
    assert ("classes", "reference", "eel", 1) in across
    assert ("confidence", "reference", "15", 1) in across


def test_a_sample_of_each_window_is_how_the_champion_sees_it(ask: Asking) -> None:
    ask.add(
        predictions=[
            predicted("new", day=30),
            predicted("seen before", day=20),
            predicted("seen before", day=29),
            predicted("too early", day=10),
            predicted("another's", version=1, day=20),
            predicted("without a vector", day=20),
        ],
        embeddings=[
            embedded("new", x=2.0),
            embedded("new", version=1, x=3.0),
            *(embedded(name) for name in ("seen before", "too early", "another's")),
        ],
    )

    sample = ask("embedding_sample")

    assert sample["period"].tolist() == ["current", "reference"]
    assert sample["image_id"].tolist() == ["new", "seen before"]
    assert [list(vector) for vector in sample["vector"]] == [[2.0, 0.5], [1.0, 0.5]]


def test_a_sample_is_a_thousand_of_each_window_at_most(ask: Asking) -> None:
    keys = np.arange(1100) / 1100
    ask.add(
        predictions=[
            predicted(f"{n:04} {day}", day=day, sampling_key=1 - keys[n])
            for n in range(1100)
            for day in (20, 30)
        ],
        embeddings=[embedded(f"{n:04} {day}") for n in range(1100) for day in (20, 30)],
    )

    sample = ask("embedding_sample")

    assert sample["period"].value_counts().to_dict() == {
        "current": 1000,
        "reference": 1000,
    }
    assert sample["image_id"].min() == "0100 20"


def test_activity_is_told_by_day_and_version(ask: Asking) -> None:
    ask.add(
        predictions=[
            predicted("a", day=20, confidence=0.5),
            predicted("b", day=20, confidence=1.0, entropy=0.0),
            predicted("c", version=1, day=20),
            predicted("d", day=21, scored_at=noon(21) + pd.Timedelta(hours=11)),
            predicted("too early", day=1),
        ]
    )
    day = noon(20).normalize()

    columns = "day model_version n confidence margin entropy"
    assert ask.rows("activity", columns) == [
        (day, 1, 1, 0.75, 0.5, 0.5),
        (day, 2, 2, 0.75, 0.5, 0.25),
        (noon(21).normalize(), 2, 1, 0.75, 0.5, 0.5),
    ]
    assert ask("activity", window_days=11)["n"].tolist() == [1]


def test_the_mix_of_classes_is_told_by_day_and_version(ask: Asking) -> None:
    ask.add(
        predictions=[
            *(predicted(name, day=20) for name in "ab"),
            predicted("c", day=20, label="dog"),
            predicted("d", version=1, day=20),
            predicted("e", day=21),
        ]
    )

    day, next_day = noon(20).normalize(), noon(21).normalize()
    assert ask.rows("class_mix", "day model_version label n") == [
        (day, 1, "cat", 1),
        (day, 2, "cat", 2),
        (day, 2, "dog", 1),
        (next_day, 2, "cat", 1),
    ]


def test_the_labeled_are_seen_as_the_champion_sees_them(ask: Asking) -> None:
    ask.add(
        predictions=[predicted("free"), predicted("b", version=1, day=30)],
        embeddings=[
            *(embedded(name, version=1) for name in ("b", "a", "free")),
            embedded("a", version=2, x=3.0),
        ],
        labels=[
            *(labeled("a"), labeled("b"), labeled("without a vector")),
            skipped("free"),
        ],
    )

    assert ask.rows("labeled_embeddings", "image_id") == ["a", "b"]
    assert list(ask("labeled_embeddings")["vector"].iloc[0]) == [1.0, 0.5]
    assert ask("labeled_embeddings", with_vectors=0).empty
