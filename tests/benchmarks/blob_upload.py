"""What it costs to stage images in blobs for labelers, beyond uploading them.

``LabelingQueueDataset.save`` reads small images from a local store, uploads each
unless one of its name is there, then lists the requests. Beside it adlfs alone uploads
the same files, read from the same folder, with as many requests under way. Both talk to
one Azurite, to a new folder each time, and run in turns in one process; the ratio is
the median of the pairs' own. A ratio of 1.43 is 0.7 of the images a second.
"""

from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
from adlfs import AzureBlobFileSystem
from tests.benchmarks.ingestion import timed
from tests.benchmarks.stage import interleave, ratios, tell, tell_ratio
from tests.standins.azurite import Azurite, missing

GOAL = 1 / 0.7
AT_ONCE = 16


def main(folder: Path, repetitions: int, quick: bool) -> None:
    """Measure and print."""
    from active_learning.datasets import LabelingQueueDataset
    from active_learning.imaging import ImageStore
    from active_learning.services.labeling import LabelingQueue

    if reason := missing():
        tell(f"blob-upload: left out, {reason}")
        return
    n = 2_000 if quick else 10_000
    store = ImageStore(str(images(folder / "images", n)), cache=None, max_pixels=10_000)
    requests = asked(store.image_ids())
    numbers = count()
    with Azurite(services=("blob",)) as azurite:
        container = azurite.make_container()
        bare = AzureBlobFileSystem(**azurite.storage_options())

        def stage() -> None:
            queue = LabelingQueueDataset(
                path=azurite.place(container, f"queue-{next(numbers)}"),
                fs_args={**azurite.storage_options(), "at_once": AT_ONCE},
            )
            queue.save(LabelingQueue(requests, store))

        def upload() -> None:
            to = f"{container}/bare-{next(numbers)}"
            files = {
                f"{to}/{name}": Path(store.root, name).read_bytes()
                for name in requests["image_id"]
            }
            bare.pipe(files, batch_size=AT_ONCE)

        tell(f"blob-upload: {n:,} images staged in blobs / a bare adlfs loop")
        pairs = interleave(repetitions, timed(stage), timed(upload))
        tell_ratio("wall time", ratios(pairs), GOAL)
        tell_ratio("processor time", ratios(pairs, "cpu_s"), None)


def images(folder: Path, n: int) -> Path:
    """Files as large as small images; nobody decodes them."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(n):
        (folder / f"{number:06}.png").write_bytes(generator.bytes(1000))
    return folder


def asked(names: list[str]) -> pd.DataFrame:
    """A request for each image."""
    return pd.DataFrame(
        {
            "request_id": [f"r{name}" for name in names],
            "image_id": names,
            "predicted_label": "cat",
            "rank": range(1, len(names) + 1),
            "round": 1,
        }
    )
