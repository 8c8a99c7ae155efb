"""The books on releases: versions in MLflow's model registry.

What a version is to production is its tag ``role``, the same on every server: Azure
ML's has no aliases, and none of MLflow 3's logged models, for which
``mlflow.register_model`` looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from active_learning.errors import EndpointError
from active_learning.services.deployment.state import EndpointState, Release
from active_learning.services.redaction import cause, redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

ROLE = "role"
CHALLENGER = "challenger"
CHAMPION = "champion"
RETIRED = "retired"
ROLLED_BACK = "rolled_back"

_FINGERPRINT = "fingerprint"
_ARTIFACT = "model"
_THERE = ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS")


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
            known = self._version_of(client, release)
            if known is not None:
                return known
            active = mlflow.active_run()
            with nullcontext(active) if active else mlflow.start_run() as run:
                source = self._log(run, folder, example)
                self._make_model(client)
                made = client.create_model_version(
                    self._name,
                    source,
                    run.info.run_id,
                    tags={
                        _FINGERPRINT: release.fingerprint,
                        ROLE: CHALLENGER,
                        "release": release.name,
                        "model_version": str(release.model_version),
                    },
                )
            # Of an answer that was lost, or a second process, there are two.
            return self._version_of(client, release) or str(made.version)

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
                # The first version of a release has its role; a second one stays.
                role = roles.pop(version.tags.get(_FINGERPRINT, ""), left)
                if role is not None and role != had:
                    client.set_model_version_tag(
                        self._name, version.version, ROLE, role
                    )

    def _versions(self, client: MlflowClient) -> list[ModelVersion]:
        """Every version, the oldest first."""
        named = f"name = '{self._name}'"
        page = client.search_model_versions(named)
        found = list(page)
        while page.token:
            page = client.search_model_versions(named, page_token=page.token)
            found += page
        return sorted(found, key=lambda version: int(version.version))

    def _version_of(self, client: MlflowClient, release: Release) -> str | None:
        for version in self._versions(client):
            if version.tags.get(_FINGERPRINT) == release.fingerprint:
                return str(version.version)
        return None

    def _make_model(self, client: MlflowClient) -> None:
        from mlflow import MlflowException

        try:
            client.create_registered_model(self._name)
        except MlflowException as exc:
            if exc.error_code not in _THERE:
                raise

    def _log(self, run: Run, folder: Path, example: bytes) -> str:
        """Log the release to a run.

        Returns:
            Where it lies: a folder of its own, since what was half logged before cannot
            be written again on Azure ML.
        """
        import mlflow

        from active_learning.services.scoring.mlflow_model import save_mlflow_model

        # Only of the root: for a folder, MLflow looks for logged models too.
        lying = mlflow.MlflowClient().list_artifacts(run.info.run_id)
        taken = {info.path.partition("/")[0] for info in lying}
        names = (f"{_ARTIFACT}-{number}" for number in count(2))
        name = next(name for name in chain([_ARTIFACT], names) if name not in taken)
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            save_mlflow_model(folder, path, example)
            mlflow.log_artifacts(str(path), name, run_id=run.info.run_id)
        return f"{run.info.artifact_uri}/{name}"


@contextmanager
def _reachable(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as exc:  # noqa: BLE001  # plugins raise what they like
        import mlflow

        raise EndpointError(
            f"The model registry at {mlflow.get_tracking_uri()!r} did not take "
            f"{name!r}: {redacted(exc)} Run 'kedro run --pipelines deploy' "
            "again when it is back."
        ) from cause(exc)
