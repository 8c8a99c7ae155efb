"""A question in the catalog: asked when it is loaded, of what is there then."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import DataCatalog, DatasetError

from active_learning.datasets import KqlDataset, TableDataset
from active_learning.errors import QueryError

NOON = pd.Timestamp("2000-01-20T12:00", tz="UTC")


def predictions(*names: str, **changed: Any) -> pd.DataFrame:
    """One prediction for each name, which is its id and its image."""
    return pd.DataFrame(
        [
            {
                "prediction_id": name,
                "image_id": name,
                "source": "batch",
                "label": "cat",
                "confidence": 0.75,
                "margin": 0.5,
                "entropy": 0.56,
                "sampling_key": 0.5,
                "classes": ["cat", "dog"],
                "probabilities": [0.75, 0.25],
                "model_name": "small_cnn",
                "model_version": 1,
                "scored_at": NOON,
                **changed,
            }
            for name in names
        ]
    )


def add(folder: Path, frame: pd.DataFrame) -> None:
    TableDataset(table="predictions", path=str(folder / "predictions")).save(frame)


def asking(folder: Path, query: str, **parameters: object) -> KqlDataset:
    return KqlDataset(
        query=query, backend="local", database=str(folder), parameters=parameters
    )


def test_a_query_is_named_or_written_out(tmp_path: Path) -> None:
    add(tmp_path, predictions("a", "b"))

    named = asking(tmp_path, "activity", window_days=30, until="2000-02-01").load()
    written = asking(tmp_path, "predictions | summarize n = count()").load()

    assert named["n"].tolist() == [2]
    assert written["n"].tolist() == [2]


def test_each_load_asks_again(tmp_path: Path) -> None:
    dataset = asking(tmp_path, "predictions | project image_id")

    assert dataset.exists()
    assert dataset.load().empty
    add(tmp_path, predictions("a"))
    assert dataset.load()["image_id"].tolist() == ["a"]


def test_a_window_ends_when_it_is_told_to(tmp_path: Path) -> None:
    add(tmp_path, predictions("a"))

    def n(until: str) -> list[int]:
        dataset = asking(tmp_path, "activity", window_days=7, until=until)
        found: list[int] = dataset.load()["n"].tolist()
        return found

    # Scored on the 20th at noon; a window has no part in the moment it begins.
    assert n("2000-01-20T11:59:59Z") == []
    assert n("2000-01-20T12:00:00Z") == [1]
    assert n("2000-01-20T13:00:00+02:00") == []
    assert n("2000-01-27T11:59:59Z") == [1]
    assert n("2000-01-27T12:00:00Z") == []


def test_without_an_end_a_window_ends_now(tmp_path: Path) -> None:
    now = pd.Timestamp.now(tz="UTC")
    add(tmp_path, predictions("now", scored_at=now))
    add(tmp_path, predictions("tomorrow", scored_at=now + pd.Timedelta(days=1)))

    answer = asking(tmp_path, "activity", window_days=1, until=None).load()

    assert answer["n"].tolist() == [1]


@pytest.mark.parametrize(
    ("value", "kind", "bound"),
    [
        ("text", "string", "text"),
        ('x" | take 0 //', "string", 'x" | take 0 //'),
        (3, "long", 3),
        (True, "long", 1),
        (False, "long", 0),
        (0.1, "string", "0.1"),
        (None, "string", ""),
    ],
)
def test_what_yaml_holds_is_bound(
    value: object, kind: str, bound: object, tmp_path: Path
) -> None:
    text = f"declare query_parameters(value: {kind}); print value"

    assert asking(tmp_path, text, value=value).load().iloc[0, 0] == bound


@pytest.mark.parametrize("value", [["a"], {"a": 1}, NOON])
def test_what_cannot_be_bound_is_named_at_once(value: object, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="'value' holds"):
        asking(tmp_path, "print 1", value=value)


@pytest.mark.parametrize("name", ["../../etc/passwd", "it's", 'x" | take 0 //'])
def test_a_hostile_image_id_is_data(name: str, tmp_path: Path) -> None:
    add(tmp_path, predictions(name, "a"))
    text = (
        "declare query_parameters(name: string); "
        "predictions | where image_id == name | project image_id"
    )

    assert asking(tmp_path, text, name=name).load()["image_id"].tolist() == [name]


def test_a_question_that_does_not_fit_says_why(tmp_path: Path) -> None:
    for query, parameters, said in [
        ("activity", {"window_days": 7}, "until"),
        ("activity", {"window_days": 7, "until": "", "mood": "good"}, "mood"),
        ("activity", {"window_days": "7", "until": ""}, "window_days"),
        ("predictions | whre", {}, "cannot be understood"),
    ]:
        with pytest.raises(DatasetError, match=said) as caught:
            asking(tmp_path, query, **parameters).load()
        assert isinstance(caught.value.__cause__, QueryError)


def test_an_answer_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"read-only.*TableDataset"):
        asking(tmp_path, "predictions").save(predictions("a"))  # type: ignore[arg-type]


def test_a_preview_shows_the_first_rows(tmp_path: Path) -> None:
    add(tmp_path, predictions("a", "b", "c"))
    dataset = asking(tmp_path, "predictions | project image_id | sort by image_id asc")

    assert dataset.preview(nrows=2)["data"] == [["a"], ["b"]]


def test_a_catalog_entry_gives_the_answer(tmp_path: Path) -> None:
    add(tmp_path / "tables", predictions("a", "b"))
    catalog = DataCatalog.from_config(
        {
            "predictions@activity": {
                "type": "active_learning.datasets.KqlDataset",
                "query": "activity",
                "backend": "local",
                "database": str(tmp_path / "tables"),
                "tables": {"labels": str(tmp_path / "elsewhere")},
                "parameters": {"window_days": 30, "until": "2000-02-01"},
                "load_args": {"memory": "200MB", "cache": str(tmp_path / "kql")},
            }
        }
    )

    assert catalog.load("predictions@activity")["n"].tolist() == [2]
    assert len(list((tmp_path / "kql").iterdir())) == 1
