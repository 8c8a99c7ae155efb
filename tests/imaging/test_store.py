import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from active_learning.errors import ImageError, ImageIdError, NoImagesError
from active_learning.imaging import Decoded, ImageStore, Preprocessing

GRAY = Preprocessing(height=2, width=2, channels=1, mean=(0.0,), std=(1.0,))
COLOR = Preprocessing(height=2, width=2, channels=3, mean=(0,) * 3, std=(1,) * 3)
LONG_AGO = time.time() - 1_000


def png(value: int, side: int = 2) -> bytes:
    """A gray square."""
    file = BytesIO()
    Image.new("L", (side, side), value).save(file, "PNG")
    return file.getvalue()


def put(root: Path, name: str, data: bytes, modified: float = LONG_AGO) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (modified, modified))


def store(
    root: Path | str, cache: Path | None = None, max_pixels: int = 10_000
) -> ImageStore:
    return ImageStore(
        str(root), cache=str(cache) if cache else None, max_pixels=max_pixels
    )


def filled(root: Path, values: Sequence[int]) -> list[str]:
    """Put gray squares named by their value, and give their names."""
    for value in values:
        put(root, f"{value:03}.png", png(value))
    return [f"{value:03}.png" for value in values]


def values(decoded: Decoded) -> list[int]:
    everything = np.arange(len(decoded.pixels))
    return [int(value) for value in decoded.pixels.take(everything)[:, 0, 0, 0]]


def reasons(decoded: Decoded) -> dict[str, str]:
    return dict(decoded.set_aside[["image_id", "reason"]].itertuples(index=False))


