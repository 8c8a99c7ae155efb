"""The model in production, to answer with or to train on from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

if TYPE_CHECKING:
    from active_learning.learning.module import ImageClassifier
    from active_learning.services.scoring.model import InferenceModel

_FORMS = ("checkpoint", "inference")


class ChampionDataset(
    AbstractDataset[NoReturn, "ImageClassifier | InferenceModel | None"]
):
    """``ChampionDataset`` reads the release that is in production.

    Which one that is, the endpoint's state says at each load. Before the first there
    is none, and ``None`` is loaded.

    Args:
        path: The endpoint's folder.
        form: ``checkpoint`` is the classifier that training goes on from,
            ``inference`` the exported model that answers requests.
        metadata: For plugins; not used here.

    Examples:
        As catalog entries:

        .. code-block:: yaml

            champion@checkpoint:
              type: active_learning.datasets.ChampionDataset
              path: data/06_models/endpoint
              form: checkpoint

            champion@inference:
              type: active_learning.datasets.ChampionDataset
              path: data/06_models/endpoint
              form: inference

        In Python:

        >>> ChampionDataset(path="nowhere", form="inference").load() is None
        True
    """

    def __init__(
        self, *, path: str, form: str, metadata: dict[str, Any] | None = None
    ) -> None:
        """Describe the place; what reads a model is imported by the first load.

        Raises:
            DatasetError: There is no such form.
        """
        if form not in _FORMS:
            raise DatasetError(f"A champion has no form {form!r}; known: {_FORMS}.")
        self._path = Path(path)
        self._form = form
        self.metadata = metadata

    def load(self) -> ImageClassifier | InferenceModel | None:
        """Read the champion.

        Raises:
            EndpointError: The endpoint does not say what is in production.
            CheckpointError: The champion's files are damaged or not its own.
        """
        from active_learning.services.deployment.state import RELEASES, read_state

        release = read_state(self._path).champion
        if release is None:
            return None
        folder = self._path / RELEASES / release.name
        model: ImageClassifier | InferenceModel
        if self._form == "checkpoint":
            from active_learning.learning.checkpoint import load_classifier

            model = load_classifier(folder / "checkpoint.ckpt")
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
        from active_learning.services.deployment.state import read_state

        return read_state(self._path).champion is not None

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path), "form": self._form}


def _refuse_another(found: object, wanted: object, folder: Path) -> None:
    from active_learning.errors import CheckpointError

    if found != wanted:
        raise CheckpointError(
            f"{str(folder)!r} holds {found!r}, and {wanted!r} is in production. Bring "
            "the release back from the model registry, or go back to the one before: "
            "'kedro run --pipelines deploy --params deploy.rollback=true'."
        )
