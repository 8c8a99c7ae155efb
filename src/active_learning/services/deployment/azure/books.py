"""The books held against what Azure says is up: its traffic is the truth."""

from __future__ import annotations

from typing import get_args

from active_learning.errors import EndpointError
from active_learning.services.deployment.azure.control import (
    BACK,
    CHAMPION,
    ROLLING_OUT,
    Deployed,
)
from active_learning.services.deployment.state import Color, EndpointState, Release


def reconciled(books: EndpointState, found: Deployed | None) -> EndpointState:
    """What is in production, whatever a run that was killed had no time to write.

    While a roll-out is under way, as the endpoint's tag says, the champion is the one
    that its other tag names; else it is who has most of the traffic. An endpoint that
    is gone, or has nothing up, leaves the champion of the books: it still scores
    images in batches and is trained on.

    Args:
        books: What was written last.
        found: The endpoint; ``None`` where there is none.

    Raises:
        EndpointError: A deployment that this project did not make has traffic.
    """
    ours = _ours(found)
    if found is not None:
        _refuse_strangers(found, ours)
    live = None if found is None else _live(found, ours)
    if found is None or live is None:
        if books.champion is None or books.live is None:
            return books.changed(deployments=ours, traffic={}, live=None)
        up = {**ours, books.live: books.champion}
        return books.changed(deployments=up, traffic={})
    release = ours[live]
    changes = {}
    if books.champion is not None and books.champion.name != release.name:
        changes = books.succession(release, _is_back(books, found, live))
    return books.changed(
        deployments=ours,
        traffic=found.traffic,
        live=live,
        last_version=max(books.last_version, release.model_version),
        **changes,
    )


def _ours(found: Deployed | None) -> dict[Color, Release]:
    colors: tuple[Color, ...] = get_args(Color)
    up = {} if found is None else found.up
    return {color: release for color in colors if (release := up.get(color))}


def _refuse_strangers(found: Deployed, ours: dict[Color, Release]) -> None:
    strangers = sorted(set(found.traffic) - set(ours))
    if strangers:
        first = strangers[0]
        raise EndpointError(
            f"{len(strangers)} deployments have traffic and were not made by this "
            f"project; the first is {first!r} with {found.traffic[first]}%. Take the "
            "traffic from it in the studio, or let AL_ENDPOINT name another endpoint."
        )


def _live(found: Deployed, ours: dict[Color, Release]) -> Color | None:
    tagged = next((color for color in ours if color == found.tags.get(CHAMPION)), None)
    if tagged is not None and (ROLLING_OUT in found.tags or not found.traffic):
        return tagged
    by_share = sorted(ours, key=lambda color: -found.traffic.get(color, 0))
    return by_share[0] if found.traffic else None


def _is_back(books: EndpointState, found: Deployed, live: Color) -> bool:
    """Whether the champion that the books do not know is one from before."""
    former = books.history[-1].name if books.history else None
    release = found.up[live]
    if found.tags.get(CHAMPION) == live:
        return found.tags.get(BACK) == "true"
    # Somebody moved the traffic by hand.
    return release is not None and release.name == former
