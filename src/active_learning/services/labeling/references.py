"""From what a labeling tool calls an image to its ``image_id``."""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from urllib.parse import unquote, urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from active_learning.texts import to_frame

# What a cut-off query would hide: a secret that grants access to a blob.
_TOKEN = re.compile(
    r"\?(?:[^/]*&)?(?:sig|sv|se|sp|st|token|signature|x-amz-[a-z-]+)=", re.IGNORECASE
)
_PASSWORD = re.compile(r"://[^/@:?]*:[^/@?]*@")
_LOCAL_FILES = "/data/local-files/"
# Where a request's image is staged, as far as a URL shows it: the queue's own folder.
_STAGED = "queue/images/"
_UPLOAD = re.compile(r"(?:^|/)data/upload/(?:[^/]+/)?[0-9a-f]{8}-(?P<name>[^/]+)$")
_DRIVE = re.compile(r"^[A-Za-z]:/")
_PATHS = re.compile(r"^azureml://(?:.*?/)?paths/", re.IGNORECASE)
_BUCKETS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "wasb", "wasbs", "az", "adl")
# What a reference holds that takes more than its folder and its name to understand.
_NOT_PLAIN = r"[?@%\\]|\.\.|data/upload|queue/images/"
_BLOB_HOSTS = (".blob.core.windows.net", ".dfs.core.windows.net")


def resolve(
    references: Sequence[str] | pa.Array,
    asked: Collection[str] | pa.Array,
    known: Callable[[], Collection[str]],
) -> pd.DataFrame:
    r"""Find the image that each reference means.

    A reference that is an ``image_id`` is that image. Of a longer one, such as a URL
    or an absolute path, the longest ending that is an ``image_id`` counts. A shorter
    one, such as a bare file name, counts where one image alone ends in it, or one
    alone that was asked for. Backslashes part folders; a percent-encoded name is tried
    as it is and then decoded once. Label Studio puts eight digits before the name of
    an uploaded file and forgets its folder: the rest is taken as a bare file name.
    What follows ``queue/images/``, where requests are staged, goes before all of this
    where it was asked for.

    Args:
        references: As the tool wrote them.
        asked: The images of label requests.
        known: Gives every image of the store; called when a reference is neither by
            itself nor by the path of its URL an ``image_id`` that was asked for.

    Returns:
        A row for each reference, in order: ``image_id``, empty where none was found,
        and ``reason``, empty where one was.
    """
    image_id, asked = _array(references), _array(asked)
    reason = pa.repeat(pa.scalar("", image_id.type), len(image_id))
    unsure = pc.invert(pc.is_in(image_id, value_set=asked))
    if pc.any(unsure).as_py():
        rest = image_id.filter(unsure).dictionary_encode()
        found = _asked_by_url(rest.dictionary, asked)
        reasons = pa.repeat(reason[0], len(found))
        missing = pc.is_null(found)
        if pc.any(missing).as_py():
            names = _Names(known(), set(asked.to_pylist()))
            told = map(names.find, rest.dictionary.filter(missing).to_pylist())
            here, why = (_array(column) for column in zip(*told, strict=True))
            found = pc.replace_with_mask(found, missing, here)
            reasons = pc.replace_with_mask(reasons, missing, why)
        image_id = pc.replace_with_mask(image_id, unsure, found.take(rest.indices))
        reason = pc.replace_with_mask(reason, unsure, reasons.take(rest.indices))
    return to_frame(pa.table({"image_id": image_id, "reason": reason}))


def _asked_by_url(references: pa.Array, asked: pa.Array) -> pa.Array:
    """The asked image whose whole name is a URL's path; null where there is none.

    No longer name can be meant, so that nobody has to list the store.
    """
    plain = pc.and_not(
        pc.match_substring(references, "://"),
        pc.match_substring_regex(references, _NOT_PLAIN),
    )
    parts = pc.split_pattern(
        pc.if_else(plain, references, "/"), "/", max_splits=1, reverse=True
    )
    folder = pc.list_element(parts, 0).dictionary_encode()
    # Many references share a folder: what it means is found out once.
    longest = [_endings_of(name)[0] for name in folder.dictionary.to_pylist()]
    folders = pa.array(longest, references.type).take(folder.indices)
    none = pa.scalar("", references.type)
    named = pc.binary_join_element_wise(folders, pc.list_element(parts, 1), none)
    return pc.if_else(pc.is_in(named, value_set=asked), named, None)


def _array(texts: Collection[str] | pa.Array) -> pa.Array:
    if isinstance(texts, pa.Array):
        return texts.cast(pa.large_string())
    return pa.array(list(texts), pa.large_string())


def without_query(reference: str) -> str:
    """Cut a URL's query and password off: they may open more than this image.

    Label Studio's local files have the path itself in the query; that part stays.
    """
    if "@" not in reference and "?" not in reference:
        return reference
    reference = _PASSWORD.sub("://", reference)
    head, mark, query = reference.partition("?")
    if not mark:
        return reference
    if head.endswith((_LOCAL_FILES, _LOCAL_FILES[:-1])):
        paths = [part[2:] for part in query.split("&") if part.startswith("d=")]
        return f"{head}?d={paths[0]}" if paths else head
    if "://" in head or head.startswith("/data/") or _TOKEN.search(reference):
        return head
    return reference


