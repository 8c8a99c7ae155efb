"""A list of labeled images that says when it was tampered with."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from active_learning.errors import FrozenError
from active_learning.files import WholeFile, file_at
from active_learning.schemas import UNLIKE, fingerprint

_KEY = b"fingerprint"


class ManifestDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """``ManifestDataset`` keeps labeled images with a fingerprint of their content.

    One Parquet file with at least the columns ``image_id``, ``label`` and ``content``
    (SHA-256 of the image's file). The fingerprint covers content and labels, not names
    or order; it is stored beside the rows and checked at every load.

    Args:
        filepath: The file: a path, or a URL such as ``abfs://loop@account...``.
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
        self._file = file_at(filepath)
        self._frozen = frozen
        self._versions = versions
        self._seen: tuple[object, pd.DataFrame] | None = None
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Read the rows and check them against their fingerprint.

        A file that has not changed since is not read again: every node of every round
        asks for the test set.

        Raises:
            FrozenError: The rows are not those that were saved.
        """
        try:
            version = self._file.version()
            if self._seen is not None and self._seen[0] == version:
                return self._seen[1].copy()
            with self._file.reading() as path, pq.ParquetFile(path) as file:
                table, told = file.read(), file.metadata.metadata or {}
        except FileNotFoundError as exc:
            raise DatasetError(
                f"There is no manifest at {self._file}. The pipeline 'test-set' "
                "freezes a test set, 'label-ingest' makes a training set."
            ) from exc
        frame: pd.DataFrame = table.to_pandas()
        stored = told.get(_KEY, b"").decode()
        if stored != fingerprint(frame):
            raise FrozenError(
                f"{self._file} holds {len(frame)} images whose fingerprint is not "
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
        if self._frozen:
            if not self._file.exists():
                self._write(data, self._file.making())
            # Of several that freeze it at once, the first is right.
            self._check_frozen(data)
        else:
            self._write(data, self._file.replacing())

    def preview(self, nrows: int = 10) -> TablePreview:
        """The first rows, for Kedro-Viz."""
        head = self.load().head(nrows).astype(str)
        return TablePreview(head.to_dict(orient="split"))

    def _check_frozen(self, data: pd.DataFrame) -> None:
        if fingerprint(self.load()) != fingerprint(data):
            raise FrozenError(
                f"{self._file} is frozen with other images or labels than "
                f"these {len(data)}. Point AL_DATA or the parameter 'images' "
                "elsewhere to start another project, or delete the file and with "
                "it the comparability of every figure measured on it."
            )

    def _write(self, data: pd.DataFrame, place: AbstractContextManager[Path]) -> None:
        table = pa.Table.from_pandas(data, preserve_index=False)
        table = table.replace_schema_metadata(None)
        repeating = [name for name in table.column_names if name not in UNLIKE]
        compression = dict.fromkeys(table.column_names, "none")
        compression |= dict.fromkeys(repeating, "snappy")
        with place as temporary:
            with (
                ThreadPoolExecutor(1) as beside,
                pq.ParquetWriter(
                    temporary,
                    table.schema,
                    use_dictionary=repeating,
                    compression=compression,
                ) as writer,
            ):
                fingerprinted = beside.submit(fingerprint, data)
                writer.write_table(table)
                stamp = fingerprinted.result()
                writer.add_key_value_metadata({_KEY.decode(): stamp})
            if self._versions is not None:
                version = f"{self._versions.rstrip('/')}/{stamp[:16]}.parquet"
                self._keep(temporary, file_at(version))

    def _keep(self, manifest: Path, version: WholeFile) -> None:
        if not version.exists():
            with version.replacing() as temporary:
                shutil.copyfile(manifest, temporary)

    def _exists(self) -> bool:
        return self._file.exists()

    def _describe(self) -> dict[str, Any]:
        described = {"filepath": str(self._file), "frozen": self._frozen}
        if self._versions is not None:
            described["versions"] = self._versions
        return described
