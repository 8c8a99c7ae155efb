"""Blobs are read whole, written once, waited for, and told apart from what is away."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.standins.azurite import Azurite, azurite, container, missing
from tests.standins.identity import Identity
from tests.standins.proxy import CUT, Proxy
from tests.standins.tls import Tls, tls

from active_learning.errors import FrozenError, ImageError, NoImagesError
from active_learning.imaging import ImageStore, Preprocessing
from active_learning.imaging.archive import ImageArchive
from active_learning.imaging.places import Place, Stamp, place_at
from active_learning.imaging.writing import ImageWriter

__all__ = ["azurite", "container", "tls"]

pytestmark = pytest.mark.azure

FORM = Preprocessing(height=4, width=4, channels=1, mean=(0,), std=(1,))
# More than the client asks for at once.
LARGE = 33 * 2**20
IN_A_HURRY = {"retries": 3, "back_off_s": 0.001}

LAPSE = """
import sys
from active_learning.imaging.places import place_at

place = place_at(sys.argv[1], {"retries": 2, "back_off_s": 0.01})
for line in sys.stdin:
    try:
        place.write(line.strip(), b"content")
        print(len(place.read(line.strip())), flush=True)
    except OSError as exc:
        print(type(exc).__name__, exc, flush=True)
"""


def png(shade: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.full((4, 4), shade, dtype=np.uint8)).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[Proxy]:
    with Proxy(azurite.ports["blob"]) as started:
        yield started


@pytest.fixture
def options(azurite: Azurite, proxy: Proxy) -> dict[str, Any]:
    """Blobs by way of the proxy."""
    return {**azurite.storage_options(blob=proxy.port), **IN_A_HURRY}


@pytest.fixture
def root(azurite: Azurite, container: str) -> str:
    return azurite.place(container, "images")


@pytest.fixture
def place(root: str, options: dict[str, Any]) -> Place:
    return place_at(root, options)


@pytest.fixture
def store(root: str, options: dict[str, Any]) -> ImageStore:
    """Two images, by way of the proxy."""
    ImageWriter(root, options).write({"a.png": png(1), "b.png": png(2)})
    return ImageStore(root, cache=None, max_pixels=100, storage_options=options)


def test_a_place_of_blobs_is_listed_without_what_is_hidden(place: Place) -> None:
    for name in ("b.png", "a/x.png", "a/.hidden.png", ".tmp/y.png", "a/notes.txt"):
        place.write(name, b"something")

    listing = place.listing("")

    assert listing.image_ids == ["a/x.png", "b.png"]
    assert listing.folders == ["a"]
    assert list(listing.skipped) == ["a/notes.txt"]
    assert place.listing("a").image_ids == ["a/x.png"]
    assert sorted(place.names("")) == ["a/notes.txt", "a/x.png", "b.png"]


def test_a_folder_whose_name_goes_on_is_another_folder(place: Place) -> None:
    place.write("train/a.png", b"one")
    place.write("training/b.png", b"other")

    assert place.listing("train").image_ids == ["train/a.png"]


@pytest.mark.parametrize("n_asked", [3, 60])
def test_a_blob_is_known_by_its_etag(place: Place, n_asked: int) -> None:
    names = [f"{number:02d}.png" for number in range(n_asked)]
    for name in names[1:]:
        place.write(name, b"as long")
    before = place.stamps(names)

    place.write(names[1], b"no less")
    after = place.stamps(names)

    assert isinstance(before[0], ImageError)
    assert isinstance(before[1], Stamp)
    assert isinstance(after[1], Stamp)
    assert before[1].settled
    assert before[1].size == after[1].size
    assert before[1].version.startswith("etag")
    assert before[1] != after[1]
    assert before[2:] == after[2:]


def test_a_blob_that_is_deleted_after_it_was_listed_is_set_aside(
    store: ImageStore, place: Place
) -> None:
    names = store.image_ids()

    place.remove("a.png")
    place.remove("a.png")
    decoded = store.pixels(names, FORM)

    assert decoded.image_ids == ["b.png"]
    reasons = decoded.set_aside.to_dict(orient="records")
    assert reasons == [{"image_id": "a.png", "reason": "the file is not there"}]


def test_a_blob_that_is_deleted_while_it_is_read_is_not_there(
    place: Place, proxy: Proxy, azurite: Azurite, root: str
) -> None:
    aside = place_at(root, azurite.storage_options())
    place.write("large.png", bytes(LARGE))
    proxy.on = lambda method, path: method == "GET"
    proxy.faults.extend([None, lambda: aside.remove("large.png")])

    with pytest.raises(ImageError, match="not there"):
        place.read("large.png")


def test_a_blob_that_changes_while_it_is_read_is_read_again(
    place: Place, proxy: Proxy, azurite: Azurite, root: str
) -> None:
    aside = place_at(root, azurite.storage_options())
    place.write("large.png", b"1" * LARGE)
    proxy.on = lambda method, path: method == "GET"
    proxy.faults.extend([None, lambda: aside.write("large.png", b"2" * LARGE)])

    read = place.read("large.png")

    assert sha256(read).digest() == sha256(b"2" * LARGE).digest()
    assert not proxy.faults


def test_a_blob_that_changes_at_every_look_is_refused(
    place: Place, proxy: Proxy, azurite: Azurite, root: str
) -> None:
    aside = place_at(root, azurite.storage_options())
    place.write("large.png", bytes(LARGE))

    def change() -> None:
        aside.write("large.png", os.urandom(16) + bytes(LARGE - 16))

    proxy.on = lambda method, path: method == "GET"
    proxy.faults.extend([None, change] * 3)

    with pytest.raises(ImageError, match="changes while it is read"):
        place.read("large.png")


@pytest.mark.parametrize("fault", [408, 429, 500, 503, CUT], ids=str)
def test_what_passes_is_waited_for(place: Place, proxy: Proxy, fault: Any) -> None:
    proxy.faults.extend([fault, fault])
    place.write("a.png", b"content")
    assert not proxy.faults

    proxy.faults.extend([fault, fault])
    assert place.read("a.png") == b"content"
    assert not proxy.faults

    proxy.faults.extend([fault, fault])
    assert place.listing("").image_ids == ["a.png"]
    assert not proxy.faults


@pytest.mark.parametrize("fault", [429, 503, CUT], ids=str)
def test_a_store_that_stays_away_stops_the_run_and_sets_no_image_aside(
    store: ImageStore, proxy: Proxy, azurite: Azurite, fault: Any
) -> None:
    names = store.image_ids()
    proxy.faults.extend([fault] * 1000)

    with pytest.raises(ConnectionError, match=azurite.account) as told:
        store.pixels(names, FORM)

    assert "3 retries" in str(told.value)
    assert azurite.key not in repr(told.value)


def test_a_log_does_not_tell_each_request(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        place.write("a.png", b"content")

    assert not [record for record in caplog.records if "azure" in record.name]


def test_a_server_that_is_gone_is_named(root: str, azurite: Azurite) -> None:
    with Proxy(azurite.ports["blob"]) as proxy:
        options = {**azurite.storage_options(blob=proxy.port), **IN_A_HURRY}
    gone = place_at(root, options)

    with pytest.raises(ConnectionError, match=f"{azurite.account}.*cannot be reached"):
        gone.write("a.png", b"content")


def test_who_may_not_is_told_which_role_is_missing(
    store: ImageStore, proxy: Proxy, azurite: Azurite
) -> None:
    names = store.image_ids()
    proxy.on = lambda method, path: method == "GET" and "a.png" in path
    proxy.faults.extend([403] * 1000)

    # Though the other image could be read.
    with pytest.raises(PermissionError, match="Storage Blob Data") as told:
        store.pixels(names, FORM)

    assert azurite.account in str(told.value)
    assert azurite.key not in repr(told.value)


def test_a_wrong_key_is_no_secret_in_an_error(root: str, azurite: Azurite) -> None:
    wrong = azurite.connection_string().replace(azurite.key, "d3Jvbmcga2V5")
    place = place_at(root, {"connection_string": wrong, **IN_A_HURRY})

    with pytest.raises(PermissionError) as told:
        place.write("a.png", b"content")

    assert "d3Jvbmcga2V5" not in f"{told.value!r} {told.value.__cause__!r}"


def test_a_container_that_is_missing_is_named_with_its_account(
    azurite: Azurite,
) -> None:
    root = azurite.place("nowhere", "images")
    options = {**azurite.storage_options(), **IN_A_HURRY}
    place = place_at(root, options)

    told = f"no container 'nowhere' in the storage account '{azurite.account}'"
    with pytest.raises(FileNotFoundError, match=told):
        place.write("a.png", b"content")
    with pytest.raises(FileNotFoundError, match=told):
        place.listing("")
    with pytest.raises(NoImagesError, match="nowhere"):
        ImageStore(
            root, cache=None, max_pixels=1, storage_options=options
        ).fingerprints(["a.png"])
    assert not place.exists()
    assert not place_at(azurite.place("nowhere"), options).exists()


def test_a_container_is_a_place_too(azurite: Azurite, container: str) -> None:
    place = place_at(azurite.place(container), azurite.storage_options())
    assert place.exists()

    place.write("a.png", b"content")

    assert place.listing("").image_ids == ["a.png"]
    assert not place_at(
        azurite.place(container, "nothing"), azurite.storage_options()
    ).exists()


def test_what_is_there_is_left_if_it_is_the_same_and_else_refused(
    place: Place,
) -> None:
    assert place.fill("a.png", lambda: b"first")
    assert not place.fill("a.png", lambda: b"first")
    with pytest.raises(FrozenError, match=r"'a\.png'.*another content"):
        place.fill("a.png", lambda: b"other")

    assert place.read("a.png") == b"first"


def test_an_upload_whose_answer_was_lost_is_the_same_upload(
    place: Place, proxy: Proxy, azurite: Azurite, root: str
) -> None:
    aside = place_at(root, azurite.storage_options())
    proxy.faults.append(lambda: aside.write("a.png", b"first"))

    assert not place.fill("a.png", lambda: b"first")


def test_requests_under_way_are_several_and_bounded(
    root: str, azurite: Azurite, proxy: Proxy
) -> None:
    options = {**azurite.storage_options(blob=proxy.port), "at_once": 4}
    together = Barrier(4, timeout=60)
    proxy.faults.extend([together.wait] * 20)
    proxy.on = lambda method, path: method == "HEAD"
    place = place_at(root, options)

    assert place.n_threads == 4
    place.stamps([f"{number}.png" for number in range(20)])

    assert proxy.crossing.most == 4


def test_the_archive_keeps_an_image_of_a_request_once(
    root: str, options: dict[str, Any], proxy: Proxy
) -> None:
    archive = ImageArchive(root, options)
    proxy.faults.extend([503, CUT])

    image = archive.named(png(1))
    refused = archive.keep([image])
    n_requests = len(proxy.requests)
    refused += ImageArchive(root, options).keep([image])

    assert refused == []
    assert n_requests == 3  # one upload, and two that failed
    assert place_at(root, options).read(image.image_id) == png(1)


def test_what_the_archive_cannot_keep_is_told(
    root: str, options: dict[str, Any], proxy: Proxy
) -> None:
    archive = ImageArchive(root, options)
    image, other = archive.named(png(1)), archive.named(png(2))
    place_at(root, options).write(image.image_id, b"spoiled")

    (refusal,) = archive.keep([image])
    proxy.faults.extend([503] * 1000)

    assert "another content" in str(refusal)
    with pytest.raises(OSError, match="503"):
        archive.keep([other])


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_token_that_expires_in_mid_run_is_renewed(tls: Tls) -> None:
    with (
        Identity(lifetime_s=2, grace_s=3600) as identity,
        Azurite(tls, identity, ("blob",)) as blobs,
        writer(
            blobs.place(blobs.make_container(), "images"), blobs.environment()
        ) as process,
    ):
        assert said(process, "a.png") == "7\n"

        n_issued = wait_until_expired(identity)
        assert said(process, "b.png") == "7\n"
        assert len(identity.issued) > n_issued

        # Whoever gives the tokens refuses: what is there stays, nothing is half done.
        wait_until_expired(identity)
        identity.faults.extend([(400, '{"error": "no"}')] * 100)
        told = said(process, "c.png")
        assert told.startswith("PermissionError")
        assert "does not let us in" in told
        assert not [token for token in identity.issued if token in told]
        assert identity.secret not in told

        identity.faults.clear()
        assert said(process, "c.png") == "7\n"


@contextmanager
def writer(root: str, environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """A process that writes and reads what it is told; it says how long that was."""
    with subprocess.Popen(
        [sys.executable, "-c", LAPSE, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: "subprocess.Popen[str]", name: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{name}\n")
    process.stdin.flush()
    return process.stdout.readline()


def wait_until_expired(identity: Identity) -> int:
    """Until the last token is old, as its client was told; how many there were."""
    issued_at = time.time()
    while time.time() < issued_at + identity.lifetime_s + 1:
        time.sleep(0.05)
    return len(identity.issued)
