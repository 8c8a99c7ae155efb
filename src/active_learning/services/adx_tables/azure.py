"""Management commands, run on a cluster of Azure Data Explorer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import ClientAuthenticationError
from azure.kusto.data import KustoClient, KustoConnectionStringBuilder
from azure.kusto.data.exceptions import (
    KustoApiError,
    KustoAuthenticationError,
    KustoClientInvalidConnectionStringException,
    KustoNetworkError,
    KustoServiceError,
    KustoThrottlingError,
)

from active_learning.errors import QueryError, SinkAwayError, TelemetryError
from active_learning.services.adx_tables.drift import Found
from active_learning.services.adx_tables.names import quoted
from active_learning.services.azure import credential

if TYPE_CHECKING:
    from azure.kusto.data.response import KustoResponseDataSet

    from active_learning.services.adx_tables.settings import AdxTablesSettings

_LONGEST_PAUSE_S = 60.0
_GOES_ON = {"InProgress", "Scheduled"}
# What a schema says where it does not say a type in KQL's words.
_DOTNET = {
    "System.String": "string",
    "System.Int32": "int",
    "System.Int64": "long",
    "System.Double": "real",
    "System.SByte": "bool",
    "System.Boolean": "bool",
    "System.DateTime": "datetime",
    "System.TimeSpan": "timespan",
    "System.Guid": "guid",
    "System.Object": "dynamic",
    "System.Data.SqlTypes.SqlDecimal": "decimal",
}


class TablesDatabase:
    """One database, by whoever may change its tables."""

    def __init__(
        self, cluster: str, database: str, settings: AdxTablesSettings
    ) -> None:
        """Keep the place; nothing is asked yet."""
        self._place = f"{cluster.rstrip('/')}/{database}"
        self._database = database
        self._settings = settings
        builder = KustoConnectionStringBuilder.with_azure_token_credential(
            cluster, credential()
        )
        # Some of its methods have no types.
        self._client: Any = KustoClient(builder)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def found(self) -> Found:
        """The tables and views that are there."""
        name = quoted(self._database)
        said = self._ask(f".show database {name} schema as json")
        schema = json.loads(said.primary_results[0][0][0])
        (database,) = schema["Databases"].values()
        views = self._ask(".show materialized-views")
        return Found(
            tables=_columns_of(database.get("Tables")),
            views=_columns_of(database.get("MaterializedViews")),
            disabled=frozenset(
                row["Name"]
                for row in views.primary_results[0]
                if str(row["IsEnabled"]).lower() in {"false", "0"}
            ),
        )

    def run(self, command: str) -> None:
        """Run one command, and wait where it goes on after its answer.

        Raises:
            SinkAwayError: The cluster cannot be reached, or not now; the same again is
                worth another try.
            QueryError: The command was refused.
            TelemetryError: What it began did not come to its end.
        """
        said = self._ask(command)
        if not command.startswith(".create async"):
            return
        names = [column.column_name for column in said.primary_results[0].columns]
        if "OperationId" in names:
            self._wait(command, str(said.primary_results[0][0]["OperationId"]))

    def _wait(self, command: str, operation: str) -> None:
        end = time.monotonic() + self._settings.wait_s
        while True:
            said = self._ask(f".show operations {operation}")
            state, status = "Scheduled", ""
            for row in said.primary_results[0]:
                state, status = str(row["State"]), str(row["Status"])
            if state == "Completed":
                return
            if state not in _GOES_ON:
                raise TelemetryError(
                    f"{_first_line(command)} ended as {state}: {status}. "
                    f"{self._place} says more to .show operations {operation}."
                )
            if time.monotonic() > end:
                raise SinkAwayError(
                    f"{_first_line(command)} still goes on after "
                    f"{self._settings.wait_s:g} s; look at it with "
                    f".show operations {operation}, and apply again when it is done."
                )
            time.sleep(self._settings.retry_s)

    def _ask(self, command: str) -> KustoResponseDataSet:
        for pause in self._pauses():
            try:
                with self._translated(command):
                    answer: KustoResponseDataSet = self._client.execute_mgmt(
                        self._database, command
                    )
                    return answer
            except SinkAwayError:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last attempt answers or raises")

    def _pauses(self) -> Iterator[float | None]:
        """After each attempt; ``None`` after the last."""
        for attempt in range(self._settings.attempts - 1):
            yield min(self._settings.retry_s * 2**attempt, _LONGEST_PAUSE_S)
        yield None

    @contextmanager
    def _translated(self, command: str) -> Iterator[None]:
        away = f"{self._place} cannot be reached now; apply again later"
        try:
            yield
        except KustoThrottlingError as exc:
            raise SinkAwayError(f"{away}: it takes no more requests.") from exc
        except KustoNetworkError as exc:
            raise SinkAwayError(f"{away}: {_cause(exc)}.") from exc
        except KustoServiceError as exc:
            if _may_pass(exc):
                raise SinkAwayError(f"{away}: {_told(exc)}") from exc
            raise QueryError(
                f"{self._place} refused '{_first_line(command)}': {_told(exc)} "
                f"{_way_out(exc)}"
            ) from exc
        except KustoClientInvalidConnectionStringException as exc:
            raise QueryError(
                f"{self._place} is no cluster of Azure Data Explorer: AL_ADX_CLUSTER "
                "is such as https://name.region.kusto.windows.net."
            ) from exc
        except (KustoAuthenticationError, ClientAuthenticationError) as exc:
            raise TelemetryError(
                f"Nobody is signed in who could ask {self._place}: az login, or give "
                "the process a managed identity."
            ) from exc


def apply(
    database: TablesDatabase,
    commands: Iterable[str],
    tell: Callable[[str], None],
) -> None:
    """Run commands in their order; ``tell`` hears of each when it is done."""
    for command in commands:
        database.run(command)
        tell(_first_line(command))


def _columns_of(entities: dict[str, Any] | None) -> dict[str, dict[str, str]]:
    return {
        name: {
            column["Name"]: column.get("CslType")
            or _DOTNET.get(column["Type"], column["Type"])
            for column in entity["OrderedColumns"]
        }
        for name, entity in (entities or {}).items()
    }


def _may_pass(exc: KustoServiceError) -> bool:
    if isinstance(exc, KustoApiError) and exc.get_api_error().permanent is not None:
        return not exc.get_api_error().permanent
    return _status(exc) >= 500


def _status(exc: KustoServiceError) -> int:
    return int(getattr(exc.http_response, "status_code", 0) or 0)


def _told(exc: KustoServiceError) -> str:
    return f"{' '.join(str(exc.message_text).split())[:500]}."


def _way_out(exc: KustoServiceError) -> str:
    if _status(exc) in {401, 403}:
        return "Whoever applies the tables has to be an admin of the database."
    return "What came before it is done; mend this and apply again."


def _cause(exc: BaseException) -> str:
    """The kind of a failure; its text may hold what was sent."""
    return type(exc.__cause__ or exc).__name__


def _first_line(command: str) -> str:
    return command.splitlines()[0].rstrip(" (")
