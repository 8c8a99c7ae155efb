"""The entry script of Azure Machine Learning's inference server.

The same on a laptop, where the models of an endpoint's folder answer, and on a managed
online endpoint, where the one that is mounted does.
"""

from azureml_inference_server_http.api.aml_request import rawhttp
from flask import Request, Response

from active_learning.services.scoring import service


def init() -> None:
    """Load what is to answer; the server calls it once in each of its processes.

    Raises:
        ActiveLearningError: Nothing can; the process ends and is not ready.
    """
    service.start()


@rawhttp  # type: ignore[untyped-decorator]
def run(request: Request) -> Response:
    """Answer one request."""
    return service.current().respond(request)
