"""Images a second of ``score`` against the best bare loop over the same files.

A folder of PNG files of 28 x 28 is scored by the pipeline's own node and datasets, run
by Kedro in a process of its own, and by a bare loop: files are opened and decoded in
threads by Pillow and handed to ONNX Runtime, nothing is checked, kept or written. The
loop is tried with several numbers of threads on either side; the quickest counts. Only
the scoring is timed: imports, the loading of the model and the listing of the folder
are not. Ratios are images a second, node / loop: at least 0.8 is the goal. The files
are in the operating system's cache for both; the project's cache of decoded pixels is
empty at first (cold) and full in a second run (warm), where the loop decodes again. The
loop makes no embeddings; the node makes some where that is said.

Then memory: what a process that scores 1,000, 10,000 and 100,000 images and keeps their
embeddings holds at most, as a ratio to that of 1,000: while it scores, beyond what is
mapped from files (RssAnon); from its start on, what is mapped from files too (VmHWM).

``--quick`` takes 4,000 images, and 1,000 and 10,000 for the memory.
"""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tests.benchmarks.stage import ROOT, tell

GOAL = 0.8
SIDE = 28
BATCH = 128
# Decoding threads and ONNX Runtime's, in a loop whose two parts overlap.
SETTINGS = ((1, 1), (2, 1), (2, 2), (4, 2))


def main(folder: Path, repetitions: int, quick: bool) -> None:
    """Measure and print."""
    n = 4_000 if quick else 20_000
    sizes = (1_000, 10_000) if quick else (1_000, 10_000, 100_000)
    for size in {n, *sizes}:
        draw_images(images_in(folder, size), size)
    make_release(folder / "release")
    ran("bare", folder, n, SETTINGS[0])  # whose first turn also fills the disk's cache
    cold, warm, looked, worked = [], [], [], []
    for number in range(repetitions):
        place = folder / f"run-{number}"
        first = ran("node", folder, n, [place, False])
        loops = [ran("bare", folder, n, one) for one in SETTINGS]
        again = ran("node", folder, n, [place, False])
        full = ran("node", folder, n, [folder / f"full-{number}", True])
        bare = max(one["per_s"] for one in loops)
        cold.append(first["per_s"] / bare)
        warm.append(again["per_s"] / bare)
        looked.append(full["per_s"] / bare)
        worked.append(first["per_cpu_s"] / max(one["per_cpu_s"] for one in loops))
        sys.stderr.write(f"  {number + 1} of {repetitions}\n")
    tell(f"batch scoring: {n:,} PNG files, images a second, node / best bare loop")
    tell_share("pixel cache cold", cold, GOAL)
    tell_share("pixel cache cold, a second of processor time", worked, None)
    tell_share("pixel cache cold, embeddings kept", looked, None)
    tell_share("pixel cache warm", warm, None)
    held = {
        size: ran("node", folder, size, [folder / f"memory-{size}", True])
        for size in sizes
    }
    for kind, title in (("anon", "beyond mapped files"), ("all", "mapped files too")):
        tell(f"  memory, {title}, against that of 1,000 images")
        for size in sizes[1:]:
            tell_share(f"of {size:,}", [held[size][kind] / held[sizes[0]][kind]], None)


