"""Fashion-MNIST from wherever it can be had."""

import gzip
import logging
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, NoReturn

import numpy as np
from kedro.io import AbstractDataset, DatasetError
from numpy.typing import NDArray

from active_learning.errors import DataError, NoImagesError
from active_learning.imaging.pixels import UInt8Array

# Folder names, so without the slash of 'T-shirt/top'.
CLASSES = (
    "T-shirt-top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle-boot",
)

_DEBIAN_PACKAGE = "dataset-fashion-mnist"
_DEBIAN_FOLDER = Path("usr/share/datasets/fashion-mnist")
_PREFIXES = {"train": "train", "test": "t10k"}
_TIMEOUT_S = 600.0
_SILENCE_S = 30.0

_log = logging.getLogger(__name__)


class LabeledArray(NamedTuple):
    """(N, 28, 28) uint8 images and (N,) class names."""

    images: UInt8Array
    labels: NDArray[np.str_]


class FashionMnistDataset(AbstractDataset[NoReturn, dict[str, LabeledArray]]):
    """``FashionMnistDataset`` reads the clothing images that everyone tries first.

    The raw IDX files, plain or gzipped, are taken from the first source that has
    them: ``filepath``, torchvision's download, Debian's package through ``apt-get``
    (unpacked, not installed: no root is needed). Nothing is fetched before ``load``,
    and what torchvision or ``apt-get`` fetched once is there the next time.

    Args:
        filepath: A folder with the four IDX files; ``None`` is where Debian's package
            puts them.
        download_to: A folder for what has to be downloaded.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            fashion_mnist:
              type: active_learning.datasets.FashionMnistDataset
              download_to: data/01_raw/downloads

        In Python, with two images instead of 70,000:

        >>> from tempfile import mkdtemp
        >>> from pathlib import Path
        >>> folder = Path(mkdtemp())
        >>> one = bytes([0, 0, 0, 1])
        >>> for name in ("train", "t10k"):
        ...     image = bytes([0, 0, 8, 3]) + 3 * one + bytes([255])
        ...     _ = (folder / f"{name}-images-idx3-ubyte").write_bytes(image)
        ...     label = bytes([0, 0, 8, 1]) + one + bytes([8])
        ...     _ = (folder / f"{name}-labels-idx1-ubyte").write_bytes(label)
        >>> dataset = FashionMnistDataset(filepath=str(folder), download_to=mkdtemp())
        >>> dataset.load()["train"].labels.tolist()
        ['Bag']
    """

    def __init__(
        self,
        *,
        filepath: str | None = None,
        download_to: str,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the sources; none is tried yet."""
        self._filepath = Path(filepath) if filepath else Path("/", _DEBIAN_FOLDER)
        self._download_to = Path(download_to)
        self.metadata = metadata

    def load(self) -> dict[str, LabeledArray]:
        """Read ``train`` and ``test`` from the first source that has both.

        Raises:
            NoImagesError: No source has them: each one, and why.
        """
        sources: dict[str, Callable[[], dict[str, LabeledArray]]] = {
            f"IDX files in {self._filepath}": lambda: read_idx(self._filepath),
            "torchvision's download": self._from_torchvision,
            f"Debian's package {_DEBIAN_PACKAGE} through apt-get": self._from_debian,
        }
        reasons = ["already there: the dataset that `make data` writes is not complete"]
        for name, read in sources.items():
            try:
                splits = read()
            except DataError as exc:
                reasons.append(f"{name}: {exc}")
                continue
            _log.info("Fashion-MNIST comes from %s.", name)
            return splits
        listed = "\n".join(f"  {n}. {text}" for n, text in enumerate(reasons, start=1))
        raise NoImagesError(
            f"Fashion-MNIST could not be had from any of its four sources:\n{listed}\n"
            f"Install {_DEBIAN_PACKAGE}, or copy the four IDX files into "
            f"{self._filepath}, and type `make data` again; or use images of your own: "
            "`--params images=<folder>`."
        )

    def save(self, data: NoReturn) -> None:
        """Refuse: Fashion-MNIST is what it is."""
        raise DatasetError(
            f"{type(self).__name__} is read-only: it reads a published set of images. "
            "Declare an ImageFolderDataset to write labeled images."
        )

    def _from_torchvision(self) -> dict[str, LabeledArray]:
        folder = self._download_to / "FashionMNIST" / "raw"
        if folder.is_dir():
            try:
                return read_idx(folder)
            except DataError:
                _log.info("The download in %s is not whole; trying again.", folder)
        try:
            from torchvision.datasets import FashionMNIST
        except ImportError as exc:
            raise DataError(f"torchvision is not installed ({exc})") from exc
        before = socket.getdefaulttimeout()
        # Torchvision sets no limit: behind a silent firewall it would wait forever.
        socket.setdefaulttimeout(_SILENCE_S)
        try:
            FashionMNIST(str(self._download_to), download=True)
        except (OSError, RuntimeError) as exc:
            raise DataError(" ".join(str(exc).split())) from exc
        finally:
            socket.setdefaulttimeout(before)
        return read_idx(folder)

    def _from_debian(self) -> dict[str, LabeledArray]:
        folder = self._download_to / _DEBIAN_FOLDER
        if folder.is_dir():
            return read_idx(folder)
        if missing := [name for name in ("apt-get", "dpkg-deb") if not _has(name)]:
            raise DataError(f"there is no {' and no '.join(missing)} here")
        self._download_to.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._download_to, prefix=".debian-") as temporary:
            _run(["apt-get", "download", _DEBIAN_PACKAGE], Path(temporary))
            packages = [str(path) for path in Path(temporary).glob("*.deb")]
            if not packages:
                raise DataError("apt-get succeeded but left no package")
            _run(["dpkg-deb", "-x", packages[0], "unpacked"], Path(temporary))
            unpacked = Path(temporary, "unpacked", _DEBIAN_FOLDER)
            splits = read_idx(unpacked)
            folder.parent.mkdir(parents=True, exist_ok=True)
            unpacked.rename(folder)
        return splits

    def _exists(self) -> bool:
        return _complete(self._filepath)

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": str(self._filepath),
            "download_to": str(self._download_to),
        }


def read_idx(folder: Path) -> dict[str, LabeledArray]:
    """Read the four IDX files of MNIST's form, plain or gzipped.

    Raises:
        DataError: One is missing, damaged, or does not fit its partner.
    """
    splits = {}
    for split, prefix in _PREFIXES.items():
        images = _idx(folder / f"{prefix}-images-idx3-ubyte", n_axes=3)
        numbers = _idx(folder / f"{prefix}-labels-idx1-ubyte", n_axes=1)
        if len(images) != len(numbers):
            raise DataError(
                f"{folder} has {len(images)} {split} images "
                f"but {len(numbers)} labels for them"
            )
        if len(numbers) and numbers.max() >= len(CLASSES):
            raise DataError(
                f"{folder} has the {split} label {numbers.max()}, "
                f"but there are only {len(CLASSES)} classes"
            )
        splits[split] = LabeledArray(images, np.array(CLASSES)[numbers])
    return splits


def _idx(path: Path, n_axes: int) -> UInt8Array:
    data = _content(path)
    header = 4 + 4 * n_axes
    if len(data) < header or data[:4] != bytes([0, 0, 8, n_axes]):
        raise DataError(f"{path} is no IDX file of bytes with {n_axes} axes")
    shape = tuple(np.frombuffer(data, dtype=">u4", count=n_axes, offset=4).tolist())
    pixels: UInt8Array = np.frombuffer(data, dtype=np.uint8, offset=header)
    if pixels.size != np.prod(shape):
        raise DataError(
            f"{path} promises {np.prod(shape)} bytes after its header "
            f"but has {pixels.size}"
        )
    return pixels.reshape(shape)


def _content(path: Path) -> bytes:
    packed = path.with_name(f"{path.name}.gz")
    try:
        if path.exists():
            return path.read_bytes()
        return gzip.decompress(packed.read_bytes())
    except FileNotFoundError as exc:
        raise DataError(f"{path.name}(.gz) is not in {path.parent}") from exc
    except (OSError, EOFError) as exc:
        raise DataError(f"{packed} is damaged: {exc}") from exc


def _complete(folder: Path) -> bool:
    names = [
        f"{prefix}-{kind}-ubyte"
        for prefix in _PREFIXES.values()
        for kind in ("images-idx3", "labels-idx1")
    ]
    return all(
        (folder / name).exists() or (folder / f"{name}.gz").exists() for name in names
    )


def _has(program: str) -> bool:
    return shutil.which(program) is not None


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(  # noqa: S603 fixed words and file names of ours
            command,
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as exc:
        said = " ".join(str(exc.stderr).split())
        raise DataError(f"{command[0]} ended with {exc.returncode}: {said}") from exc
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise DataError(f"{command[0]} failed: {exc}") from exc
