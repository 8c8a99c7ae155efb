"""The model in production, to answer with or to train on from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

if TYPE_CHECKING:
    from active_learning.learning.module import ImageClassifier
    from active_learning.services.deployment import Endpoint
    from active_learning.services.scoring.model import InferenceModel
    from active_learning.services.scoring.onnx_classifier import OnnxClassifier

_FORMS = ("checkpoint", "inference")


class ChampionDataset(
    AbstractDataset[
        NoReturn, "ImageClassifier | OnnxClassifier | InferenceModel | None"
    ]
):
    """``ChampionDataset`` reads the release that is in production.

    Which one that is, the endpoint's state says at each load. Before the first there
    is none, and ``None`` is loaded.

    Args:
        backend: ``local`` or ``azure``; see ``EndpointDataset``.
        path: The endpoint's folder, of ``azure`` the URL of a folder of blobs.
        form: ``checkpoint`` is the classifier that training goes on from,
            ``inference`` the exported model that answers requests.
        options: Of ``azure``: the workspace, the endpoint's name, and a folder of this
            machine that releases are copied to.
        metadata: For plugins; not used here.

    Examples:
        As catalog entries, the last one of another environment:

        .. code-block:: yaml

            champion@checkpoint:
              type: active_learning.datasets.ChampionDataset
              path: data/06_models/endpoint
              form: checkpoint

            champion@inference:
              type: active_learning.datasets.ChampionDataset
              path: data/06_models/endpoint
              form: inference

            champion@inference:
              type: active_learning.datasets.ChampionDataset
              backend: azure
              path: abfs://loop@account.dfs.core.windows.net/models/endpoint
              form: inference
              options:
                workspace: {subscription: ..., resource_group: ..., name: ...}
                name: active-learning
                cache: data/06_models/endpoint

        In Python:

        >>> ChampionDataset(path="nowhere", form="inference").load() is None
        True
    """

    def __init__(
        self,
        *,
        backend: str = "local",
        path: str,
        form: str,
        options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Describe the place; what reads a model is imported by the first load.

        Raises:
            DatasetError: There is no such form.
        """
        if form not in _FORMS:
            raise DatasetError(f"A champion has no form {form!r}; known: {_FORMS}.")
        self._backend = backend
        self._path = path
        self._form = form
        self._options = options
        self.metadata = metadata

    def load(self) -> ImageClassifier | OnnxClassifier | InferenceModel | None:
        """Read the champion.

        Raises:
            EndpointError: The endpoint does not say what is in production.
            CheckpointError: The champion's files are damaged or not its own.
        """
        endpoint = self._endpoint()
        release = endpoint.state.champion
        if release is None:
            return None
        folder = endpoint.folder(release)
        model: ImageClassifier | OnnxClassifier | InferenceModel
        if self._form == "checkpoint":
            from active_learning.services.scoring.export import origin

            model = origin(folder)
            _refuse_another(model.version, release.model_version, folder)
        else:
            from active_learning.services.scoring.model import InferenceModel

            model = InferenceModel.load(folder)
            _refuse_another(model.fingerprint, release.fingerprint, folder)
        return model

    def save(self, data: NoReturn) -> None:
        """Refuse: a gate decides what is in production."""
        raise DatasetError(
            f"{type(self).__name__} is read-only: 'kedro run --pipelines deploy' "
            "decides what is in production."
        )

    def _exists(self) -> bool:
        return self._endpoint().state.champion is not None

    def _endpoint(self) -> Endpoint:
        from active_learning.services.deployment import connect

        return connect(self._backend, self._path, options=self._options)

    def _describe(self) -> dict[str, Any]:
        return {"backend": self._backend, "path": self._path, "form": self._form}


def _refuse_another(found: object, wanted: object, folder: Path) -> None:
    from active_learning.errors import CheckpointError

    if found != wanted:
        raise CheckpointError(
            f"{str(folder)!r} holds {found!r}, and {wanted!r} is in production. Bring "
            "the release back from the model registry, or go back to the one before: "
            "'kedro run --pipelines deploy --params deploy.rollback=true'."
        )
