"""Requests become tasks once, and answers come back once."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.services.labeling.studio import (
    PERSONAL,
    TOKEN,
    Studio,
    studio_running,
)

from active_learning.datasets import LabelExportsDataset, LabelingQueueDataset
from active_learning.errors import LabelingAwayError, LabelingError
from active_learning.imaging import ImageStore
from active_learning.services.labeling import LabelingQueue
from active_learning.services.labeling.label_studio.client import LabelStudio
from active_learning.services.labeling.label_studio.settings import LabelSettings
from active_learning.services.labeling.label_studio.sync import Turn, take_turn

CLASSES = ["cat", "dog"]


@pytest.fixture
def studio() -> Iterator[Studio]:
    with studio_running() as studio:
        yield studio


class Office:
    """A queue, a place for exports, and turns between them and a server."""

    def __init__(self, root: Path, store: ImageStore, studio: Studio) -> None:
        self.queue = root / "queue"
        self.exports = root / "exports"
        self.store = store
        self.studio = studio
        self.settings = LabelSettings(
            queue=str(self.queue),
            exports=str(self.exports),
            labels=str(root / "labels"),
            project="Pets",
            images="served",
            labelers_per_image=1,
            interval_s=1,
            timeout_s=20,
            retries=2,
        )

    def ask(self, round_number: int = 1, **requests: tuple[str, str]) -> None:
        """Stage requests: an image and the model's guess by ``request_id``."""
        frame = pd.DataFrame(
            [
                (name, image_id, guess, rank, round_number)
                for rank, (name, (image_id, guess)) in enumerate(requests.items(), 1)
            ],
            columns=["request_id", "image_id", "predicted_label", "rank", "round"],
        )
        queue = LabelingQueueDataset(path=str(self.queue))
        queue.save(LabelingQueue(frame, self.store))

    def turn(
        self, *, token: str = TOKEN, classes: list[str] | None = None, **said: Any
    ) -> Turn:
        settings = self.settings.model_copy(update=said)
        client = LabelStudio(
            self.studio.url, token, settings.timeout_s, settings.retries
        )
        return take_turn(client, settings, CLASSES if classes is None else classes)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.exports.glob("*"))

    def answers(self) -> pd.DataFrame:
        """All exports as ``label-ingest`` reads them."""
        read = LabelExportsDataset(path=str(self.exports)).load()
        return pd.concat(read.values(), ignore_index=True)


@pytest.fixture
def office(tmp_path: Path, store: ImageStore, studio: Studio) -> Office:
    return Office(tmp_path, store, studio)


def test_a_request_becomes_one_task_with_the_models_guess(
    office: Office, studio: Studio
) -> None:
    office.ask(r1=("a.png", "cat"), r2=("b.png", ""), r3=("c.png", "bird"))

    first, second = office.turn(), office.turn()

    assert (first.n_added, first.n_waiting) == (3, 3)
    assert (second.n_added, second.n_waiting) == (0, 3)
    assert studio.asked() == ["r1", "r2", "r3"]
    task, *others = studio.tasks
    assert task["data"]["image_id"] == "a.png"
    assert task["data"]["rank"] == 1
    (guess,) = task["predictions"]
    assert guess["result"][0]["value"] == {"choices": ["cat"]}
    # A guess that nobody could choose would be refused with all the others.
    assert not any(other["predictions"] for other in others)


def test_the_best_is_asked_first_within_its_round(
    office: Office, studio: Studio
) -> None:
    frame = pd.DataFrame(
        [("r1", "a.png", "cat", 2, 1), ("r2", "b.png", "cat", 1, 1)],
        columns=["request_id", "image_id", "predicted_label", "rank", "round"],
    )
    queue = LabelingQueueDataset(path=str(office.queue))
    queue.save(LabelingQueue(frame, office.store))
    office.ask(2, r3=("c.png", "cat"))

    office.turn()

    assert studio.asked() == ["r2", "r1", "r3"]


def test_a_client_killed_while_its_tasks_are_taken_adds_none_twice(
    office: Office, studio: Studio
) -> None:
    office.ask(r1=("a.png", "cat"), r2=("b.png", "dog"))
    studio.hang_up_on_import = True
    with pytest.raises(LabelingAwayError):
        office.turn()
    studio.hang_up_on_import = False

    turn = office.turn()

    assert turn.n_added == 0
    assert studio.asked() == ["r1", "r2"]


def test_tasks_that_came_twice_are_taken_away_but_for_what_was_answered(
    office: Office, studio: Studio
) -> None:
    images = {f"r{n}": (f"{name}.png", "cat") for n, name in enumerate("abcd")}
    office.ask(**images)
    office.turn()
    first = list(studio.tasks)
    studio.add(1, [{"data": dict(task["data"])} for task in first])
    second = studio.tasks[4:]
    second[1]["annotations"] = [studio.annotate("r1", "dog")]
    first[1]["annotations"] = []
    second[2]["drafts"] = [{"id": 1}]
    first[3]["drafts"] = second[3]["drafts"] = [{"id": 2}]

    office.turn()

    assert studio.tasks == [first[0], first[3], second[1], second[2], second[3]]