def blank(root: Path) -> None:
    """Make every file unreadable as an image without touching its size or time."""
    for path in root.rglob("*.png"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A root on a local disk, and one elsewhere."""
    if request.param == "folder":
        return str(tmp_path / "images")
    return f"memory://{uuid4().hex}/images"


def upload(place: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        with fsspec.open(f"{place}/{name}", "wb", auto_mkdir=True) as file:
            file.write(data)


# Names


def test_images_are_listed_by_relative_path_in_order(place: str) -> None:
    names = ["b/2.PNG", "a b/Ärmel.jpg", "b/1.png", "c.webp"]
    others = ["b/notes.txt", ".hidden.png", ".trash/3.png", "b/.1.png.tmp"]
    upload(place, dict.fromkeys([*names, *others], png(1)))

    assert store(place).image_ids() == ["a b/Ärmel.jpg", "b/1.png", "b/2.PNG", "c.webp"]
    assert store(place).image_ids("b") == ["b/1.png", "b/2.PNG"]


def test_every_listed_image_can_be_read(place: str) -> None:
    upload(place, {"a b/Ärmel 100%.png": png(1), "日本.png": png(2)})

    images = store(place)

    assert [images.read(name) for name in images.image_ids()] == [png(1), png(2)]


def test_no_folder_says_what_to_type(place: str) -> None:
    with pytest.raises(NoImagesError, match=r"no such folder.*`make data`.*images="):
        store(place).image_ids()


def test_a_folder_without_images_says_what_it_holds_instead(place: str) -> None:
    upload(place, {"photo.heic": b"x"})

    with pytest.raises(NoImagesError, match=r"1 left out.*photo\.heic.*make data"):
        store(place).image_ids()


def test_asking_for_pixels_before_there_are_images_says_what_to_type(
    place: str,
) -> None:
    with pytest.raises(NoImagesError, match="make data"):
        store(place).pixels(["a.png"], GRAY)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png", ""])
def test_a_name_that_leaves_the_store_is_refused(place: str, name: str) -> None:
    upload(place, {"a.png": png(1)})
    images = store(place)

    with pytest.raises(ImageIdError, match="image store"):
        images.read(name)
    with pytest.raises(ImageIdError, match="image store"):
        images.fingerprints([name])
    with pytest.raises(ImageIdError, match="image store"):
        images.pixels(["a.png", name], GRAY)
    with pytest.raises(ImageIdError, match="image store"):
        images.image_ids(name or "..")


def test_links_that_leave_the_store_are_left_out_and_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "images", tmp_path / "private"
    put(root, "a.png", png(1))
    put(outside, "secret.png", png(2))
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "folder").symlink_to(outside)
    images = store(root)

    assert images.image_ids() == ["a.png"]
    assert images.listing().skipped == {
        "folder": "it is a link that leaves the image store",
        "link.png": "it is a link that leaves the image store",
    }
    for name in ("link.png", "folder/secret.png"):
        with pytest.raises(ImageIdError, match="leaves the image store"):
            images.read(name)
        decoded = images.pixels([name, "a.png"], GRAY)
        assert decoded.image_ids == ["a.png"]
        assert "leaves" in reasons(decoded)[name]


def test_links_within_the_store_do_not_lead_in_circles(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", png(1))
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "b.png").symlink_to(tmp_path / "a" / "1.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")

    assert store(tmp_path).image_ids() == ["a/1.png", "b.png"]


def test_a_store_behind_a_link_is_a_store(tmp_path: Path) -> None:
    put(tmp_path / "images", "a/1.png", png(1))
    (tmp_path / "link").symlink_to(tmp_path / "images")

    assert values(store(tmp_path / "link").pixels(["a/1.png"], GRAY)) == [1]


def test_a_link_within_the_store_is_an_image(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", png(1))
    (tmp_path / "b.png").symlink_to(tmp_path / "a" / "1.png")
    images = store(tmp_path)

    assert images.read("b.png") == png(1)
    assert values(images.pixels(["b.png"], GRAY)) == [1]


def test_a_link_to_itself_is_set_aside(tmp_path: Path) -> None:
    put(tmp_path, "a.png", png(1))
    (tmp_path / "round.png").symlink_to(tmp_path / "round.png")

    decoded = store(tmp_path).pixels(["a.png", "round.png"], GRAY)

    assert decoded.image_ids == ["a.png"]
    assert "itself" in reasons(decoded)["round.png"]


# Bytes and fingerprints


@pytest.mark.parametrize("n_bytes", [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 200_000])
def test_a_file_is_read_to_its_end(tmp_path: Path, n_bytes: int) -> None:
    data = np.random.default_rng(0).bytes(n_bytes)
    put(tmp_path, "a.png", data)

    assert store(tmp_path).read("a.png") == data


def test_a_file_that_is_not_there_is_named(place: str) -> None:
    upload(place, {"a.png": png(1)})

    with pytest.raises(ImageError, match=r"'b\.png' .* is not there"):
        store(place).read("b.png")


def test_fingerprints_are_sha256_in_the_order_asked(place: str) -> None:
    upload(place, {"a.png": png(1), "b.png": png(2)})

    expected = [sha256(png(value)).hexdigest() for value in (2, 1, 2)]

    assert store(place).fingerprints(["b.png", "a.png", "b.png"]) == expected
    assert store(place).fingerprints([]) == []


def test_missing_files_are_counted_and_the_first_is_named(place: str) -> None:
    upload(place, {"a.png": png(1)})

    with pytest.raises(ImageError, match=r"2 of 3 images .* first is 'b\.png'"):
        store(place).fingerprints(["a.png", "b.png", "c.png"])


def test_many_missing_files_are_counted_too(place: str) -> None:
    upload(place, {"sub/a.png": png(1)})

    with pytest.raises(ImageError, match="99 of 100 images"):
        store(place).fingerprints(["sub/a.png", *(f"sub/{n}.png" for n in range(99))])


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    names = filled(tmp_path / "images", [1, 2])
    before = store(tmp_path / "images", tmp_path / "cache").fingerprints(names)
    blank(tmp_path / "images")

    again = store(tmp_path / "images", tmp_path / "cache").fingerprints(names)

    assert again == before


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache"
    put(root, "a.png", png(1))
    before = store(root, cache).pixels(["a.png"], GRAY)
    put(root, "a.png", png(9), modified=LONG_AGO + 1)

    after = store(root, cache).pixels(["a.png"], GRAY)

    assert (values(before), values(after)) == ([1], [9])


def test_a_file_changed_within_the_clocks_tick_is_read_again(tmp_path: Path) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache"
    now = time.time()
    put(root, "a.png", png(1), modified=now)
    store(root, cache).fingerprints(["a.png"])
    put(root, "a.png", png(9), modified=now)

    (content,) = store(root, cache).fingerprints(["a.png"])

    assert content == sha256(png(9)).hexdigest()


def test_two_stores_share_a_cache_without_mixing_their_names(tmp_path: Path) -> None:
    for root, value in (("one", 1), ("two", 2)):
        put(tmp_path / root, "a.png", png(value))
        store(tmp_path / root, tmp_path / "cache").fingerprints(["a.png"])

    (content,) = store(tmp_path / "two", tmp_path / "cache").fingerprints(["a.png"])

    assert content == sha256(png(2)).hexdigest()


def test_files_that_differ_in_their_folder_alone_are_not_mixed(tmp_path: Path) -> None:
    for number in (1, 2):
        put(tmp_path / "images", f"{number}/a.png", png(number))

    for names in (["1/a.png"], ["2/a.png"]):
        store(tmp_path / "images", tmp_path / "cache").pixels(names, GRAY)
    decoded = store(tmp_path / "images", tmp_path / "cache").pixels(names, GRAY)

    assert values(decoded) == [2]


def test_a_blob_is_known_by_its_version(tmp_path: Path) -> None:
    place = f"memory://{uuid4().hex}"
    upload(place, {"a.png": png(1)})
    store(place, tmp_path).fingerprints(["a.png"])
    upload(place, {"a.png": png(9)})

    assert values(store(place, tmp_path).pixels(["a.png"], GRAY)) == [9]


# Pixels


def test_pixels_come_in_the_order_asked(place: str, tmp_path: Path) -> None:
    upload(place, {f"{value}.png": png(value) for value in range(100)})
    order = [f"{value}.png" for value in (42, 7, 99, 7)]

    for cache in (None, tmp_path / "cache"):
        decoded = store(place, cache).pixels(order, GRAY)
        assert decoded.image_ids == order
        assert values(decoded) == [42, 7, 99, 7]
        assert decoded.set_aside.empty


def test_the_same_images_in_color_are_other_pixels(tmp_path: Path) -> None:
    names = filled(tmp_path, [5])
    images = store(tmp_path, tmp_path / ".cache")

    assert images.pixels(names, GRAY).pixels.shape == (1, 2, 2, 1)
    assert images.pixels(names, COLOR).pixels.shape == (1, 2, 2, 3)


def test_an_image_is_decoded_once_for_all_runs(tmp_path: Path) -> None:
    names = filled(tmp_path / "images", range(10))
    store(tmp_path / "images", tmp_path / "cache").pixels(names, GRAY)
    blank(tmp_path / "images")

    decoded = store(tmp_path / "images", tmp_path / "cache").pixels(names, GRAY)

    assert values(decoded) == list(range(10))


def test_a_renamed_image_is_not_decoded_again(tmp_path: Path) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache"
    filled(root, [3])
    store(root, cache).pixels(["003.png"], GRAY)
    (root / "003.png").rename(root / "new.png")
    parts = sorted((cache / GRAY.decode_key).iterdir())

    assert values(store(root, cache).pixels(["new.png"], GRAY)) == [3]
    assert sorted((cache / GRAY.decode_key).iterdir()) == parts


def test_every_unusable_image_is_set_aside_with_its_reason(
    place: str, tmp_path: Path
) -> None:
    good = png(1, side=30)
    upload(
        place,
        {
            "good.png": good,
            "empty.png": b"",
            "half.png": good[: len(good) // 2],
            "text.png": b"dear diary",
            "large.png": png(1, side=101),
        },
    )
    names = ["empty.png", "good.png", "half.png", "text.png", "large.png", "gone.png"]

    for _ in range(2):  # decoded, and from the cache
        decoded = store(place, tmp_path / "cache").pixels(names, GRAY)
        found = reasons(decoded)
        assert decoded.image_ids == ["good.png"]
        assert list(found) == [name for name in names if name != "good.png"]
        assert "0 bytes" in found["empty.png"]
        assert "damaged or cut off" in found["half.png"]
        assert "holds no JPEG" in found["text.png"]
        assert "101 x 101 pixels are 10,201" in found["large.png"]
        assert "not there" in found["gone.png"]


def test_why_an_image_is_unusable_is_found_out_once(tmp_path: Path) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache"
    put(root, "half.png", png(1, side=30)[:60])
    store(root, cache).pixels(["half.png"], GRAY)
    blank(root)

    decoded = store(root, cache).pixels(["half.png"], GRAY)

    assert "damaged or cut off" in reasons(decoded)["half.png"]


def test_a_raised_limit_gives_the_large_image_another_try(tmp_path: Path) -> None:
    put(tmp_path / "images", "large.png", png(7, side=101))
    cautious = store(tmp_path / "images", tmp_path / "cache", max_pixels=100)
    assert cautious.pixels(["large.png"], GRAY).image_ids == []

    bold = store(tmp_path / "images", tmp_path / "cache", max_pixels=100_000)

    assert values(bold.pixels(["large.png"], GRAY)) == [7]


def test_images_that_come_later_are_found(tmp_path: Path) -> None:
    names = filled(tmp_path, [1])
    images = store(tmp_path)
    assert len(images.pixels(["001.png", "002.png"], GRAY).set_aside) == 1

    names = filled(tmp_path, [1, 2])

    assert values(images.pixels(names, GRAY)) == [1, 2]


def test_a_store_travels_to_another_process(tmp_path: Path) -> None:
    names = filled(tmp_path / "images", [1, 2])
    images = store(tmp_path / "images", tmp_path / "cache")
    images.pixels(names, GRAY)

    arrived = pickle.loads(pickle.dumps(images))

    assert values(arrived.pixels(names, GRAY)) == [1, 2]


def test_threads_may_share_a_store(tmp_path: Path) -> None:
    names = filled(tmp_path / "images", range(60))
    images = store(tmp_path / "images", tmp_path / "cache")
    results: list[list[int]] = []

    def ask(start: int) -> None:
        results.append(values(images.pixels(names[start : start + 30], GRAY)))

    threads = [threading.Thread(target=ask, args=[start]) for start in (0, 10, 20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    expected = [list(range(start, start + 30)) for start in (0, 10, 20, 30)]
    assert sorted(results) == expected


def test_files_that_take_long_are_read_several_at_a_time() -> None:
    place = f"slow://{uuid4().hex}"
    fsspec.register_implementation("slow", SlowFileSystem, clobber=True)
    upload(place, {f"{n}.png": png(n) for n in range(60)})

    decoded = store(place).pixels([f"{n}.png" for n in range(60)], GRAY)

    assert values(decoded) == list(range(60))
    assert SlowFileSystem.together.is_set()


class SlowFileSystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files in memory, as slow as those far away."""

    protocol = "slow"
    together = threading.Event()
    _reading = 0

    def cat_file(self, path: str, *args: Any, **options: Any) -> bytes:
        """Give the content to one that waits, or to two that are there."""
        SlowFileSystem._reading += 1
        if SlowFileSystem._reading > 1:
            self.together.set()
        self.together.wait(0.01)
        SlowFileSystem._reading -= 1
        return bytes(super().cat_file(path, *args, **options))


def test_a_store_that_forgot_looks_again(tmp_path: Path) -> None:
    names = filled(tmp_path / "images", [1, 2])
    images = store(tmp_path / "images", tmp_path / "cache")
    before = images.pixels(names, GRAY)
    put(tmp_path / "images", "001.png", png(9), modified=LONG_AGO + 1)
    assert values(images.pixels(names, GRAY)) == [1, 2]

    images.forget()

    assert values(before) == [1, 2]
    assert values(images.pixels(names, GRAY)) == [9, 2]
    assert images.fingerprints(names)[1] == sha256(png(2)).hexdigest()


def test_what_a_store_forgot_is_not_decoded_again(tmp_path: Path) -> None:
    names = filled(tmp_path / "images", range(9))
    images = store(tmp_path / "images", tmp_path / "cache")
    images.pixels(names, GRAY)
    images.forget()
    blank(tmp_path / "images")

    assert values(images.pixels(names, GRAY)) == list(range(9))


def test_many_images_are_announced_once_where_there_is_no_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(1_000):
        put(tmp_path, f"{number}.png", png(number % 256))
    names = [f"{number}.png" for number in range(1_000)]

    with caplog.at_level(logging.INFO, logger="active_learning"):
        store(tmp_path).pixels(names, GRAY)

    assert [r.message[:20] for r in caplog.records] == ["Decoding 1000 images"]
    assert capfd.readouterr().err == ""


# The cache between processes

ASK = """
import sys
import numpy as np
from active_learning.imaging import ImageStore, Preprocessing
root, cache, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
gray = Preprocessing(height=2, width=2, channels=1, mean=(0.0,), std=(1.0,))
names = [f"{value:03}.png" for value in range(n)]
decoded = ImageStore(root, cache=cache, max_pixels=10_000).pixels(names, gray)
print(decoded.pixels.take(np.arange(n))[:, 0, 0, 0].tolist())
"""


def test_processes_that_decode_at_once_agree(tmp_path: Path) -> None:
    filled(tmp_path / "images", range(250))
    places = [str(tmp_path / "images"), str(tmp_path / "cache")]
    command = [sys.executable, "-c", ASK, *places, "250"]

    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]

    answers = {process.communicate()[0].decode().strip() for process in processes}
    assert answers == {str(list(range(250)))}


