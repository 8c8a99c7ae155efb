"""A manifest that a database knows of, too."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from active_learning.datasets.manifest_dataset import ManifestDataset
from active_learning.schemas import MANIFEST, fingerprint, to_arrow
from active_learning.services.telemetry import connect_adx

if TYPE_CHECKING:
    from active_learning.services.telemetry.azure.adx import AdxTelemetry

_TABLE = "test_set"


class MirroredManifestDataset(ManifestDataset):
    """``MirroredManifestDataset`` keeps a manifest and tells a database its images.

    The file is the truth; its rows are appended to the table ``test_set`` of Azure Data
    Explorer, so that a query there leaves these images out. Of a save that was cut off
    between the two, the next save or load does the rest.

    Args:
        filepath: The file.
        database: ``https://<cluster>.<region>.kusto.windows.net/<database>``.
        frozen: As of ``ManifestDataset``.
        versions: As of ``ManifestDataset``.
        load_args: The times to wait, as of ``AdxTableDataset``.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            test_set:
              type: active_learning.datasets.MirroredManifestDataset
              filepath: abfs://loop@account.dfs.core.windows.net/test_set.parquet
              database: ${globals:telemetry.database}
              frozen: true
    """

    def __init__(
        self,
        *,
        filepath: str,
        database: str,
        frozen: bool = False,
        versions: str | None = None,
        load_args: Mapping[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the file and the database; nothing is connected yet."""
        super().__init__(
            filepath=filepath, frozen=frozen, versions=versions, metadata=metadata
        )
        self._database = database
        self._load_args = dict(load_args or {})
        self._connected: AdxTelemetry | None = None
        self._mirrored = ""

    def load(self) -> pd.DataFrame:
        """Read the rows, and tell the database those that it does not know.

        Raises:
            FrozenError: The rows are not those that were saved.
            SinkAwayError: The database cannot be reached now; load once more.
        """
        frame = super().load()
        self._mirror(frame)
        return frame

    def save(self, data: pd.DataFrame) -> None:
        """Write the rows, then tell the database.

        Raises:
            FrozenError: The manifest is frozen and holds other images or labels.
            SinkAwayError: The database cannot be reached now. The file is written;
                save or load once more.
        """
        super().save(data)
        self._mirror(data)

    def _mirror(self, frame: pd.DataFrame) -> None:
        stamp = fingerprint(frame)
        if stamp == self._mirrored:
            return
        rows = to_arrow(frame[MANIFEST.names], MANIFEST)
        telemetry = self._telemetry()
        if not telemetry.has(_TABLE, rows):
            telemetry.append(_TABLE, rows)
        self._mirrored = stamp

    def _telemetry(self) -> "AdxTelemetry":
        if self._connected is None:
            self._connected = connect_adx(self._database, patience=self._load_args)
        return self._connected

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "database": self._database}