def test_two_turns_at_once_add_no_task_twice(office: Office, studio: Studio) -> None:
    office.ask(r1=("a.png", "cat"), r2=("b.png", "dog"))
    studio.hold_lists.clear()

    threads = [threading.Thread(target=office.turn) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert studio.asked() == ["r1", "r2"]


def test_an_image_that_still_waits_stands_for_its_newer_request(
    office: Office, studio: Studio
) -> None:
    office.ask(r1=("a.png", "cat"))
    office.turn()
    office.ask(2, r2=("a.png", "dog"))

    turn = office.turn()

    assert turn.n_waiting == 1
    assert studio.asked() == ["r2"]
    (task,) = studio.tasks
    assert task["data"]["round"] == 2
    assert task["data"]["image"] == "/data/local-files/?d=images/a.png"
    assert task["predictions"][0]["result"][0]["value"] == {"choices": ["dog"]}
    assert office.turn().n_added == 0


def test_a_second_opinion_is_a_task_of_its_own(office: Office, studio: Studio) -> None:
    office.ask(r1=("a.png", "cat"))
    office.turn()
    studio.annotate("r1", "dog")
    office.ask(2, r2=("a.png", "cat"))

    office.turn()
    office.turn()

    assert studio.asked() == ["r1", "r2"]


def test_answers_come_with_their_request_labeler_and_time(
    office: Office, studio: Studio
) -> None:
    office.ask(r1=("a.png", "cat"), r2=("b.png", "dog"), r3=("c.png", "dog"))
    office.turn()
    studio.annotate("r1", "dog", by=1)
    studio.annotate("r2", None, by=2)
    studio.annotate("r3", "unclear", by=2)

    turn = office.turn()

    assert turn.n_answers == 3
    assert turn.n_waiting == 0
    answers = office.answers().set_index("request_id")
    assert answers["reason"].tolist() == ["", "", ""]
    assert answers["reference"].tolist() == ["a.png", "b.png", "c.png"]
    assert answers["label"].tolist() == ["dog", "", ""]
    assert answers["answer"].tolist() == ["label", "skipped", "unclear"]
    assert answers.loc["r1", "labeler"] == "ann@example.com"
    assert answers.loc["r2", "labeler"] == "bob@example.com"
    assert answers.loc["r1", "labeled_at"].year == 2026


def test_an_answer_is_fetched_once_and_its_correction_too(
    office: Office, studio: Studio
) -> None:
    office.ask(r1=("a.png", "cat"), r2=("b.png", "dog"))
    office.turn()
    answer = studio.annotate("r1", "dog")

    assert [office.turn().n_answers for _ in range(3)] == [1, 0, 0]
    assert len(office.files()) == 1

    studio.correct(answer, "cat")
    studio.annotate("r2", "dog")
    assert [office.turn().n_answers for _ in range(2)] == [2, 0]
    assert len(office.files()) == 2
    assert sorted(office.answers()["label"]) == ["cat", "dog", "dog"]


def test_a_damaged_export_is_fetched_again(office: Office, studio: Studio) -> None:
    office.ask(r1=("a.png", "cat"))
    office.turn()
    studio.annotate("r1", "dog")
    office.turn()
    (file,) = office.exports.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:40])

    office.turn()

    assert file.read_bytes() == whole


def test_classes_that_are_new_are_added_and_the_rest_stays(
    office: Office, studio: Studio
) -> None:
    mine = (
        '<View><!-- ours --><Header value="Which?" />'
        '<Image name="photo" value="$url" />'
        '<Choices name="pet" toName="photo" choice="single-radio">'
        '<Choice value="dog" hotkey="d" /></Choices></View>'
    )
    studio.projects.append({"id": 1, "title": "Pets", "label_config": mine})
    office.ask(r1=("a.png", "cat"))

    office.turn(classes=["cat", "dog", 'a "b" & <c>'])

    config = studio.projects[0]["label_config"]
    assert config.startswith(mine.removesuffix("</Choices></View>"))
    assert '<Choice value="cat" />' in config
    assert '<Choice value="a &quot;b&quot; &amp; &lt;c&gt;" />' in config
    (task,) = studio.tasks
    assert task["data"]["url"] == "/data/local-files/?d=images/a.png"
    assert task["predictions"][0]["result"][0]["from_name"] == "pet"
    changes = sum(call.startswith("PATCH") for call in studio.calls)
    office.turn(classes=["cat"])
    assert sum(call.startswith("PATCH") for call in studio.calls) == changes


@pytest.mark.parametrize(
    "config",
    [
        '<View><Text name="t" value="$t"/><Choices name="c" toName="t"/></View>',
        '<View><Image name="i" value="$i"/>'
        '<RectangleLabels name="r" toName="i"/></View>',
        '<View><Image name="i" value="$i"/><Choices name="c" toName="i" '
        'choice="multiple"/></View>',
        '<View><Image name="i" value="$i"/><Choices name="c" toName="i"/>'
        '<Choices name="d" toName="i"/></View>',
        "<View>",
    ],
)
def test_a_project_that_asks_for_something_else_is_left_alone(
    config: str, office: Office, studio: Studio
) -> None:
    studio.projects.append({"id": 1, "title": "Pets", "label_config": config})
    office.ask(r1=("a.png", "cat"))

    with pytest.raises(LabelingError, match=r"label\.project"):
        office.turn()

    assert studio.projects[0]["label_config"] == config
    assert not studio.tasks


