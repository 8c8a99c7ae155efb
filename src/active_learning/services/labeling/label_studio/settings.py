"""What ``kedro label`` is told."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from active_learning.parameters import Parameters


class LabelSettings(Parameters):
    """How requests and answers travel. ``conf/base`` is the one home of the values.

    ``images`` are ``served`` from the queue's folder by a server that sees it, or
    ``uploaded`` to one that is elsewhere. A request that fails because the server is
    away is sent again up to ``retries`` times, ever later.
    """

    queue: str
    exports: str
    labels: str
    project: str = Field(min_length=3, max_length=50)
    images: Literal["served", "uploaded"]
    labelers_per_image: PositiveInt
    interval_s: PositiveFloat
    timeout_s: PositiveFloat
    retries: NonNegativeInt


class ServerSettings(Parameters):
    """A Label Studio on this machine: where it is installed and what it keeps where."""

    environment: str
    version: str
    data: str
    port: int = Field(ge=1, le=65535)
    start_timeout_s: PositiveFloat
    stop_timeout_s: PositiveFloat
