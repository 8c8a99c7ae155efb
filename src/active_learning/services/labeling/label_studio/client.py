"""Label Studio's REST API, as far as it is needed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util.retry import Retry

from active_learning.errors import LabelingAwayError, LabelingError

TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"  # noqa: S105  # the name, not the token

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_AWAY = (500, 502, 503, 504)
_PAGE = 500
_BACK_OFF_S = 0.2
_HEALTH_S = 5.0


class Project(NamedTuple):
    """A project: its number, its title, its labeling configuration."""

    id: int
    title: str
    label_config: str


class LabelStudio:
    """A server, spoken to as one of its users.

    Args:
        url: Where it is, such as ``http://127.0.0.1:8080``.
        token: Of a user: a legacy token, or a personal access token.
        timeout_s: For each answer.
        retries: A question that changes nothing is asked again so often when the
            server is away, ever later.

    Raises:
        LabelingError: ``url`` is no address.
    """

    def __init__(self, url: str, token: str, timeout_s: float, retries: int) -> None:
        """Describe the server; it is not asked yet."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LabelingError(
                f"{url!r} is no address of a server: it looks like "
                "http://127.0.0.1:8080."
            )
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session = requests.Session()
        # A proxy knows nothing of this machine's own addresses.
        self._session.trust_env = parts.hostname not in _LOOPBACK
        again = Retry(
            retries,
            backoff_factor=_BACK_OFF_S,
            status_forcelist=_AWAY,
            allowed_methods=["GET"],
            raise_on_status=False,
        )
        self._session.mount(self.url, HTTPAdapter(max_retries=again))
        self._session.auth = _Token(token, self._refresh)

    def healthy(self) -> bool:
        """Whether a Label Studio answers, and is ready."""
        try:
            answer = requests.get(
                f"{self.url}/health",
                timeout=min(self._timeout_s, _HEALTH_S),
                proxies=self._proxies(),
            )
        except requests.RequestException:
            return False
        try:
            return answer.ok and answer.json().get("status") == "UP"
        except (ValueError, AttributeError):
            return False

    def find_project(self, title: str) -> Project | None:
        """The project of that title.

        Raises:
            LabelingError: Two have it.
        """
        found = [
            project
            for project in self._pages("/api/projects", {"title": title}, "results")
            if project["title"] == title
        ]
        if len(found) > 1:
            raise LabelingError(
                f"{len(found)} projects at {self.url} are called {title!r}: numbers "
                f"{', '.join(str(p['id']) for p in found)}. Rename all but one, or "
                "choose another label.project."
            )
        return _project(found[0]) if found else None

    def create_project(self, title: str, label_config: str, labelers: int) -> Project:
        """Make a project that shows the model's guess and asks in the tasks' order."""
        made = self._send(
            "POST",
            "/api/projects",
            json={
                "title": title,
                "label_config": label_config,
                "maximum_annotations": labelers,
                "sampling": "Sequential sampling",
                "show_collab_predictions": True,
            },
        )
        return _project(made)

    def configure(self, project: Project, label_config: str) -> None:
        """Give a project another labeling configuration."""
        self._send(
            "PATCH", f"/api/projects/{project.id}", json={"label_config": label_config}
        )

    def tasks(self, project: Project) -> list[dict[str, Any]]:
        """Every task, oldest first, with its annotations and predictions."""
        asked = {"project": project.id, "fields": "all"}
        return list(self._pages("/api/tasks/", asked, "tasks"))

    def add_tasks(self, project: Project, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Add tasks, with their predictions; all of them or none."""
        self._send("POST", f"/api/projects/{project.id}/import", json=list(tasks))

    def change_task(self, task_id: int, data: Mapping[str, Any]) -> None:
        """Give a task other data."""
        self._send("PATCH", f"/api/tasks/{task_id}/", json={"data": dict(data)})

    def change_prediction(
        self, prediction_id: int, result: list[dict[str, Any]]
    ) -> None:
        """Give a task's prediction another result."""
        self._send(
            "PATCH", f"/api/predictions/{prediction_id}/", json={"result": result}
        )

    def is_untouched(self, task_id: int) -> bool:
        """Whether nobody has begun to answer a task."""
        task = self._send("GET", f"/api/tasks/{task_id}/")
        return not (task.get("annotations") or task.get("drafts"))

    def remove_task(self, task_id: int) -> None:
        """Take a task away."""
        self._send("DELETE", f"/api/tasks/{task_id}/")

    def serve_folder(self, project: Project, folder: str) -> None:
        """Let a project show the files of a folder; none of them becomes a task."""
        path = "/api/storages/localfiles"
        known = self._send("GET", path, params={"project": project.id})
        if any(storage["path"] == folder for storage in known):
            return
        self._send(
            "POST",
            path,
            json={
                "project": project.id,
                "title": "Labeling queue",
                "path": folder,
                "use_blob_urls": True,
                # Somebody may press its button: no name is empty, so nothing comes.
                "regex_filter": "^$",
            },
        )

    def upload(self, project: Project, name: str, content: bytes) -> str:
        """Keep an image on the server.

        Returns:
            The path by which a task shows it.
        """
        made = self._send(
            "POST",
            f"/api/projects/{project.id}/import",
            params={"commit_to_project": "false"},
            files={"file": (name, content)},
        )
        (number,) = made["file_upload_ids"]
        kept = self._send("GET", f"/api/import/file-upload/{number}")
        return f"/data/{kept['file']}"

    def shown(self, path: str) -> bytes | None:
        """What a labeler's browser would be shown; ``None`` when it is refused."""
        answer = self._answer("GET", path)
        return answer.content if answer.status_code == requests.codes.ok else None

    def emails(self) -> dict[int, str]:
        """The addresses of the users, by their numbers."""
        users = self._send("GET", "/api/users/")
        return {user["id"]: user["email"] for user in users}

    def _pages(
        self, path: str, params: Mapping[str, Any], key: str
    ) -> Iterator[dict[str, Any]]:
        page, seen = 1, 0
        while True:
            asked = {**params, "page": page, "page_size": _PAGE}
            found = self._send("GET", path, params=asked)
            yield from found[key]
            seen += len(found[key])
            if not found[key] or seen >= found.get("total", found.get("count", 0)):
                return
            page += 1

    def _send(self, method: str, path: str, **options: Any) -> Any:
        answer = self._answer(method, path, **options)
        if not answer.ok:
            raise LabelingError(
                f"Label Studio at {self.url} refuses {method} {path} with "
                f"{answer.status_code}: {_reason(answer)}"
            )
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as exc:
            raise LabelingError(
                f"{self.url} answers {method} {path} with something that is no JSON; "
                "is it a Label Studio?"
            ) from exc

    def _answer(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            answer = self._session.request(
                method, f"{self.url}{path}", timeout=self._timeout_s, **options
            )
        except requests.RequestException as exc:
            raise LabelingAwayError(
                f"Label Studio at {self.url} cannot be reached: {exc}. Start it by "
                "`kedro label`, or name another by --url."
            ) from exc
        if answer.status_code in (401, 403) and path.startswith("/api/"):
            raise LabelingError(
                f"Label Studio at {self.url} refuses the token "
                f"({answer.status_code}: {_reason(answer)}). Set {TOKEN_VARIABLE} to "
                "one that is shown there under Account & Settings."
            )
        if answer.status_code in _AWAY:
            raise LabelingAwayError(
                f"Label Studio at {self.url} fails {method} {path} with "
                f"{answer.status_code}: {_reason(answer)}"
            )
        return answer

    def _refresh(self, token: str) -> str:
        """Trade a personal access token for one that lives a few minutes."""
        try:
            answer = requests.post(
                f"{self.url}/api/token/refresh",
                json={"refresh": token},
                timeout=self._timeout_s,
                proxies=self._proxies(),
            )
        except requests.RequestException as exc:
            raise LabelingAwayError(
                f"Label Studio at {self.url} cannot be reached: {exc}."
            ) from exc
        if not answer.ok:
            raise LabelingError(
                f"Label Studio at {self.url} refuses the personal access token "
                f"({answer.status_code}: {_reason(answer)}). Set {TOKEN_VARIABLE} to "
                "one that is shown there under Account & Settings."
            )
        access: str = answer.json()["access"]
        return access

    def _proxies(self) -> dict[str, str] | None:
        return None if self._session.trust_env else {"http": "", "https": ""}


class _Token(AuthBase):
    """A legacy token as it is; a personal access token by what it is traded for."""

    def __init__(self, token: str, refresh: Any) -> None:
        self._token = token
        self._refresh = refresh
        self._access = ""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token.count(".") != 2:
            request.headers["Authorization"] = f"Token {self._token}"
            return request
        self._access = self._access or self._refresh(self._token)
        request.headers["Authorization"] = f"Bearer {self._access}"
        request.register_hook("response", self._again)
        return request

    def _again(self, answer: requests.Response, **options: Any) -> requests.Response:
        """Once more with a fresh one, when the last has expired."""
        sent = answer.request
        tried = sent.headers.get("Authorization") != f"Bearer {self._access}"
        if answer.status_code != requests.codes.unauthorized or tried:
            return answer
        self._access = self._refresh(self._token)
        if sent.headers["Authorization"] == f"Bearer {self._access}":
            return answer
        _ = answer.content  # so that the connection can be used again
        sent.headers["Authorization"] = f"Bearer {self._access}"
        sent.deregister_hook("response", self._again)
        connection = answer.connection
        second: requests.Response = connection.send(sent, **options)
        second.history.append(answer)
        return second


def _project(said: Mapping[str, Any]) -> Project:
    return Project(said["id"], said["title"], said["label_config"])


def _reason(answer: requests.Response) -> str:
    try:
        said = answer.json()
    except ValueError:
        return answer.text[:300] or str(answer.reason)
    if not isinstance(said, dict):
        return json.dumps(said)[:300]
    told = {k: said[k] for k in ("detail", "validation_errors") if said.get(k)}
    return json.dumps(told or said, ensure_ascii=False)[:1000]
