"""The host of Azure Functions, as far as a queue trigger goes.

The function is loaded from its folder, indexed through the real decorators, and given
messages through the worker's own decoder. What is ours is the loop around it: encoding,
visibility, the count of deliveries, the poison queue.
"""

import argparse
import base64
import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import azure.functions as func
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.functions import meta
from azure.functions.queue import QueueMessageInConverter
from azure.identity import DefaultAzureCredential
from azure.storage.queue import QueueMessage, QueueServiceClient

PROJECT = Path(__file__).parents[2]
FUNCTION = PROJECT / "src" / "azure_function"
READY = "Host started"
PATIENCE_S = 120


class Loop:
    """Takes messages and calls the function, in this process.

    Args:
        folder: Of the function app.
        visibility_s: How soon a failed message is seen again; ``host.json``'s own is
            too long for a test.
        lease_s: How soon a message is seen again whose host has died; 600 in Azure.
    """

    def __init__(
        self, folder: Path = FUNCTION, visibility_s: int = 0, lease_s: int = 600
    ) -> None:
        options = json.loads((folder / "host.json").read_text())["extensions"]["queues"]
        self._encoded = options.get("messageEncoding", "base64") == "base64"
        self._attempts = options.get("maxDequeueCount", 5)
        self._batch = options.get("batchSize", 16)
        self._visibility_s = visibility_s
        self._lease_s = lease_s
        (function,) = load(folder).get_functions()
        trigger = function.get_trigger()
        assert trigger is not None
        assert trigger.type == "queueTrigger"
        self._call = function.get_user_function()
        self._argument = trigger.name
        service = connect(trigger.connection)
        self.queue = service.get_queue_client(trigger.queue_name)
        self.poison = service.get_queue_client(f"{trigger.queue_name}-poison")

    def turn(self) -> int:
        """Handle the messages that are visible now, a batch at most; how many."""
        try:
            received = self.queue.receive_messages(
                max_messages=self._batch, visibility_timeout=self._lease_s
            )
            messages = list(received)
        except ResourceNotFoundError:
            return 0
        for message in messages:
            self._handle(message)
        return len(messages)

    def drain(self, patience_s: float = PATIENCE_S) -> None:
        """Go on until nothing is left in the queue."""
        deadline = time.monotonic() + patience_s
        while self.queue.get_queue_properties().approximate_message_count:
            assert time.monotonic() < deadline, "the queue does not become empty"
            if not self.turn():
                time.sleep(0.05)

    def _handle(self, message: QueueMessage) -> None:
        # A host that died with the last attempt leaves one more.
        if message.dequeue_count > self._attempts or not self._run(message):
            if message.dequeue_count < self._attempts:
                self.queue.update_message(
                    message, visibility_timeout=self._visibility_s
                )
                return
            self._set_aside(message)
        self.queue.delete_message(message)

    def _run(self, message: QueueMessage) -> bool:
        text = message.content
        try:
            if self._encoded:
                text = base64.b64decode(text, validate=True).decode()
            self._call(**{self._argument: decoded(message, text)})
        except Exception:  # noqa: BLE001  # whatever a function raises
            logging.getLogger("host").error("Failed\n%s", traceback.format_exc())
            return False
        return True

    def _set_aside(self, message: QueueMessage) -> None:
        with suppress(ResourceExistsError):
            self.poison.create_queue()
        self.poison.send_message(message.content)


def decoded(message: QueueMessage, text: str) -> func.QueueMessage:
    """A message as the worker gives it to a function."""
    said = {
        "Id": message.id,
        "DequeueCount": message.dequeue_count,
        "PopReceipt": message.pop_receipt,
    }
    return QueueMessageInConverter.decode(
        meta.Datum(text, "string"),
        trigger_metadata={
            name: meta.Datum(json.dumps(value), "json") for name, value in said.items()
        },
    )


def load(folder: Path) -> func.FunctionApp:
    """The app of a folder, as a worker imports it: by module name, each time anew."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(
        "function_app", folder / "function_app.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app: func.FunctionApp = module.app
    return app


def connect(prefix: str) -> QueueServiceClient:
    """The storage that the settings of a connection name, as the host reads them."""
    connection = os.environ.get(prefix)
    if connection:
        return QueueServiceClient.from_connection_string(connection)
    uri = os.environ[f"{prefix}__queueServiceUri"]
    return QueueServiceClient(uri, credential=DefaultAzureCredential())


class FunctionHost:
    """The loop in a process of its own: an instance of the function app.

    Args:
        environment: The app settings, beside those of this process.
        log: A file for what it writes, tracebacks included.
        folder: Of the function app.
        visibility_s: As of ``Loop``.
        lease_s: As of ``Loop``.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        log: Path,
        folder: Path = FUNCTION,
        visibility_s: int = 0,
        lease_s: int = 600,
    ) -> None:
        self._environment = {**os.environ, **environment}
        self._command = [
            *(sys.executable, "-m", "tests.standins.function_host", str(folder)),
            *("--visibility", str(visibility_s), "--lease", str(lease_s)),
        ]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, and wait until it listens."""
        with self._log.open("ab") as log:
            before = log.tell()
            self._process = subprocess.Popen(
                self._command,
                cwd=PROJECT,
                env=self._environment,
                # Its end is ours: it sees the pipe close however we end.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + PATIENCE_S
        while READY not in self._log.read_bytes()[before:].decode(errors="replace"):
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)
        return self

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """End it without a word, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=PATIENCE_S)
            self._process = None

    def close(self) -> None:
        """End it when the message in its hands is done."""
        if self._process is not None:
            try:
                self._process.communicate(timeout=PATIENCE_S)
            finally:
                self.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()


def main() -> None:
    """Handle messages until standard input is closed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--visibility", type=int, default=0)
    parser.add_argument("--lease", type=int, default=600)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    loop = Loop(options.folder, options.visibility, options.lease)
    orphaned = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read()
        orphaned.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    while not orphaned.is_set():
        if not loop.turn():
            orphaned.wait(0.1)


if __name__ == "__main__":
    main()
