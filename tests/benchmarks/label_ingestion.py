"""What it costs to take in 100,000 answers of labelers.

The whole pipeline ``label-ingest`` on one file: the export is read, every row is
checked against its request, its image and the test set, votes are counted, and labels,
training set and report are saved. Beside it pandas reads the same file and does no
more: ``read_csv`` a CSV file, ``read_json`` the JSON Lines of Azure ML and the tasks of
Label Studio; of COCO, which pandas cannot read, ``json`` makes lists and pandas a frame
of each. They run in turns in one process; the ratio is the median of the pairs' own.

Each answer is the first of an image that was asked for. The images are tiny and were
read before: first the store that ingests has seen them itself, as in a run of the whole
loop; then it is new and finds their fingerprints on the disk, by a look at the size and
time of each file. Then the same export comes once more and nothing in it is new. The
other formats are measured as the first of these.
"""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from tests.benchmarks.ingestion import timed
from tests.benchmarks.stage import ROOT, interleave, ratios, tell, tell_ratio

GOAL = 3.0
N_CLASSES = 10
N_FOLDERS = 100
# The smallest file that starts like an image; only that is looked at.
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


def main(folder: Path, repetitions: int, quick: bool) -> None:
    """Measure and print."""
    n = 10_000 if quick else 100_000
    project = Project(folder, n)
    seen, full = project.store(), project.empty()
    project.ingest(full, seen)
    tell(f"label ingestion: {n:,} rows of one file / pandas reads it")
    first = "images seen in this run"
    for what, ours in (
        (first, lambda: project.ingest(project.empty(), seen)),
        (
            "images seen in an earlier run",
            lambda: project.ingest(project.empty(), project.store()),
        ),
        ("the same export again", lambda: project.ingest(full, seen)),
    ):
        compare(f"CSV, {what}", ours, project.read, repetitions)
    for name, write, read in (
        ("JSON Lines of Azure ML", project.write_json_lines, project.read_json_lines),
        ("COCO of Azure ML", project.write_coco, project.read_coco),
        ("JSON of Label Studio", project.write_tasks, project.read_tasks),
    ):
        project.replace(write)
        compare(
            f"{name}, {first}",
            lambda: project.ingest(project.empty(), seen),
            read,
            repetitions,
        )


def compare(
    what: str, ours: Callable[[], None], reads: Callable[[], None], repetitions: int
) -> None:
    """Print how much longer one takes than the other."""
    pairs = interleave(repetitions, timed(ours), timed(reads))
    tell_ratio(f"wall time, {what}", ratios(pairs), GOAL)
    tell_ratio(f"processor time, {what}", ratios(pairs, "cpu_s"), None)


