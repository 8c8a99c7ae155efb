"""A table in the cluster beside a folder of parts: one contract."""

# ruff: noqa: F811  # a fixture is asked for by the name it was imported by

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.io import DataCatalog, DatasetError
from tests.services.telemetry.adx import PATIENCE, rows_of, signed_in  # noqa: F401
from tests.standins import kusto_faults as faults
from tests.standins.azurite import azurite  # noqa: F401
from tests.standins.identity import identity  # noqa: F401
from tests.standins.kusto import Kusto, queued_kusto  # noqa: F401
from tests.test_queries import Row, everything, noon, predicted

from active_learning.datasets import AdxTableDataset, TableDataset, TablePartsDataset
from active_learning.errors import SchemaError, SinkAwayError
from active_learning.pipelines.monitor.nodes import compact_tables, ingest_predictions
from active_learning.schemas import TABLES

pytestmark = pytest.mark.usefixtures("signed_in")

OTHERS: dict[str, list[Row]] = {
    "set_aside": [
        {"image_id": "a.png", "reason": "empty"},
        {"image_id": "b.png", "reason": "cut off"},
    ],
    "rejected_labels": [
        {
            "image_id": "a.png",
            "label": "unicorn",
            "labeler": "ann",
            "labeled_at": noon(3),
            "source": "csv",
            "request_id": "",
            "answer": "label",
            "line": line,
            "reason": "unknown class",
            "batch_id": "1",
            "rejected_at": noon(4),
        }
        for line in (7, 8)
    ],
}


def frame_of(table: str) -> pd.DataFrame:
    """Some rows of a table."""
    rows = list({**OTHERS, **everything()}[table])
    if table == "labels":
        rows = [{**row, "answer": "label"} for row in rows]
    frame: pd.DataFrame = rows_of(table, rows).to_pandas()
    return frame


