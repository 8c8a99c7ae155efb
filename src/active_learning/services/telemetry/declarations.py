"""What a query declares, read from its text without the grammar of all of KQL."""

import re
from collections.abc import Iterator

from active_learning.errors import QueryError
from active_learning.services.telemetry.kql import Parameter

_TYPES = ("string", "long")
# A text in a query may hold what looks like a comment, and a comment a quote.
_TOKEN = re.compile(
    r"""
    (?P<skip> \s+ | //[^\n]* )
    | (?P<text> h?@"(?:[^"]|"")*" | h?@'(?:[^']|'')*'
              | h?"(?:\\.|[^"\\\n])*" | h?'(?:\\.|[^'\\\n])*' )
    | (?P<number> -?\s*\d+ )
    | (?P<word> [A-Za-z_]\w* )
    | (?P<sign> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_MEANT = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}

_Token = tuple[str, str]


def declared(text: str) -> dict[str, Parameter]:
    """The parameters that a query declares, in its order; none is no error.

    Args:
        text: KQL.

    Raises:
        QueryError: A declaration cannot be read, or one is neither ``string`` nor
            ``long``.
    """
    tokens = _tokens(text)
    for kind, word in tokens:
        if (kind, word) == ("word", "declare"):
            if next(tokens, None) == ("word", "query_parameters"):
                return _declarations(tokens)
            break
    return {}


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup or ""
        if kind != "skip":
            yield kind, found[0]


def _declarations(tokens: Iterator[_Token]) -> dict[str, Parameter]:
    made: dict[str, Parameter] = {}
    _expect(tokens, "(")
    closing = ","
    while closing == ",":
        name = _name(tokens)
        _expect(tokens, ":")
        kind = next(tokens, ("", ""))[1]
        default: str | int | None = None
        closing = next(tokens, ("", ""))[1]
        if kind not in _TYPES:
            raise QueryError(
                f"The parameter {name!r} is declared {kind!r}, neither string nor "
                "long. Declare it string and convert it inside the query: Azure Data "
                "Explorer and DuckDB bind nothing else alike."
            )
        if closing == "=":
            default = _default(name, kind, tokens)
            closing = next(tokens, ("", ""))[1]
        made[name] = Parameter(kind, name, default)
    if closing != ")":
        raise _unreadable(closing)
    return made


def _name(tokens: Iterator[_Token]) -> str:
    kind, word = next(tokens, ("", ""))
    if kind == "word":
        return word
    if word == "[":
        kind, word = next(tokens, ("", ""))
        _expect(tokens, "]")
        if kind == "text":
            return _plain(word)
    raise _unreadable(word)


def _default(name: str, kind: str, tokens: Iterator[_Token]) -> str | int:
    of, word = next(tokens, ("", ""))
    if (of, kind) == ("text", "string"):
        return _plain(word)
    if kind == "long" and (of, word) == ("word", "long"):
        _expect(tokens, "(")
        of, word = next(tokens, ("", ""))
        _expect(tokens, ")")
    if (of, kind) == ("number", "long"):
        return int(re.sub(r"\s", "", word))
    raise QueryError(f"The parameter {name!r} is a {kind} and its default is {word!r}.")


def _plain(text: str) -> str:
    """What a literal means."""
    text = text.removeprefix("h")
    if text.startswith("@"):
        quote = text[1]
        return text[2:-1].replace(quote * 2, quote)
    return _ESCAPED.sub(_unescaped, text[1:-1])


def _unescaped(found: re.Match[str]) -> str:
    if len(found[1]) > 1:
        return chr(int(found[1][1:], 16))
    return _MEANT.get(found[1], found[1])


def _expect(tokens: Iterator[_Token], sign: str) -> None:
    found = next(tokens, ("", ""))[1]
    if found != sign:
        raise _unreadable(found)


def _unreadable(found: str) -> QueryError:
    return QueryError(
        f"The query's declaration of parameters cannot be read at {found!r}. It is "
        "written `declare query_parameters(name: string, other: long = 7);`."
    )
