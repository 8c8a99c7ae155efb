"""GitHub's ``repository_dispatch``, which starts the workflow that trains."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Self
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from exports_trigger.errors import DispatchError, RefusedError, SettingsError

EVENT_TYPE = "training"
API = "https://api.github.com"
_VERSION = "2022-11-28"
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# GitHub's own bounds of client_payload.
_MOST_KEYS, _MOST_BYTES = 10, 65_535
_EXCERPT = 200

_HINTS = {
    301: "The repository was renamed: set AL_GITHUB_REPOSITORY to its new name.",
    307: "The repository was renamed: set AL_GITHUB_REPOSITORY to its new name.",
    401: "The token is wrong or has expired: renew the secret behind AL_GITHUB_TOKEN.",
    403: "The token needs 'contents: write' on the repository, or too many requests "
    "were made.",
    404: "The repository does not exist, or the token cannot see it: check "
    "AL_GITHUB_REPOSITORY, and that the token has 'contents: write' on it.",
    422: "The event was refused: look at what it says of the payload.",
    429: "Too many requests were made: fewer exports at a time, or wait.",
}
_REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)


class _Bearer(AuthBase):
    # Given as a header, the token would give way to one in a .netrc file.
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@dataclass(frozen=True)
class Repository:
    """Where the workflows are.

    Attributes:
        name: ``owner/name``.
        token: May write the repository's contents; never shown.
        api: Of GitHub, or of a GitHub Enterprise server.
        timeout_s: For connecting, and for the answer; a claim in the ledger must last
            longer than both.
    """

    name: str
    token: str = field(repr=False)
    api: str = API
    timeout_s: tuple[float, float] = (5.0, 20.0)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """The repository that the app settings name.

        Args:
            environ: ``AL_GITHUB_REPOSITORY``, ``AL_GITHUB_TOKEN`` and, for a server of
                your own, ``AL_GITHUB_API``.

        Raises:
            SettingsError: One is missing, or cannot be.
        """
        for name in ("AL_GITHUB_REPOSITORY", "AL_GITHUB_TOKEN"):
            if not environ.get(name, "").strip():
                raise SettingsError(f"The app setting {name} is missing.")
        name = environ["AL_GITHUB_REPOSITORY"].strip()
        if not _NAME.fullmatch(name):
            raise SettingsError(f"AL_GITHUB_REPOSITORY is no owner/name: {name!r}.")
        token = environ["AL_GITHUB_TOKEN"].strip()
        # The host leaves the reference as it is where it may not read the secret.
        if token.startswith("@Microsoft.KeyVault("):
            raise SettingsError(
                "AL_GITHUB_TOKEN is a Key Vault reference that was not resolved: the "
                "app's identity needs the role 'Key Vault Secrets User', and the "
                "secret must be there and enabled."
            )
        if not token.isascii() or not token.isprintable() or " " in token:
            raise SettingsError("AL_GITHUB_TOKEN holds what no token can hold.")
        api = environ.get("AL_GITHUB_API", API).strip().rstrip("/")
        place = urlsplit(api)
        if place.scheme != "https" and place.hostname not in _LOOPBACK:
            raise SettingsError(
                f"AL_GITHUB_API must be https, or the token would be readable on its "
                f"way; it is {place.scheme}://{place.hostname}."
            )
        return cls(name=name, token=token, api=api)

    def dispatch(self, payload: Mapping[str, str]) -> None:
        """Start the workflows that listen to ``training``.

        Args:
            payload: At most ten names, which a workflow sees as
                ``github.event.client_payload``.

        Raises:
            DispatchError: Not taken, or nobody knows; worth another try.
            RefusedError: It will never be taken.
        """
        _check(payload)
        try:
            answer = requests.post(
                f"{self.api}/repos/{self.name}/dispatches",
                json={"event_type": EVENT_TYPE, "client_payload": dict(payload)},
                headers={
                    "Accept": "application/vnd.github+json",
                    "X-GitHub-Api-Version": _VERSION,
                },
                auth=_Bearer(self.token),
                timeout=self.timeout_s,
                allow_redirects=False,
            )
        except requests.RequestException as exc:
            # What it says may hold more than its kind: a proxy's address and password.
            raise DispatchError(
                f"GitHub gave no answer ({type(exc).__name__}): whether it took the "
                "event is not known, and it is sent again."
            ) from None
        if answer.status_code != HTTPStatus.NO_CONTENT:
            refused = answer.status_code in _REFUSED
            raise (RefusedError if refused else DispatchError)(self._told(answer))

    def _told(self, answer: requests.Response) -> str:
        """What GitHub said, what to do, and when."""
        hint = _HINTS.get(answer.status_code, "It is sent again.")
        wait = answer.headers.get("Retry-After", "")
        if wait.isdecimal():
            hint += f" It asks to wait for {wait} s."
        # A proxy that repeats what it was sent is not repeated.
        said = "" if self.token in answer.text else answer.text[:_EXCERPT]
        told = f" It said {said!r}." if said else ""
        return (
            f"GitHub answered {answer.status_code} to the dispatch to {self.name}."
            f"{told} {hint}"
        )


def _check(payload: Mapping[str, str]) -> None:
    size = len(json.dumps(dict(payload)).encode())
    if len(payload) > _MOST_KEYS or size > _MOST_BYTES:
        raise RefusedError(
            f"The payload has {len(payload)} names and {size} bytes; GitHub takes "
            f"{_MOST_KEYS} and {_MOST_BYTES}."
        )
