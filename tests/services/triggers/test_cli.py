"""``kedro watch`` is told by conf, looks where the catalog says and starts one run."""

import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kedro.config import OmegaConfigLoader
from kedro.framework.project import settings
from kedro.framework.startup import bootstrap_project

from active_learning.services.triggers.cli import watch
from active_learning.services.triggers.ledger import exclusive
from active_learning.services.triggers.settings import WatchSettings

ROOT = Path(__file__).parents[3]


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(watch, arguments, obj=bootstrap_project(ROOT))


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AL_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Give back what a watcher listens to."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def configured(env: str | None = None) -> Any:
    bootstrap_project(ROOT)
    loader = OmegaConfigLoader(
        conf_source=str(ROOT / settings.CONF_SOURCE),
        env=env,
        **{
            **settings.CONFIG_LOADER_ARGS,
            "config_patterns": {"watch": ["**/watch*"], "globals": ["globals*"]},
        },
    )
    return loader["watch"]


def test_conf_says_all_that_a_watcher_is_told(data: Path) -> None:
    said = WatchSettings.model_validate(configured()["watch"])

    assert said.pipelines == "label-ingest,train,deploy"
    assert said.ledger == f"{data}/02_intermediate/watch/exports.json"


def test_it_looks_where_the_catalog_says(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "active_learning"):
        ran = typed("--once")

    assert ran.exit_code == 0
    assert f"There is no new export in {data}/01_raw/label_exports" in caplog.text


def test_an_oracle_has_no_place_to_watch() -> None:
    ran = typed("--once", "--env", "simulation")

    assert ran.exit_code == 1
    assert "label_exports of --env simulation is of the type OracleDataset" in (
        ran.output
    )


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("watch.pol_s=1", "did you mean 'poll_s'?"),
        ("watch.attempts=0", "greater than 0"),
        ("watch.settle_s=700", "settle_max_s 600 must not be below settle_s 700"),
    ],
)
def test_a_wrong_setting_is_refused(params: str, said: str) -> None:
    ran = typed("--once", "--params", params)

    assert ran.exit_code == 1
    assert "conf/base/watch/watch.yml" in ran.output
    assert said in ran.output


def test_two_do_not_watch_one_place(data: Path) -> None:
    with exclusive(data / "02_intermediate/watch/exports.json"):
        ran = typed("--once")

    assert ran.exit_code == 1
    assert "Another process keeps" in ran.output