class Project:
    """Images, requests for all of them and an export that answers each."""

    def __init__(self, folder: Path, n: int) -> None:
        """Write it all."""
        from active_learning.datasets import TableDataset
        from active_learning.pipelines.label_ingest.params import LabelIngestParams
        from active_learning.schemas import LABEL_REQUESTS, empty_frame, row_id

        self.folder = folder
        self.n_projects = 0
        conf = ROOT / "conf/base/label_ingest/parameters.yml"
        parameters = yaml.safe_load(conf.read_text())["label_ingest"]
        self.params = LabelIngestParams.model_validate(parameters)
        image_ids = [f"camera-{row % N_FOLDERS}/{row:08}.png" for row in range(n)]
        for number in range(N_FOLDERS):
            (folder / f"images/camera-{number}").mkdir(parents=True)
        for row, name in enumerate(image_ids):
            (folder / "images" / name).write_bytes(PNG + row.to_bytes(4, "big"))
        asked = empty_frame(LABEL_REQUESTS).reindex(range(n))
        asked = asked.assign(
            request_id=[row_id(name) for name in image_ids],
            image_id=image_ids,
            round=1,
            rank=range(n),
            propensity=1.0,
            audit=False,
            requested_at=pd.Timestamp("2000-01-01", tz="UTC"),
        )
        requests = str(folder / "label_requests")
        TableDataset(table="label_requests", path=requests).save(asked)
        generator = np.random.default_rng(0)
        times = pd.date_range("2000-01-02", periods=n, freq="s", tz="UTC")
        export = pd.DataFrame(
            {
                "image_id": image_ids,
                "label": generator.integers(0, N_CLASSES, n),
                "labeler": generator.choice(["ann", "bob", "eve"], n),
                "labeled_at": times.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "request_id": asked["request_id"],
            }
        )
        export["label"] = "class " + export["label"].astype(str)
        self.answers = export
        self.export = folder / "exports" / "monday.csv"
        self.export.parent.mkdir()
        export.to_csv(self.export, index=False)
        # What changed a moment ago may change again, and is not remembered.
        hour_ago = time.time() - 3600
        for place in [self.export, *(folder / "images").glob("*/*.png")]:
            os.utime(place, (hour_ago, hour_ago))
        self.store().survey(image_ids)

    def store(self) -> Any:
        """The images as a new process finds them: their fingerprints on the disk."""
        from active_learning.imaging import ImageStore

        cache = str(self.folder / "cache")
        return ImageStore(str(self.folder / "images"), cache=cache, max_pixels=100)

    def empty(self) -> Path:
        """A place where nothing was ingested yet."""
        self.n_projects += 1
        return self.folder / f"project-{self.n_projects}"

    def replace(self, write: Callable[[], Path]) -> None:
        """Put the same answers in another format in the place of the export."""
        self.export.unlink()
        self.export = write()
        hour_ago = time.time() - 3600
        os.utime(self.export, (hour_ago, hour_ago))

    def write_json_lines(self) -> Path:
        """Write them as Azure ML does, an object for each image."""
        root = (
            "azureml://subscriptions/S/resourcegroups/RG/workspaces/WS/datastores/DS/"
            "paths/"
        )
        details = {"format": "png", "width": "28px", "height": "28px"}
        file = self.export.with_name("monday.jsonl")
        with file.open("w", encoding="utf-8") as lines:
            answers = self.answers[["image_id", "label"]]
            for image_id, label in answers.itertuples(index=False):
                url = f"{root}{image_id}"
                row = {"image_url": url, "image_details": details, "label": label}
                lines.write(f"{json.dumps(row)}\n")
        return file

    def write_coco(self) -> Path:
        """Write them as Azure ML does, images and annotations apart."""
        codes, classes = pd.factorize(self.answers["label"], sort=True)
        document = {
            "images": [
                {
                    "id": number,
                    "width": 28,
                    "height": 28,
                    "file_name": image_id,
                    "coco_url": f"AmlDatastore://{image_id}",
                    "absolute_url": f"https://a.blob.core.windows.net/c/{image_id}",
                    "date_captured": "2000-01-02T00:00:00Z",
                }
                for number, image_id in enumerate(self.answers["image_id"], 1)
            ],
            "annotations": [
                {"id": n, "category_id": code, "image_id": n, "area": 0.0}
                for n, code in enumerate((codes + 1).tolist(), 1)
            ],
            "categories": [
                {"id": code, "name": name} for code, name in enumerate(classes, 1)
            ],
        }
        file = self.export.with_name("monday.json")
        file.write_text(json.dumps(document), encoding="utf-8")
        return file

    def write_tasks(self) -> Path:
        """Write them as Label Studio does, a task for each image."""
        tasks = [
            {
                "id": number,
                "data": {
                    "image": f"/data/local-files/?d=images/{answer.image_id}",
                    "image_id": answer.image_id,
                    "request_id": answer.request_id,
                },
                "annotations": [
                    {
                        "id": number,
                        "completed_by": {"id": 1, "email": f"{answer.labeler}@x.org"},
                        "was_cancelled": False,
                        "result": [
                            {
                                "id": "x1",
                                "from_name": "label",
                                "to_name": "image",
                                "type": "choices",
                                "value": {"choices": [answer.label]},
                            }
                        ],
                        "created_at": answer.labeled_at,
                        "updated_at": answer.labeled_at,
                    }
                ],
                "predictions": [],
            }
            for number, answer in enumerate(self.answers.itertuples(), 1)
        ]
        file = self.export.with_name("monday.json")
        file.write_text(json.dumps(tasks), encoding="utf-8")
        return file

    def read(self) -> None:
        """Do what the CSV file is measured against."""
        pd.read_csv(self.export)

    def read_json_lines(self) -> None:
        """Do what the JSON Lines are measured against."""
        pd.read_json(self.export, lines=True)

    def read_coco(self) -> None:
        """Do what COCO is measured against."""
        document = json.loads(self.export.read_bytes())
        for name in ("images", "annotations", "categories"):
            pd.DataFrame(document[name])

    def read_tasks(self) -> None:
        """Do what the tasks are measured against."""
        pd.read_json(self.export)

    def ingest(self, place: Path, images: Any) -> None:
        """Run the pipeline on the datasets of the catalog."""
        from active_learning.datasets import (
            AtomicDataset,
            KqlDataset,
            LabelExportsDataset,
            ManifestDataset,
            TableDataset,
        )
        from active_learning.datasets.snapshot_dataset import SnapshotDataset
        from active_learning.pipelines.label_ingest.pipeline import create_pipeline
        from active_learning.schemas import MANIFEST, empty_frame

        requests = str(self.folder / "label_requests")
        report = str(place / "ingest_report.json")
        catalog = DataCatalog(
            {
                "label_exports": LabelExportsDataset(path=str(self.export.parent)),
                "label_requests": TableDataset(
                    table="label_requests", path=requests, texts="arrow"
                ),
                "known_labels": TableDataset(table="labels", path=f"{place}/labels"),
                "labels": TableDataset(table="labels", path=f"{place}/labels"),
                "past_rejections": TableDataset(
                    table="rejected_labels", path=f"{place}/rejected_labels"
                ),
                "rejected_labels": TableDataset(
                    table="rejected_labels", path=f"{place}/rejected_labels"
                ),
                "predictions@asked": KqlDataset(
                    query="asked_probabilities",
                    backend="local",
                    database=str(place),
                    tables={"label_requests": requests},
                    load_args={"cache": str(self.folder / "kql")},
                ),
                "disputed_labels": SnapshotDataset(
                    schema="DISPUTED_LABELS", filepath=f"{place}/disputed.parquet"
                ),
                "training_set": ManifestDataset(
                    filepath=f"{place}/training_set.parquet",
                    versions=f"{place}/training_sets",
                ),
                "ingest_report": AtomicDataset(
                    dataset={"type": "json.JSONDataset", "filepath": report}
                ),
                "test_set": MemoryDataset(empty_frame(MANIFEST)),
                "images": MemoryDataset(images, copy_mode="assign"),
                "now": MemoryDataset(datetime.now(UTC)),
                "params:label_ingest": MemoryDataset(self.params),
            }
        )
        SequentialRunner().run(create_pipeline(), catalog)
        if len(json.loads(Path(report).read_text())["rejections"]):
            raise SystemExit(f"Not every row was taken in: see {report}.")
