"""Names of images: a path relative to the store's root, POSIX, that stays inside."""

from active_learning.errors import ImageIdError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def has_image_suffix(name: str) -> bool:
    """Whether a file of this name is taken for an image; case does not matter."""
    return suffix(name) in IMAGE_SUFFIXES


def suffix(name: str) -> str:
    """The lower-case suffix with its dot, empty where there is none."""
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return f".{ending.lower()}" if dot and stem else ""


def flaw(image_id: str) -> str | None:
    """Why a name is no ``image_id``; ``None`` for one that is."""
    if _is_plain(image_id):
        return None
    parts = image_id.split("/")
    if not image_id:
        reason = "it is empty"
    elif image_id.startswith("/") or image_id[1:2] == ":":
        reason = "it is absolute; an image_id is relative to the store's root"
    elif ".." in parts:
        reason = "it climbs out of the store with '..'"
    elif "" in parts or "." in parts:
        reason = "it is not in its shortest form: it has an empty or a '.' part"
    elif "\\" in image_id or "\0" in image_id:
        reason = "it holds a backslash or a NUL; an image_id is a POSIX path"
    elif not _is_utf8(image_id):
        reason = "its name is not valid UTF-8"
    else:
        return None
    return reason


def _is_plain(name: str) -> bool:
    """Whether a name is beyond doubt; asked of every image there is."""
    return (
        name.isascii()
        and name[:1] not in ("", "/", ".")
        and name[-1] != "/"
        and "/." not in name
        and "//" not in name
        and "\\" not in name
        and "\0" not in name
        and ":" not in name
    )


def _is_utf8(name: str) -> bool:
    try:
        return name.isascii() or bool(name.encode())
    except UnicodeEncodeError:
        return False


def check_image_ids(image_ids: list[str]) -> None:
    """Stop at names that are no place inside the store.

    Raises:
        ImageIdError: Says how many, which is first and what is wrong with it.
    """
    wrong = [(name, reason) for name in image_ids if (reason := flaw(name))]
    if wrong:
        name, reason = wrong[0]
        raise ImageIdError(
            f"{len(wrong)} of {len(image_ids)} image_ids are no place inside the "
            f"image store; the first is {name!r}: {reason}."
        )
