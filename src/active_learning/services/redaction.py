"""What may stand in a log or an error of what a service or its client said."""

import re

# The query of a URL, wherever one stands in a text: it may be a signature.
_QUERY = re.compile(r"(?<=[\w/%~-])\?[\w.~%-]+=[^\s'\"<>)]*")
_TOKEN = re.compile(r"\b(Bearer\s+)[\w.~+/=-]{20,}", re.IGNORECASE)


def redacted(error: BaseException) -> str:
    """The first line of an error, without queries of URLs and without tokens."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _TOKEN.sub(r"\1...", _QUERY.sub("", lines[0]))


def cause(error: BaseException) -> BaseException | None:
    """An error to chain with ``from``; ``None`` where its chain holds a secret."""
    each: BaseException | None = error
    while each is not None:
        if _QUERY.search(str(each)) or _TOKEN.search(str(each)):
            return None
        each = each.__cause__ or each.__context__
    return error
