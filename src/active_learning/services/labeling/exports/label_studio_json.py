"""Label Studio's full export: tasks, each with the annotations of its labelers."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from active_learning.imaging.ids import has_image_suffix
from active_learning.services.labeling.exports.documents import (
    Elements,
    text_of,
)
from active_learning.services.labeling.exports.rows import (
    Broken,
    Columns,
    answers,
    excerpt,
)
from active_learning.services.labeling.references import without_query

SOURCE = "label_studio"

# What a task's image, and the name of its choices, may be called; ours come first.
IMAGES = ("image_id", "image")
LABELS = ("label", "choice")
_COLUMNS = (
    *("reference", "label", "answer", "labeler", "labeled_at", "request_id"),
    *("line", "flaw"),
)


def fits(task: object) -> bool:
    """Whether it is a task with its annotations."""
    return (
        isinstance(task, dict)
        and isinstance(task.get("data"), dict)
        and isinstance(task.get("annotations", task.get("completions")), list)
    )


def read(tasks: Elements, text: str, broken: Sequence[Broken] = ()) -> pd.DataFrame:
    """An answer for each annotation; a skipped one is an answer too.

    The time is that of the last change, so that a corrected annotation is a later one.
    """
    cells: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for task, line in zip(tasks, tasks.lines(text), strict=True):
        data, meta = task["data"], task.get("meta")
        image, no_image = _image(data)
        request = data.get("request_id") or (
            meta.get("request_id") if isinstance(meta, dict) else None
        )
        for annotation in task.get("annotations", task.get("completions")):
            told = annotation if isinstance(annotation, dict) else {}
            skipped = bool(told.get("was_cancelled") or told.get("skipped"))
            label, no_label = ("", "") if skipped else _choice(told.get("result"))
            changed = told.get("updated_at") or told.get("created_at")
            cells["reference"].append(image)
            cells["label"].append(label)
            cells["answer"].append("skipped" if skipped else "")
            cells["labeler"].append(_labeler(told.get("completed_by")))
            cells["labeled_at"].append(text_of(changed) or "")
            cells["request_id"].append(text_of(request) or "")
            cells["line"].append(line)
            cells["flaw"].append(no_image or no_label)
    return answers(Columns(**cells), SOURCE, broken)


def _image(data: dict[str, Any]) -> tuple[str, str]:
    """How a task calls its image, or why it calls none."""
    names = [data[key] for key in IMAGES if isinstance(data.get(key), str)]
    if not names:
        names = [
            value
            for value in data.values()
            if isinstance(value, str) and has_image_suffix(without_query(value))
        ]
        if len(names) > 1:
            return "", f"the task's data name {len(names)} images, not one"
    if not names:
        return "", "the task's data name no image; give them an image_id"
    if names[0].startswith("data:"):
        return "", "the image itself is in the task's data; give them an image_id too"
    return names[0], ""


def _choice(result: Any) -> tuple[str, str]:
    """The one class that was chosen, or why there is none."""
    if not isinstance(result, list) or not all(isinstance(r, dict) for r in result):
        return "", "the annotation has no list of results"
    if not result:
        return "", ""
    chosen = [each for each in result if each.get("type") == "choices"]
    if not chosen:
        kinds = sorted({str(each.get("type")) for each in result})
        return "", f"the annotation is no choice of a class but {excerpt(str(kinds))}"
    asked = {str(each.get("from_name")) for each in chosen}
    wanted = next((name for name in LABELS if name in asked), None)
    if wanted is None and len(asked) > 1:
        return "", f"which question asks for the class cannot be told: {sorted(asked)}"
    chosen = [e for e in chosen if wanted is None or e.get("from_name") == wanted]
    values = [each.get("value") for each in chosen]
    lists = [v.get("choices") if isinstance(v, dict) else None for v in values]
    names = [name for names in lists if isinstance(names, list) for name in names]
    label = text_of(names[0]) if len(names) == 1 else None
    if label is None and names:
        return "", f"the image has not one label but {excerpt(str(names))}"
    return label or "", ""


def _labeler(completed_by: Any) -> str:
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("email") or completed_by.get("id")
    return text_of(completed_by) or ""
