"""Every export that lies in a place."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from fnmatch import fnmatch

import pandas as pd

from active_learning.errors import DataError, ImageIdError
from active_learning.imaging.ids import has_image_suffix
from active_learning.imaging.places import Place, Stamp
from active_learning.services.labeling.exports import class_folder, mltable
from active_learning.services.labeling.exports.files import read
from active_learning.services.labeling.exports.rows import refused

logger = logging.getLogger(__name__)

# What is never an export; names that start with a dot are not even listed.
_NEEDLESS = (
    *("~$*", "thumbs.db", "desktop.ini", "__macosx", "readme*", "license*"),
    *("*.tmp", "*.part", "*.partial", "*.crdownload", "*.download", "*.swp", "*~"),
)


class _Gone(Enum):
    """A file that was listed and is no longer there."""

    GONE = "gone"


_GONE = _Gone.GONE


# What exports look like in a folder that Azure ML shares with them.
_EXPORTS = ("*.json", "*.jsonl", "*.csv", "mltable")
_EXPORT_FOLDER = "export/"


def read_folder(
    place: Place, settle_s: float, *, shared: bool = False
) -> dict[str, pd.DataFrame]:
    """Read every export of a place, subfolders too.

    A file that changed within ``settle_s`` is waited for, once. One that changes while
    it is read is left for the next time: nobody knows its end.

    Args:
        place: The root; nothing outside of it is read.
        settle_s: Seconds for which a file must have been left alone.
        shared: Others keep files there too. What is not called as an export is, or is
            none and lies outside of ``export/``, is passed over and not rejected.

    Returns:
        Answers in the columns of ``schemas.ANSWERS`` by the export's place, in order.
    """
    if not place.exists():
        return {}
    listing = place.listing("")
    lying = {**dict.fromkeys(listing.image_ids, ""), **listing.skipped}
    needless = [
        name
        for name in lying
        if is_needless(name) or (shared and not _is_called_export(name))
    ]
    _tell("passed over, being no export", needless)
    for name in needless:
        del lying[name]
    images = {name: flaw for name, flaw in lying.items() if has_image_suffix(name)}
    files = sorted(name for name in lying if name not in images)
    exports = _read_files(place, files, settle_s)
    exports |= class_folder.read(dict(sorted(images.items())), files)
    if shared:
        _drop_strangers(exports)
    return {_storable(name): exports[name] for name in sorted(exports)}


def _read_files(
    place: Place, files: list[str], settle_s: float
) -> dict[str, pd.DataFrame]:
    before = _settled(place, files, settle_s)
    with ThreadPoolExecutor(place.n_threads) as pool:
        frames = list(
            pool.map(lambda name: _try_file(place, name, before[name], files), files)
        )
    exports = {
        name: frame
        for name, frame in zip(files, frames, strict=True)
        if isinstance(frame, pd.DataFrame)
    }
    gone = [name for name, frame in zip(files, frames, strict=True) if frame is _GONE]
    _tell("gone before they could be read", gone)
    after = _stamps(place, list(exports))
    growing = [name for name in exports if _changed(before[name], after[name])]
    _tell("left for the next run, since they change while they are read", growing)
    for name in growing:
        del exports[name]
    return exports


def _try_file(
    place: Place, name: str, stamp: Stamp | DataError, files: list[str]
) -> "pd.DataFrame | _Gone | None":
    """What a file says, or why it says nothing; ``None`` if it only names others."""
    try:
        if isinstance(stamp, DataError):
            raise stamp
        return _read_file(name, place.read(name), files)
    except ImageIdError:
        return refused("", "it is a link that leaves the folder of exports")
    except DataError as exc:
        return _GONE if place.size(name) is None else refused("", str(exc))


def _read_file(name: str, data: bytes, files: list[str]) -> pd.DataFrame | None:
    """The answers of a file; ``None`` for one that only names others."""
    paths = mltable.paths(data)
    if paths is None:
        return read(data)
    flaws = [flaw for path in paths if (flaw := mltable.flaw(name, path, files))]
    return refused("azureml", flaws[0]) if flaws else None


def _settled(
    place: Place, files: list[str], settle_s: float
) -> dict[str, Stamp | DataError]:
    """Each file's stamp, once the youngest of them is old enough."""
    stamps = _stamps(place, files)
    wait_s = max((_wait_s(stamp, settle_s) for stamp in stamps.values()), default=0.0)
    if wait_s > 0:
        time.sleep(wait_s)
    return stamps


def _wait_s(stamp: Stamp | DataError, settle_s: float) -> float:
    if isinstance(stamp, DataError):
        return 0.0
    if stamp.version.isdecimal():
        age_s = (time.time_ns() - int(stamp.version)) / 1e9
        # A time ahead of our clock says nothing.
        return settle_s - age_s if age_s >= 0 else 0.0
    # A store that gives versions shows a file when it is whole.
    return 0.0 if stamp.version else settle_s


def _stamps(place: Place, files: Sequence[str]) -> dict[str, Stamp | DataError]:
    return dict(zip(files, place.stamps(files), strict=True))


def _changed(before: Stamp | DataError, after: Stamp | DataError) -> bool:
    if isinstance(before, DataError) or isinstance(after, DataError):
        return isinstance(before, Stamp)
    return before[:2] != after[:2]


def is_needless(name: str) -> bool:
    """Whether a file is never an export: what systems and editors leave behind."""
    return any(
        fnmatch(part.lower(), pattern)
        for part in name.split("/")
        for pattern in _NEEDLESS
    )


def _is_called_export(name: str) -> bool:
    file = name.rpartition("/")[2].lower()
    return any(fnmatch(file, pattern) for pattern in _EXPORTS)


def _drop_strangers(exports: dict[str, pd.DataFrame]) -> None:
    """Take away what is of no known format and lies where no export is written."""
    strangers = [
        name
        for name, frame in exports.items()
        if not name.startswith(_EXPORT_FOLDER) and _is_refused(frame)
    ]
    _tell("passed over, being of no format that is known", strangers)
    for name in strangers:
        del exports[name]


def _is_refused(frame: pd.DataFrame) -> bool:
    return len(frame) == 1 and not frame["source"].iloc[0]


def _storable(name: str) -> str:
    """A name as a table can hold it: a byte that is not UTF-8 is replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _tell(what: str, names: list[str]) -> None:
    if names:
        logger.info("%d files %s; the first is %r", len(names), what, names[0])