def adx(cluster: Kusto, table: str, **more: Any) -> AdxTableDataset:
    """A table of a cluster."""
    said = {**PATIENCE, **more.pop("load_args", {})}
    return AdxTableDataset(
        table=table, database=cluster.database, load_args=said, **more
    )


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows have no order in a table."""
    by = frame.map(str).sort_values(list(frame.columns)).index
    return frame.loc[by].reset_index(drop=True)


@pytest.mark.parametrize("table", TABLES)
def test_both_give_the_frames_that_they_were_given(
    table: str, queued_kusto: Kusto, tmp_path: Path
) -> None:
    frame = frame_of(table)
    here = TableDataset(table=table, path=str(tmp_path))
    there = adx(queued_kusto, table)
    pd.testing.assert_frame_equal(here.load(), there.load())
    assert not here.exists()
    assert not there.exists()

    here.save(frame)
    there.save(frame)

    assert here.exists()
    assert there.exists()
    pd.testing.assert_frame_equal(in_order(here.load()), in_order(there.load()))
    assert repr(in_order(here.load()).to_dict()) == repr(
        in_order(there.load()).to_dict()
    )


@pytest.mark.parametrize("table", [name for name in TABLES if TABLES[name].key])
def test_the_same_rows_saved_again_count_once_in_both(
    table: str, queued_kusto: Kusto, tmp_path: Path
) -> None:
    frame = frame_of(table)
    here = TableDataset(table=table, path=str(tmp_path))
    there = adx(queued_kusto, table)

    for dataset in (here, there):
        dataset.save(frame)
        dataset.save(frame)
        # Another batch with the same rows among others.
        dataset.save(frame.iloc[::-1])

    assert len(there.load()) == len(frame)
    pd.testing.assert_frame_equal(in_order(here.load()), in_order(there.load()))


@pytest.mark.parametrize("table", TABLES)
def test_rows_come_in_one_order(table: str, queued_kusto: Kusto) -> None:
    frame = frame_of(table)
    dataset = adx(queued_kusto, table)

    for number in reversed(range(len(frame))):
        dataset.save(frame.iloc[[number]])
    found = dataset.load()

    name = TABLES[table].schema.names[0]
    assert found[name].tolist() == sorted(frame[name])


def test_a_save_without_rows_is_no_request(queued_kusto: Kusto) -> None:
    adx(queued_kusto, "labels").save(frame_of("labels").iloc[:0])

    assert not queued_kusto.requests


def test_a_large_table_comes_in_pages(queued_kusto: Kusto) -> None:
    rows = [predicted(f"{n:04d}") for n in range(300)]
    frame = rows_of("predictions", rows).to_pandas()
    adx(queued_kusto, "predictions").save(frame)

    whole = adx(queued_kusto, "predictions").load()
    asked = len(queued_kusto.asked("query"))
    paged = adx(queued_kusto, "predictions", load_args={"page_rows": 40}).load()

    # One to count, and one for each digit that a hash may begin with.
    assert len(queued_kusto.asked("query")) - asked == 1 + 16
    pd.testing.assert_frame_equal(in_order(paged), in_order(whole))
    pd.testing.assert_frame_equal(in_order(whole), in_order(frame))


def test_a_frame_that_does_not_fit_is_refused(queued_kusto: Kusto) -> None:
    frame = frame_of("labels").drop(columns="labeler")

    with pytest.raises(DatasetError, match=r"Columns missing: \[.labeler.\]") as told:
        adx(queued_kusto, "labels").save(frame)

    assert isinstance(told.value.__cause__, SchemaError)
    assert not queued_kusto.requests


def test_an_inbox_holds_what_was_not_passed_on(queued_kusto: Kusto) -> None:
    inbox = adx(queued_kusto, "scored_batch", inbox=True)
    predictions = adx(queued_kusto, "predictions")
    first = rows_of("scored_batch", [predicted("a"), predicted("b")]).to_pandas()
    inbox.save(first)

    taken = inbox.load()
    later = rows_of("scored_batch", [predicted("c")]).to_pandas()
    inbox.save(later)
    predictions.save(ingest_predictions(taken, taken.iloc[:0]))
    inbox.confirm()

    assert in_order(taken)["image_id"].tolist() == ["a", "b"]
    assert inbox.load()["image_id"].tolist() == ["c"]


def test_an_inbox_in_pages_leaves_out_the_same(queued_kusto: Kusto) -> None:
    rows = [predicted(f"{n:04d}") for n in range(120)]
    frame = rows_of("scored_batch", rows).to_pandas()
    inbox = adx(queued_kusto, "scored_batch", inbox=True, load_args={"page_rows": 20})
    inbox.save(frame)
    adx(queued_kusto, "predictions").save(frame.iloc[:50])

    left = inbox.load()

    assert sorted(left["image_id"]) == sorted(frame["image_id"].iloc[50:])


def test_what_is_no_inbox_has_nothing_to_confirm() -> None:
    place = "https://loop.westeurope.kusto.windows.net/loop"

    with pytest.raises(DatasetError, match="is no inbox"):
        AdxTableDataset(table="labels", database=place).confirm()
    with pytest.raises(DatasetError, match="is no inbox"):
        AdxTableDataset(table="labels", database=place, inbox=True)
    with pytest.raises(DatasetError, match="No table is called"):
        AdxTableDataset(table="label", database=place)


def test_a_save_that_did_not_arrive_is_saved_once_more(queued_kusto: Kusto) -> None:
    queued_kusto.paused.set()
    impatient = adx(queued_kusto, "labels", load_args={"visible_s": 0.2})
    with pytest.raises(DatasetError, match="They are not lost") as told:
        impatient.save(frame_of("labels"))
    assert isinstance(told.value.__cause__, SinkAwayError)

    queued_kusto.paused.clear()
    adx(queued_kusto, "labels").save(frame_of("labels"))

    queued_kusto.until(lambda: queued_kusto.settled)
    assert queued_kusto.count("raw_labels") == len(frame_of("labels"))


def test_a_load_is_tried_again(queued_kusto: Kusto) -> None:
    queued_kusto.faults = [faults.throttled("query"), faults.unavailable("query")]

    assert adx(queued_kusto, "labels").load().empty


def test_a_validator_sees_what_was_loaded(queued_kusto: Kusto) -> None:
    catalog = DataCatalog.from_config(
        {
            "label_requests": {
                "type": "active_learning.datasets.AdxTableDataset",
                "table": "label_requests",
                "database": queued_kusto.database,
                "validator": "active_learning.schemas.check_label_requests",
            }
        }
    )
    wrong = frame_of("label_requests").assign(propensity=2.0)

    with pytest.raises(DatasetError, match="no propensity in"):
        catalog.save("label_requests", wrong)

    assert queued_kusto.count("raw_label_requests") == 0
    catalog.save("label_requests", frame_of("label_requests"))
    assert len(catalog.load("label_requests")) == len(frame_of("label_requests"))


def test_a_preview_shows_the_first_rows(queued_kusto: Kusto) -> None:
    table = adx(queued_kusto, "labels")
    table.save(frame_of("labels"))

    preview: Any = table.preview(1)

    assert preview["columns"] == TABLES["labels"].schema.names
    assert len(preview["data"]) == 1


def test_the_engine_merges_its_own_parts() -> None:
    parts = TablePartsDataset(table="predictions", path=None)
    params: Any = type("", (), {"compaction": Compaction()})

    assert parts.exists()
    assert compact_tables(parts.load(), parts.load(), params) == {
        "predictions": {"merged": 0, "n_rows": 0, "doubles": 0, "deleted": 0}
    }


class Compaction:
    """As ``monitor`` is told."""

    def model_dump(self) -> dict[str, float]:
        return {"at_least": 2, "target_rows": 10, "grace_s": 0}
