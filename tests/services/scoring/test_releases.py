"""Which model answers, while the endpoint changes."""

import gc
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
from tests.services.scoring.serving import make_release, put_up

from active_learning.errors import CheckpointError, RequestError
from active_learning.services.deployment.state import (
    STATE,
    Release,
    live_workers,
)
from active_learning.services.scoring.releases import EndpointReleases, MountedRelease


def opened(endpoint: Path, poll_s: float, wait_s: float = 10) -> EndpointReleases:
    return EndpointReleases(endpoint, 1, poll_s=poll_s, retry_s=0.05, wait_s=wait_s)


@contextmanager
def watched(endpoint: Path) -> Iterator[EndpointReleases]:
    releases = opened(endpoint, poll_s=0.01).watch()
    try:
        yield releases
    finally:
        releases.close()


def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait for a promise; the time is there to fail and not to measure."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


def version(releases: EndpointReleases, deployment: str | None = None) -> int:
    return releases.serving(deployment).model.version


def damage(endpoint: Path, release: Release) -> None:
    network = endpoint / "releases" / release.name / "model.onnx"
    network.write_bytes(network.read_bytes()[:-1])


def test_before_the_first_champion_nobody_answers_and_then_it_does(
    tmp_path: Path,
) -> None:
    with watched(tmp_path) as releases:
        assert "kedro run" in str(releases.why_not_ready())
        with pytest.raises(RequestError) as refused:
            releases.serving(None)
        assert refused.value.status == 503

        put_up(tmp_path, make_release(tmp_path, 1))
        until(lambda: releases.why_not_ready() is None)

        assert version(releases) == 1


def test_requests_go_by_the_traffic(tmp_path: Path) -> None:
    put_up(tmp_path, make_release(tmp_path, 1), make_release(tmp_path, 2), traffic=80)

    with watched(tmp_path) as releases:
        found = Counter(version(releases) for _ in range(2_000))

    # Five standard deviations.
    assert abs(found[1] - 1_600) < 5 * np.sqrt(2_000 * 0.8 * 0.2)
    assert found[1] + found[2] == 2_000


def test_a_color_is_answered_whatever_its_traffic(tmp_path: Path) -> None:
    put_up(tmp_path, make_release(tmp_path, 1), make_release(tmp_path, 2))

    with watched(tmp_path) as releases:
        assert {version(releases) for _ in range(50)} == {1}
        assert version(releases, "green") == 2
        assert releases.serving("green").deployment == "green"
        with pytest.raises(RequestError) as unknown:
            releases.serving("red")
        assert unknown.value.status == 404


def test_a_request_waits_for_the_color_it_names(tmp_path: Path) -> None:
    one, two = make_release(tmp_path, 1), make_release(tmp_path, 2)
    put_up(tmp_path, one)

    # So rare a look that only the request's own can find the release.
    releases = opened(tmp_path, poll_s=60, wait_s=20).watch()
    try:
        put_up(tmp_path, one, two)
        assert version(releases, "green") == 2
        assert version(releases) == 1
    finally:
        releases.close()


def test_one_request_at_a_time_waits_and_only_so_long(tmp_path: Path) -> None:
    one, two = make_release(tmp_path, 1), make_release(tmp_path, 2)
    put_up(tmp_path, one)
    # Nobody looks: the release never comes. All three ask within that time.
    releases = opened(tmp_path, poll_s=60, wait_s=5)
    put_up(tmp_path, one, two)
    refused: list[str] = []

    def ask() -> None:
        with pytest.raises(RequestError) as error:
            releases.serving("green")
        assert error.value.status == 503
        refused.append(str(error.value))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    releases.close()

    assert sorted("not loaded yet" in reason for reason in refused) == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("fault", ["damaged", "another model", "no folder", "no card"])
