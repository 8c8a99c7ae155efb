"""Labeling: what is handed to labelers, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from active_learning.imaging import ImageStore


@dataclass(frozen=True)
class LabelingQueue:
    """Requests and where their images are.

    Args:
        requests: ``request_id``, ``image_id``, ``predicted_label``, ``rank`` and
            ``round``.
        images: Holds every ``image_id`` of the requests.
    """

    requests: pd.DataFrame
    images: ImageStore
