"""Management commands that make the tables, in their order.

Each may be run again: a table is extended at its end, a mapping or a policy takes the
place of the one before. What cannot be changed in place, the type of a column or the
key of a view, is refused before by ``drift``.
"""

import json
from collections.abc import Collection, Mapping

from active_learning.schemas import TABLES, Table
from active_learning.services.adx_tables.descriptions import COLUMNS
from active_learning.services.adx_tables.descriptions import TABLES as DESCRIPTIONS
from active_learning.services.adx_tables.names import (
    columns,
    json_path,
    literal,
    quoted,
)
from active_learning.services.adx_tables.settings import AdxTablesSettings

# Predictions that break their table's promise, copied to where they are seen. The row
# is kept whole as a bag: the table stays as it is when predictions get a column.
INVALID = "invalid_predictions"
INVALID_COLUMNS = {
    "seen_at": "datetime",
    "reason": "string",
    "prediction_id": "string",
    "image_id": "string",
    "row": "dynamic",
}
BROKEN = "broken_predictions"
BROKEN_BODY = """\
    raw_predictions
    | extend reason = case(
        isempty(prediction_id), "prediction_id is empty",
        isempty(image_id), "image_id is empty",
        coalesce(array_length(classes), -1)
            != coalesce(array_length(probabilities), -2),
            "classes and probabilities are not of one length",
        isnull(confidence) or not(confidence >= 0.0 and confidence <= 1.0),
            "confidence is not within [0, 1]",
        "")
    | where isnotempty(reason)
    | project seen_at = now(), reason, prediction_id, image_id, row = pack_all()"""


def landing(name: str, table: Table) -> str:
    """Where a table's rows go: ``raw_<name>`` where a key makes each count once."""
    return f"raw_{name}" if table.key else name


def mapping(name: str) -> str:
    """The JSON mapping of a table."""
    return f"{name}_json"


def commands(
    settings: AdxTablesSettings,
    tables: Mapping[str, Table] = TABLES,
    refill: Collection[str] = (),
) -> list[str]:
    """All that makes the tables as the code has them.

    Args:
        settings: How long rows are kept and how they come in.
        tables: By name.
        refill: Views that are not there although their rows are: they are made from
            these, which takes its time.
    """
    made: list[str] = []
    for name, table in tables.items():
        made += _table(name, table, settings)
    if "predictions" in tables:
        made += _invalid_predictions(settings)
    for name, table in tables.items():
        if table.key:
            made += _view(name, table, settings, refill=name in refill)
    # Nodes that take streams keep what they know of a table for minutes.
    return [*made, ".clear database cache streamingingestion schema"]


def script(made: Collection[str]) -> str:
    """Commands as one text for the web UI, which parts them at blank lines."""
    return "\n\n".join(made) + "\n"


def _table(name: str, table: Table, settings: AdxTablesSettings) -> list[str]:
    place = quoted(landing(name, table))
    typed = columns(table.schema)
    about = _described(name, table)
    paths = [
        {"column": column, "Properties": {"Path": json_path(column)}}
        for column in typed
    ]
    listed = ",\n".join(json.dumps(path) for path in paths)
    told = {column: COLUMNS[column] for column in typed if column in COLUMNS}
    made = [
        *_created(place, typed, about, settings.folder),
        f".create-or-alter table {place} ingestion json mapping "
        f"{literal(mapping(name))}\n```\n[\n{listed}\n]\n```",
        *_kept("table", place, settings.retention_days[name], settings.hot_days),
        f".alter table {place} policy ingestionbatching\n```\n"
        f'{{"MaximumBatchingTimeSpan": "{_timespan(settings.batching_s)}"}}\n```',
        f".alter table {place} policy streamingingestion "
        f"{'enable' if name in settings.streaming else 'disable'}",
    ]
    if told:
        docs = ",\n    ".join(f"{quoted(c)}: {literal(t)}" for c, t in told.items())
        made.append(f".alter-merge table {place} column-docstrings (\n    {docs})")
    return made


def _view(
    name: str, table: Table, settings: AdxTablesSettings, *, refill: bool
) -> list[str]:
    source, view = quoted(landing(name, table)), quoted(name)
    key = ", ".join(quoted(column) for column in table.key)
    about = literal(DESCRIPTIONS.get(name, ""))
    how = ".create async ifnotexists" if refill else ".create ifnotexists"
    # A column that the source gets, the view gets by itself.
    properties = ["autoUpdateSchema = true", f"folder = {literal(settings.folder)}"]
    if refill:
        properties.insert(0, "backfill = true")
    return [
        f"{how} materialized-view with ({', '.join(properties)}) {view} "
        f"on table {source}\n"
        f"{{\n    {source}\n    | summarize take_any(*) by {key}\n}}",
        f".alter materialized-view {view} docstring {about}",
        *_kept(
            "materialized-view", view, settings.retention_days[name], settings.hot_days
        ),
    ]


def _invalid_predictions(settings: AdxTablesSettings) -> list[str]:
    about = "Predictions that break their table's promise, and the reason."
    # A failure here must not keep a prediction from its table.
    policy = {
        "IsEnabled": True,
        "Source": "raw_predictions",
        "Query": f"{BROKEN}()",
        "IsTransactional": False,
        "PropagateIngestionProperties": False,
    }
    return [
        *_created(INVALID, INVALID_COLUMNS, about, settings.folder),
        *_kept("table", INVALID, settings.invalid_days, settings.hot_days),
        f".create-or-alter function with (docstring = {literal(about)}, "
        f"folder = {literal(settings.folder)}) {BROKEN}()\n{{\n{BROKEN_BODY}\n}}",
        f".alter table {INVALID} policy update\n```\n[{json.dumps(policy)}]\n```",
    ]


def _created(
    place: str, typed: Mapping[str, str], about: str, folder: str
) -> list[str]:
    listed = ",\n    ".join(
        f"{quoted(column)}: {kind}" for column, kind in typed.items()
    )
    return [
        f".create-merge table {place} (\n    {listed})\n"
        f"with (docstring = {literal(about)}, folder = {literal(folder)})",
        # A table that was there keeps what it said of itself.
        f".alter table {place} docstring {literal(about)}",
    ]


def _kept(kind: str, place: str, days: int, hot_days: int) -> list[str]:
    retention = f"softdelete = {days}d recoverability = enabled"
    return [
        f".alter-merge {kind} {place} policy retention {retention}",
        f".alter {kind} {place} policy caching hot = {min(days, hot_days)}d",
    ]


def _described(name: str, table: Table) -> str:
    about = DESCRIPTIONS.get(name, "")
    if not table.key:
        return about
    return f"Rows as they came; read {name}, where each counts once. {about}".strip()


def _timespan(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"00:{minutes:02}:{rest:02}"
