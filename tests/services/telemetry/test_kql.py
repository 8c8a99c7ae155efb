"""A question becomes SQL once, and its values stay values."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from active_learning.errors import QueryError, UnknownNameError
from active_learning.schemas import TABLES
from active_learning.services.telemetry import connect
from active_learning.services.telemetry.kql import translated
from active_learning.services.telemetry.local import LocalTelemetry

ASK = "declare query_parameters(name: string, n: long); "
LABELS = f"{ASK}labels | where image_id == name and n > 0"


def label(image_id: str) -> pa.Table:
    schema = TABLES["labels"].schema
    row = {"label_id": image_id, "image_id": image_id, "label": "cat"}
    return pa.Table.from_pylist([row], schema=schema)


@pytest.fixture
def telemetry(tmp_path: Path) -> LocalTelemetry:
    """Two labels; the translations lie in ``cache``."""
    telemetry = LocalTelemetry(tmp_path, cache=tmp_path / "cache")
    for name in ("a", "it's"):
        telemetry.append("labels", label(name), name)
    return telemetry


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "cache").iterdir())


# --- values ---


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a", ["a"]),
        ("it's", ["it's"]),
        ("", []),
        ("' OR 1 = 1 --", []),
        ('a" or true //', []),
        ('x" | take 0 //', []),
        ("$kqlp0", []),
        ("; drop view labels", []),
    ],
)
def test_a_value_is_compared_and_never_read_as_a_question(
    name: str, found: list[str], telemetry: LocalTelemetry
) -> None:
    answer = telemetry.query(LABELS, {"name": name, "n": 9})

    assert answer["image_id"].tolist() == found


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "a"}, r"missing: \['n'\]"),
        ({}, r"missing: \['name', 'n'\]"),
        ({"name": "a", "n": 1, "m": 2}, r"unknown: \['m'\]"),
        ({"name": 1, "n": 1}, "'name' is a string and was given 1"),
        ({"name": "a", "n": "1"}, "'n' is a long and was given '1'"),
        ({"name": "a", "n": True}, "'n' is a long and was given True"),
        ({"name": "a", "n": 2**63}, "out of range"),
    ],
)
def test_a_value_that_does_not_fit_is_named(
    values: Mapping[str, str | int], said: str, telemetry: LocalTelemetry
) -> None:
    with pytest.raises(QueryError, match=said):
        telemetry.query(LABELS, values)


def test_a_default_is_taken_when_nothing_is_given(telemetry: LocalTelemetry) -> None:
    question = (
        "declare query_parameters(n: long = 7, name: string = 'a'); print n, name"
    )

    assert telemetry.query(question, {}).to_numpy().tolist() == [[7, "a"]]
    assert telemetry.query(question, {"n": 8}).to_numpy().tolist() == [[8, "a"]]


# --- texts ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be understood"),
        ("labels | whre image_id == 'a'", "cannot be understood"),
        ("labels | where mood == 'good'", "mood"),
        ("lables | take 1", "lables"),
        ("SELECT 1; DROP TABLE labels", "cannot be understood"),
        (".drop table labels", "cannot be understood"),
    ],
)
def test_what_is_no_question_to_the_tables_says_why(
    text: str, said: str, telemetry: LocalTelemetry
) -> None:
    with pytest.raises(QueryError, match=said):
        telemetry.query(text, {})


def test_a_type_that_the_engines_bind_differently_is_refused() -> None:
    text = "declare query_parameters(until: datetime); print until"

    with pytest.raises(QueryError, match=r"'until'.*Declare it string"):
        translated(text, None)


def test_equality_is_plain_only_where_keys_are_said_to_be_filled() -> None:
    joined = "labels | join kind=inner test_set on image_id"

    assert " IS NOT DISTINCT FROM " in translated(joined, None).sql
    assert (
        " IS NOT DISTINCT FROM "
        not in translated(f"// Keys are never null.\n{joined}", None).sql
    )


def test_an_empty_table_changes_no_answer_about_the_others(
    telemetry: LocalTelemetry,
) -> None:
    # What is used twice is written out twice where a table has no rows.
    text = (
        "let named = labels | where label == 'cat' | project image_id; "
        "let scored = predictions | where image_id in ((named | project image_id)); "
        "named | join kind=leftouter scored on image_id | project image_id, margin "
        "| union (scored | project image_id, margin) | sort by image_id asc"
    )

    assert telemetry.query(text, {})["image_id"].tolist() == ["a", "it's"]


def test_an_unknown_backend_is_told_which_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"'lokal'.*local"):
        connect("lokal", "anywhere", tables={})


# --- tables in other places ---


def test_a_table_may_be_one_file_or_a_folder_elsewhere(
    telemetry: LocalTelemetry, tmp_path: Path
) -> None:
    (tmp_path / "labels" / "a.parquet").rename(tmp_path / "one's.parquet")
    (tmp_path / "labels").rename(tmp_path / "it's elsewhere")
    places = {"one's.parquet": "a", "it's elsewhere": "it's"}

    for place, found in places.items():
        tables = {"labels": str(tmp_path / place)}
        asking = connect("local", str(tmp_path), tables=tables, memory="100MB")
        assert asking.query("labels", {})["image_id"].tolist() == [found]


# --- translations are kept ---


def test_the_second_time_no_parser_is_loaded(
    telemetry: LocalTelemetry, tmp_path: Path
) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from active_learning.services.telemetry.local import LocalTelemetry
        folder = Path(sys.argv[1])
        telemetry = LocalTelemetry(folder, cache=folder / "cache")
        print(len(telemetry.query(sys.argv[2], {"name": "a", "n": 1})))
        print("duckdb_kql" in sys.modules)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path), LABELS]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )

    assert first.split() == ["1", "True"]
    assert second.split() == ["1", "False"]


def test_another_question_is_another_translation(
    telemetry: LocalTelemetry, tmp_path: Path
) -> None:
    for question in ("labels | take 1", "labels | take 2", "labels | take 1"):
        telemetry.query(question, {})

    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"sql": "SELECT 1"}',
        b'{"sql": "SELECT 1", "parameters": []}',
        b'{"sql": "SELECT 1", "parameters": {"n": {"mood": "good"}}}',
        b'{"sql": null, "parameters": {}}',
    ],
)
def test_a_damaged_translation_is_made_anew(
    content: bytes, telemetry: LocalTelemetry, tmp_path: Path
) -> None:
    telemetry.query(LABELS, {"name": "a", "n": 1})
    (file,) = kept(tmp_path)
    whole = json.loads(file.read_text())
    file.write_bytes(content)

    answer = telemetry.query(LABELS, {"name": "a", "n": 1})

    assert answer["image_id"].tolist() == ["a"]
    assert json.loads(file.read_text()) == whole


def test_a_question_that_was_refused_is_not_kept(
    telemetry: LocalTelemetry, tmp_path: Path
) -> None:
    with pytest.raises(QueryError):
        telemetry.query("labels | whre", {})

    assert not (tmp_path / "cache").exists()
