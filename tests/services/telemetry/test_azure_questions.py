"""What the tables themselves are asked, read by Microsoft's own parser."""

# a fixture is asked for by the name it was imported by

import pytest
from tests.services.telemetry.adx import rows_of
from tests.standins.kqlcheck import declared, faults, kql_parser  # noqa: F401

from active_learning.schemas import TABLES
from active_learning.services.telemetry.azure import questions


@pytest.mark.usefixtures("kql_parser")
def test_every_question_is_right_by_microsofts_parser() -> None:
    texts: dict[str, str] = {}
    for table in TABLES:
        rows = rows_of(table, [{"image_id": "a"}])
        texts[f"{table} columns"] = questions.columns_of(table)
        texts[f"{table} rows"] = questions.rows_of(table, inbox=False)
        texts[f"{table} page"] = questions.page_of(table, inbox=False, digits="0f")
        texts[f"{table} missing"] = questions.missing_of(table, rows)[0].text
    for inbox in (
        questions.rows_of("scored_batch", inbox=True),
        questions.page_of("scored_batch", inbox=True, digits="0f"),
    ):
        texts[inbox] = inbox
        texts[f"{inbox} count"] = f"{inbox}\n| count"

    assert faults(declared(), texts) == {}


@pytest.mark.parametrize(
    ("n_rows", "n_pages"), [(0, 1), (10, 1), (11, 16), (160, 16), (161, 256)]
)
def test_a_page_holds_about_as_many_rows_as_it_may(n_rows: int, n_pages: int) -> None:
    assert len(questions.pages(n_rows, 10)) == n_pages
