"""A list of labeled images that says when it was tampered with."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from active_learning.errors import FrozenError
from active_learning.files import replacing
from active_learning.schemas import fingerprint

_KEY = b"fingerprint"


class ManifestDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """``ManifestDataset`` keeps labeled images with a fingerprint of their content.

    One Parquet file with at least the columns ``image_id``, ``label`` and ``content``
    (SHA-256 of the image's file). The fingerprint covers content and labels, not names
    or order; it is stored beside the rows and checked at every load.

    Args:
        filepath: The file.
        frozen: Refuse to save over a manifest with another fingerprint, as a test
            set must: figures measured on two test sets cannot be compared.
        versions: A folder that keeps every manifest that was saved, each under the
            first 16 digits of its fingerprint; ``None`` keeps the present one alone.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            test_set:
              type: active_learning.datasets.ManifestDataset
              filepath: data/05_model_input/test_set.parquet
              frozen: true

        In Python:

        >>> from tempfile import mkdtemp
        >>> manifest = ManifestDataset(filepath=f"{mkdtemp()}/test_set.parquet")
        >>> columns = {"image_id": ["a.png"], "label": ["cat"], "content": ["9f86"]}
        >>> manifest.save(pd.DataFrame(columns))
        >>> manifest.load()["label"].item()
        'cat'
    """

    def __init__(
        self,
        *,
        filepath: str,
        frozen: bool = False,
        versions: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the file; nothing is read yet."""
        self._filepath = Path(filepath)
        self._frozen = frozen
        self._versions = None if versions is None else Path(versions)
        self._seen: tuple[tuple[int, int], pd.DataFrame] | None = None
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Read the rows and check them against their fingerprint.

        A file that has not changed since is not read again: every node of every round
        asks for the test set.

        Raises:
            FrozenError: The rows are not those that were saved.
        """
        if not self._filepath.exists():
            raise DatasetError(
                f"There is no manifest at {self._filepath}. The pipeline 'test-set' "
                "freezes a test set, 'label-ingest' makes a training set."
            )
        found = self._filepath.stat()
        version = (found.st_mtime_ns, found.st_size)
        if self._seen is not None and self._seen[0] == version:
            return self._seen[1].copy()
        table = pq.read_table(self._filepath)
        frame: pd.DataFrame = table.to_pandas()
        stored = (table.schema.metadata or {}).get(_KEY, b"").decode()
        if stored != fingerprint(frame):
            raise FrozenError(
                f"{self._filepath} holds {len(frame)} images whose fingerprint is not "
                f"the one it was saved with ({stored[:12] or 'none'}): the file was "
                "changed by hand. Delete it and run the pipeline that writes it."
            )
        self._seen = (version, frame)
        return frame.copy()

    def save(self, data: pd.DataFrame) -> None:
        """Write the rows with their fingerprint.

        Raises:
            FrozenError: The manifest is frozen and holds other images or labels.
        """
        stamp = fingerprint(data)
        if self._frozen and self._filepath.exists():
            if fingerprint(self.load()) != stamp:
                raise FrozenError(
                    f"{self._filepath} is frozen with other images or labels than "
                    f"these {len(data)}. Point AL_DATA or the parameter 'images' "
                    "elsewhere to start another project, or delete the file and with "
                    "it the comparability of every figure measured on it."
                )
            return
        table = pa.Table.from_pandas(data, preserve_index=False)
        table = table.replace_schema_metadata({_KEY: stamp.encode()})
        with replacing(self._filepath) as temporary:
            pq.write_table(table, temporary)
            if self._versions is not None:
                self._keep(temporary, self._versions / f"{stamp[:16]}.parquet")

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows, for Kedro-Viz."""
        head = self.load().head(nrows).astype(str)
        return TablePreview(head.to_dict(orient="split"))

    def _keep(self, manifest: Path, version: Path) -> None:
        if not version.exists():
            with replacing(version) as temporary:
                shutil.copyfile(manifest, temporary)

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        described = {"filepath": str(self._filepath), "frozen": self._frozen}
        if self._versions is not None:
            described["versions"] = str(self._versions)
        return described
