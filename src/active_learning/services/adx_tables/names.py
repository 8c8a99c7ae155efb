"""How Azure Data Explorer calls things: names, types, text."""

import json
import re

import pyarrow as pa

from active_learning.errors import SchemaError

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[A-Za-z0-9_ .\-]{1,1024}")

# What Microsoft's parser does not take for a name unless it stands in brackets.
_WORDS = """
__contextual_datatable __crossCluster __crossDB __executeAndCache __id __isFuzzy
__noWithSource __packedColumn __projectAway __sourceColumnIndex accumulate and
anomalychart areachart as asc bagexpansion barchart between bin bin_legacy boolean by
byte cachingpolicy callout cancel card char columnchart contains contains_cs
containscs cycles database dataexport datascope datatable date datetime decimal
decodeblocks desc double dynamic earliest encodingpolicy endswith endswith_cs
entity_group expandoutput extent_tags_retention external_data externaldata find first
flags float force_remote graph harddelete hardretention has has_all has_any has_cs
hasprefix hasprefix_cs hassuffix hassuffix_cs hotcache in int int16 int32 int64 int8
invoke isfuzzy journal kind ladderchart last latest like likecs linechart long
materialize mdm missing nooptimization notcontains notcontainscs notlike notlikecs of
or others pack pathformat piechart pivotchart print project queries query_results
range real relaxed restricted_view_access row_level_security rowstore
rowstore_references rowstore_sealinfo rowstorepolicy rowstores sample scatterchart
seal seals search set shards simple softdelete softretention sql stackedareachart
startswith startswith_cs statistics storedqueryresultcontainers string tablepurge time
timechart timeline timepivot timespan title to toscalar totable treemap uint uint16
uint32 uint64 uint8 ulong union uniqueid unrestrictedviewers verbose viewers views
where with with_itemindex with_match_id with_source with_step_name withsource
writeaheadlog
"""
RESERVED = frozenset(_WORDS.split())

_TYPES: dict[pa.DataType, str] = {
    pa.string(): "string",
    pa.int64(): "long",
    pa.float64(): "real",
    pa.bool_(): "bool",
}


def quoted(name: str) -> str:
    """A name as it stands in KQL: in brackets where it would be read as a word.

    Raises:
        SchemaError: No table or column can be called so.
    """
    if not _NAME.fullmatch(name):
        raise SchemaError(
            f"{name!r} is no name for Azure Data Explorer: letters, digits, '_', '-', "
            "'.' and blanks make one, 1,024 at most."
        )
    if _IDENTIFIER.fullmatch(name) and name not in RESERVED:
        return name
    return f"['{name}']"


def kusto_type(kind: pa.DataType) -> str:
    """The type of a column that holds what an Arrow column holds.

    Raises:
        SchemaError: There is none for it yet.
    """
    if kind in _TYPES:
        return _TYPES[kind]
    if pa.types.is_timestamp(kind) and kind.tz == "UTC":
        return "datetime"
    if pa.types.is_list(kind):
        return "dynamic"
    raise SchemaError(
        f"There is no column type in Azure Data Explorer for Arrow's {kind}: string, "
        "int64, double, bool, timestamps in UTC and lists have one."
    )


def columns(schema: pa.Schema) -> dict[str, str]:
    """The columns of a schema and their types, in its order."""
    return {field.name: kusto_type(field.type) for field in schema}


def json_path(name: str) -> str:
    """Where a column's value is in a JSON line."""
    return f"$.{name}" if _IDENTIFIER.fullmatch(name) else f"$['{name}']"


def literal(text: str) -> str:
    """A text as it stands in KQL."""
    return json.dumps(text, ensure_ascii=False)
