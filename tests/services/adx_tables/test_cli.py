"""``kedro azure-tables`` prints, compares and applies, as conf says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kedro.framework.startup import bootstrap_project
from tests.standins.identity import Identity, identity  # noqa: F401
from tests.standins.kusto_faults import refused
from tests.standins.kusto_managed import ManagedKusto, managed_kusto  # noqa: F401

from active_learning.services.adx_tables.cli import azure_tables
from active_learning.services.azure import credential

ROOT = Path(__file__).parents[3]


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(azure_tables, arguments, obj=bootstrap_project(ROOT))


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AL_ADX_CLUSTER", "AL_ADX_DATABASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cluster(
    managed_kusto: ManagedKusto,  # noqa: F811
    identity: Identity,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ManagedKusto]:
    monkeypatch.setenv("AL_ADX_CLUSTER", managed_kusto.url)
    monkeypatch.setenv("AL_ADX_DATABASE", "loop")
    for name, value in identity.environment().items():
        monkeypatch.setenv(name, value)
    credential.cache_clear()
    yield managed_kusto
    credential.cache_clear()


def test_the_script_is_printed_where_no_variable_is_set() -> None:
    printed = typed()

    assert printed.exit_code == 0
    assert printed.stdout.startswith(".create-merge table raw_predictions (\n")
    assert printed.stdout.count("\n\n.") > 50
    assert "raw_labels policy retention softdelete = 36500d" in printed.stdout


def test_what_is_typed_goes_before_what_is_written() -> None:
    printed = typed("--params", "azure_tables.hot_days=3")

    assert "raw_labels policy caching hot = 3d" in printed.stdout


def test_tables_are_applied_checked_and_applied_again(cluster: ManagedKusto) -> None:
    before = typed("--check")
    first = typed("--apply")
    between = typed("--check")
    second = typed("--apply")

    assert before.exit_code == 1
    assert "the table raw_predictions is not there" in before.stdout
    assert first.exit_code == between.exit_code == second.exit_code == 0
    assert "done: .create-merge table raw_predictions\n" in first.stdout
    assert "There are no differences" in between.stdout
    assert "found:" not in second.stdout
    assert cluster.count("predictions") == 0


def test_drift_is_named_and_nothing_is_applied(cluster: ManagedKusto) -> None:
    cluster.command(".create-merge table raw_labels (label: long, note: string)")

    compared, refusal = typed("--check"), typed("--apply")

    assert compared.exit_code == refusal.exit_code == 1
    assert "! raw_labels.label is long, not string\n" in compared.stdout
    assert "  raw_labels.note (string) is not in the code\n" in compared.stdout
    assert "raw_labels.label is long, not string" in refusal.output
    assert cluster.sql("SELECT table_name FROM duckdb_tables()") == [("raw_labels",)]


def test_what_is_refused_ends_the_run_and_says_what_it_was(
    cluster: ManagedKusto,
    identity: Identity,  # noqa: F811
) -> None:
    cluster.faults = [refused("No room", "mgmt", text="table raw_set_aside")]

    ended = typed("--apply", "--params", "azure_tables.retry_s=0.001")

    assert ended.exit_code == 1
    assert "refused '.create-merge table raw_set_aside': No room" in ended.output
    assert "Traceback" not in ended.output
    assert all(token not in ended.output for token in identity.issued)


def test_a_missing_variable_is_named() -> None:
    ended = typed("--apply")

    assert ended.exit_code == 1
    assert "AL_ADX_CLUSTER and AL_ADX_DATABASE must say which" in ended.output


def test_a_variable_that_an_environment_asks_for_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AL_STORAGE_ACCOUNT", raising=False)

    ended = typed("--env", "azure")

    assert ended.exit_code == 1
    assert "'AL_STORAGE_ACCOUNT' not found" in ended.output
    assert "Traceback" not in ended.output


def test_a_wrong_setting_is_told_with_its_file() -> None:
    ended = typed("--params", "azure_tables.hot_days=0")

    assert ended.exit_code == 1
    assert "conf/base/azure_tables/azure_tables.yml: 1 validation" in ended.output


def test_apply_and_check_are_not_one_thing() -> None:
    assert typed("--apply", "--check").exit_code == 2
