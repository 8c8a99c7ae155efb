"""What kedro-mlflow cannot record does not end a run; any other error does."""

from typing import Any

import pytest
from kedro.framework.hooks import hook_impl
from kedro.framework.hooks.manager import _create_hook_manager
from mlflow import MlflowException
from pluggy import PluginManager

from active_learning.lenience import LenientHooks

NAMES = ("before_node_run", "after_pipeline_run", "on_pipeline_error")
ARGUMENTS = {
    "before_node_run": ("node", "catalog", "inputs", "is_async", "run_id"),
    "after_pipeline_run": ("run_params", "run_result", "pipeline", "catalog"),
    "on_pipeline_error": ("error", "run_params", "pipeline", "catalog"),
}


class Books:
    """A plugin whose every hook fails."""

    def __init__(self, failure: Exception) -> None:
        self._failure = failure

    @hook_impl
    def before_node_run(self) -> None:
        raise self._failure

    @hook_impl
    def after_pipeline_run(self) -> None:
        raise self._failure

    @hook_impl
    def on_pipeline_error(self) -> None:
        raise self._failure


class Inputs:
    """A plugin that gives a node another input."""

    @hook_impl
    def before_node_run(self) -> dict[str, int]:
        return {"n": 1}


def called(name: str, *plugins: object) -> Any:
    manager: PluginManager = _create_hook_manager()
    for plugin in (LenientHooks(), *plugins):
        manager.register(plugin)
    return getattr(manager.hook, name)(**dict.fromkeys(ARGUMENTS[name]))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_without_its_books(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    away = MlflowException("no answer from https://host/log?sig=c2VjcmV0")

    assert called(name, Books(away)) == []
    assert "MLflow did not record this: no answer" in caplog.text
    assert "c2VjcmV0" not in caplog.text


@pytest.mark.parametrize("name", NAMES)
def test_any_other_error_ends_it(name: str) -> None:
    with pytest.raises(ValueError, match="wrong"):
        called(name, Books(ValueError("wrong")))


def test_what_other_hooks_give_is_passed_on() -> None:
    assert called("before_node_run", Inputs()) == [{"n": 1}]
