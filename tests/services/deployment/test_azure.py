"""What Azure does to a roll-out: it refuses, fails, falls silent, changes by itself."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.services.deployment.builders import PROJECT, examples, wait_for
from tests.services.deployment.cloud import NAME, WATCH, Cloud, cloud, code_url
from tests.standins.arm import Answer, Asked, Fault, refused
from tests.standins.arm_resources import Resource, Scorer
from tests.standins.azurite import azurite
from tests.standins.identity import Identity, identity
from tests.standins.tls import tls

from active_learning.errors import EndpointError, SettingsError
from active_learning.services.azure import credential
from active_learning.services.deployment import connect, roll_out
from active_learning.services.deployment.azure import AzureEndpoint
from active_learning.services.deployment.state import Release

__all__ = ["azurite", "cloud", "code_url", "identity", "tls"]

SECRETS = ("AKEY==", "sv=1&sig=SIGNED", "eyJhbGciOi.eyJhdWQi.c2lnbmVk")


def rolled_out(
    endpoint: AzureEndpoint, release: Release, steps: tuple[int, ...] = (50, 100)
) -> None:
    with endpoint.exclusive():
        roll_out(endpoint, release, examples(endpoint, release), steps, 0)


def test_one_that_does_not_come_up_is_removed_and_its_log_says_why(
    cloud: Cloud,
) -> None:
    first, second = cloud.live(1), cloud.released(2, weights=1)
    key, query, token = SECRETS
    cloud.arm.workspace.outcomes = ["Failed"]
    cloud.arm.workspace.logs = (
        f"AccountKey={key}\nGET https://a.b/c?{query}\nAuthorization: Bearer {token}\n"
        "ModuleNotFoundError: No module named 'adlfs'"
    )

    with pytest.raises(EndpointError, match="No module named 'adlfs'") as caught:
        rolled_out(cloud.endpoint(), second)

    assert "User container has crashed" in str(caught.value)
    assert cloud.traffic == {"blue": 100}
    assert cloud.up == {"blue"}
    assert cloud.endpoint().state.champion == first
    each: BaseException | None = caught.value
    while each is not None:
        assert not any(secret in str(each) for secret in SECRETS)
        each = each.__cause__


def test_traffic_that_azure_refuses_stays_with_the_champion(cloud: Cloud) -> None:
    first, second = cloud.live(1), cloud.released(2, weights=1)
    refusing = Fault("PUT", f"/onlineEndpoints/{NAME}$", 400, "Traffic is not 100.")
    cloud.arm.faults.append(refusing)

    with pytest.raises(EndpointError, match=r"Traffic is not 100\..*Mend"):
        rolled_out(cloud.endpoint(), second)

    assert cloud.traffic == {"blue": 100}
    assert cloud.up == {"blue"}
    assert cloud.endpoint().state.champion == first


def test_what_passes_is_waited_for(cloud: Cloud) -> None:
    cloud.live(1)
    second = cloud.released(2, weights=1)
    soon = {"Retry-After": "0.01"}
    cloud.arm.workspace.polls = 3
    cloud.arm.faults += [
        Fault("GET", f"/onlineEndpoints/{NAME}$", 429, headers=soon),
        Fault("PUT", f"/onlineEndpoints/{NAME}/deployments/green", 503, headers=soon),
        Fault("GET", "/operations/", 503, headers=soon),
        Fault("PUT", f"/onlineEndpoints/{NAME}$", 0, done=True),
        Fault("POST", f"/score/{NAME}", 503, headers=soon),
        Fault("POST", f"/score/{NAME}", 429, headers=soon),
        Fault("DELETE", f"/onlineEndpoints/{NAME}/deployments/blue", 429, headers=soon),
    ]

    rolled_out(cloud.endpoint(), second)

    assert cloud.arm.faults == []
    assert cloud.endpoint().state.champion == second
    assert cloud.up == {"green"}


def test_an_azure_that_is_away_is_said(cloud: Cloud) -> None:
    cloud.live(1)
    endpoint = cloud.endpoint()
    cloud.arm.faults += [Fault("GET", f"/onlineEndpoints/{NAME}", 503)] * 5

    with pytest.raises(EndpointError, match=r"Asking about .*'digits' failed.*again"):
        _ = endpoint.state


def test_a_token_that_expires_in_mid_run_is_replaced(
    cloud: Cloud, identity: Identity
) -> None:
    first, second = cloud.live(1), cloud.released(2, weights=1)
    identity.lifetime_s, before = 1, identity.lifetime_s
    credential.cache_clear()
    endpoint = cloud.endpoint()
    try:
        with endpoint.exclusive():
            color = endpoint.stage(second)
            time_passes(cloud, identity)
            endpoint.smoke_test(color, examples(endpoint, second))
            endpoint.shift(color, 10)
            time_passes(cloud, identity)
            endpoint.promote(color, back=False)
    finally:
        identity.lifetime_s = before

    assert endpoint.state.champion == second
    assert endpoint.state.history == (first,)


def test_a_token_that_is_refused_says_how_to_sign_in(
    cloud: Cloud, identity: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.live(1)
    cloud.arm.expired |= set(identity.issued)

    with pytest.raises(EndpointError, match="az login") as caught:
        _ = cloud.endpoint().state

    said = str(caught.value) + caplog.text
    assert not any(token in said for token in identity.issued)


def test_who_deploys_now_is_named(cloud: Cloud) -> None:
    with (
        cloud.endpoint().exclusive(),
        pytest.raises(EndpointError, match=f"process {os.getpid()}, since 20"),
        cloud.endpoint().exclusive(),
    ):
        pass


def test_nothing_is_changed_without_the_lock(cloud: Cloud) -> None:
    first, second = cloud.live(1), cloud.released(2, weights=1)
    endpoint = cloud.endpoint()

    with pytest.raises(EndpointError, match="is not locked"):
        endpoint.stage(second)
    with endpoint.exclusive():
        color = endpoint.stage(second)
        cloud.break_lock()
        with pytest.raises(EndpointError, match="was lost"):
            endpoint.promote(color, back=False)

    assert endpoint.state.champion == first
    assert cloud.traffic == {"blue": 100}


def test_a_promotion_whose_answer_is_lost_is_one(cloud: Cloud) -> None:
    cloud.live(1)
    second = cloud.released(2, weights=1)
    lost = Fault("PUT", f"/onlineEndpoints/{NAME}$", 409, "under way", done=True)
    endpoint = cloud.endpoint()

    with endpoint.exclusive():
        color = endpoint.stage(second)
        cloud.arm.faults.append(lost)
        endpoint.promote(color, back=False)

    assert endpoint.state.champion == second
    assert cloud.up == {"green"}


_DEPLOY = """
import json, sys
from active_learning.services.deployment import connect
from active_learning.services.deployment.azure.releases import ReleaseStore
from active_learning.services.deployment.state import Release

