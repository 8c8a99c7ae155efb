"""What a query declares, as the grammar of all of KQL reads it."""

from typing import Any

import duckdb_kql
import pytest

from active_learning.errors import QueryError
from active_learning.queries import names, query_text
from active_learning.services.telemetry.declarations import declared


@pytest.mark.parametrize("query", names())
def test_every_query_is_read_as_by_the_whole_grammar(query: str) -> None:
    text = query_text(query)

    found = declared(text)

    whole = {each.name: (each.type, each.default) for each in _whole(text)}
    assert {n: (p.type, p.default) for n, p in found.items()} == whole


@pytest.mark.parametrize(
    "text",
    [
        "print 1",
        "// declare query_parameters(n: long);\nprint 1",
        "print said = 'declare query_parameters(n: long);'",
        "declare query_parameters(n: long = 7); print n",
        "declare query_parameters(n: long = -7); print n",
        "declare query_parameters(n: long = long(7)); print n",
        "declare query_parameters(a: string = 'x,)', b: string); print a, b",
        'declare query_parameters(a: string = "say \\"it\\"\\n"); print a',
        'declare query_parameters(a: string = @"c:\\d"); print a',
        "declare   query_parameters (\n  a : string, // first\n  b : long );\nprint a",
    ],
)
def test_odd_texts_are_read_as_by_the_whole_grammar(text: str) -> None:
    found = declared(text)

    whole = {each.name: (each.type, each.default) for each in _whole(text)}
    assert {n: (p.type, p.default) for n, p in found.items()} == whole


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("declare query_parameters(a: real); print a", "declared 'real'"),
        ("declare query_parameters(a); print a", "cannot be read"),
        ("declare query_parameters(a: string", "cannot be read"),
        ("declare query_parameters(a: long = '7'); print a", "its default is"),
    ],
)
def test_what_cannot_be_bound_is_refused(text: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        declared(text)


def _whole(text: str) -> list[Any]:
    return list(duckdb_kql.query_parameters(text))