PARTS = {
    "pixels": lambda path: path.name.startswith("shard-") and "index" not in path.name,
    "index": lambda path: path.name.endswith(".index.npy"),
    "fingerprints": lambda path: path.name.startswith("part-"),
}


@pytest.mark.parametrize("is_kind", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("kept", [0, 1, 90], ids=["empty", "one byte", "cut off"])
def test_a_damaged_part_of_the_cache_is_reported_and_made_anew(
    tmp_path: Path,
    is_kind: Callable[[Path], bool],
    kept: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache"
    names = filled(root, range(5))
    store(root, cache).pixels(names, GRAY)
    (part,) = filter(is_kind, cache.rglob("*.npy"))
    part.write_bytes(part.read_bytes()[:kept])

    decoded = store(root, cache).pixels(names, GRAY)

    assert values(decoded) == list(range(5))
    assert "damaged part of the image cache" in caplog.text
    caplog.clear()
    assert values(store(root, cache).pixels(names, GRAY)) == list(range(5))
    assert caplog.text == ""


def test_a_shard_without_its_index_is_not_believed(tmp_path: Path) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache"
    names = filled(root, range(5))
    store(root, cache).pixels(names, GRAY)
    for index in cache.rglob("shard-*.index.npy"):
        index.unlink()

    assert values(store(root, cache).pixels(names, GRAY)) == list(range(5))


def test_what_killed_writers_left_is_swept_away(tmp_path: Path) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache" / GRAY.decode_key
    names = filled(root, range(5))
    put(cache, "shard-torn.npy", b"x")
    put(cache, ".shard-half.npy.0.tmp", b"x")
    old = time.time() - 10_000
    for path in cache.iterdir():
        os.utime(path, (old, old))

    store(root, tmp_path / "cache").pixels(names, GRAY)

    assert not [p.name for p in cache.iterdir() if "torn" in p.name or "half" in p.name]


def test_many_small_shards_become_few(tmp_path: Path) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache"
    names = filled(root, range(150))
    for name in names:
        store(root, cache).pixels([name], GRAY)

    assert len(list(cache.rglob("*.npy"))) < 150
    blank(root)
    assert values(store(root, cache).pixels(names, GRAY)) == list(range(150))


def test_what_two_processes_stored_is_merged_once(tmp_path: Path) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache"
    names = filled(root, range(3))
    store(root, cache).pixels(names[:2], GRAY)
    folder = cache / GRAY.decode_key
    for path in list(folder.glob("shard-*")):
        for number in range(70):
            twin = path.name.replace("shard-", f"shard-{number}-")
            (folder / twin).write_bytes(path.read_bytes())

    store(root, cache).pixels(names, GRAY)

    kept = [
        np.load(path) for path in folder.glob("shard-*.npy") if "index" in path.name
    ]
    assert sum(map(len, kept)) == 3
    assert values(store(root, cache).pixels(names, GRAY)) == [0, 1, 2]


def test_a_store_reads_on_while_its_shards_are_merged(tmp_path: Path) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache"
    names = filled(root, range(100))
    early = store(root, cache)
    before = early.pixels(names[:3], GRAY)
    for name in names[3:]:
        store(root, cache).pixels([name], GRAY)

    assert values(before) == [0, 1, 2]
    assert values(early.pixels(names, GRAY)) == list(range(100))


FULL_DISK = """
import resource, sys
from active_learning.imaging import ImageStore, Preprocessing
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
gray = Preprocessing(height=32, width=32, channels=1, mean=(0.0,), std=(1.0,))
names = [f"{value:03}.png" for value in range(50)]
ImageStore(sys.argv[1], cache=sys.argv[2], max_pixels=10_000).pixels(names, gray)
"""


def test_a_full_disk_is_named_and_leaves_no_half_of_the_cache(tmp_path: Path) -> None:
    root, cache = tmp_path / "images", tmp_path / "cache"
    names = filled(root, range(50))

    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, root, cache, "20000"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode != 0
    assert "File too large" in ran.stderr
    assert "shard-" in ran.stderr.splitlines()[-1]
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert values(store(root, cache).pixels(names, GRAY)) == list(range(50))


# What files are


def test_a_survey_says_of_each_name_what_its_file_is(place: str) -> None:
    upload(place, {"a.png": png(1), "b.png": b"", "c.png": b"no image at all"})
    names = ["gone.png", "c.png", "a.png", "b.png", "a.png"]

    found = store(place).survey(names)

    assert found["image_id"].tolist() == names
    digest = sha256(png(1)).hexdigest()
    content = dict(zip(names, found["content"], strict=True))
    assert (content["a.png"], content["gone.png"]) == (digest, "")
    assert found["content"].iloc[2] == found["content"].iloc[4]
    unfit = [name for name, why in zip(names, found["reason"], strict=True) if why]
    assert unfit == ["gone.png", "c.png", "b.png"]


def test_a_survey_of_what_was_met_before_is_the_same(tmp_path: Path) -> None:
    names = filled(tmp_path, [1, 2])
    images = store(tmp_path)
    first = images.survey([*names, "gone.png"])

    again = images.survey([*names, "gone.png"])

    assert again.equals(first)
    assert images.survey(names).equals(first.head(2))
