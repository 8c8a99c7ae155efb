"""CSV exports: plain ones, Azure ML's and Label Studio's, told by their columns."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from active_learning.errors import SchemaError
from active_learning.services.labeling.exports import delimited, label_studio_min
from active_learning.services.labeling.exports.rows import Columns, answers, excerpt


class _Format(NamedTuple):
    """A kind of CSV; ``columns`` are the ones it reads, by what they are read as."""

    name: str
    source: str
    columns: Callable[[list[str]], dict[str, str]]


def _plain(names: list[str]) -> dict[str, str]:
    own = ("label", "answer", "labeler", "labeled_at", "request_id")
    return {"reference": "image_id"} | {name: name for name in own if name in names}


def _azureml(_: list[str]) -> dict[str, str]:
    return {"reference": "url", "label": "label"}


PLAIN = _Format("plain CSV", "csv", _plain)
AZUREML = _Format("CSV of Azure ML", "azureml", _azureml)
LABEL_STUDIO = _Format("CSV of Label Studio", "label_studio", label_studio_min.columns)


def read(text: str) -> pd.DataFrame:
    """Read a CSV file whose columns say what it is.

    Raises:
        SchemaError: They say nothing, or two things.
    """
    if "\n" not in text:
        text = text.replace("\r", "\n")
    headers = {mark: _header(text, mark) for mark in delimited.DELIMITERS}
    found = [
        (mark, names, each)
        for mark, names in headers.items()
        for each in _formats(names)
    ]
    if not found:
        raise SchemaError(_unknown(text, headers))
    if len(found) > 1:
        kinds = " and ".join(
            f"{each.name} parted by {mark!r}" for mark, _, each in found
        )
        raise SchemaError(f"its columns fit two formats, {kinds}; leave one's columns")
    mark, names, each = found[0]
    wanted = each.columns(names)
    twice = [name for name in wanted.values() if names.count(name) > 1]
    if twice:
        raise SchemaError(f"the column {twice[0]!r} is there twice; leave one")
    where = {meaning: names.index(name) for meaning, name in wanted.items()}
    rows = delimited.rows(text, mark, sorted(set(where.values())))
    columns = {meaning: rows.columns[str(place)] for meaning, place in where.items()}
    if each is LABEL_STUDIO:
        columns["flaw"] = label_studio_min.flaws(columns["label"])
    return answers(Columns(line=rows.line, **columns), each.source, rows.broken)


def _header(text: str, delimiter: str) -> list[str]:
    return [name.casefold() for name in delimited.header(text, delimiter)]


def _formats(names: list[str]) -> list[_Format]:
    if set(names) >= label_studio_min.MARKS:
        return [LABEL_STUDIO]
    fit = {PLAIN: {"image_id", "label"}, AZUREML: {"url", "label"}}
    return [each for each, needed in fit.items() if needed <= set(names)]


def _unknown(text: str, headers: dict[str, list[str]]) -> str:
    names = max(headers.values(), key=len)
    first = excerpt(
        next((line for line in text.split("\n") if line.strip()), "").strip()
    )
    if {"image_id", "url"} & set(names):
        return f"the column 'label' is missing in its first line {first}"
    if "label" in names:
        return f"the column 'image_id' is missing in its first line {first}"
    return (
        f"it is no export that is known: its first line {first} has neither the "
        "columns image_id and label, nor Url and Label, nor those of Label Studio"
    )
