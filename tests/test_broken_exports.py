"""Broken exports through ``label-ingest``: the good get in, the bad get named."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.config import OmegaConfigLoader
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from PIL import Image
from tests.services.labeling.exports.broken import CASES, Case

from active_learning.parameters import announce_parameters
from active_learning.pipelines.label_ingest.params import LabelIngestParams
from active_learning.pipelines.label_ingest.pipeline import create_pipeline
from active_learning.schemas import MANIFEST, empty_frame
from active_learning.settings import CONFIG_LOADER_ARGS

PROJECT = Path(__file__).parents[1]
NAMES = ("a.png", "b.png", "c.png", "one/x.png", "two/x.png")


class Ingestion:
    """A data folder, the catalog of ``conf/base``, and what was ingested."""

    def __init__(self, entries: Mapping[str, Any], params: dict[str, Any]) -> None:
        """Open the catalog; the entries lie in this folder already."""
        told = LabelIngestParams(
            **params | {"classes": ("cat", "dog"), "new_classes": "refuse"}
        )
        # Nobody was asked yet, so no model said anything before the answers.
        said = pd.DataFrame(
            columns=[
                *("image_id", "label", "classes", "probabilities"),
                *("model_name", "model_version"),
            ]
        )
        self.catalog = DataCatalog.from_config(dict(entries))
        self.catalog["params:label_ingest"] = MemoryDataset(told)
        self.catalog["test_set"] = MemoryDataset(empty_frame(MANIFEST))
        self.catalog["predictions@asked"] = MemoryDataset(said)

    def run(self, files: dict[str, bytes], exports: Path) -> None:
        """Put files where exports come in, and ingest."""
        for name, content in files.items():
            path = exports / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        SequentialRunner().run(create_pipeline(), self.catalog)

    def labels(self) -> list[tuple[str, str]]:
        """Image and label of every row in the table."""
        rows = self.catalog.load("known_labels").sort_values("image_id")
        return list(zip(rows["image_id"], rows["label"], strict=True))

    def rejected(self) -> pd.DataFrame:
        """Every row of the table of rejections."""
        rows: pd.DataFrame = self.catalog.load("past_rejections")
        return rows


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for number, name in enumerate(NAMES):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), 40 * number).save(root / name)
    return root


@pytest.fixture(scope="module")
def configured(
    images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The data folder that the entries name, the entries, and the parameters."""
    data = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AL_DATA", str(data))
        loader = OmegaConfigLoader(
            str(PROJECT / "conf"),
            env="base",
            runtime_params={"images": str(images)},
            **CONFIG_LOADER_ARGS,
        )
        params = loader["parameters"]
        announce_parameters(params)
        catalog = dict(loader["catalog"])
        announce_parameters({})
    names = create_pipeline().datasets() & set(catalog)
    entries = {name: catalog[name] for name in names - {"test_set"}}
    del entries["predictions@asked"]
    return str(data), entries, params["label_ingest"]


@pytest.fixture
def ingestion(
    configured: tuple[str, dict[str, Any], dict[str, Any]], tmp_path: Path
) -> Ingestion:
    data, entries, params = configured
    here = json.loads(json.dumps(entries).replace(data, str(tmp_path)))
    # What a test has just written is whole.
    here["label_exports"]["settle_s"] = 0
    return Ingestion(here, params)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_good_rows_come_in_and_mending_adds_what_was_missing(
    case: Case, ingestion: Ingestion, tmp_path: Path
) -> None:
    exports = tmp_path / "01_raw" / "label_exports"
    good = [("a.png", "cat"), ("b.png", "dog")]

    ingestion.run(case.files, exports)

    assert ingestion.labels() == good
    refused = ingestion.rejected()
    places = list(zip(refused["batch_id"], refused["line"], strict=True))
    assert case.where in places
    assert case.reason in refused["reason"][places.index(case.where)]

    ingestion.run(case.mended, exports)

    assert ingestion.labels() == [*good, ("c.png", "cat")]
    # What is still wrong was said once, and what is mended is no longer wrong.
    pd.testing.assert_frame_equal(ingestion.rejected(), refused)


def test_the_same_broken_export_again_says_nothing_new(
    ingestion: Ingestion, tmp_path: Path
) -> None:
    exports = tmp_path / "01_raw" / "label_exports"
    ingestion.run(CASES["two annotations of an image"].files, exports)
    labels, refused = ingestion.labels(), ingestion.rejected()

    ingestion.run({}, exports)

    assert ingestion.labels() == labels
    pd.testing.assert_frame_equal(ingestion.rejected(), refused)
    assert len(refused) == 2
