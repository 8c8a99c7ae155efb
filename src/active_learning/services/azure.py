"""Who we are to Azure, and the workspace: the one place where clients are made."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from azure.identity import DefaultAzureCredential

from active_learning.parameters import Parameters

if TYPE_CHECKING:
    from azure.ai.ml import MLClient


class Workspace(Parameters):
    """An Azure Machine Learning workspace.

    Attributes:
        subscription: Its id.
        resource_group: The group's name.
        name: The workspace's.
    """

    subscription: str
    resource_group: str
    name: str


@cache
def credential() -> DefaultAzureCredential:
    """Whoever runs this: a managed identity, or who has signed in with ``az login``.

    One for the process, since it keeps the tokens until they expire.
    """
    return DefaultAzureCredential()


def workspace_client(workspace: Workspace, **options: Any) -> MLClient:
    """A client of the workspace; nothing is asked yet.

    The cloud is what ``ARM_CLOUD_METADATA_URL`` says, or the public one.

    Args:
        workspace: Which one.
        options: Of ``MLClient``.
    """
    from azure.ai.ml import MLClient

    said = {"enable_telemetry": False, "show_progress": False, **options}
    return MLClient(
        credential(),
        workspace.subscription,
        workspace.resource_group,
        workspace.name,
        **said,
    )
