"""A release takes over whole or not at all, whatever happens meanwhile."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.services.deployment.builders import (
    PROJECT,
    ask,
    examples,
    live,
    local,
    service,
    taken_in,
    wait_for,
    worker,
    write_release,
)

from active_learning.errors import EndpointError
from active_learning.services.deployment import roll_out
from active_learning.services.deployment.local import LocalEndpoint
from active_learning.services.deployment.state import Release, read_state


def rolled_out(endpoint: LocalEndpoint, release: Release, back: bool = False) -> None:
    with endpoint.exclusive():
        asked = examples(endpoint, release)
        roll_out(endpoint, release, asked, [10, 100], 0, back=back)


def test_the_first_release_takes_all(tmp_path: Path) -> None:
    endpoint = local(tmp_path)
    release = taken_in(endpoint, 1)

    rolled_out(endpoint, release)

    assert endpoint.state.champion == release
    assert endpoint.state.traffic == {"blue": 100}
    assert endpoint.state.history == ()


def test_the_next_release_takes_over_and_the_old_one_is_remembered(
    tmp_path: Path,
) -> None:
    endpoint = local(tmp_path)
    first = live(endpoint, 1)
    second = taken_in(endpoint, 2, weights=1)

    rolled_out(endpoint, second)

    assert endpoint.state.champion == second
    assert dict(endpoint.state.deployments) == {"green": second}
    assert endpoint.state.history == (first,)


def test_a_rollback_takes_the_former_champion_back(tmp_path: Path) -> None:
    endpoint = local(tmp_path)
    first, second = live(endpoint, 1), live(endpoint, 2, weights=1)

    rolled_out(endpoint, first, back=True)

    assert endpoint.state.champion == first
    assert endpoint.state.history == ()
    assert endpoint.state.rolled_back == (second,)
    # No other model may bear the version that this one has given to predictions.
    assert endpoint.state.last_version == 2


@pytest.mark.parametrize("file", ["model.onnx", "model.json"])
def test_a_damaged_release_is_not_brought_up(tmp_path: Path, file: str) -> None:
    endpoint = local(tmp_path)
    first = live(endpoint, 1)
    second = taken_in(endpoint, 2, weights=1)
    asked = examples(endpoint, second)
    os.truncate(endpoint.folder(second) / file, 100)

    with (
        pytest.raises(EndpointError, match=f"cannot be brought up.*{file}"),
        endpoint.exclusive(),
    ):
        roll_out(endpoint, second, asked, [100], 0)

    assert endpoint.state.champion == first
    assert dict(endpoint.state.deployments) == {"blue": first}


def test_a_release_that_answers_otherwise_goes_down_again(tmp_path: Path) -> None:
    endpoint = local(tmp_path)
    first = live(endpoint, 1)
    second = taken_in(endpoint, 2, weights=1)
    others = examples(endpoint, first)

    with (
        pytest.raises(EndpointError, match=r"'0\.png'.*was expected"),
        endpoint.exclusive(),
    ):
        roll_out(endpoint, second, others, [100], 0)

    assert dict(endpoint.state.deployments) == {"blue": first}
    assert endpoint.state.traffic == {"blue": 100}


def test_a_worker_that_cannot_load_ends_the_roll_out(tmp_path: Path) -> None:
    endpoint = local(tmp_path)
    first = live(endpoint, 1)
    second = taken_in(endpoint, 2, weights=1)

    with (
        worker(tmp_path),
        worker(tmp_path, second.name) as failing,
        pytest.raises(EndpointError, match=f"process {failing} cannot.*on fire"),
    ):
        rolled_out(endpoint, second)

    assert endpoint.state.champion == first
    assert dict(endpoint.state.deployments) == {"blue": first}


def test_a_worker_that_stands_still_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    endpoint = local(tmp_path, load_timeout_s=0.3)
    first = live(endpoint, 1)
    second = taken_in(endpoint, 2, weights=1)

    with worker(tmp_path) as pid:
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(EndpointError, match="1 of 1 serving processes have not"):
            rolled_out(endpoint, second)

    assert endpoint.state.champion == first


def test_a_dead_worker_is_not_waited_for(tmp_path: Path) -> None:
    endpoint = local(tmp_path)
    live(endpoint, 1)
    with worker(tmp_path) as pid:
        os.kill(pid, signal.SIGKILL)
    second = taken_in(endpoint, 2, weights=1)

    rolled_out(endpoint, second)

    assert endpoint.state.champion == second


def test_a_service_that_is_elsewhere_is_named(tmp_path: Path) -> None:
    endpoint = local(tmp_path)
    first = live(endpoint, 1)
    second = taken_in(endpoint, 2, weights=1)

    with (
        worker(tmp_path),
        pytest.raises(EndpointError, match=r"127\.0\.0\.1:9/score does not answer"),
    ):
        rolled_out(endpoint, second)

    assert endpoint.state.champion == first


_DEPLOY = """
import sys
from pathlib import Path
from tests.services.deployment.builders import examples, local
from active_learning.services.deployment import roll_out
from active_learning.services.deployment.state import Release

endpoint = local(Path(sys.argv[1]))
release = Release.model_validate_json(sys.argv[2])
stop = sys.argv[3]
# Stands still after the step that is asked for, until it is killed.
inner = getattr(type(endpoint), stop)
def outer(self, *given):
    said = inner(self, *given)
    print("there", flush=True)
    sys.stdin.read()
    return said
