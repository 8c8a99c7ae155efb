"""One question, two engines: what both answer, in which types."""

# ruff: noqa: F811  # a fixture is asked for by the name it was imported by

from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from tests.services.telemetry.adx import rows_of, signed_in, telemetry  # noqa: F401
from tests.standins.identity import identity  # noqa: F401
from tests.standins.kusto import Kusto, kusto  # noqa: F401
from tests.test_queries import VALUES, Row, everything

from active_learning.datasets import KqlDataset
from active_learning.queries import names, query_text
from active_learning.services.telemetry.declarations import declared
from active_learning.services.telemetry.local import LocalTelemetry

pytestmark = pytest.mark.usefixtures("signed_in")

# Every type that a column can have, with a null in each and without.
TYPES = """
predictions
| extend twice = model_version == VERSION
| project
    image_id,
    n_whole = iff(twice, model_version, long(null)),
    n_small = iff(twice, toint(model_version), int(null)),
    n_real = iff(twice, confidence, real(null)),
    is_yes = iff(twice, audit, bool(null)),
    seen_at = iff(twice, scored_at, datetime(null)),
    age = scored_at - datetime(2000-01-01),
    some_texts = classes,
    some_numbers = probabilities
| sort by image_id asc
"""


class Both:
    """The same rows in a cluster and in a folder, asked through the catalog's door."""

    def __init__(self, cluster: Kusto, folder: Path) -> None:
        self._places: dict[Literal["local", "azure"], str] = {
            "local": str(folder),
            "azure": cluster.database,
        }
        self._adx, self._local = telemetry(cluster), LocalTelemetry(folder)

    def add(self, **tables: list[Row]) -> None:
        for table, rows in tables.items():
            self._adx.append(table, rows_of(table, rows), "batch")
            self._local.append(table, rows_of(table, rows), "batch")

    def asked(self, query: str, **changed: str | int) -> list[pd.DataFrame]:
        text = query_text(query) if query in names() else query
        values = {name: VALUES[name] for name in declared(text) if name in VALUES}
        return [
            KqlDataset(
                query=query,
                backend=backend,
                database=place,
                parameters={**values, **changed},
            ).load()
            for backend, place in self._places.items()
        ]


@pytest.fixture
def both(kusto: Kusto, tmp_path: Path) -> Both:
    """Without a row."""
    return Both(kusto, tmp_path)


def assert_same(here: pd.DataFrame, there: pd.DataFrame) -> None:
    """Columns, types and values."""
    assert here.dtypes.to_dict() == there.dtypes.to_dict()
    plain = [
        frame.map(lambda cell: None if cell is pd.NA else cell)
        for frame in (here, there)
    ]
    pd.testing.assert_frame_equal(*plain, check_exact=True, check_dtype=False)
    for name in here.select_dtypes(object).columns:
        kinds = [
            {getattr(cell, "dtype", type(cell)) for cell in frame[name]}
            for frame in plain
        ]
        assert kinds[0] == kinds[1], name


@pytest.mark.parametrize("query", names())
def test_every_query_answers_the_same_on_both(query: str, both: Both) -> None:
    both.add(**everything())

    here, there = both.asked(query)

    assert len(here) > 0
    assert_same(here, there)


@pytest.mark.parametrize("query", ["activity", "candidates", "histograms"])
def test_an_answer_without_rows_has_the_same_types(query: str, both: Both) -> None:
    here, there = both.asked(query)

    assert here.empty
    assert_same(here, there)


@pytest.mark.parametrize("version", [2, 1], ids=["some null", "others null"])
def test_every_type_comes_back_as_it_does_locally(version: int, both: Both) -> None:
    both.add(**everything())
    text = TYPES.replace("VERSION", str(version)).replace("audit", "confidence > 0.9")

    assert_same(*both.asked(text))


@pytest.mark.parametrize("hostile", ['x" | take 0 //', "'; drop view labels --", "\\"])
def test_a_hostile_value_stays_a_value(hostile: str, both: Both) -> None:
    text = "declare query_parameters(said: string); print said = said"

    here, there = both.asked(text, said=hostile)

    assert here["said"].tolist() == there["said"].tolist() == [hostile]
