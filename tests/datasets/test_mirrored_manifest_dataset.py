"""A test set that the cluster knows of as well."""

# ruff: noqa: F811  # a fixture is asked for by the name it was imported by

from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DatasetError
from tests.services.telemetry.adx import PATIENCE, signed_in  # noqa: F401
from tests.standins import kusto_faults as faults
from tests.standins.azurite import azurite  # noqa: F401
from tests.standins.identity import identity  # noqa: F401
from tests.standins.kusto import Kusto, queued_kusto  # noqa: F401

from active_learning.datasets import ManifestDataset, MirroredManifestDataset
from active_learning.errors import FrozenError, SinkAwayError

pytestmark = pytest.mark.usefixtures("signed_in")

IMAGES = pd.DataFrame(
    {
        "image_id": ["a.png", "b.png"],
        "label": ["cat", "dog"],
        "content": ["0123", "4567"],
    }
)


def mirrored(
    cluster: Kusto, folder: Path, frozen: bool = True, **waits: float
) -> MirroredManifestDataset:
    """A test set of a process of its own."""
    return MirroredManifestDataset(
        filepath=str(folder / "test_set.parquet"),
        database=cluster.database,
        frozen=frozen,
        load_args={**PATIENCE, **waits},
    )


def known(cluster: Kusto) -> list[tuple[str, ...]]:
    """What the cluster knows."""
    query = "SELECT image_id, label, content FROM test_set ORDER BY image_id"
    return [tuple(row) for row in cluster.sql(query)]


def test_the_cluster_knows_what_was_saved(queued_kusto: Kusto, tmp_path: Path) -> None:
    mirrored(queued_kusto, tmp_path).save(IMAGES.assign(extra=1))

    assert known(queued_kusto) == [("a.png", "cat", "0123"), ("b.png", "dog", "4567")]


def test_a_manifest_saved_again_is_sent_once(
    queued_kusto: Kusto, tmp_path: Path
) -> None:
    for _ in range(2):
        mirrored(queued_kusto, tmp_path).save(IMAGES)
    mirrored(queued_kusto, tmp_path).load()

    assert queued_kusto.count("raw_test_set") == 2


@pytest.mark.parametrize("by", ["save", "load"])
def test_a_save_that_was_cut_off_is_completed(
    by: str, queued_kusto: Kusto, tmp_path: Path
) -> None:
    # Killed after the file and before the cluster, which is what this leaves.
    ManifestDataset(filepath=str(tmp_path / "test_set.parquet")).save(IMAGES)

    if by == "save":
        mirrored(queued_kusto, tmp_path).save(IMAGES)
    else:
        pd.testing.assert_frame_equal(mirrored(queued_kusto, tmp_path).load(), IMAGES)

    assert len(known(queued_kusto)) == 2


def test_a_cluster_that_is_away_leaves_the_file(
    queued_kusto: Kusto, tmp_path: Path
) -> None:
    queued_kusto.faults = [faults.unavailable(times=100)]
    with pytest.raises(DatasetError) as told:
        mirrored(queued_kusto, tmp_path, retry_s=0.5).save(IMAGES)
    assert isinstance(told.value.__cause__, SinkAwayError)

    queued_kusto.faults = []
    mirrored(queued_kusto, tmp_path).load()

    assert len(known(queued_kusto)) == 2


def test_a_frozen_manifest_tells_the_cluster_nothing_else(
    queued_kusto: Kusto, tmp_path: Path
) -> None:
    mirrored(queued_kusto, tmp_path).save(IMAGES)

    with pytest.raises(DatasetError) as told:
        mirrored(queued_kusto, tmp_path).save(IMAGES.assign(label="cat"))

    assert isinstance(told.value.__cause__, FrozenError)
    assert known(queued_kusto)[1] == ("b.png", "dog", "4567")


def test_a_node_after_another_asks_the_cluster_once(
    queued_kusto: Kusto, tmp_path: Path
) -> None:
    manifest = mirrored(queued_kusto, tmp_path)
    manifest.save(IMAGES)
    asked = len(queued_kusto.requests)

    manifest.load()
    manifest.load()

    assert len(queued_kusto.requests) == asked
