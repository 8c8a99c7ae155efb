"""The scoring server: Microsoft's inference server, with answers that tell the truth.

Its own ``GET /`` says that it is healthy whether or not a model is loaded, and Azure
and every load balancer go by that.
"""

import json
import logging
import os
from pathlib import Path

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from active_learning.errors import RequestError
from active_learning.services.scoring import service

ENTRY = Path(__file__).with_name("entry")


def create_app() -> Flask:
    """Make the application; gunicorn calls it in each worker.

    A process whose service cannot start ends with status 3, which gunicorn takes for
    the end of them all.
    """
    # Where Azure runs it, the entry script and its folder are Azure's to name.
    os.environ.setdefault("AML_APP_ROOT", str(ENTRY))
    os.environ.setdefault("AZUREML_ENTRY_SCRIPT", "score.py")
    # It takes the variable just set for a stranger in its configuration file.
    logging.getLogger("azmlinfsrv").setLevel(logging.ERROR)
    from azureml_inference_server_http.server.create_app import create

    app: Flask = create()
    app.view_functions["main.health_probe"] = _ready
    app.add_url_rule("/ready", view_func=_ready, endpoint="ready")
    app.add_url_rule("/health", view_func=_health, endpoint="health")
    app.register_error_handler(HTTPException, _refused)
    app.after_request(_as_error)
    return app


def _ready() -> Response:
    try:
        reason = service.current().why_not_ready()
    except RequestError as exc:
        reason = str(exc)
    if reason is not None:
        return service.refusal(503, reason)
    return Response('{"ready": true}', mimetype="application/json")


def _health() -> Response:
    try:
        health = service.current().health()
    except RequestError as exc:
        return service.refusal(exc.status, str(exc))
    status = 200 if health["ready"] else 503
    return Response(json.dumps(health), status, mimetype="application/json")


def _refused(exc: HTTPException) -> Response:
    response = service.refusal(exc.code or 500, exc.description or exc.name)
    if exc.code == 405 and getattr(exc, "valid_methods", None):
        response.headers["Allow"] = ", ".join(sorted(exc.valid_methods))  # type: ignore[attr-defined]
    return response


def _as_error(response: Response) -> Response:
    """The server says ``message`` where this service says ``error``."""
    if response.status_code >= 400 and response.is_json:
        said = response.get_json(silent=True)
        if isinstance(said, dict) and said.keys() == {"message"}:
            response.set_data(json.dumps({"error": said["message"]}))
    return response
