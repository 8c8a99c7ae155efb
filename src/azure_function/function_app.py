"""A new label export starts training: from a storage queue to GitHub.

Event Grid puts a message into the queue ``label-exports`` for each blob that is
written. An export that was not seen before starts the workflow on
``repository_dispatch: training``; the same one again does not. A message that fails is
tried again by the host, as often as ``host.json`` says, and then lies in
``label-exports-poison`` with the reason.

An export of Azure ML as an MLTable is several blobs. One of a kind that
``label-ingest`` reads starts a run, the others do not. Where there are more, the
concurrency group of ``train.yml`` lets one run wait and drops the rest, since a run
takes in all that there is.
"""

import json
import logging
import os
from functools import cache
from pathlib import Path

import azure.functions as func
from exports_trigger.trigger import Trigger, connect

QUEUE = "label-exports"

# Azure's clients tell of each request at INFO.
logging.getLogger("azure").setLevel(logging.WARNING)

app = func.FunctionApp()


@app.queue_trigger(arg_name="message", queue_name=QUEUE, connection="LABELS_STORAGE")
def on_label_export(message: func.QueueMessage) -> None:
    """Start training for each label export that a message tells of.

    Raises:
        TriggerError: It could not be started; the host tries again.
    """
    _trigger().handle(message.get_body(), attempt=message.dequeue_count or 1)


@cache
def _trigger() -> Trigger:
    host = json.loads(Path(__file__).with_name("host.json").read_text())
    attempts: int = host["extensions"]["queues"]["maxDequeueCount"]
    return connect(os.environ, QUEUE, attempts)