setattr(type(endpoint), stop, outer)
type(endpoint).serving = property(lambda self: False)
with endpoint.exclusive():
    color = endpoint.stage(release)
    endpoint.smoke_test(color, examples(endpoint, release))
    endpoint.shift(color, 10)
    endpoint.promote(color, False)
"""


@pytest.mark.parametrize("stop", ["stage", "smoke_test", "shift", "promote"])
def test_killed_at_any_step_a_second_run_completes_it(
    tmp_path: Path, stop: str
) -> None:
    endpoint = local(tmp_path)
    first = live(endpoint, 1)
    second = taken_in(endpoint, 2, weights=1)
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", _DEPLOY, str(tmp_path)),
            *(second.model_dump_json(), stop),
        ],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    with pytest.raises(EndpointError, match="Another process"), endpoint.exclusive():
        pass

    process.kill()
    process.wait()

    # The champion of before, or the new one: never none, and all requests have one.
    state = read_state(tmp_path)
    assert state.champion == (second if stop == "promote" else first)
    assert sum(state.traffic.values()) == 100
    with endpoint.exclusive():
        endpoint.settle()
    assert set(endpoint.state.deployments.values()) == {state.champion}
    assert set(endpoint.state.traffic.values()) == {100}
    if stop != "promote":
        rolled_out(endpoint, second)
    assert endpoint.state.champion == second
    assert endpoint.state.history == (first,)


def test_two_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    endpoint = local(tmp_path)

    with (
        endpoint.exclusive(),
        pytest.raises(EndpointError, match="Another process deploys"),
        local(tmp_path).exclusive(),
    ):
        pass


def test_the_same_release_comes_in_once(tmp_path: Path) -> None:
    endpoint = local(tmp_path)

    assert taken_in(endpoint, 1) == taken_in(endpoint, 1)

    (folder,) = (tmp_path / "releases").iterdir()
    assert folder.name == f"000001-{taken_in(endpoint, 1).fingerprint[:12]}"


def test_the_same_weights_with_other_classes_are_another_release(
    tmp_path: Path,
) -> None:
    endpoint = local(tmp_path)
    release = taken_in(endpoint, 1)
    card = endpoint.folder(release) / "model.json"
    old = card.read_text()

    def renamed(folder: Path) -> Path:
        write_release(folder, 1)
        (folder / "model.json").write_text(old.replace('"a"', '"z"'))
        return folder

    with endpoint.incoming() as folder:
        assert endpoint.add(renamed(folder)) == release
    assert "z" in json.loads(card.read_text())["classes"]

    # What answers requests is not changed under them.
    rolled_out(endpoint, release)
    with (
        pytest.raises(EndpointError, match=r"they differ in \['classes'\]"),
        endpoint.incoming() as folder,
    ):
        endpoint.add(write_release(folder, 1))


def test_a_damaged_export_is_replaced_by_a_whole_one(tmp_path: Path) -> None:
    endpoint = local(tmp_path)
    release = taken_in(endpoint, 1)
    os.truncate(endpoint.folder(release) / "model.onnx", 100)

    taken_in(endpoint, 1)

    rolled_out(endpoint, release)
    assert endpoint.state.champion == release


def test_what_may_be_needed_is_not_pruned(tmp_path: Path) -> None:
    endpoint = local(tmp_path)
    champions = [live(endpoint, version) for version in (1, 2, 3)]
    refused = [taken_in(endpoint, version) for version in (4, 5)]

    with endpoint.exclusive():
        endpoint.prune(keep=1)

    there = {folder.name for folder in (tmp_path / "releases").iterdir()}
    assert there == {champions[1].name, champions[2].name, refused[1].name}
    assert endpoint.state.history == (champions[1],)


def test_a_state_that_is_damaged_stops_everything(tmp_path: Path) -> None:
    endpoint = local(tmp_path)
    live(endpoint, 1)
    (tmp_path / "state.json").write_text('{"live": "blue"}')

    with pytest.raises(EndpointError, match="does not say what is in production"):
        _ = endpoint.state


@pytest.mark.slow
def test_a_running_service_goes_from_one_release_to_the_next_and_back(
    tmp_path: Path,
) -> None:
    root = tmp_path / "06_models" / "endpoint"
    endpoint = local(root)
    first = live(endpoint, 1)
    second = taken_in(endpoint, 2, weights=1)
    image = examples(endpoint, first)[0].content
    with service(tmp_path) as url:
        served = local(root, url)
        answers: list[tuple[int, int]] = []
        done = threading.Event()

        def go_on_asking() -> None:
            while not done.is_set():
                answers.append(ask(url, image))

        callers = [threading.Thread(target=go_on_asking) for _ in range(3)]
        for caller in callers:
            caller.start()
        try:
            with served.exclusive():
                roll_out(served, second, examples(served, second), [50, 100], 1)
            wait_for(lambda: answers[-1][1] == 2)
            with served.exclusive():
                roll_out(
                    served, first, examples(served, first), [50, 100], 0.5, back=True
                )
            wait_for(lambda: answers[-1][1] == 1)
        finally:
            done.set()
            for caller in callers:
                caller.join()

        assert {status for status, _ in answers} == {200}
        assert {version for _, version in answers} == {1, 2}
        assert endpoint.state.champion == first

        # A release that is damaged on its way is not served, and the old one goes on.
        third = taken_in(endpoint, 3, weights=1)
        asked = examples(endpoint, third)
        (endpoint.folder(third) / "model.onnx").write_bytes(b"damaged")
        with pytest.raises(EndpointError, match="SHA-256"), served.exclusive():
            roll_out(served, third, asked, [100], 0)
        assert ask(url, image) == (200, 1)
        assert endpoint.state.champion == first