def test_what_cannot_be_loaded_is_told_and_the_old_goes_on(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = make_release(tmp_path, 1), make_release(tmp_path, 2)
    folder = tmp_path / "releases" / two.name
    if fault == "damaged":
        damage(tmp_path, two)
    elif fault == "another model":
        two = two.model_copy(update={"fingerprint": "0" * 64})
    elif fault == "no folder":
        folder.rename(tmp_path / "elsewhere")
    else:
        (folder / "model.json").write_text("[" * 100_000)
    put_up(tmp_path, one)

    with watched(tmp_path) as releases:
        put_up(tmp_path, blue=two, green=None)
        until(lambda: releases.status()["failed"])

        assert version(releases) == 1
        assert releases.why_not_ready() is None
        with pytest.raises(RequestError) as refused:
            releases.serving("blue")
        assert refused.value.status == 503
        until(lambda: live_workers(tmp_path)[0]["failed"])
        assert list(live_workers(tmp_path)[0]["failed"]) == [two.name]
        assert set(live_workers(tmp_path)[0]["loaded"]) == {one.name}
    assert two.name in caplog.text


def test_what_is_up_and_no_more_is_reported_as_loaded(tmp_path: Path) -> None:
    one, two = make_release(tmp_path, 1), make_release(tmp_path, 2)
    put_up(tmp_path, one)

    with watched(tmp_path):
        assert live_workers(tmp_path)[0]["loaded"] == {one.name: one.fingerprint}
        put_up(tmp_path, one, two, traffic=90)
        until(lambda: set(live_workers(tmp_path)[0]["loaded"]) == {one.name, two.name})
        put_up(tmp_path, green=two, traffic=0)
        until(lambda: set(live_workers(tmp_path)[0]["loaded"]) == {two.name})
    assert live_workers(tmp_path) == []


def test_a_first_champion_that_is_damaged_is_not_ready_until_it_is_mended(
    tmp_path: Path,
) -> None:
    one = make_release(tmp_path, 1)
    network = tmp_path / "releases" / one.name / "model.onnx"
    whole = network.read_bytes()
    damage(tmp_path, one)
    put_up(tmp_path, one)

    with watched(tmp_path) as releases:
        assert "SHA-256" in str(releases.why_not_ready())
        network.write_bytes(whole)
        until(lambda: releases.why_not_ready() is None)


def test_a_state_that_cannot_be_read_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = make_release(tmp_path, 1), make_release(tmp_path, 2)
    put_up(tmp_path, one)

    with watched(tmp_path) as releases:
        (tmp_path / STATE).write_bytes(b"\xff{")
        until(lambda: releases.status()["endpoint_error"])
        assert version(releases) == 1
        assert releases.why_not_ready() is None

        put_up(tmp_path, two)
        until(lambda: version(releases) == 2)
        assert releases.status()["endpoint_error"] is None
    assert caplog.text.count("What answered before goes on") == 1


def test_no_request_fails_while_champions_change(tmp_path: Path) -> None:
    versions = [make_release(tmp_path, number) for number in range(1, 6)]
    put_up(tmp_path, versions[0])
    done, failures, seen = threading.Event(), [], set()
    blank = np.zeros((1, 28, 28, 1), dtype=np.uint8)

    with watched(tmp_path) as releases:

        def ask() -> None:
            while not done.is_set():
                try:
                    served = releases.serving(None)
                    served.model.answer(blank)
                    seen.add(served.model.version)
                except RequestError as exc:
                    failures.append(exc)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: 1 in seen)
        for release in versions[1:]:
            put_up(tmp_path, release)
            until(lambda wanted=release: wanted.model_version in seen)
        done.set()
        for thread in threads:
            thread.join()

    assert not failures
    assert seen == {1, 2, 3, 4, 5}


def test_a_model_is_dropped_after_its_last_request(tmp_path: Path) -> None:
    one, two = make_release(tmp_path, 1), make_release(tmp_path, 2)
    put_up(tmp_path, one)

    with watched(tmp_path) as releases:
        under_way = releases.serving(None)
        model = ref(under_way.model)
        put_up(tmp_path, two)
        until(lambda: version(releases) == 2)
        gc.collect()
        assert model() is not None
        assert under_way.model.version == 1

        del under_way
        until(lambda: gc.collect() >= 0 and model() is None)


SWITCH = """
import sys
from pathlib import Path
from tests.services.scoring.serving import make_release, put_up
from active_learning.services.scoring.releases import EndpointReleases
import numpy as np, psutil
folder = Path(sys.argv[1])
up = [make_release(folder, n) for n in (1, 2)]
put_up(folder, up[0])
releases = EndpointReleases(folder, 1, poll_s=60, retry_s=1, wait_s=1)
blank = np.zeros((1, 28, 28, 1), dtype=np.uint8)
def switch(n):
    for number in range(n):
        put_up(folder, up[number % 2])
        releases.look()
        served = releases.serving(None)
        assert served.model.version == up[number % 2].model_version
        served.model.answer(blank)
switch(10)
before = psutil.Process().memory_info().rss
switch(50)
print(psutil.Process().memory_info().rss - before)
"""


def test_fifty_switches_cost_no_memory(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SWITCH, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )

    assert int(ran.stdout) < 10e6


def test_a_mounted_release_answers_whatever_color_is_named(tmp_path: Path) -> None:
    release = make_release(tmp_path, 4)

    mounted = MountedRelease(tmp_path / "releases" / release.name, 1)

    assert mounted.serving(None).model.version == 4
    assert mounted.serving("green").deployment is None
    assert mounted.why_not_ready() is None


def test_a_mounted_release_that_is_damaged_stops_the_process(tmp_path: Path) -> None:
    release = make_release(tmp_path, 4)
    damage(tmp_path, release)

    with pytest.raises(CheckpointError, match="SHA-256"):
        MountedRelease(tmp_path / "releases" / release.name, 1)
