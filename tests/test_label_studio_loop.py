"""The human half of the loop, against a real Label Studio on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tests.test_loop import SMALL

from active_learning.errors import LabelingError
from active_learning.services.labeling.label_studio.server import installed
from active_learning.services.labeling.label_studio.settings import ServerSettings

PROJECT = Path(__file__).parents[1]
FIRST, BUDGET, AUDIT = 40, 10, 3
CLASSES = [str(digit) for digit in range(10)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Labeler:
    """Somebody who answers in Label Studio, by its REST API."""

    def __init__(self, url: str, login: dict[str, str]) -> None:
        self.url = url
        self.login = login

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return json.loads(self.raw(method, path, body))

    def raw(self, method: str, path: str, body: Any = None) -> bytes:
        request = urllib.request.Request(
            f"{self.url}{path}",
            None if body is None else json.dumps(body).encode(),
            {
                "Authorization": f"Token {self.login['token']}",
                "Content-Type": "application/json",
            },
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            content: bytes = answer.read()
            return content

    def tasks(self) -> list[dict[str, Any]]:
        listed = "/api/tasks/?project=1&fields=all&page_size=500"
        tasks: list[dict[str, Any]] = self.call("GET", listed)["tasks"]
        return tasks

    def answer_all(self, skipping: set[int]) -> list[str]:
        """Take one task after the other as they are handed out; some are skipped.

        Returns:
            The requests in the order in which they were handed out.
        """
        handed_out = []
        while True:
            try:
                task = self.call("GET", "/api/projects/1/next")
            except urllib.error.HTTPError as exc:
                assert exc.code == 404  # noqa: PT017  # nothing is left
                return handed_out
            skip = len(handed_out) in skipping
            handed_out.append(task["data"]["request_id"])
            # The digits lie in a folder of their class.
            shown = {"choices": [task["data"]["image_id"][0]]}
            names = {"from_name": "label", "to_name": "image", "type": "choices"}
            self.call(
                "POST",
                f"/api/tasks/{task['id']}/annotations/",
                {
                    "result": [] if skip else [{**names, "value": shown}],
                    "was_cancelled": skip,
                },
            )


class Loop:
    """The project with a data folder of its own, and a labeler in the loop."""

    def __init__(self, data: Path, images: Path) -> None:
        self.data = data
        self.port = free_port()
        self.images = images
        self.environment = {
            **os.environ,
            "AL_DATA": str(data),
            "AL_LABEL_STUDIO": str(environment()),
        }
        self.environment.pop("LABEL_STUDIO_API_KEY", None)

    def run(self, pipelines: str) -> None:
        params = {
            "images": self.images,
            **SMALL,
            "start.labels": FIRST,
            "select.budget": BUDGET,
            "select.audit": AUDIT,
            # Few digits: what matters here is the way of the labels.
            "deploy.tolerance": 0.99,
            "deploy.max_recall_drop": 0.99,
        }
        typed = ",".join(f"{name}={value}" for name, value in params.items())
        self.kedro("run", "--pipelines", pipelines, "--params", typed)

    def label(self) -> str:
        return self.kedro("label", "--once", "--port", str(self.port))

    def kedro(self, *arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "kedro", *arguments],
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
        return ran.stdout

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.data / "03_primary" / name)


def environment() -> Path:
    return Path(os.environ.get("AL_LABEL_STUDIO", PROJECT / ".label-studio")).absolute()


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have it installed, once for all runs.

    Skips where there is no package index to install it from.
    """
    said = yaml.safe_load((PROJECT / "conf/base/label/labeling.yml").read_text())
    told = {**said["label_studio"], "environment": str(environment())}
    try:
        installed(ServerSettings.model_validate(told))
    except LabelingError as exc:
        place = str(tmp_path_factory.mktemp("index"))
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", place]
        if subprocess.run([*pip, "pip"], check=False).returncode:
            pytest.skip(f"no package index is reachable: {exc}")
        raise


