"""A training set that Azure Machine Learning can train on too."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from active_learning.datasets.manifest_dataset import ManifestDataset
from active_learning.files import file_at
from active_learning.schemas import fingerprint
from active_learning.services.training.mltable import (
    ANNOTATIONS,
    TABLE,
    datastore_url,
    json_lines,
    table,
)


class TrainingAssetDataset(ManifestDataset):
    """``TrainingAssetDataset`` keeps a manifest, and each version as a data asset.

    Beside the manifest it writes ``<versions>/<fingerprint>/`` with ``MLTable`` and
    ``annotations.jsonl``, as AutoML takes them, and makes that folder a version of the
    workspace's data asset: the first 16 digits of the fingerprint. The same training
    set is the same version, however often it is saved. The manifest is written last:
    where it is, its data asset is too.

    Args:
        filepath: The manifest.
        versions: A folder that keeps every version, as a URL in blob storage.
        asset: The data asset's name.
        workspace: ``subscription``, ``resource_group`` and ``name``.
        datastore: The workspace's datastore for the container of ``versions``.
        images_datastore: The one for the container of the image store.
        images_path: The folder in it that is the image store's root.
        metadata: For plugins; not used here.

    Examples:
        As a catalog entry:

        .. code-block:: yaml

            training_set:
              type: active_learning.datasets.TrainingAssetDataset
              filepath: abfs://loop@account.dfs.core.windows.net/training_set.parquet
              versions: abfs://loop@account.dfs.core.windows.net/training_set
              asset: training-set
              workspace:
                subscription: ${oc.env:AZURE_SUBSCRIPTION_ID}
                resource_group: ${oc.env:AZURE_RESOURCE_GROUP}
                name: ${oc.env:AZUREML_WORKSPACE_NAME}
              datastore: loop
              images_datastore: images

        In Python:

        >>> from tempfile import mkdtemp
        >>> dataset = TrainingAssetDataset(
        ...     filepath=f"{mkdtemp()}/training_set.parquet",
        ...     versions=f"{mkdtemp()}/versions",
        ...     asset="training-set",
        ...     workspace={"subscription": "s", "resource_group": "g", "name": "w"},
        ...     datastore="loop",
        ...     images_datastore="images",
        ... )
        >>> dataset.exists()
        False
    """

    def __init__(
        self,
        *,
        filepath: str,
        versions: str,
        asset: str,
        workspace: dict[str, str],
        datastore: str,
        images_datastore: str,
        images_path: str = "",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the places; Azure's libraries are imported by the first save."""
        super().__init__(filepath=filepath, versions=versions, metadata=metadata)
        self._folder = versions.rstrip("/")
        self._asset = asset
        self._workspace = dict(workspace)
        self._datastore = datastore
        self._images_datastore = images_datastore
        self._images_path = images_path

    def save(self, data: pd.DataFrame) -> None:
        """Write the files, register the data asset, and write the manifest.

        Nothing is registered where there is nothing to train on.

        Raises:
            TrainingError: Azure Machine Learning cannot be reached, or refuses; the
                manifest is as it was, and the same again completes what is missing.
        """
        version = fingerprint(data)[:16]
        if len(data):
            self._write_table(data, version)
            self._register(version, len(data))
        super().save(data)

    def _write_table(self, data: pd.DataFrame, version: str) -> None:
        images = self._url(self._images_datastore, self._images_path)
        # The table last: what it names is there.
        files = {ANNOTATIONS: json_lines(data, images), TABLE: table()}
        for name, text in files.items():
            file = file_at(f"{self._folder}/{version}/{name}")
            if not file.exists():
                with file.replacing() as temporary:
                    temporary.write_text(text, encoding="utf-8")

    def _register(self, version: str, n_labels: int) -> None:
        from active_learning.services.azure import Workspace
        from active_learning.services.training.azure import register_table

        path = urlsplit(f"{self._folder}/{version}").path
        register_table(
            Workspace(**self._workspace),
            self._asset,
            version,
            f"{self._url(self._datastore, path)}/",
            f"{n_labels} labeled images",
        )

    def _url(self, datastore: str, path: str) -> str:
        return datastore_url(
            self._workspace["subscription"],
            self._workspace["resource_group"],
            self._workspace["name"],
            datastore,
            path,
        )

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "asset": self._asset}
