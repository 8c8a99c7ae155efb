"""Questions to the tables, in KQL: the same text for Azure Data Explorer and DuckDB.

Parameters are declared ``string`` or ``long`` and converted inside the query, the one
form that both bind alike. A row may stand twice in a table, since delivery is at least
once: every query counts it once.
"""

from importlib.resources import files


def query_text(name: str) -> str:
    """The text of a query of this package.

    Args:
        name: Of the file, without its suffix.

    Raises:
        FileNotFoundError: There is no such query; those that there are, are named.
    """
    folder = files(__name__)
    file = folder / f"{name}.kql"
    if not file.is_file():
        raise FileNotFoundError(f"No query is called {name!r}; there are {names()}.")
    return file.read_text(encoding="utf-8")


def names() -> list[str]:
    """Every query of this package."""
    return sorted(
        file.name.removesuffix(".kql")
        for file in files(__name__).iterdir()
        if file.name.endswith(".kql")
    )
