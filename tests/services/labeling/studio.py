"""A small Label Studio in memory: as much of its REST API as is used, over HTTP."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "a" * 40
PERSONAL = "head.personal.tail"
EMAILS = {1: "ann@example.com", 2: "bob@example.com"}


class Studio:
    """What the server holds, and how it is to misbehave."""

    def __init__(self) -> None:
        self.url = ""
        self.projects: list[dict[str, Any]] = []
        self.tasks: list[dict[str, Any]] = []
        self.storages: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.failing = 0  # so many answers are 503
        self.hang_up_on_import = False
        self.hold_lists = threading.Event()
        self.hold_lists.set()
        self.both_listed = threading.Barrier(2)
        self.access = "0"
        self.serves_files = True
        self._clock = 0

    def now(self) -> str:
        self._clock += 1
        return f"2026-01-01T00:{self._clock // 60:02d}:{self._clock % 60:02d}.000001Z"

    def annotate(
        self, request_id: str, label: str | None, *, by: int = 1
    ) -> dict[str, Any]:
        """Answer as a labeler does in the browser; ``None`` skips."""
        task = next(t for t in self.tasks if t["data"]["request_id"] == request_id)
        said = {"choices": [label]}
        annotation = {
            "id": 1 + sum(len(t["annotations"]) for t in self.tasks),
            "completed_by": by,
            "was_cancelled": label is None,
            "result": []
            if label is None
            else [
                {
                    "from_name": "label",
                    "to_name": "image",
                    "type": "choices",
                    "value": said,
                }
            ],
            "created_at": self.now(),
        }
        annotation["updated_at"] = annotation["created_at"]
        task["annotations"].append(annotation)
        return annotation

    def correct(self, annotation: dict[str, Any], label: str) -> None:
        annotation["result"][0]["value"] = {"choices": [label]}
        annotation["updated_at"] = self.now()

    def asked(self) -> list[str]:
        """The requests that have a task, in the labeler's order."""
        return [task["data"]["request_id"] for task in self.tasks]

    def add(self, project: int, tasks: list[dict[str, Any]]) -> None:
        for task in tasks:
            number = 1 + max((t["id"] for t in self.tasks), default=0)
            guesses = [
                {"id": 1000 + number, **guess} for guess in task.get("predictions", [])
            ]
            self.tasks.append(
                {
                    "id": number,
                    "inner_id": number,
                    "project": project,
                    "data": task["data"],
                    "meta": {},
                    "annotations": [],
                    "drafts": [],
                    "predictions": guesses,
                    "created_at": self.now(),
                }
            )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    studio: Studio

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  # http.server's names

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        path = urlsplit(self.path).path
        studio = self.studio
        studio.calls.append(f"{self.command} {path}")
        if path == "/health":
            self._answer(200, {"status": "UP"})
        elif studio.failing:
            studio.failing -= 1
            self._answer(503, {"detail": "busy"})
        elif path == "/api/token/refresh":
            right = json.loads(body)["refresh"] == PERSONAL
            studio.access = str(int(studio.access) + 1)
            self._answer(200 if right else 401, {"access": studio.access})
        elif self.headers.get("Authorization") not in (
            f"Token {TOKEN}",
            f"Bearer {studio.access}",
        ):
            self._answer(401, {"detail": "Invalid token."})
        else:
            self._route(path, body)

    def _route(self, path: str, body: bytes) -> None:  # noqa: PLR0912  # one each
        studio = self.studio
        asked = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        json_body = "json" in (self.headers.get("Content-Type") or "")
        sent = json.loads(body) if body and json_body else None
        number = int((re.findall(r"/(\d+)(?:/|$)", path) or ["0"])[0])
        match (self.command, re.sub(r"/\d+(?=/|$)", "/N", path).rstrip("/")):
            case ("GET", "/api/projects"):
                self._page(studio.projects, asked, "results", "count")
            case ("POST", "/api/projects"):
                made = {"id": len(studio.projects) + 1, **sent}
                studio.projects.append(made)
                self._answer(201, made)
            case ("PATCH", "/api/projects/N"):
                studio.projects[number - 1].update(sent)
                self._answer(200, studio.projects[number - 1])
            case ("GET", "/api/tasks"):
                if not studio.hold_lists.is_set():
                    self._meet()
                self._page(studio.tasks, asked, "tasks", "total")
            case ("POST", "/api/projects/N/import"):
                self._import(number, sent, body)
            case ("GET" | "PATCH" | "DELETE", "/api/tasks/N"):
                self._task(number, sent)
            case ("PATCH", "/api/predictions/N"):
                for task in studio.tasks:
                    for guess in task["predictions"]:
                        if guess["id"] == number:
                            guess.update(sent)
                self._answer(200, {})
            case ("GET", "/api/storages/localfiles"):
                self._answer(200, studio.storages)
            case ("POST", "/api/storages/localfiles"):
                studio.storages.append(sent)
                self._answer(201, sent)
            case ("GET", "/api/import/file-upload/N"):
                name = list(studio.uploads)[number - 1]
                self._answer(200, {"id": number, "file": name})
            case ("GET", "/api/users"):
                users = [{"id": n, "email": e} for n, e in EMAILS.items()]
                self._answer(200, users)
            case ("GET", "/data/local-files"):
                self._file(asked["d"])
            case _ if unquote(path).removeprefix("/data/") in studio.uploads:
                self._bytes(studio.uploads[unquote(path).removeprefix("/data/")])
            case _:
                self._answer(404, {"detail": "Not found."})

    def _meet(self) -> None:
        # Whoever lists now waits for a second one, for as long as one may come.
        try:
            self.studio.both_listed.wait(0.5)
        except threading.BrokenBarrierError:
            self.studio.hold_lists.set()

    def _import(self, project: int, sent: Any, body: bytes) -> None:
        if sent is None:
            name, content = re.findall(
                rb'filename="([^"]+)"\r\n(?:[^\r]+\r\n)*\r\n(.*)\r\n--', body, re.S
            )[0]
            file = f"upload/{project}/{len(self.studio.uploads)}-{name.decode()}"
            self.studio.uploads[file] = content
            self._answer(201, {"file_upload_ids": [len(self.studio.uploads)]})
            return
        self.studio.add(project, sent)
        if self.studio.hang_up_on_import:
            self.close_connection = True
            return
        self._answer(201, {"task_count": len(sent)})

    def _task(self, number: int, sent: Any) -> None:
        studio = self.studio
        (task,) = (t for t in studio.tasks if t["id"] == number)
        if self.command == "DELETE":
            studio.tasks.remove(task)
            self._answer(204, None)
            return
        task.update(sent or {})
        self._answer(200, task)

    def _file(self, place: str) -> None:
        roots = [Path(s["path"]).parent for s in self.studio.storages]
        if not roots or not self.studio.serves_files:
            self._answer(404, {"detail": "Not found."})
            return
        self._bytes((roots[0] / place).read_bytes())

    def _page(
        self, rows: list[dict[str, Any]], asked: dict[str, str], key: str, total: str
    ) -> None:
        size, page = min(int(asked["page_size"]), 3), int(asked["page"])
        shown = rows[(page - 1) * size : page * size]
        self._answer(200, {key: shown, total: len(rows)})

    def _answer(self, status: int, said: Any) -> None:
        self._bytes(b"" if said is None else json.dumps(said).encode(), status)

    def _bytes(self, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def studio_running() -> Iterator[Studio]:
    """Serve one on a free port of this machine."""
    studio = Studio()
    handler = type("Handler", (_Handler,), {"studio": studio})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        studio.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield studio
        finally:
            server.shutdown()
            thread.join()
