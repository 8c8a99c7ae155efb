"""The trainer of Azure Machine Learning: a job of AutoML image classification.

A job's name is a hash of all that decides its model, so that a run that was killed, or
has waited long enough, finds the job again and pays for nothing twice. Its best model
becomes an ``OnnxClassifier``, whose lineage names the AutoML run that the next
training goes on from.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from active_learning.errors import CheckpointError, SettingsError
from active_learning.imaging import ImageStore
from active_learning.learning.protocol import Classifier
from active_learning.schemas import row_id

if TYPE_CHECKING:
    from active_learning.services.training.settings import AutoML, TrainingSettings

logger = logging.getLogger(__name__)

CHECKPOINT_RUN = "checkpoint_run_id"
_RESIZE = "validation_resize_size"
_CROP = "validation_crop_size"
# AutoML's own, where a job is not told otherwise.
_SIDES = {_RESIZE: 256, _CROP: 224}
_EXAMPLES = 8


class Order(NamedTuple):
    """A training as Azure Machine Learning is asked for it.

    Attributes:
        name: The job's, if none of that name has failed.
        data_asset: The training set's.
        version: Of the data asset.
        hyperparameters: Of the job, with what the trainer adds.
        automl: The rest.
        model_version: Of the challenger, for people who look at the job.
    """

    name: str
    data_asset: str
    version: str
    hyperparameters: dict[str, Any]
    automl: AutoML
    model_version: int


class Trained(NamedTuple):
    """What a job has made.

    Attributes:
        job: Its name.
        run_id: Of its best trial, which a later training goes on from.
        network: ``model.onnx``.
        labels: ``labels.json``.
    """

    job: str
    run_id: str
    network: bytes
    labels: bytes


def train(
    *,
    training_set: pd.DataFrame,
    images: ImageStore,
    champion: Classifier | None,
    classes: list[str],
    lineage: dict[str, Any],
    settings: TrainingSettings,
    seed: int,
) -> Classifier:
    """Train an ``OnnxClassifier`` on Azure Machine Learning; see ``Trainer``.

    AutoML is given the seed, and on a GPU it promises nothing about equal weights. With
    ``init.start: previous`` it goes on from the champion's own run; a champion that it
    did not train leaves it to begin from its published weights.

    Raises:
        SettingsError: No workspace is named, or a hyper-parameter is none.
        CheckpointError: The champion is another network than the one asked for, or
            the job has no model that can be served.
        TrainingError: The job failed, was canceled or is not done in time.
    """
    from active_learning.services.training.onnx_images import (
        Sizes,
        converted,
        read_labels,
        refuse_another,
    )

    order = order_of(champion, lineage, settings, seed)
    trained = _connected(settings.automl).trained(order)
    where = f"The model of the AutoML run {trained.run_id!r}"
    labels = read_labels(trained.labels, where)
    told = {**_SIDES, **settings.automl.hyperparameters.by_name()}
    sizes = Sizes(told[_RESIZE], told[_CROP])
    made = converted(trained.network, labels, classes, sizes, where)
    from active_learning.services.scoring.onnx_classifier import OnnxClassifier

    challenger = OnnxClassifier(
        made.content,
        model_name=settings.automl.hyperparameters.model_name,
        classes=classes,
        preprocessing=made.preprocessing,
        lineage={**lineage, CHECKPOINT_RUN: trained.run_id, "job": trained.job},
    )
    some = training_set["image_id"].sort_values().tolist()[:_EXAMPLES]
    decoded = images.pixels(some, made.preprocessing)
    refuse_another(challenger, trained.network, labels, decoded.pixels, sizes, where)
    logger.info(
        "AutoML trained version %d of %s on %d labels: job %s, best run %s",
        challenger.version,
        challenger.model_name,
        len(training_set),
        trained.job,
        trained.run_id,
    )
    return challenger


def order_of(
    champion: Classifier | None,
    lineage: dict[str, Any],
    settings: TrainingSettings,
    seed: int,
) -> Order:
    """What to ask for; equal trainings have equal names.

    Raises:
        SettingsError: ``init.start`` is something that AutoML cannot do.
        CheckpointError: The champion is another network than the one asked for.
    """
    automl = settings.automl
    hyperparameters = {
        **automl.hyperparameters.by_name(),
        # Azure's integers of this kind have a sign.
        "random_seed": seed % 2**31,
    }
    before = _continued(champion, settings)
    if before is not None:
        hyperparameters[CHECKPOINT_RUN] = before
    version = str(lineage["training_set"])[:16]
    name = row_id(
        *(automl.data_asset, lineage["training_set"], settings.fingerprint),
        *(before, seed),
    )
    return Order(
        name=f"automl-{name}",
        data_asset=automl.data_asset,
        version=version,
        hyperparameters=hyperparameters,
        automl=automl,
        model_version=lineage["version"],
    )


def _continued(champion: Classifier | None, settings: TrainingSettings) -> str | None:
    """The run that has the champion's checkpoint, where training goes on from it."""
    start = settings.init.start
    if start == "shrink_perturb":
        raise SettingsError(
            "train.init.start is 'shrink_perturb', which AutoML cannot do: set it to "
            "'previous' or 'scratch', or train.trainer to 'lightning'."
        )
    if champion is None or start != "previous":
        return None
    run = champion.lineage.get(CHECKPOINT_RUN)
    if run is None:
        logger.info(
            "Version %d, which is in production, was not trained by AutoML: this "
            "training begins from AutoML's published weights",
            champion.version,
        )
        return None
    wanted = settings.automl.hyperparameters.model_name
    if champion.model_name != wanted:
        raise CheckpointError(
            f"train.init.start is 'previous' but version {champion.version}, which is "
            f"in production, is a {champion.model_name}, and train.automl."
            f"hyperparameters.model_name asks for {wanted}. Set train.init.start to "
            "'scratch' to begin with another one."
        )
    return str(run)


def _connected(automl: AutoML) -> Any:
    """The workspace's jobs; Azure's libraries are imported here and not before."""
    if automl.workspace is None:
        raise SettingsError(
            "train.trainer is 'automl' and train.automl.workspace names no workspace: "
            "run with '--env azure', which takes it from AZURE_SUBSCRIPTION_ID, "
            "AZURE_RESOURCE_GROUP and AZUREML_WORKSPACE_NAME, or set train.trainer to "
            "'lightning'."
        )
    try:
        from active_learning.services.training.azure import AutoMLJobs
    except ImportError as exc:
        raise SettingsError(
            "train.trainer 'automl' needs an optional dependency: "
            "pip install 'active-learning-loop[azure]'"
        ) from exc
    return AutoMLJobs(
        automl.workspace, timeout_s=automl.timeout_minutes * 60, poll_s=automl.poll_s
    )
