"""The queue as files: what a labeling tool watches, imports, or a person fills in.

::

    images/<image_id>              the images asked about, and no others
    requests.csv                   every request, in the order of asking
    tasks.json                     the same as tasks that Label Studio imports
    rounds/<round>-<id>.tasks.json     the tasks of one round alone
    rounds/<round>-<id>.answers.csv    its requests with an empty column to fill in

An answered or expired request stays: the list only grows. Which of its images are
still to be labeled is what the labeling tool knows.
"""

import json
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any
from urllib.parse import quote

import pandas as pd

from active_learning.errors import FrozenError
from active_learning.imaging import ImageStore
from active_learning.imaging.places import Place
from active_learning.schemas import row_id
from active_learning.services.labeling import LabelingQueue

COLUMNS = ["request_id", "image_id", "predicted_label", "rank", "round"]
IMAGES = "images"
REQUESTS = "requests.csv"
TASKS = "tasks.json"
ROUNDS = "rounds"

# How Label Studio calls a file below the folder that it may show.
LOCAL_FILES = "/data/local-files/?d="
IMAGE_TAG = "image"
CHOICES_TAG = "label"
# What its predictions are called; one name, so that a project shows all of them.
PREDICTED_BY = "champion"


def stage(place: Place, queue: LabelingQueue) -> None:
    """Copy the images, then list the requests: what is listed can be answered.

    An image that lies there is not copied again and a request that is listed is not
    listed twice, so what was killed half-way is done by doing it again.

    Args:
        place: The queue's folder.
        queue: What is asked now; ``round`` is 0 where it does not say.

    Raises:
        FrozenError: An object store holds another image under the same name; nothing is
            listed.
    """
    asked = _in_columns(queue.requests)
    _copy(place, queue.images, asked["image_id"].drop_duplicates().tolist())
    listed = read_requests(place)
    every = pd.concat([listed, asked], ignore_index=True).drop_duplicates("request_id")
    for round_number, requests in asked.groupby("round", sort=True):
        _write_round(place, f"{round_number:04d}", requests)
    if len(every) == len(listed) and place.size(REQUESTS) is not None:
        return
    place.write(TASKS, tasks_json(every))
    place.write(REQUESTS, every.to_csv(index=False).encode())


def read_requests(place: Place) -> pd.DataFrame:
    """Every request that was staged, in ``COLUMNS``, in the order of asking."""
    if place.size(REQUESTS) is None:
        return pd.DataFrame({name: [] for name in COLUMNS}, dtype=str).astype(
            {"rank": int, "round": int}
        )
    text = BytesIO(place.read(REQUESTS))
    return _in_columns(pd.read_csv(text, dtype=str, keep_default_na=False))


def tasks_json(requests: pd.DataFrame) -> bytes:
    """Tasks for Label Studio, whose document root is the queue's folder."""
    tasks = [
        as_task(row, image=local_file(row["image_id"])) for row in records(requests)
    ]
    return json.dumps(tasks, indent=1, ensure_ascii=False).encode()


def records(requests: pd.DataFrame) -> list[dict[str, Any]]:
    """Each request by its columns' names."""
    rows: list[dict[str, Any]] = [
        dict(zip(COLUMNS, row, strict=True))
        for row in requests[COLUMNS].astype(object).itertuples(index=False, name=None)
    ]
    return rows


def local_file(image_id: str) -> str:
    """The path by which Label Studio shows an image of the queue."""
    return LOCAL_FILES + quote(f"{IMAGES}/{image_id}")


def as_task(
    request: dict[str, Any],
    *,
    image: str,
    image_key: str = IMAGE_TAG,
    choices: str = CHOICES_TAG,
    image_tag: str = IMAGE_TAG,
    classes: Collection[str] | None = None,
) -> dict[str, Any]:
    """One task of Label Studio's, with what the model said as a pre-annotation.

    Args:
        request: A row of ``requests.csv``.
        image: The path by which the image is shown.
        image_key: The key from which the project reads that path.
        choices: The name of the project's tag in which a class is chosen.
        image_tag: The name of its tag that shows the image.
        classes: What can be chosen; a guess that cannot is left out. ``None`` is any.
    """
    guess = request["predicted_label"]
    made: dict[str, Any] = {"data": {**request, image_key: image}}
    if guess and (classes is None or guess in classes):
        result = pre_annotation(guess, choices, image_tag)
        made["predictions"] = [{"model_version": PREDICTED_BY, "result": result}]
    return made


def pre_annotation(label: str, choices: str, image_tag: str) -> list[dict[str, Any]]:
    """A class chosen for an image, as Label Studio writes it."""
    value = {"choices": [label]}
    names = {"from_name": choices, "to_name": image_tag}
    return [{**names, "type": "choices", "value": value}]


def open_queue(place: Place, images: ImageStore) -> LabelingQueue:
    """What was staged so far."""
    return LabelingQueue(requests=read_requests(place), images=images)


def _copy(place: Place, images: ImageStore, image_ids: Sequence[str]) -> None:
    """Copy images that are not there, several at a time."""

    def copy(image_id: str) -> FrozenError | None:
        try:
            place.fill(f"{IMAGES}/{image_id}", lambda: images.read(image_id))
        except FrozenError as exc:
            return exc
        return None

    with ThreadPoolExecutor(place.n_threads) as pool:
        refused = [failure for failure in pool.map(copy, image_ids) if failure]
    if refused:
        raise FrozenError(
            f"{len(refused)} of {len(image_ids)} images are not what was staged under "
            f"their names before; the first: {refused[0]}. A changed image needs a new "
            "image_id; or delete the old ones and run 'select' again."
        ) from refused[0]


def _write_round(place: Place, number: str, requests: pd.DataFrame) -> None:
    """Write a round's own files once: a person may be filling one in."""
    name = f"{ROUNDS}/{number}-{row_id(*requests['request_id'])[:8]}"
    form = requests.assign(label="", labeler="")[
        ["image_id", "label", "labeler", "predicted_label", "request_id"]
    ]
    files = {
        f"{name}.tasks.json": tasks_json(requests),
        # Spreadsheets take UTF-8 for what it is by its mark alone.
        f"{name}.answers.csv": form.to_csv(index=False).encode("utf-8-sig"),
    }
    for file, content in files.items():
        if place.size(file) is None:
            place.write(file, content)


def _in_columns(requests: pd.DataFrame) -> pd.DataFrame:
    # A list of before rounds were noted has no such column.
    noted = requests if "round" in requests else requests.assign(round=0)
    strings = {"request_id": str, "image_id": str, "predicted_label": str}
    return noted[COLUMNS].astype({**strings, "rank": int, "round": int})
