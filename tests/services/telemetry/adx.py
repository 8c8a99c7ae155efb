"""What tests of Azure Data Explorer have in common."""

from collections.abc import Iterator

import pyarrow as pa
import pytest
from tests.standins.identity import Identity
from tests.standins.kusto import Kusto
from tests.test_queries import Row, predicted

from active_learning.schemas import TABLES
from active_learning.services.azure import credential
from active_learning.services.telemetry import connect_adx
from active_learning.services.telemetry.azure.adx import AdxTelemetry

# Enough for a busy machine; a test that is to wait in vain says less.
PATIENCE = {"answer_s": 20.0, "retry_s": 20.0, "visible_s": 30.0}
# For what is waited for in vain.
SHORT = {"answer_s": 1.0, "retry_s": 1.5, "visible_s": 1.0}


@pytest.fixture
def signed_in(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Identity]:
    """A managed identity that the real credential finds."""
    for name, value in identity.environment().items():
        monkeypatch.setenv(name, value)
    credential.cache_clear()
    yield identity
    credential.cache_clear()


def telemetry(cluster: Kusto, streaming: bool = True, **changed: float) -> AdxTelemetry:
    """A cluster's database."""
    return connect_adx(
        cluster.database, streaming=streaming, patience={**PATIENCE, **changed}
    )


def rows_of(table: str, rows: list[Row]) -> pa.Table:
    """Rows in a table's columns and types."""
    return pa.Table.from_pylist(rows, schema=TABLES[table].schema)


ROWS = rows_of("predictions", [predicted("a"), predicted("b")])
