"""What processes tell each other about releases is whole, and ends with them."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.services.deployment.builders import worker

from active_learning.services.deployment.state import (
    EndpointState,
    Release,
    WorkerReport,
    live_workers,
    locked,
    read_state,
    write_state,
)

FIRST = Release(name="1", model_name="small_cnn", model_version=1, fingerprint="a")


def test_an_endpoint_that_nobody_released_to_is_empty(tmp_path: Path) -> None:
    assert read_state(tmp_path / "nowhere").champion is None


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = EndpointState(
        deployments={"blue": FIRST}, traffic={"blue": 100}, live="blue", last_version=1
    )

    with locked(tmp_path):
        write_state(tmp_path, state)

    assert read_state(tmp_path) == state
    assert read_state(tmp_path).champion == FIRST
    assert [p.name for p in tmp_path.iterdir() if "state" in p.name] == ["state.json"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"traffic": {"green": 100}}, "'green'.* not up"),
        ({"traffic": {"blue": 90}}, "adds up to 90"),
        ({"live": "green"}, "'green' is not up"),
    ],
)
def test_a_state_that_cannot_be_is_refused(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        EndpointState(deployments={"blue": FIRST}, **changes)


def test_a_worker_is_heard_as_long_as_it_lives(tmp_path: Path) -> None:
    with locked(tmp_path):
        write_state(tmp_path, EndpointState(deployments={"blue": FIRST}))

    with worker(tmp_path) as one, worker(tmp_path) as other:
        said = live_workers(tmp_path)
        assert {worker["pid"] for worker in said} == {one, other}
        assert all(worker["loaded"] == {"1": "a"} for worker in said)

        os.kill(one, signal.SIGKILL)
        os.waitid(os.P_PID, one, os.WEXITED | os.WNOWAIT)
        assert [worker["pid"] for worker in live_workers(tmp_path)] == [other]

    assert live_workers(tmp_path) == []
    assert list((tmp_path / "workers").iterdir()) == []


def test_a_process_id_that_comes_again_is_another_worker(tmp_path: Path) -> None:
    # As after a container's restart: what the first one said is not the second's.
    dead = tmp_path / "workers" / f"{os.getpid()}.json"
    dead.parent.mkdir()
    dead.write_text(json.dumps({"pid": os.getpid(), "loaded": {"1": "a"}}))
    dead.with_suffix(".lock").touch()

    report = WorkerReport(tmp_path)
    assert live_workers(tmp_path) == []
    report.write({"2": "b"}, {})

    assert [said["loaded"] for said in live_workers(tmp_path)] == [{"2": "b"}]
    report.close()
    assert live_workers(tmp_path) == []
