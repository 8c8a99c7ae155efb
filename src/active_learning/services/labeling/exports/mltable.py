"""The ``MLTable`` file that Azure ML puts beside its JSON Lines."""

import re
from fnmatch import fnmatch
from posixpath import dirname, join, normpath

import yaml

# A table of contents is short; a longer file is something else.
_LONGEST = 65536
_PATHS = re.compile(rb"^paths\s*:", re.MULTILINE)


def paths(data: bytes) -> list[str] | None:
    """The files that a table names; ``None`` where the data are no MLTable."""
    if len(data) > _LONGEST or not _PATHS.search(data):
        return None
    try:
        content = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("paths"), list):
        return None
    named = [each for each in content["paths"] if isinstance(each, dict)]
    values = [value for each in named for value in each.values()]
    return [value for value in values if isinstance(value, str)]


def flaw(table: str, path: str, files: list[str]) -> str:
    """Why a file that a table names cannot be read; empty when it lies there.

    Args:
        table: The MLTable's own place.
        path: As the table spells it, relative to its folder.
        files: What lies in the folder of exports.
    """
    if ":/" in path:
        place = path.partition("?")[0]
        return f"it names {place!r}, which is not fetched: put the file beside it"
    place = normpath(join(dirname(table), path))
    if place.startswith(("/", "..")):
        return f"it names {path!r}, which leaves the folder of exports"
    if not any(fnmatch(file, place) or file.startswith(f"{place}/") for file in files):
        return f"it names {path!r}, which is not there"
    return ""
