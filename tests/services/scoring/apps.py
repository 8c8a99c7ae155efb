"""The real server's application, in this process."""

import builtins
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from flask.testing import FlaskClient

from active_learning.services.scoring import service
from active_learning.services.scoring.settings import MODEL_FOLDER, SETTINGS
from active_learning.services.scoring.wsgi import create_app


@contextmanager
def opened(settings: str, mounted: str = "") -> Iterator[FlaskClient]:
    """Start the service; what the server changes in the process is put back."""
    names = (SETTINGS, MODEL_FOLDER, "AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT")
    before = {name: os.environ.get(name) for name in names}
    logger, own_print = logging.getLogger("active_learning"), print
    handlers, level = list(logger.handlers), logger.level
    interval = sys.getswitchinterval()
    os.environ[SETTINGS] = settings
    os.environ[MODEL_FOLDER] = mounted
    try:
        yield create_app().test_client()
    finally:
        service.stop()
        builtins.print = own_print
        sys.setswitchinterval(interval)
        logger.handlers, logger.level = handlers, level
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