@contextmanager
def labeling(loop: Loop) -> Iterator[Labeler]:
    """Run ``kedro label`` as long as the block lasts, and see that it ends well."""
    # One turn when it has started; the others are typed.
    command = ["label", "--port", str(loop.port), "--params", "label.interval_s=3600"]
    running = subprocess.Popen(
        [sys.executable, "-m", "kedro", *command, "--classes", "+".join(CLASSES)],
        cwd=PROJECT,
        env=loop.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    try:
        first_turn = running.stdout.readline()
        assert f"{FIRST} new requests, {FIRST} wait" in first_turn
        login = json.loads((loop.data / "label_studio/login.json").read_text())
        labeler = Labeler(f"http://127.0.0.1:{loop.port}", login)
        yield labeler
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
        with pytest.raises(urllib.error.URLError):
            labeler.raw("GET", "/health")
        for secret in (login["token"], login["password"]):
            assert secret not in (loop.data / "label_studio/server.log").read_text()
    finally:
        running.terminate()
        running.wait(60)
        running.stdout.close()


@pytest.mark.slow
@pytest.mark.usefixtures("label_studio")
def test_labels_go_round_twice_and_each_arrives_once(
    digits: Path, tmp_path: Path
) -> None:
    loop = Loop(tmp_path, digits)
    exports = tmp_path / "01_raw/label_exports"
    loop.run("test-set,start")
    first = loop.table("label_requests").sort_values("rank")
    with labeling(loop) as labeler:
        assert f"0 new requests, {FIRST} wait, 0 new answers" in loop.label()
        (task, *_) = labeler.tasks()
        shown = labeler.raw("GET", task["data"]["image"])
        assert shown == (digits / task["data"]["image_id"]).read_bytes()

        # The best first, two of them skipped.
        handed_out = labeler.answer_all(skipping={1, 4})
        assert handed_out == first["request_id"].tolist()
        assert f"0 wait, {FIRST} new answers in {exports}" in loop.label()
        assert "0 new answers" in loop.label()
        loop.run("label-ingest")
        labels = assert_answered(loop, first)
        assert set(labels["labeler"]) == {"labeler@localhost"}
        assert labels["answer"].value_counts().to_dict() == {
            "label": FIRST - 2,
            "skipped": 2,
        }

        loop.run("train,deploy")
        loop.run("score,monitor,select")
        both = loop.table("label_requests")
        asked = pd.read_csv(tmp_path / "03_primary/labeling_queue/requests.csv")
        n_new = len(asked) - FIRST
        assert n_new >= BUDGET
        assert f"{n_new} new requests, {n_new} wait" in loop.label()
        tasks = labeler.tasks()
        ids = [task["data"]["request_id"] for task in tasks]
        assert sorted(ids) == sorted(asked["request_id"])
        assert set(ids) <= set(both["request_id"])
        new = [task for task in tasks if not task["annotations"]]
        assert all(len(task["predictions"]) == 1 for task in new)

        assert len(labeler.answer_all(skipping=set())) == n_new
        assert f"0 wait, {n_new} new answers" in loop.label()
        loop.run("label-ingest")
        assert_answered(loop, both[both["request_id"].isin(ids)])
    assert len(list(exports.glob("*.json"))) == 2
    training_set = pd.read_parquet(tmp_path / "05_model_input/training_set.parquet")
    assert (training_set["label"] == training_set["image_id"].str[0]).all()


def assert_answered(loop: Loop, requests: pd.DataFrame) -> pd.DataFrame:
    """Each request has one answer, about its own image, and it is the right one."""
    labels = loop.table("labels")
    assert sorted(labels["request_id"]) == sorted(requests["request_id"])
    asked = requests.set_index("request_id")["image_id"]
    assert (labels["image_id"] == labels["request_id"].map(asked)).all()
    given = labels[labels["answer"] == "label"]
    assert (given["label"] == given["image_id"].str[0]).all()
    assert labels["source"].unique().tolist() == ["label_studio"]
    return labels
