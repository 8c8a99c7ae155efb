"""The endpoint on which releases are in production."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

if TYPE_CHECKING:
    from active_learning.services.deployment import Endpoint


class EndpointDataset(AbstractDataset[NoReturn, "Endpoint"]):
    """``EndpointDataset`` gives the place where releases are in production.

    Loading connects to nothing; the endpoint does, when it is asked or changed.

    Args:
        backend: ``local``: files that serving processes watch; ``azure``: a managed
            online endpoint of Azure Machine Learning.
        path: The endpoint's folder, of ``azure`` the URL of a folder of blobs.
        service_url: Of ``local``: where a release is asked, if serving processes live.
        load_timeout_s: So long may it take to bring a release up.
        options: Of ``azure``: workspace, endpoint, and how releases are brought up.
        metadata: For plugins; not used here.

    Examples:
        As catalog entries, the second one of another environment:

        .. code-block:: yaml

            endpoint:
              type: active_learning.datasets.EndpointDataset
              backend: local
              path: data/06_models/endpoint
              service_url: http://127.0.0.1:5001/score
              load_timeout_s: 60

            endpoint:
              type: active_learning.datasets.EndpointDataset
              backend: azure
              path: abfs://loop@account.dfs.core.windows.net/models/endpoint
              load_timeout_s: 2400
              options:
                workspace: {subscription: ..., resource_group: ..., name: ...}
                name: active-learning
                cache: data/06_models/endpoint
                deployment: {registered_model: active-learning-loop, ...}

        In Python:

        >>> place = {"path": "nowhere", "service_url": "http://127.0.0.1:1/score"}
        >>> dataset = EndpointDataset(backend="local", load_timeout_s=1, **place)
        >>> dataset.load().state.champion is None
        True
    """

    def __init__(
        self,
        *,
        backend: str,
        path: str,
        service_url: str = "",
        load_timeout_s: float,
        options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the place."""
        self._backend = backend
        self._path = path
        self._service_url = service_url
        self._load_timeout_s = load_timeout_s
        self._options = options
        self.metadata = metadata

    def load(self) -> Endpoint:
        """Give the endpoint.

        Raises:
            UnknownNameError: No backend has that name.
            SettingsError: The options do not hold together.
        """
        from active_learning.services.deployment import connect

        return connect(
            self._backend,
            self._path,
            service_url=self._service_url,
            load_timeout_s=self._load_timeout_s,
            options=self._options,
        )

    def save(self, data: NoReturn) -> None:
        """Refuse: an endpoint is a place."""
        raise DatasetError(
            f"{type(self).__name__} is read-only: an endpoint is a place. "
            "'kedro run --pipelines deploy' brings a release there."
        )

    def _describe(self) -> dict[str, Any]:
        said = {
            "backend": self._backend,
            "path": self._path,
            "service_url": self._service_url,
            "name": (self._options or {}).get("name"),
        }
        return {key: value for key, value in said.items() if value}
