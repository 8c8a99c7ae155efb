"""JSON with the place of every value, and nothing that two readers read differently."""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import compress, repeat
from typing import Any, NoReturn, Self

import numpy as np

from active_learning.errors import SchemaError

_space = re.compile(r"[ \t\n\r]*").match


class Elements(list[Any]):
    """The values of an array; ``places`` are the characters at which they begin."""

    def __init__(self, values: Iterable[Any] = (), places: Iterable[int] = ()) -> None:
        """Hold as many values as places."""
        super().__init__(values)
        self.places = list(places)

    def where(self, chosen: Sequence[bool]) -> Self:
        """Some of them, with their places."""
        return type(self)(compress(self, chosen), compress(self.places, chosen))

    def lines(self, text: str) -> list[int]:
        """The 1-based lines of the text on which they begin."""
        ends = [match.start() for match in re.finditer("\n", text)]
        return [int(line) for line in np.searchsorted(ends, self.places) + 1]


def parse(text: str) -> Any:
    """One value, as ``json.loads`` does it.

    Raises:
        SchemaError: It is no JSON, an object has a key twice, or a number is NaN.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as exc:
        raise SchemaError(f"it is no JSON: {exc.msg} at column {exc.colno}") from exc
    except (ValueError, RecursionError) as exc:
        raise SchemaError(f"it is no JSON that can be used: {exc}") from exc


def read_document(text: str) -> tuple[Any, str]:
    """The first value of a text, and what follows.

    The outermost array, or the arrays that are values of the outermost object, are
    ``Elements``.

    Raises:
        SchemaError: As ``parse``; says the line and the column.
    """
    at = _skip(text, 0)
    try:
        # On one line every place is the same, and the whole is read at once.
        one_line = "\n" not in text[at:].rstrip()
        value, end = (_in_one_place if one_line else _outermost)(text, at)
    except json.JSONDecodeError as exc:
        whole = "" if text.rstrip()[-1] in "]}" else "; was it cut off?"
        raise SchemaError(
            f"it is no JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}{whole}"
        ) from exc
    return value, text[end:]


def text_of(value: Any) -> str | None:
    """A text, or a whole number as it is written; ``None`` for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def _in_one_place(text: str, at: int) -> tuple[Any, int]:
    value, end = _value(text, at)
    if isinstance(value, dict):
        return {key: _all_placed(of, at) for key, of in value.items()}, end
    return _all_placed(value, at), end


def _all_placed(value: Any, at: int) -> Any:
    if not isinstance(value, list):
        return value
    return Elements(value, repeat(at, len(value)))


def _outermost(text: str, at: int) -> tuple[Any, int]:
    mark = text[at : at + 1]
    if mark == "[":
        return _array(text, at)
    return _object(text, at) if mark == "{" else _value(text, at)


def _array(text: str, at: int) -> tuple[Elements, int]:
    elements = Elements()
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return elements, at + 1
    while True:
        value, end = _value(text, at)
        elements.append(value)
        elements.places.append(at)
        at = _skip(text, end)
        mark = text[at : at + 1]
        if mark == "]":
            return elements, at + 1
        if mark != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        at = _skip(text, at + 1)


def _object(text: str, at: int) -> tuple[dict[str, Any], int]:
    pairs: list[tuple[str, Any]] = []
    start = at
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return {}, at + 1
    while True:
        key, end = _value(text, at)
        at = _skip(text, end)
        if not isinstance(key, str) or text[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
        at = _skip(text, at + 1)
        value, end = (_array if text[at : at + 1] == "[" else _value)(text, at)
        pairs.append((key, value))
        at = _skip(text, end)
        mark = text[at : at + 1]
        if mark == "}":
            return _at_place(text, start, pairs), at + 1
        if mark != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        at = _skip(text, at + 1)


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as exc:
        raise json.JSONDecodeError(str(exc), text, at) from exc


def _at_place(text: str, at: int, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    try:
        return _unique(pairs)
    except ValueError as exc:
        raise json.JSONDecodeError(str(exc), text, at) from exc


def _skip(text: str, at: int) -> int:
    match = _space(text, at)
    return match.end() if match else at


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {twice!r} twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no value of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
