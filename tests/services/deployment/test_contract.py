"""What every endpoint promises, on this machine and on Azure."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest
from tests.services.deployment.builders import examples, local, taken_in
from tests.services.deployment.cloud import Cloud, cloud, code_url
from tests.standins.azurite import azurite
from tests.standins.identity import identity
from tests.standins.tls import tls

from active_learning.errors import CheckpointError, EndpointError
from active_learning.services.deployment import Endpoint, roll_out
from active_learning.services.deployment.state import Release, read_state

__all__ = ["azurite", "cloud", "code_url", "identity", "tls"]


class Kit(Protocol):
    """A place for endpoints."""

    def endpoint(self) -> Endpoint:
        """As another process would connect to it."""

    def released(self, version: int, weights: int = 0) -> Release:
        """A release that may be brought up."""

    @property
    def traffic(self) -> Mapping[str, int]:
        """Percent for each deployment, as whoever routes requests sees it."""

    @property
    def up(self) -> set[str]:
        """Deployments that are up, as whoever pays for them sees it."""


class LocalKit:
    def __init__(self, root: Path) -> None:
        self._root = root

    def endpoint(self) -> Endpoint:
        return local(self._root)

    def released(self, version: int, weights: int = 0) -> Release:
        return taken_in(local(self._root), version, weights)

    @property
    def traffic(self) -> Mapping[str, int]:
        return {str(c): s for c, s in read_state(self._root).traffic.items()}

    @property
    def up(self) -> set[str]:
        return {str(color) for color in read_state(self._root).deployments}


@pytest.fixture(params=["local", "azure"])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Kit:
    if request.param == "local":
        return LocalKit(tmp_path)
    made: Cloud = request.getfixturevalue("cloud")
    return made


def rolled_out(kit: Kit, release: Release, back: bool = False) -> None:
    endpoint = kit.endpoint()
    with endpoint.exclusive():
        asked = examples(endpoint, release)
        roll_out(endpoint, release, asked, [10, 100], 0, back=back)


def promoted(kit: Kit, release: Release) -> None:
    endpoint = kit.endpoint()
    with endpoint.exclusive():
        endpoint.promote(endpoint.stage(release), back=False)


def test_before_the_first_there_is_nothing(kit: Kit) -> None:
    endpoint = kit.endpoint()

    assert endpoint.state.champion is None
    assert not endpoint.serving
    assert endpoint.exports(1) == []


def test_champions_follow_each_other_and_come_back(kit: Kit) -> None:
    first, second = kit.released(1), kit.released(2, weights=1)

    rolled_out(kit, first)
    assert kit.endpoint().state.champion == first
    assert kit.traffic == {"blue": 100}

    rolled_out(kit, second)
    state = kit.endpoint().state
    assert (state.champion, state.history) == (second, (first,))
    assert kit.traffic == {"green": 100}
    assert kit.up == {"green"}

    rolled_out(kit, first, back=True)
    state = kit.endpoint().state
    assert (state.champion, state.history) == (first, ())
    assert state.rolled_back == (second,)
    # No other model may bear the version that this one has given to predictions.
    assert state.last_version == 2
    assert kit.up == {"blue"}


def test_a_step_gives_the_rest_to_the_champion(kit: Kit) -> None:
    promoted(kit, kit.released(1))
    second = kit.released(2, weights=1)
    endpoint = kit.endpoint()

    with endpoint.exclusive():
        color = endpoint.stage(second)
        assert kit.traffic == {"blue": 100}
        assert kit.up == {"blue", "green"}
        endpoint.shift(color, 10)

    assert kit.traffic == {"blue": 90, "green": 10}
    assert endpoint.state.live == "blue"


def test_one_that_answers_otherwise_goes_down_again(kit: Kit) -> None:
    first = kit.released(1)
    promoted(kit, first)
    second = kit.released(2, weights=1)
    endpoint = kit.endpoint()
    others = examples(endpoint, first)

    with (
        pytest.raises(EndpointError, match=r"'0\.png'.*was expected"),
        endpoint.exclusive(),
    ):
        roll_out(endpoint, second, others, [100], 0)

    assert endpoint.state.champion == first
    assert kit.traffic == {"blue": 100}
    assert kit.up == {"blue"}


@pytest.mark.parametrize("stop", ["stage", "shift 10", "shift 100", "promote"])
def test_what_a_run_has_left_half_way_is_settled(kit: Kit, stop: str) -> None:
    first, second = kit.released(1), kit.released(2, weights=1)
    promoted(kit, first)
    step, _, percent = stop.partition(" ")
    killed = kit.endpoint()
    with killed.exclusive():
        color = killed.stage(second)
        if step == "shift":
            killed.shift(color, int(percent))
        elif step == "promote":
            killed.promote(color, back=False)

    endpoint = kit.endpoint()
    with endpoint.exclusive():
        endpoint.settle()

    champion = second if stop == "promote" else first
    assert endpoint.state.champion == champion
    assert list(kit.traffic.values()) == [100]
    assert kit.up == set(kit.traffic)
    if stop != "promote":
        rolled_out(kit, second)
    assert kit.endpoint().state.champion == second
    assert kit.endpoint().state.history == (first,)


def test_two_at_once_are_one_after_the_other(kit: Kit) -> None:
    with (
        kit.endpoint().exclusive(),
        pytest.raises(EndpointError, match="Another process deploys"),
        kit.endpoint().exclusive(),
    ):
        pass

    with kit.endpoint().exclusive():
        pass


def test_the_same_release_comes_in_once(kit: Kit) -> None:
    one, other = kit.released(1), kit.released(1)

    assert one == other
    (folder,) = kit.endpoint().exports(1)
    assert folder.name == one.name
    assert kit.endpoint().add(folder).name == one.name


def test_a_damaged_release_is_not_brought_up(kit: Kit) -> None:
    first, second = kit.released(1), kit.released(2, weights=1)
    promoted(kit, first)
    endpoint = kit.endpoint()
    asked = examples(endpoint, second)
    damage(kit, second)

    with (
        pytest.raises(EndpointError, match=r"cannot be brought up.*SHA-256"),
        endpoint.exclusive(),
    ):
        roll_out(endpoint, second, asked, [100], 0)

    assert endpoint.state.champion == first
    assert kit.up == {"blue"}


def test_old_releases_are_forgotten_and_no_others(kit: Kit) -> None:
    champions = [kit.released(version) for version in (1, 2, 3)]
    for release in champions:
        promoted(kit, release)
    refused = [kit.released(version) for version in (4, 5)]
    endpoint = kit.endpoint()

    with endpoint.exclusive():
        endpoint.prune(keep=1)

    left = [bool(endpoint.exports(version)) for version in (1, 2, 3, 4, 5)]
    assert left == [False, True, True, False, True]
    assert endpoint.state.history == (champions[1],)
    assert endpoint.folder(refused[1]).is_dir()


def damage(kit: Kit, release: Release) -> None:
    """Leave the release's network half written, wherever it lies."""
    endpoint = kit.endpoint()
    os.truncate(endpoint.folder(release) / "model.onnx", 100)
    if isinstance(kit, Cloud):
        kit.overwrite(f"endpoint/releases/{release.name}/model.onnx", b"damaged")
        with pytest.raises(CheckpointError):
            endpoint.folder(release)
