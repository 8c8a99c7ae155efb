"""One turn between the queue and a project: requests there, answers back."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from fsspec.core import url_to_fs

from active_learning.errors import LabelingAwayError, LabelingError
from active_learning.imaging.places import LocalPlace, Place, place_at
from active_learning.services.labeling.label_studio.client import LabelStudio, Project
from active_learning.services.labeling.label_studio.configuration import (
    UNCLEAR,
    Configuration,
    configured,
)
from active_learning.services.labeling.label_studio.settings import LabelSettings
from active_learning.services.labeling.queue import (
    IMAGES,
    as_task,
    local_file,
    pre_annotation,
    read_requests,
    records,
)

_log = logging.getLogger(__name__)

# So many tasks go at once: a server takes them well before it is given up.
_BATCH = 100
_EXPORTED = "label-studio-"
_KEPT_OF_A_TASK = ("id", "inner_id", "data", "meta", "project", "created_at")

Task = dict[str, Any]


class Turn(NamedTuple):
    """What a turn did.

    Attributes:
        project: Its address.
        n_added: Requests that are new there.
        n_waiting: Tasks that nobody has answered.
        n_answers: Answers that are new here.
        export: The file they are in; empty when there are none.
    """

    project: str
    n_added: int
    n_waiting: int
    n_answers: int
    export: str


def take_turn(
    studio: LabelStudio, settings: LabelSettings, classes: Sequence[str] | None
) -> Turn:
    """Bring new requests to the project, and fetch the answers that are new.

    The server says what it has, so a turn that was killed at any point is mended by the
    next. Turns on this machine wait for each other.

    Args:
        studio: The server.
        settings: Where requests come from and answers go.
        classes: Those of ``label_ingest``; ``None`` offers every class that a label or
            a prediction has had.

    Raises:
        LabelingAwayError: The server cannot be reached now.
        LabelingError: It refuses, or the project asks for something else.
    """
    queue = place_at(settings.queue, None)
    with _one_at_a_time(queue):
        requests = read_requests(queue)
        choices = _choices(classes, settings.labels, requests)
        project, how = _open_project(studio, settings, choices)
        tasks = _without_surplus(studio, studio.tasks(project))
        missing = _missing(requests, tasks)
        new = _without_moved(studio, how, missing, tasks)
        if new:
            _add(studio, project, how, queue, settings, new)
        export, n_answers = _fetch(studio, project, settings.exports, tasks)
    return Turn(
        project=f"{studio.url}/projects/{project.id}",
        n_added=len(missing),
        n_waiting=sum(not task["annotations"] for task in tasks) + len(new),
        n_answers=n_answers,
        export=export,
    )


def _choices(
    named: Sequence[str] | None, labels: str, requests: pd.DataFrame
) -> list[str]:
    if named is not None:
        return list(named)
    from active_learning.services.telemetry.parts import Parts

    given = Parts(Path(labels), "labels").read()["label"].to_pylist()
    return sorted({*given, *requests["predicted_label"]} - {"", None})


def _open_project(
    studio: LabelStudio, settings: LabelSettings, classes: Sequence[str]
) -> tuple[Project, Configuration]:
    project = studio.find_project(settings.project)
    how = configured(project.label_config if project else "", classes)
    if not set(how.classes) - {UNCLEAR}:
        raise LabelingError(
            "No class is known yet, so a labeler has nothing to choose from: there is "
            "no label and no prediction. Name them in label_ingest.classes, or once by "
            "`kedro label --classes cat+dog`."
        )
    if project is None:
        project = studio.create_project(
            settings.project, how.text, settings.labelers_per_image
        )
    elif how.text != project.label_config:
        studio.configure(project, how.text)
    return project, how


def _without_surplus(studio: LabelStudio, tasks: Sequence[Task]) -> list[Task]:
    """Take away what a request has more than one task of, if nobody has begun it.

    A client that was killed while the server took its tasks cannot know of them.
    """
    of_request: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        of_request[task["data"].get("request_id", "")].append(task)
    removed = set()
    for request_id, same in of_request.items():
        if not request_id or len(same) == 1:
            continue
        # What was answered stays, or what was begun, or else the first.
        same.sort(key=lambda task: (not task["annotations"], not task["drafts"]))
        for task in same[1:]:
            if studio.is_untouched(task["id"]):
                studio.remove_task(task["id"])
                removed.add(task["id"])
    if removed:
        _log.warning("Took away %d tasks that were there twice", len(removed))
    return [task for task in tasks if task["id"] not in removed]


def _missing(requests: pd.DataFrame, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """The requests that the project does not have, best first within their round.

    Of several requests for one image the last counts: who answers it answers those
    before it.
    """
    there = {task["data"].get("request_id", "") for task in tasks}
    last = requests.drop_duplicates("image_id", keep="last")
    missing = last[~last["request_id"].isin(there)]
    return records(missing.sort_values(["round", "rank"], kind="stable"))


def _without_moved(
    studio: LabelStudio,
    how: Configuration,
    missing: Sequence[dict[str, Any]],
    tasks: Sequence[Task],
) -> list[dict[str, Any]]:
    """Let a task that still waits stand for the newer request of its image.

    Returns:
        The requests that need a task of their own.
    """
    waiting = {
        task["data"]["image_id"]: task
        for task in tasks
        if not task["annotations"] and {"request_id", "image_id"} <= task["data"].keys()
    }
    new = []
    for request in missing:
        task = waiting.get(request["image_id"])
        if task is None:
            new.append(request)
            continue
        result = pre_annotation(request["predicted_label"], how.choices, how.image)
        if request["predicted_label"] in how.classes:
            for prediction in task["predictions"]:
                studio.change_prediction(prediction["id"], result)
        # Last, so that a turn that is killed before it begins again.
        shown = {how.image_key: task["data"].get(how.image_key)}
        studio.change_task(task["id"], {**task["data"], **request, **shown})
    return new


def _add(
    studio: LabelStudio,
    project: Project,
    how: Configuration,
    queue: Place,
    settings: LabelSettings,
    new: Sequence[dict[str, Any]],
) -> None:
    if settings.images == "served":
        _serve(studio, project, queue, new[0]["image_id"])
    for start in range(0, len(new), _BATCH):
        batch = new[start : start + _BATCH]
        studio.add_tasks(
            project,
            [
                as_task(
                    request,
                    image=(
                        local_file(request["image_id"])
                        if settings.images == "served"
                        else _uploaded(studio, project, queue, request["image_id"])
                    ),
                    image_key=how.image_key,
                    choices=how.choices,
                    image_tag=how.image,
                    classes=how.classes,
                )
                for request in batch
            ],
        )


def _serve(studio: LabelStudio, project: Project, queue: Place, image_id: str) -> None:
    """Let the server show the queue's images, and see that it does.

    Raises:
        LabelingError: A labeler would see nothing, and what can be done.
    """
    way_out = (
        "Start Label Studio by `kedro label`, or with "
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={queue.root}, or set label.images to "
        "'uploaded'."
    )
    if not isinstance(queue, LocalPlace):
        raise LabelingError(
            f"The queue {queue.root!r} is no folder of this machine, so a server "
            "cannot show its images. Set label.images to 'uploaded'."
        )
    try:
        studio.serve_folder(project, f"{queue.root}/{IMAGES}")
    except LabelingAwayError:
        raise
    except LabelingError as exc:
        raise LabelingError(f"{exc} {way_out}") from exc
    if studio.shown(local_file(image_id)) != queue.read(f"{IMAGES}/{image_id}"):
        raise LabelingError(
            f"Label Studio at {studio.url} does not show the image {image_id!r} of the "
            f"queue. {way_out}"
        )


def _uploaded(
    studio: LabelStudio, project: Project, queue: Place, image_id: str
) -> str:
    content = queue.read(f"{IMAGES}/{image_id}")
    return studio.upload(project, image_id.replace("/", "_"), content)


def _fetch(
    studio: LabelStudio, project: Project, exports: str, tasks: Sequence[Task]
) -> tuple[str, int]:
    """Write what no earlier export holds, in Label Studio's own format.

    Returns:
        The file, and how many annotations it holds.
    """
    place = place_at(exports, None)
    fetched = _fetched(place, exports)
    new = [
        (task, fresh)
        for task in tasks
        if (fresh := [a for a in task["annotations"] if _version(a) not in fetched])
    ]
    if not new:
        return "", 0
    emails = studio.emails()
    content = json.dumps(
        [
            {
                **{key: task[key] for key in _KEPT_OF_A_TASK},
                "annotations": [_signed(annotation, emails) for annotation in fresh],
            }
            for task, fresh in new
        ],
        indent=1,
        ensure_ascii=False,
    ).encode()
    name = f"{_EXPORTED}{project.id}-{sha256(content).hexdigest()[:12]}.json"
    place.write(name, content)
    return f"{exports}/{name}", sum(len(fresh) for _, fresh in new)


def _fetched(place: Place, exports: str) -> set[tuple[int, str]]:
    """Which annotations earlier exports hold."""
    filesystem, root = url_to_fs(exports)
    filesystem.invalidate_cache()
    try:
        names = [path.rpartition("/")[2] for path in filesystem.ls(root, detail=False)]
    except FileNotFoundError:
        return set()
    return {
        _version(annotation)
        for name in names
        if name.startswith(_EXPORTED) and name.endswith(".json")
        for task in _exported(place, name)
        for annotation in task["annotations"]
    }


def _exported(place: Place, name: str) -> list[Task]:
    try:
        tasks: list[Task] = json.loads(place.read(name))
    except ValueError:
        _log.warning("The export %r is no JSON; its answers are fetched again", name)
        return []
    return tasks


def _version(annotation: Mapping[str, Any]) -> tuple[int, str]:
    # An annotation keeps its number when it is corrected.
    return annotation["id"], annotation["updated_at"]


def _signed(annotation: Mapping[str, Any], emails: Mapping[int, str]) -> dict[str, Any]:
    """An annotation with the labeler's address, as an expanded export has it."""
    number = annotation["completed_by"]
    if number not in emails:
        return dict(annotation)
    return {**annotation, "completed_by": {"id": number, "email": emails[number]}}


@contextmanager
def _one_at_a_time(queue: Place) -> Iterator[None]:
    """Let other turns on this queue wait; a killed one gives way."""
    if not isinstance(queue, LocalPlace):
        yield
        return
    folder = Path(queue.root)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".turn.lock").open("a") as lock:
        flock(lock, LOCK_EX)
        yield
