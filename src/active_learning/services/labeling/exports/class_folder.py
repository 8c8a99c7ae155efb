"""Images that a labeler sorted: ``<export>/<class>/<file>``.

The folder right below the root is the export, the one below that the class, or
``skipped`` or ``unclear``. What follows names the image: its file, or its path in the
store where the labeler kept the folders. The files themselves are not read.
"""

from collections.abc import Mapping

import pandas as pd

from active_learning.services.labeling.exports.rows import Columns, answers, refused

SOURCE = "folder"

_DEPTH = 3


def read(images: Mapping[str, str], files: list[str]) -> dict[str, pd.DataFrame]:
    """Read every tree of class folders.

    Args:
        images: Paths below the root, and what is wrong with each, ``""`` for nothing.
        files: What else lies there, images and needless files left out.

    Returns:
        Answers by the name of the tree. A tree that holds other files too is refused:
        its images may belong to the export in such a file.
    """
    trees: dict[str, dict[str, str]] = {}
    for path, flaw in images.items():
        tree = path.partition("/")[0] if "/" in path else "."
        trees.setdefault(tree, {})[path] = flaw
    return {
        tree: _read_tree(tree, paths, [f for f in files if f.startswith(f"{tree}/")])
        for tree, paths in trees.items()
    }


def _read_tree(tree: str, paths: dict[str, str], others: list[str]) -> pd.DataFrame:
    if others:
        return refused(
            SOURCE,
            f"it holds {len(paths)} images and also {others[0]!r}: which of them is "
            "the export cannot be told; move one to a folder of its own",
        )
    parted = [path.split("/", _DEPTH - 1) for path in paths]
    names = [parts[-1] for parts in parted]
    folders: dict[str, list[str]] = {}
    for parts in parted:
        if len(parts) == _DEPTH:
            folders.setdefault(parts[-1], []).append(parts[1])
    flaws = [
        flaw or _flaw(parts, sorted(folders.get(parts[-1], [])))
        for parts, flaw in zip(parted, paths.values(), strict=True)
    ]
    labels = [parts[1] if len(parts) == _DEPTH else "" for parts in parted]
    columns = Columns(reference=names, label=labels, line=[0] * len(names), flaw=flaws)
    return answers(columns, SOURCE)


def _flaw(parts: list[str], folders: list[str]) -> str:
    if len(parts) < _DEPTH:
        return "the image lies in no class folder, which is <export>/<class>/<file>"
    if len(folders) > 1:
        return f"the image lies in {len(folders)} class folders: {folders}"
    return ""
