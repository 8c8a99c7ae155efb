"""A dispatch is taken, or the error says what to do and holds no secret."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from exports_trigger.errors import DispatchError, RefusedError, SettingsError
from exports_trigger.github import Repository
from tests.standins.github import TOKEN, GitHub, github

__all__ = ["github"]

PAYLOAD = {"url": "https://acct/c/Labeling/a.json", "etag": "0x1"}


@pytest.fixture(autouse=True)
def _no_secret_in_a_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert TOKEN not in caplog.text


def repository(github: GitHub) -> Repository:
    return Repository.from_environment(github.environment())


def test_a_dispatch_is_what_github_documents(github: GitHub) -> None:
    repository(github).dispatch(PAYLOAD)

    (request,) = github.requests
    assert request.path == "/repos/team/active-learning-loop/dispatches"
    assert request.body == {"event_type": "training", "client_payload": PAYLOAD}
    assert request.headers["accept"] == "application/vnd.github+json"
    assert request.headers["x-github-api-version"] == "2022-11-28"
    assert request.status == 204


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (401, "renew the secret behind AL_GITHUB_TOKEN"),
        (403, "'contents: write'"),
        (404, "check AL_GITHUB_REPOSITORY"),
        (429, "It asks to wait for 60 s"),
        (500, "It is sent again"),
        (503, "It is sent again"),
        (200, "answered 200"),
        ("redirect", "The repository was renamed"),
        ("drop", "gave no answer (ConnectionError)"),
    ],
)
def test_what_github_answers_says_what_to_do(
    github: GitHub, fault: int | str, told: str
) -> None:
    github.faults.append(fault)

    with pytest.raises(DispatchError) as caught:
        repository(github).dispatch(PAYLOAD)

    assert told in str(caught.value)
    assert not isinstance(caught.value, RefusedError)
    assert len(github.requests) == 1  # a redirect was not followed
    assert not github.dispatched


@pytest.mark.parametrize("status", [400, 422])
def test_what_is_refused_is_told_apart(github: GitHub, status: int) -> None:
    github.faults.append(status)

    with pytest.raises(RefusedError, match=str(status)):
        repository(github).dispatch(PAYLOAD)


def test_a_payload_that_github_would_refuse_is_not_sent(github: GitHub) -> None:
    for payload in ({"url": "x" * 65_536}, dict.fromkeys("abcdefghijk", "")):
        with pytest.raises(RefusedError, match="GitHub takes 10 and 65535"):
            repository(github).dispatch(payload)

    assert not github.requests


def test_a_server_that_says_nothing_is_not_waited_for(github: GitHub) -> None:
    github.faults.append("hang")
    impatient = Repository(
        github.repository, github.token, api=github.url, timeout_s=(0.2, 0.2)
    )

    with pytest.raises(DispatchError, match="ReadTimeout"):
        impatient.dispatch(PAYLOAD)


def test_a_token_that_comes_back_is_not_told(github: GitHub) -> None:
    github.faults.append("echo")

    with pytest.raises(DispatchError) as caught:
        repository(github).dispatch(PAYLOAD)

    assert TOKEN[:12] not in str(caught.value)


def test_a_repository_does_not_show_its_token(github: GitHub) -> None:
    assert TOKEN not in repr(repository(github))


def test_a_netrc_file_does_not_take_the_tokens_place(
    github: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    repository(github).dispatch(PAYLOAD)

    assert len(github.dispatched) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"AL_GITHUB_REPOSITORY": ""}, "AL_GITHUB_REPOSITORY is missing"),
        ({"AL_GITHUB_TOKEN": " "}, "AL_GITHUB_TOKEN is missing"),
        ({"AL_GITHUB_REPOSITORY": "https://github.com/a/b"}, "is no owner/name"),
        ({"AL_GITHUB_REPOSITORY": "a/b?x"}, "is no owner/name"),
        (
            {"AL_GITHUB_TOKEN": "@Microsoft.KeyVault(SecretUri=https://v/s)"},
            "'Key Vault Secrets User'",
        ),
        ({"AL_GITHUB_TOKEN": f"{TOKEN}\r\nX-Evil: 1"}, "no token can hold"),
        ({"AL_GITHUB_API": "http://github.example"}, "must be https"),
    ],
)
def test_a_wrong_setting_is_named(
    github: GitHub, change: dict[str, str], told: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Repository.from_environment({**github.environment(), **change})

    assert told in str(caught.value)
    assert TOKEN not in str(caught.value)
