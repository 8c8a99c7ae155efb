"""Deployment on Azure Machine Learning: managed online endpoints, and batch ones.

``endpoint`` is the ``Endpoint`` of blue and green deployments: ``control`` asks Azure
Resource Manager, ``data_plane`` the deployments themselves, ``metrics`` what callers
were answered; releases and books are blobs (``releases``), changed by whoever holds the
``lease``. ``batch`` is the batch endpoint.
"""

from active_learning.services.deployment.azure.endpoint import AzureEndpoint
from active_learning.services.deployment.azure.settings import (
    EndpointSettings,
    read_settings,
)

__all__ = ["AzureEndpoint", "EndpointSettings", "read_settings"]