def ran(what: str, folder: Path, n: int, how: object) -> dict[str, float]:
    """Measure one thing in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.batch_scoring", what]
    done = subprocess.run(
        [*command, str(folder), str(n), json.dumps(how, default=str)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    said: dict[str, float] = json.loads(done.stdout)
    return said


def draw_images(folder: Path, n: int) -> None:
    """Smooth pictures with some noise; all differ."""
    generator = np.random.default_rng(0)
    for number in range(n):
        path = folder / f"{number % 100:02}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rough = generator.integers(0, 256, (4, 4), dtype=np.uint8)
        smooth = Image.fromarray(rough).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth) ^ generator.integers(0, 8, (SIDE, SIDE), np.uint8)
        Image.fromarray(noisy).save(path)


def make_release(folder: Path) -> None:
    """An untrained network of the default size costs as much as a trained one."""
    import torch
    import yaml

    from active_learning.learning.module import ImageClassifier
    from active_learning.services.scoring.export import export

    file = ROOT / "conf" / "base" / "train" / "parameters.yml"
    train = yaml.safe_load(file.read_text(encoding="utf-8"))["train"]
    torch.manual_seed(0)
    classifier = ImageClassifier(
        network=train["network"],
        classes=[f"class {number}" for number in range(10)],
        preprocessing=train["preprocessing"],
        lineage={"version": 1},
    )
    images = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 1), np.uint8)
    export(classifier, images, folder)


def images_in(folder: Path, n: int) -> Path:
    """Where a number of images lie."""
    return folder / f"images-{n}"


def run_node(folder: Path, n: int, place: Path, embeddings: bool) -> dict[str, float]:
    """Score with the pipeline, as Kedro runs it."""
    import yaml
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline
    from kedro.runner import SequentialRunner

    from active_learning.datasets import ImageListDataset, TableDataset
    from active_learning.imaging import ImageStore
    from active_learning.pipelines.score.params import ScoreParams
    from active_learning.pipelines.score.pipeline import create_pipeline
    from active_learning.services.scoring.model import InferenceModel
    from active_learning.services.telemetry.rows import check_predictions

    file = ROOT / "conf" / "base" / "score" / "parameters.yml"
    params = yaml.safe_load(file.read_text(encoding="utf-8"))["score"]
    params["embeddings"] = embeddings
    turn = len(list(place.glob("turn-*")))
    tables = {
        name: TableDataset(table=table, path=str(place / f"turn-{turn}" / name))
        for name, table in (
            ("scored_batch", "scored_batch"),
            ("embeddings", "embeddings"),
            ("unreadable_images", "set_aside"),
        )
    }
    catalog = DataCatalog(dict(tables))
    images = str(images_in(folder, n))
    given = {
        "incoming_images": ImageListDataset(filepath=images).load(),
        "images": ImageStore(images, cache=str(place / "decoded"), max_pixels=10**8),
        "champion@inference": InferenceModel.load(folder / "release"),
        "scored_images": pd.DataFrame({"image_id": [], "model_version": []}),
        "now": datetime.now(UTC),
        "params:score": ScoreParams.model_validate(params),
    }
    for name, value in given.items():
        catalog[name] = value
    pipeline = Pipeline(create_pipeline())
    with Watched() as watched:
        began, cpu_began = time.perf_counter(), time.process_time()
        SequentialRunner().run(pipeline, catalog)
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    # Before all rows are read again to be checked, which scoring itself never does.
    most = float(kilobytes("VmHWM") * 1024)
    scored = check_predictions(tables["scored_batch"].load())
    if len(scored) != n:
        raise SystemExit(f"{len(scored)} of {n} images were scored.")
    return {
        "per_s": n / took_s,
        "per_cpu_s": n / cpu_s,
        "anon": watched.most,
        "all": most,
    }


def run_bare(folder: Path, n: int, n_threads: tuple[int, int]) -> dict[str, float]:
    """Score with nothing around it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = n_threads[1]
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(folder / "release" / "model.onnx"), options)
    files = sorted(map(str, images_in(folder, n).rglob("*.png")))
    batches = [files[start : start + BATCH] for start in range(0, n, BATCH)]

    def read(batch: list[str]) -> Any:
        pixels = np.empty((len(batch), SIDE, SIDE, 1), dtype=np.uint8)
        for row, file in enumerate(batch):
            with Image.open(file) as image:
                pixels[row, ..., 0] = np.asarray(image)
        return pixels

    began, cpu_began = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(n_threads[0]) as pool:
        logits = [
            session.run(["logits"], {"pixels": pixels})[0]
            for pixels in pool.map(read, batches)
        ]
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    n_scored = len(np.concatenate(logits))
    return {"per_s": n_scored / took_s, "per_cpu_s": n_scored / cpu_s}


class Watched:
    """The most that this process holds of its own, in bytes, while it runs."""

    def __init__(self) -> None:
        """Nothing is seen yet."""
        self.most = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        # Often enough to see what the saving of one chunk takes for a moment.
        while not self._done.wait(0.005):
            self.most = max(self.most, kilobytes("RssAnon") * 1024)


def kilobytes(name: str) -> int:
    """What the kernel says of this process's memory."""
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    (held,) = (line.split()[1] for line in lines if line.startswith(name))
    return int(held)


def tell_share(what: str, values: list[float], target: float | None) -> None:
    """Print one line: the median, the spread, the goal and whether it is met."""
    middle = median(values)
    goal = ""
    if target is not None:
        goal = f"goal {target:.2f}: {'met' if middle >= target else 'MISSED'}"
    spread = f"{min(values):.2f} to {max(values):.2f}"
    tell(f"  {what:<44} {middle:>6.2f}  ({spread}, n={len(values)})  {goal}")


if __name__ == "__main__":
    what, folder, n, how = sys.argv[1:]
    if what == "node":
        place, embeddings = json.loads(how)
        measured = run_node(Path(folder), int(n), Path(place), embeddings)
    else:
        measured = run_bare(Path(folder), int(n), tuple(json.loads(how)))
    sys.stdout.write(json.dumps(measured))