def test_two_projects_of_one_title_are_told_apart_by_their_owner(
    office: Office, studio: Studio
) -> None:
    studio.projects += [
        {"id": n, "title": "Pets", "label_config": ""} for n in range(1, 6)
    ]

    with pytest.raises(LabelingError, match=r"5 projects .* numbers 1, 2, 3, 4, 5"):
        office.turn()


def test_without_a_known_class_it_says_where_to_name_them(
    office: Office, studio: Studio
) -> None:
    office.ask(r1=("a.png", ""))

    with pytest.raises(LabelingError, match=r"label_ingest\.classes"):
        office.turn(classes=[])

    assert not studio.projects


def test_classes_that_nobody_names_are_those_of_labels_and_guesses(
    office: Office, studio: Studio, tmp_path: Path
) -> None:
    from active_learning.datasets import TableDataset
    from active_learning.schemas import LABELS

    row = dict.fromkeys(LABELS.names, "x") | {"labeled_at": pd.Timestamp.now("UTC")}
    rows = pd.DataFrame(
        [
            row | {"label_id": "1", "label": "cow", "answer": "label"},
            row | {"label_id": "2", "label": "", "answer": "skipped"},
        ]
    )
    TableDataset(table="labels", path=str(tmp_path / "labels")).save(rows)
    office.ask(r1=("a.png", "ant"), r2=("b.png", ""))

    client = LabelStudio(studio.url, TOKEN, 20, 0)
    take_turn(client, office.settings, None)

    config = studio.projects[0]["label_config"]
    offered = re.findall('<Choice value="([^"]+)"', config)
    assert offered == ["ant", "cow", "unclear"]


def test_an_image_that_would_not_be_shown_is_asked_of_nobody(
    office: Office, studio: Studio
) -> None:
    office.ask(r1=("a.png", "cat"))
    studio.serves_files = False

    with pytest.raises(LabelingError, match=r"does not show .*'a\.png'.*DOCUMENT_ROOT"):
        office.turn()

    assert not studio.tasks


def test_a_server_elsewhere_is_sent_the_images(office: Office, studio: Studio) -> None:
    office.ask(r1=("a.png", "cat"), r2=("b.png", "dog"))
    studio.serves_files = False

    office.turn(images="uploaded")
    turn = office.turn(images="uploaded")

    assert turn.n_added == 0
    client = LabelStudio(studio.url, TOKEN, 20, 0)
    for task in studio.tasks:
        shown = client.shown(task["data"]["image"])
        assert shown == office.store.read(task["data"]["image_id"])
    assert not studio.storages


def test_a_server_that_is_busy_is_asked_again_but_never_told_twice(
    office: Office, studio: Studio
) -> None:
    office.ask(r1=("a.png", "cat"))
    studio.failing = 2
    assert office.turn().n_added == 1

    studio.failing = 3
    with pytest.raises(LabelingAwayError, match=r"503.*busy"):
        office.turn()

    studio.failing = 1
    client = LabelStudio(studio.url, TOKEN, 20, 2)
    project = client.find_project("Pets")
    assert project is not None
    before = len(studio.calls)
    studio.failing = 1
    with pytest.raises(LabelingAwayError):
        client.add_tasks(project, [])
    assert len(studio.calls) == before + 1


def test_a_refused_token_names_its_variable(office: Office) -> None:
    with pytest.raises(LabelingError, match=r"refuses the token.*LABEL_STUDIO_API_KEY"):
        office.turn(token="b" * 40)
    with pytest.raises(LabelingError, match=r"personal access.*LABEL_STUDIO_API_KEY"):
        office.turn(token="of.somebody.else")


def test_a_personal_access_token_outlives_what_it_is_traded_for(
    office: Office, studio: Studio
) -> None:
    office.ask(r1=("a.png", "cat"))
    client = LabelStudio(studio.url, PERSONAL, 20, 0)
    assert take_turn(client, office.settings, CLASSES).n_added == 1

    studio.access = "7"  # the server forgets it after a few minutes
    studio.annotate("r1", "cat")

    assert take_turn(client, office.settings, CLASSES).n_answers == 1
    assert studio.calls.count("POST /api/token/refresh") == 2


def test_a_server_that_is_away_says_so(office: Office) -> None:
    client = LabelStudio("http://127.0.0.1:9", TOKEN, 1, 0)

    assert not client.healthy()
    with pytest.raises(LabelingAwayError, match=r"127\.0\.0\.1:9.*kedro label"):
        take_turn(client, office.settings, CLASSES)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "", "ftp://somewhere"])
def test_what_is_no_address_is_told_how_one_looks(url: str) -> None:
    with pytest.raises(LabelingError, match=r"http://127\.0\.0\.1:8080"):
        LabelStudio(url, TOKEN, 1, 0)