class _Names:
    """The images of a store, to be found by parts of their names."""

    def __init__(self, known: Collection[str], asked: Collection[str]) -> None:
        """Index nothing yet: most references need no index."""
        self._known = known if isinstance(known, set | frozenset) else set(known)
        self._asked = asked
        self._folders: dict[str, list[str]] = {}
        self._endings: dict[int, dict[str, list[str]]] = {}
        self._sorted: tuple[list[str], list[str]] | None = None

    def find(self, reference: str) -> tuple[str, str]:
        """The image, or why there is none."""
        if reference in self._known:
            return reference, ""
        reference = without_query(reference)
        if _STAGED in reference and (image_id := self._staged(reference)):
            return image_id, ""
        # Many references share a folder: what it can mean is found out once.
        folder, _, name = reference.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = _endings_of(folder)
        if reference and (image_id := self._first(self._folders[folder], name)):
            return image_id, ""
        return self._look_closer(reference)

    def _staged(self, reference: str) -> str:
        """The asked image that a copy in the queue is of; empty for none."""
        for path in _forms(reference):
            image_id = f"/{path}".partition(f"/{_STAGED}")[2]
            if image_id in self._asked:
                return image_id
        return ""

    def _look_closer(self, reference: str) -> tuple[str, str]:
        forms = _forms(reference)
        if not reference:
            return "", "the image is not named"
        if any(".." in path.split("/") for path in forms):
            return "", f"{reference!r} climbs out of the store with '..'"
        for path in forms:
            folder, _, name = path.rpartition("/")
            if image_id := self._first(_endings(folder), name):
                return image_id, ""
        for path in forms:
            # Nothing ends in an absolute path: it lacks no folders.
            matches = self._that_end_in(path)
            if matches:
                one = len(matches) == 1
                return (matches[0], "") if one else ("", _ambiguous(reference, matches))
        return "", self._nothing(reference, forms)

    def _first(self, folders: list[str], name: str) -> str:
        for folder in folders:
            if (image_id := folder + name) in self._known:
                return image_id
        return ""

    def _that_end_in(self, short: str) -> list[str]:
        depth = short.count("/") + 1
        if depth not in self._endings:
            index: dict[str, list[str]] = defaultdict(list)
            for image_id in self._known:
                index["/".join(image_id.split("/")[-depth:])].append(image_id)
            self._endings[depth] = dict(index)
        matches = self._endings[depth].get(short, [])
        if len(matches) > 1:
            matches = [name for name in matches if name in self._asked] or matches
        return sorted(matches)

    def _nothing(self, reference: str, forms: list[str]) -> str:
        reason = f"no image of the store is called {reference!r}"
        name = forms[-1].rpartition("/")[2]
        if not name or not self._known:
            return reason
        near = self._that_end_in(name)[:1] or self._nearest(forms[-1])
        return f"{reason}; the nearest is {near[0]!r}" if near else reason

    def _nearest(self, path: str) -> list[str]:
        """The name that shares most of its beginning and end with a path's."""
        if self._sorted is None:
            forward = sorted(self._known)
            self._sorted = forward, sorted(name[::-1] for name in forward)
        forward, backward = self._sorted
        here, back = bisect_left(forward, path), bisect_left(backward, path[::-1])
        near = forward[max(here - 2, 0) : here + 2]
        near += [name[::-1] for name in backward[max(back - 2, 0) : back + 2]]
        best = max(near, key=lambda name: (_alike(name, path), name))
        return [best] if 2 * _alike(best, path) > min(len(best), len(path)) else []


def _forms(reference: str) -> list[str]:
    """The paths that a reference may mean, the most literal first."""
    forms = [_path(reference)]
    if "%" in reference:
        forms.append(_path(unquote(reference)))
    return forms


def _path(reference: str) -> str:
    """A path with slashes, absolute (``/...``) where its root is not the store's."""
    path = reference.replace("\\", "/")
    head, mark, inside = path.partition("?d=")
    if mark and head.endswith((_LOCAL_FILES, _LOCAL_FILES[:-1])):
        path = inside.lstrip("/")
    elif upload := _UPLOAD.search(path):
        path = upload["name"]
    elif "://" in path:
        path = _path_of_url(path)
    elif _DRIVE.match(path):
        path = path[2:]
    absolute = "/" if path.startswith("/") else ""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return absolute + "/".join(parts)


def _path_of_url(url: str) -> str:
    if rooted := _PATHS.match(url):
        return url[rooted.end() :]
    scheme, _, rest = url.partition("://")
    path = rest.partition("/")[2]
    if scheme.lower() in _BUCKETS:
        return path
    if scheme.lower() == "amldatastore":
        return rest
    if (urlsplit(url).hostname or "").endswith(_BLOB_HOSTS):
        return path.partition("/")[2]
    return f"/{path}"


def _endings_of(folder: str) -> list[str]:
    """The endings of a reference's folder; none where the name decides with it."""
    if ".." in folder or "%" in folder or "data/upload" in folder:
        return []
    return _endings(_path(f"{folder}/"))


def _endings(folder: str) -> list[str]:
    """Every ending of a folder with its slash, the longest first, the empty last."""
    parts = [part for part in folder.split("/") if part]
    return ["/".join([*parts[start:], ""]) for start in range(len(parts) + 1)]


def _ambiguous(reference: str, matches: list[str]) -> str:
    more = f" and {len(matches) - 2} more" if len(matches) > 2 else ""
    return (
        f"{reference!r} may be {matches[0]!r} or {matches[1]!r}{more}; "
        "name the folder too"
    )


def _alike(one: str, other: str) -> int:
    """How many characters two names share at their beginning and at their end."""
    shared = _shared(one, other) + _shared(one[::-1], other[::-1])
    return min(shared, len(one), len(other))


def _shared(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    shortest = min(len(one), len(other))
    return next((place for place, (a, b) in pairs if a != b), shortest)
