"""A run goes on where its books could not be kept."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

from kedro.framework.hooks import hook_impl

from active_learning.services.redaction import redacted

logger = logging.getLogger(__name__)


class LenientHooks:
    """Stands around kedro-mlflow's hooks and says what MLflow did not record.

    A run that has begun is worth more than its books: a server that goes away, or
    refuses a parameter, ends it no longer. One that is away before it begins does.
    """

    @hook_impl(wrapper=True)
    def before_node_run(self) -> Generator[None, list[Any], list[Any]]:
        """Let a node run whose parameters are not recorded."""
        return (yield from _lenient())

    @hook_impl(wrapper=True)
    def after_pipeline_run(self) -> Generator[None, list[Any], list[Any]]:
        """Let a run end well whose end is not recorded."""
        return (yield from _lenient())

    @hook_impl(wrapper=True)
    def on_pipeline_error(self) -> Generator[None, list[Any], list[Any]]:
        """Let the run's own error be seen."""
        return (yield from _lenient())


def _lenient() -> Generator[None, list[Any], list[Any]]:
    try:
        return (yield)
    except Exception as exc:
        from mlflow import MlflowException

        if not isinstance(exc, MlflowException):
            raise
        logger.warning("MLflow did not record this: %s", redacted(exc))
        return []
