"""Files that are whole or not there at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it becomes ``path`` when all went well.

    A reader sees the old file or the new one. A failed or killed writer, or a full
    disk, leaves ``path`` as it was; the temporary name starts with a dot and does not
    keep the suffix, so that no glob over the folder takes it for a part.

    Args:
        path: Where the file shall be; its folder is made.

    Yields:
        A name in the same folder, since only a rename within one is atomic.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
