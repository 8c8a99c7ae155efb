"""The books on releases: versions in MLflow's model registry.

What a version is to production is its tag ``role``, the same on every server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from active_learning.errors import EndpointError
from active_learning.services.deployment.state import EndpointState, Release

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ROLE = "role"
CHALLENGER = "challenger"
CHAMPION = "champion"
RETIRED = "retired"
ROLLED_BACK = "rolled_back"

_FINGERPRINT = "fingerprint"
_ARTIFACT = "model"


class Registry:
    """The versions of one registered model on the server that MLflow tracks on.

    Args:
        name: Of the registered model.
    """

    def __init__(self, name: str) -> None:
        """Describe the model; the server is asked later."""
        self._name = name

    def register(self, release: Release, folder: Path, example: bytes) -> str:
        """Make a release a version with the role of a challenger.

        It is logged to the run that is active, or to one of its own. A release that is
        a version already stays that one.

        Args:
            release: What it is.
            folder: Where its files are.
            example: An image's file, the input example.

        Returns:
            The version's number.

        Raises:
            EndpointError: MLflow cannot be reached, or refuses.
        """
        with _reachable(self._name):
            import mlflow

            client = mlflow.MlflowClient()
            for known in self._versions(client):
                if known.tags.get(_FINGERPRINT) == release.fingerprint:
                    return str(known.version)
            active = mlflow.active_run()
            with nullcontext(active) if active else mlflow.start_run() as run:
                self._log(folder, example)
                made = mlflow.register_model(
                    f"runs:/{run.info.run_id}/{_ARTIFACT}",
                    self._name,
                    tags={
                        _FINGERPRINT: release.fingerprint,
                        ROLE: CHALLENGER,
                        "release": release.name,
                        "model_version": release.model_version,
                    },
                )
            return str(made.version)

    def tell(self, state: EndpointState) -> None:
        """Tag every version with what it is to production.

        Args:
            state: Says who is champion, who was, and who was rolled back.

        Raises:
            EndpointError: MLflow cannot be reached, or refuses.
        """
        roles = {release.fingerprint: RETIRED for release in state.history}
        roles |= {release.fingerprint: ROLLED_BACK for release in state.rolled_back}
        if state.champion:
            roles[state.champion.fingerprint] = CHAMPION
        with _reachable(self._name):
            import mlflow

            client = mlflow.MlflowClient()
            for version in self._versions(client):
                had = version.tags.get(ROLE)
                left = RETIRED if had == CHAMPION else had
                role = roles.get(version.tags.get(_FINGERPRINT, ""), left)
                if role is not None and role != had:
                    client.set_model_version_tag(
                        self._name, version.version, ROLE, role
                    )

    def _versions(self, client: MlflowClient) -> list[ModelVersion]:
        return list(client.search_model_versions(f"name = '{self._name}'"))

    def _log(self, folder: Path, example: bytes) -> None:
        import mlflow

        from active_learning.services.scoring.mlflow_model import save_mlflow_model

        with TemporaryDirectory() as scratch:
            path = Path(scratch) / _ARTIFACT
            save_mlflow_model(folder, path, example)
            mlflow.log_artifacts(str(path), _ARTIFACT)


@contextmanager
def _reachable(name: str) -> Iterator[None]:
    from mlflow import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as exc:
        import mlflow

        raise EndpointError(
            f"The model registry at {mlflow.get_tracking_uri()!r} did not take "
            f"{name!r}: {str(exc).splitlines()[0]} Run 'kedro run --pipelines deploy' "
            "again when it is back."
        ) from exc
