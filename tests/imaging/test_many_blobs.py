"""A listing streams, whoever asks: nobody holds more than what was asked for."""

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from active_learning.imaging.places import Stamp
from active_learning.imaging.remote import RemotePlace

# A process of its own, since what others have grown to hides what this one grows by.
WALK = """
from resource import RUSAGE_SELF, getrusage
from active_learning.imaging.remote import RemotePlace
from tests.imaging.test_many_blobs import Many

def count(n_blobs):
    return sum(1 for _ in RemotePlace(Many(n_blobs), "images").names(""))

count(10_000)
before = getrusage(RUSAGE_SELF).ru_maxrss
print(count(1_000_000), getrusage(RUSAGE_SELF).ru_maxrss - before)
"""


class Many(AbstractFileSystem):  # type: ignore[misc]
    """An account with very many blobs, listed by pages as the service does."""

    cachable = False

    def __init__(self, n_blobs: int) -> None:
        super().__init__()
        self.n_blobs = n_blobs
        self.n_pages = 0

    def pages(self, path: str) -> Iterator[list[dict[str, Any]]]:
        for start in range(0, self.n_blobs, 5000):
            self.n_pages += 1
            numbers = range(start, min(start + 5000, self.n_blobs))
            yield [self.info(f"{path}/{number:07d}.png") for number in numbers]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        number = path.rpartition("/")[2][:7]
        about = {"metadata": {"is_directory": "false"}, "etag": f"0x{number}"}
        return {"name": path, "type": "file", "size": 1, **about}


def test_few_stamps_among_many_blobs_are_asked_for_and_not_listed() -> None:
    filesystem = Many(100_000)
    place = RemotePlace(filesystem, "images")
    names = [f"{number:07d}.png" for number in range(0, 100_000, 2_000)]

    stamps = place.stamps(names)

    assert [stamp.version for stamp in stamps if isinstance(stamp, Stamp)] == [
        f"etag 0x{name[:7]}" for name in names
    ]
    assert filesystem.n_pages == 1


def test_a_million_blobs_are_listed_in_the_memory_of_a_page() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WALK],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )

    n_names, grown_kb = map(int, ran.stdout.split())
    assert n_names == 1_000_000
    assert grown_kb < 40 * 2**10


def test_a_list_takes_the_memory_of_its_names() -> None:
    place = RemotePlace(Many(100_000), "images")

    tracemalloc.start()
    listing = place.listing("")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(listing.image_ids) == 100_000
    assert listing.image_ids[:2] == ["0000000.png", "0000001.png"]
    assert peak < held + 10 * 2**20
