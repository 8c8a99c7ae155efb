"""From a file's bytes to its text."""

import codecs

from active_learning.errors import SchemaError

_BOMS_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

# How files begin that are sent in an export's place.
_BINARY = {
    b"PK\x03\x04": "an archive or a workbook: unpack it, or save it as CSV UTF-8",
    b"\x1f\x8b": "compressed: unpack it",
    b"\xd0\xcf\x11\xe0": "an old workbook: save it as CSV UTF-8",
    b"%PDF": "a PDF",
    b"PAR1": "a Parquet file: save it as CSV",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"SQLite format 3": "a database: export the labels from the tool",
}


def decode(data: bytes) -> str:
    """Read UTF-8 with or without a byte order mark, or UTF-16 with one.

    A byte that is not UTF-8 becomes U+FFFD, so that it costs its row and not the file.

    Raises:
        SchemaError: It is no text, and what to do.
    """
    for beginning, what in _BINARY.items():
        if data.startswith(beginning):
            raise SchemaError(f"the file is {what}")
    try:
        if data.startswith(_BOMS_16):
            return data.decode("utf-16")
    except UnicodeDecodeError as exc:
        raise SchemaError(
            f"the file is damaged UTF-16 ({exc.reason} at byte {exc.start}): "
            "save it as UTF-8"
        ) from exc
    text = data.removeprefix(codecs.BOM_UTF8).decode(errors="replace")
    if "\0" in text:
        raise SchemaError(
            f"the file holds a NUL at character {text.index(chr(0))} and is no text; "
            "if it is UTF-16 without a byte order mark, save it as UTF-8"
        )
    if not text or text.isspace():
        raise SchemaError("the file is empty")
    return text