place, options, release, back = map(json.loads, sys.argv[1:5])
endpoint = connect("azure", place, load_timeout_s=30, options=options)
with endpoint.exclusive():
    color = endpoint.stage(Release.model_validate(release))
    # Stands still before it writes the books, until it is killed.
    def stand(self, state):
        print("there", flush=True)
        sys.stdin.read()
    ReleaseStore.write_books = stand
    endpoint.promote(color, back)
"""


@pytest.mark.parametrize("back", [False, True])
def test_killed_between_the_promotion_and_the_books(cloud: Cloud, back: bool) -> None:
    first, second = cloud.live(1), cloud.released(2, weights=1)
    if back:
        cloud.live(2, weights=1)
    next_one = first if back else second
    argv = [cloud.place, cloud.options(), next_one.model_dump(), back]
    process = subprocess.Popen(
        [sys.executable, "-c", _DEPLOY, *map(json.dumps, argv)],
        cwd=PROJECT,
        env={**os.environ, **cloud.azurite.environment(), **cloud.arm.environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "there\n":
        assert line
    process.send_signal(signal.SIGKILL)
    process.communicate()

    # The champion is the new one for everybody, and the lock still the dead one's.
    endpoint = cloud.endpoint()
    assert endpoint.state.champion == next_one
    with (
        pytest.raises(EndpointError, match=f"process {process.pid},.*ends by itself"),
        endpoint.exclusive(),
    ):
        pass
    cloud.break_lock()
    with endpoint.exclusive():
        endpoint.settle()

    state = endpoint.state
    assert state.champion == next_one
    assert state.history == (() if back else (first,))
    assert state.rolled_back == ((second,) if back else ())
    assert len(cloud.up) == 1


def test_traffic_that_somebody_moves_by_hand_is_the_truth(cloud: Cloud) -> None:
    first, second = cloud.live(1), cloud.released(2, weights=1)
    endpoint = cloud.endpoint()
    with endpoint.exclusive():
        endpoint.stage(second)
    resource = cloud.arm.workspace.endpoints["online", NAME]
    resource["properties"]["traffic"] = {"green": 100}

    assert endpoint.state.champion == second
    assert endpoint.state.history == (first,)

    resource["properties"]["traffic"] = {"somebody-elses": 100}
    with pytest.raises(EndpointError, match=r"not made by this.*'somebody-elses'"):
        _ = endpoint.state


def test_an_endpoint_that_was_deleted_is_made_again(cloud: Cloud) -> None:
    first, second = cloud.live(1), cloud.released(2, weights=1)
    cloud.arm.workspace.endpoints.clear()
    cloud.arm.workspace.deployments.clear()
    endpoint = cloud.endpoint()

    # Nobody is served, and there still is a model to train from.
    assert endpoint.state.champion == first
    assert not endpoint.serving

    rolled_out(endpoint, second)
    assert endpoint.state.champion == second
    assert endpoint.state.history == (first,)
    assert len(cloud.traffic) == 1


def test_an_endpoint_with_keys_is_refused(cloud: Cloud) -> None:
    cloud.live(1)
    second = cloud.released(2, weights=1)
    resource = cloud.arm.workspace.endpoints["online", NAME]
    resource["properties"]["authMode"] = "Key"

    with pytest.raises(EndpointError, match="knows no keys"):
        rolled_out(cloud.endpoint(), second)

    assert cloud.up == {"blue"}


def test_a_release_that_is_not_registered_is_not_brought_up(cloud: Cloud) -> None:
    release = cloud.released(1).model_copy(update={"registry_version": None})

    with pytest.raises(EndpointError, match="is no version of 'digits-model'"):
        rolled_out(cloud.endpoint(), release)


@pytest.mark.parametrize("metrics", [False, True])
def test_a_step_with_too_many_failures_is_taken_back(
    cloud: Cloud, metrics: bool
) -> None:
    first, second = cloud.live(1), cloud.released(2, weights=1)
    if metrics:
        cloud.arm.workspace.metrics[NAME, "green"] = {"2xx": 80, "5xx": 20}
    else:
        cloud.arm.workspace.scorer = failing_after(3, cloud)
    endpoint = cloud.endpoint(watch={**WATCH, "metrics": metrics})

    with pytest.raises(EndpointError, match=r"failed .* requests, more than"):
        rolled_out(endpoint, second)

    assert endpoint.state.champion == first
    assert cloud.traffic == {"blue": 100}
    asked = cloud.arm.asked("PUT", f"/onlineEndpoints/{NAME}")
    shares = [one.body["properties"].get("traffic") for one in asked]
    assert {"blue": 50, "green": 50} in shares


def test_few_failures_are_not_too_many(cloud: Cloud) -> None:
    cloud.live(1)
    second = cloud.released(2, weights=1)
    cloud.arm.workspace.metrics[NAME, "green"] = {"2xx": 95, "4xx": 50, "5xx": 5}

    rolled_out(cloud.endpoint(watch={**WATCH, "metrics": True}), second)

    (asked, _) = cloud.arm.asked("GET", ".*/Microsoft.Insights/metrics")
    assert asked.query["metricnames"] == "RequestsPerMinute"
    assert "deployment eq 'green'" in asked.query["$filter"]
    assert cloud.endpoint().state.champion == second


def test_metrics_that_cannot_be_read_are_no_good_news(cloud: Cloud) -> None:
    first, second = cloud.live(1), cloud.released(2, weights=1)
    cloud.arm.faults.append(Fault("GET", ".*/Microsoft.Insights/metrics", 403))

    with pytest.raises(EndpointError, match=r"Asking Azure Monitor.*made to happen"):
        rolled_out(cloud.endpoint(watch={**WATCH, "metrics": True}), second)

    assert cloud.endpoint().state.champion == first


def test_a_deployment_is_told_all_and_no_secret(cloud: Cloud, code_url: str) -> None:
    cloud.live(1)

    (asked,) = cloud.arm.asked("PUT", f"/onlineEndpoints/{NAME}/deployments/blue")

    said = asked.body["properties"]
    assert said["requestSettings"]["maxConcurrentRequestsPerInstance"] == 8
    assert said["instanceType"] == "Standard_DS3_v2"
    assert said["codeConfiguration"]["scoringScript"] == "score.py"
    assert "/environments/active-learning-serving/versions/" in said["environmentId"]
    variables = said["environmentVariables"]
    assert variables["WORKER_COUNT"] == "2"
    assert "--threads 4" in variables["GUNICORN_CMD_ARGS"]
    assert json.loads(variables["AL_SERVING"])["collect"] is True
    (made,) = cloud.arm.asked("PUT", f"/onlineEndpoints/{NAME}")[:1]
    assert made.body["properties"]["authMode"] == "AADToken"
    secrets = (cloud.azurite.key, code_url.partition("?")[2])
    assert not any(secret in json.dumps(asked.body) for secret in secrets)


def test_options_that_hold_a_secret_are_refused_without_showing_it(
    cloud: Cloud,
) -> None:
    options = cloud.options(variables={"STORAGE_KEY": "c2VjcmV0"})

    with pytest.raises(SettingsError, match="'STORAGE_KEY'") as caught:
        connect("azure", cloud.place, load_timeout_s=1, options=options)

    assert "c2VjcmV0" not in str(caught.value)


def test_a_missing_container_is_named(cloud: Cloud, tmp_path: Path) -> None:
    place = cloud.azurite.place("nowhere", "endpoint")
    endpoint = connect("azure", place, load_timeout_s=1, options=cloud.options())

    with pytest.raises(EndpointError, match="there is no container 'nowhere'"):
        _ = endpoint.state


def time_passes(cloud: Cloud, identity: Identity) -> None:
    """Until no token that was given is taken any longer."""
    ends = time.time() + identity.lifetime_s
    wait_for(lambda: time.time() > ends)
    cloud.arm.expired |= set(identity.issued)


def failing_after(n: int, cloud: Cloud) -> "Scoring":
    """Deployments that answer so many requests and no more."""
    return Scoring(n, cloud.arm.workspace.scorer)


class Scoring:
    def __init__(self, n: int, inner: "Scoring") -> None:
        self._n = n
        self._inner = inner

    def __call__(self, deployment: Resource) -> Scorer:
        inner = self._inner(deployment)
        left = iter(range(self._n))

        def answer(asked: Asked) -> Answer:
            if next(left, None) is None:
                return refused(500, "Broken", "out of memory")
            return inner(asked)

        return answer
