"""Kedro datasets, one class a file; a file is read when its class is first named."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from active_learning.datasets.adx_table_dataset import AdxTableDataset
    from active_learning.datasets.atomic_dataset import AtomicDataset
    from active_learning.datasets.challenger_dataset import ChallengerDataset
    from active_learning.datasets.champion_dataset import ChampionDataset
    from active_learning.datasets.checkpoint_dataset import CheckpointDataset
    from active_learning.datasets.clock_dataset import ClockDataset
    from active_learning.datasets.endpoint_dataset import EndpointDataset
    from active_learning.datasets.fashion_mnist_dataset import FashionMnistDataset
    from active_learning.datasets.image_folder_dataset import ImageFolderDataset
    from active_learning.datasets.image_list_dataset import ImageListDataset
    from active_learning.datasets.image_store_dataset import ImageStoreDataset
    from active_learning.datasets.kql_dataset import KqlDataset
    from active_learning.datasets.label_exports_dataset import LabelExportsDataset
    from active_learning.datasets.labeling_queue_dataset import LabelingQueueDataset
    from active_learning.datasets.manifest_dataset import ManifestDataset
    from active_learning.datasets.mirrored_manifest_dataset import (
        MirroredManifestDataset,
    )
    from active_learning.datasets.oracle_dataset import OracleDataset
    from active_learning.datasets.snapshot_dataset import SnapshotDataset
    from active_learning.datasets.spool_dataset import SpoolDataset
    from active_learning.datasets.table_dataset import TableDataset
    from active_learning.datasets.table_parts_dataset import TablePartsDataset
    from active_learning.datasets.training_asset_dataset import TrainingAssetDataset

_HOMES = {
    "TrainingAssetDataset": "training_asset_dataset",
    "ChallengerDataset": "challenger_dataset",
    "LabelingQueueDataset": "labeling_queue_dataset",
    "LabelExportsDataset": "label_exports_dataset",
    "ImageListDataset": "image_list_dataset",
    "ChampionDataset": "champion_dataset",
    "CheckpointDataset": "checkpoint_dataset",
    "AdxTableDataset": "adx_table_dataset",
    "AtomicDataset": "atomic_dataset",
    "ClockDataset": "clock_dataset",
    "EndpointDataset": "endpoint_dataset",
    "FashionMnistDataset": "fashion_mnist_dataset",
    "ImageFolderDataset": "image_folder_dataset",
    "ImageStoreDataset": "image_store_dataset",
    "KqlDataset": "kql_dataset",
    "ManifestDataset": "manifest_dataset",
    "MirroredManifestDataset": "mirrored_manifest_dataset",
    "OracleDataset": "oracle_dataset",
    "SnapshotDataset": "snapshot_dataset",
    "SpoolDataset": "spool_dataset",
    "TableDataset": "table_dataset",
    "TablePartsDataset": "table_parts_dataset",
}

__all__ = [
    "AdxTableDataset",
    "AtomicDataset",
    "ChallengerDataset",
    "ChampionDataset",
    "CheckpointDataset",
    "ClockDataset",
    "EndpointDataset",
    "FashionMnistDataset",
    "ImageFolderDataset",
    "ImageListDataset",
    "ImageStoreDataset",
    "KqlDataset",
    "LabelExportsDataset",
    "LabelingQueueDataset",
    "ManifestDataset",
    "MirroredManifestDataset",
    "OracleDataset",
    "SnapshotDataset",
    "SpoolDataset",
    "TableDataset",
    "TablePartsDataset",
    "TrainingAssetDataset",
]


def __getattr__(name: str) -> Any:
    """Load a class's file when the class is first named."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
