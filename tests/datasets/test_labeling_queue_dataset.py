"""The queue holds what was asked, once, whatever happens on the way."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import fsspec
import pandas as pd
import pytest

from active_learning.datasets import LabelExportsDataset, LabelingQueueDataset
from active_learning.errors import ImageError
from active_learning.imaging import ImageStore
from active_learning.services.labeling import LabelingQueue


def asked(round_number: int = 1, **requests: tuple[str, str]) -> pd.DataFrame:
    """Requests by id: an image and the model's guess."""
    return pd.DataFrame(
        [
            (name, image_id, guess, rank, round_number)
            for rank, (name, (image_id, guess)) in enumerate(requests.items(), 1)
        ],
        columns=["request_id", "image_id", "predicted_label", "rank", "round"],
    )


FIRST = asked(r1=("a.png", "cat"), r2=("b.png", "dog"))


def tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


class Failing(ImageStore):
    """A disk that fails at one image."""

    def read(self, image_id: str) -> bytes:
        if image_id == "b.png":
            raise ImageError("the disk fails")
        return super().read(image_id)


def test_the_folder_of_images_holds_what_was_asked_and_nothing_else(
    store: ImageStore, tmp_path: Path
) -> None:
    LabelingQueueDataset(path=str(tmp_path / "queue")).save(LabelingQueue(FIRST, store))

    held = tree(tmp_path / "queue")

    images = {name: held[name] for name in held if name.startswith("images/")}
    assert images == {f"images/{n}": store.read(n) for n in ("a.png", "b.png")}
    listed = pd.read_csv(tmp_path / "queue/requests.csv")
    pd.testing.assert_frame_equal(listed, FIRST)


def test_what_was_killed_half_way_is_done_by_doing_it_again(
    store: ImageStore, tmp_path: Path
) -> None:
    undisturbed = LabelingQueueDataset(path=str(tmp_path / "one"))
    undisturbed.save(LabelingQueue(FIRST, store))
    queue = LabelingQueueDataset(path=str(tmp_path / "two"))
    failing = Failing(store.root, cache=None, max_pixels=10_000)

    with pytest.raises(Exception, match="the disk fails"):
        queue.save(LabelingQueue(FIRST, failing))
    assert not queue.exists()
    assert queue.load().requests.empty
    queue.save(LabelingQueue(FIRST, store))
    assert tree(tmp_path / "two") == tree(tmp_path / "one")

    # Killed after the images and before the list.
    (tmp_path / "two/requests.csv").unlink()
    queue.save(LabelingQueue(FIRST, store))
    queue.save(LabelingQueue(FIRST, store))
    assert tree(tmp_path / "two") == tree(tmp_path / "one")


def test_a_second_opinion_is_listed_again_and_its_image_is_not_copied_again(
    store: ImageStore, tmp_path: Path
) -> None:
    queue = LabelingQueueDataset(path=str(tmp_path))
    queue.save(LabelingQueue(FIRST, store))
    (tmp_path / "images/a.png").write_bytes(b"left as it is")

    queue.save(LabelingQueue(asked(2, r3=("a.png", "dog")), store))

    assert queue.load().requests["request_id"].tolist() == ["r1", "r2", "r3"]
    assert queue.load().requests["image_id"].tolist() == ["a.png", "b.png", "a.png"]
    assert (tmp_path / "images/a.png").read_bytes() == b"left as it is"


def test_a_form_that_somebody_fills_in_is_left_alone(
    store: ImageStore, tmp_path: Path
) -> None:
    queue = LabelingQueueDataset(path=str(tmp_path))
    queue.save(LabelingQueue(FIRST, store))
    (form,) = tmp_path.glob("rounds/*.answers.csv")
    form.write_text("half filled in")

    queue.save(LabelingQueue(FIRST, store))
    queue.save(LabelingQueue(asked(2, r3=("c.png", "dog")), store))

    assert form.read_text() == "half filled in"
    assert len(list(tmp_path.glob("rounds/*.answers.csv"))) == 2


def test_a_form_that_is_filled_in_is_an_export(
    store: ImageStore, tmp_path: Path
) -> None:
    LabelingQueueDataset(path=str(tmp_path / "queue")).save(LabelingQueue(FIRST, store))
    (form,) = tmp_path.glob("queue/rounds/*.answers.csv")
    filled = pd.read_csv(form, dtype=str, keep_default_na=False)
    filled.loc[0, ["label", "labeler"]] = ["cow", "ann"]
    (tmp_path / "exports").mkdir()
    filled.to_csv(tmp_path / "exports/monday.csv", index=False)

    (answers,) = LabelExportsDataset(path=str(tmp_path / "exports")).load().values()

    done, left = answers.to_dict(orient="records")
    assert done["reason"] == ""
    assert (done["reference"], done["label"]) == ("a.png", "cow")
    assert (done["request_id"], done["labeler"]) == ("r1", "ann")
    assert (left["reference"], left["label"]) == ("b.png", "")


def test_the_tasks_name_images_by_a_path_below_the_queue(tmp_path: Path) -> None:
    image_id = "ward 3/b+c &%23#é.png"
    photos = tmp_path / "photos"
    (photos / "ward 3").mkdir(parents=True)
    (photos / image_id).write_bytes(b"an image")
    store = ImageStore(str(photos), cache=None, max_pixels=10_000)
    queue = tmp_path / "queue"
    requests = asked(r1=(image_id, "cat"))
    LabelingQueueDataset(path=str(queue)).save(LabelingQueue(requests, store))

    (task,) = json.loads((queue / "tasks.json").read_text())

    (place,) = parse_qs(urlsplit(task["data"]["image"]).query)["d"]
    assert (queue / place).read_bytes() == b"an image"
    assert task["data"] | {"image": ""} == requests.iloc[0].to_dict() | {"image": ""}
    (guess,) = task["predictions"][0]["result"]
    assert guess["value"] == {"choices": ["cat"]}
    (alone,) = queue.glob("rounds/*.tasks.json")
    assert json.loads(alone.read_text()) == [task]


def test_the_queue_may_lie_wherever_fsspec_reaches(store: ImageStore) -> None:
    place = "memory://labeling/queue"
    filesystem = fsspec.filesystem("memory")
    try:
        for _ in range(2):
            queue = LabelingQueueDataset(path=place)
            queue.save(LabelingQueue(FIRST, store))

        waiting = LabelingQueueDataset(path=place).load()
        assert waiting.requests["request_id"].tolist() == ["r1", "r2"]
        assert waiting.images.image_ids() == ["a.png", "b.png"]
        assert waiting.images.read("a.png") == store.read("a.png")
        assert queue.exists()
    finally:
        filesystem.rm("/labeling", recursive=True)


def test_a_list_of_before_rounds_were_noted_is_read(
    store: ImageStore, tmp_path: Path
) -> None:
    FIRST.drop(columns="round").to_csv(tmp_path / "requests.csv", index=False)
    queue = LabelingQueueDataset(path=str(tmp_path))

    queue.save(LabelingQueue(asked(4, r9=("c.png", "NA")), store))

    requests = queue.load().requests
    assert requests["round"].tolist() == [0, 0, 4]
    assert requests["predicted_label"].tolist() == ["cat", "dog", "NA"]
