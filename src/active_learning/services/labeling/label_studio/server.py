"""A Label Studio on this machine, installed apart and seen from this machine alone."""

import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

from active_learning.errors import LabelingAwayError, LabelingError
from active_learning.services.labeling.label_studio.client import TOKEN_VARIABLE
from active_learning.services.labeling.label_studio.settings import ServerSettings

_log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_USER = "labeler@localhost"
_INSTALLING = "installing"
_LOGIN = "login.json"
_LOG = "server.log"
_POLL_S = 0.2
_TAIL = 1500
# What pip is asked for takes minutes on a slow line, not hours.
_INSTALL_TIMEOUT_S = 1800
# All that a server is told of this process's environment.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE")


class Login(NamedTuple):
    """How somebody gets in: a browser by password, a program by token."""

    username: str
    password: str
    token: str


def token_of(settings: ServerSettings, url: str | None) -> str:
    """The token to speak to a server with: the environment's, or this machine's own.

    Args:
        settings: Say where this machine's own is kept.
        url: Of a server that runs elsewhere, which is never told that one.

    Raises:
        LabelingError: There is none.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if given:
        return given
    if url is not None:
        raise LabelingError(
            f"{TOKEN_VARIABLE} is not set. Set it to a token that {url} shows under "
            "Account & Settings."
        )
    file = login_file(settings)
    if not file.exists():
        raise LabelingError(
            f"{TOKEN_VARIABLE} is not set and {str(file)!r} does not exist. Set the "
            "variable to a token that Label Studio shows under Account & Settings, or "
            "start one by `kedro label`."
        )
    return _read_login(file).token


def login_file(settings: ServerSettings) -> Path:
    """Where the login of this machine's own server is kept, for its owner alone."""
    return Path(settings.data, _LOGIN)


def installed(settings: ServerSettings) -> Path:
    """The program, installed first where it is missing.

    Raises:
        LabelingError: It could not be installed, and why.
    """
    environment = Path(settings.environment).absolute()
    program = environment / "bin" / "label-studio"
    environment.parent.mkdir(parents=True, exist_ok=True)
    with environment.with_name(f"{environment.name}.lock").open("a+") as lock:
        flock(lock, LOCK_EX)
        lock.seek(0)
        if lock.read() == _INSTALLING:
            # Ours, killed half-way: pip would take for whole what is not.
            shutil.rmtree(environment, ignore_errors=True)
        if _version(environment) == settings.version and program.exists():
            return program
        _log.info(
            "Installing Label Studio %s into %s: about 1 GB, a few minutes",
            settings.version,
            environment,
        )
        if not environment.exists():
            lock.truncate(0)
            lock.write(_INSTALLING)
            lock.flush()
            _run([sys.executable, "-m", "venv", str(environment)])
        pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run([*pip, f"label-studio=={settings.version}"])
        lock.truncate(0)
    return program


@contextmanager
def running(
    settings: ServerSettings,
    document_root: Path,
    environment: Mapping[str, str],
    healthy: Callable[[], bool],
) -> Iterator[Callable[[], None]]:
    """Run a server as long as the block lasts.

    Args:
        settings: Where it is installed, what it keeps where, its port.
        document_root: It may show images of folders below this one.
        environment: ``LABEL_STUDIO_API_KEY`` is the first user's token where it is
            given; one is made otherwise and kept.
        healthy: Whether it answers.

    Yields:
        What raises ``LabelingError`` when the server has ended.

    Raises:
        LabelingError: It cannot be installed, or does not come up.
    """
    _refuse_a_taken_port(settings.port)
    program = installed(settings)
    data = Path(settings.data).absolute()
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    login = _login(login_file(settings), environment)
    document_root.mkdir(parents=True, exist_ok=True)
    log = data / _LOG
    with open(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
        server = subprocess.Popen(  # noqa: S603
            [
                *(program, "start", "--no-browser", "--internal-host", HOST),
                *("--port", str(settings.port)),
            ],
            env=_environment(environment, data, document_root.absolute(), login),
            cwd=data,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for us, who then end it in order.
            start_new_session=True,
        )

    def check() -> None:
        if server.poll() is not None:
            raise LabelingError(
                f"Label Studio has ended with {server.returncode}. The end of "
                f"{log}: {log.read_text(errors='replace')[-_TAIL:]}"
            )

    try:
        until = time.monotonic() + settings.start_timeout_s
        while not healthy():
            check()
            if time.monotonic() > until:
                raise LabelingAwayError(
                    f"Label Studio did not come up within {settings.start_timeout_s:g} "
                    f"s. {log} says why."
                )
            time.sleep(_POLL_S)
        yield check
    finally:
        server.terminate()
        try:
            server.wait(settings.stop_timeout_s)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _refuse_a_taken_port(port: int) -> None:
    """Label Studio would take another one, where nobody looks for it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            raise LabelingError(
                f"{HOST}:{port} is taken by something that is no Label Studio: {exc}. "
                "Choose another one: `kedro label --port 8090`."
            ) from exc


def _version(environment: Path) -> str | None:
    """Which Label Studio is installed there."""
    places = [str(place) for place in environment.glob("lib/python3*/site-packages")]
    for found in distributions(name="label-studio", path=places):
        return found.version
    return None


def _run(command: list[str]) -> None:
    # Nothing of our own environment is seen from within the other.
    strangers = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    environment = {k: v for k, v in os.environ.items() if k not in strangers}
    try:
        ran = subprocess.run(  # noqa: S603
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_INSTALL_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise LabelingError(
            f"Label Studio could not be installed within {_INSTALL_TIMEOUT_S} s. Is "
            "the package index reachable? --url names a server that runs elsewhere."
        ) from exc
    if ran.returncode != 0:
        raise LabelingError(
            f"Label Studio could not be installed: {ran.stderr.strip()[-_TAIL:]}\n"
            "Is the package index reachable? --url names a server that runs elsewhere, "
            "and an answers.csv in the queue's rounds needs no server at all."
        )


def _login(file: Path, environment: Mapping[str, str]) -> Login:
    """Read the login, or make one that nobody can guess."""
    if file.exists():
        return _read_login(file)
    login = Login(
        username=_USER,
        password=secrets.token_urlsafe(12),
        token=environment.get(TOKEN_VARIABLE) or secrets.token_hex(20),
    )
    # Made readable for its owner alone before anything is in it; whole by the link.
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with open(descriptor, "w") as out:
        json.dump(login._asdict(), out, indent=1)
    os.replace(temporary, file)
    return login


def _read_login(file: Path) -> Login:
    try:
        return Login(**json.loads(file.read_text()))
    except (ValueError, TypeError) as exc:
        raise LabelingError(
            f"{str(file)!r} is damaged: {exc}. Set {TOKEN_VARIABLE} to a token that "
            "Label Studio shows under Account & Settings."
        ) from exc


def _environment(
    environment: Mapping[str, str], data: Path, document_root: Path, login: Login
) -> dict[str, str]:
    """All that the server sees: nothing of ours leaks in, nothing of its own out."""
    return {
        **{name: environment[name] for name in _PASSED_ON if name in environment},
        "HOME": str(data),
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "DJANGO_DB": "sqlite",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LABEL_STUDIO_USERNAME": login.username,
        "LABEL_STUDIO_PASSWORD": login.password,
        "LABEL_STUDIO_USER_TOKEN": login.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(document_root),
    }
