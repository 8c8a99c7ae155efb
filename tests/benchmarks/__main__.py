"""Run benchmarks: ``python -m tests.benchmarks [names] [--quick] [--repetitions K]``.

Each prints ratios of two things measured in turns in one run, so that a figure means
the same on any machine; how is told in the docstring of its module. Seconds are left
out on purpose. Data goes into a temporary folder; images must be there (``make data``).
"""

import argparse
import tempfile
from pathlib import Path

from tests.benchmarks import (
    batch_scoring,
    blob_upload,
    candidates,
    coreset,
    ingestion,
    label_ingestion,
    memory,
    overhead,
    parallel,
    selection,
    serving,
    streaming,
)
from tests.benchmarks.stage import tell

BENCHMARKS = {
    "overhead": overhead.main,
    "parallel": parallel.main,
    "select": selection.main,
    "memory": memory.main,
    "candidates": candidates.main,
    "ingestion": ingestion.main,
    "label-ingestion": label_ingestion.main,
    "streaming": streaming.main,
    "coreset": coreset.main,
    "batch-scoring": batch_scoring.main,
    "serving": serving.main,
    "blob-upload": blob_upload.main,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--repetitions", type=int, default=3, metavar="K")
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}: {', '.join(BENCHMARKS)}")
    for name in asked.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            BENCHMARKS[name](Path(folder), asked.repetitions, asked.quick)
        tell("")
