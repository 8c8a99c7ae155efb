"""What a trainer is told: typed parameters, no torch and nothing of Azure."""

from __future__ import annotations

from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from active_learning.imaging import Preprocessing
from active_learning.learning.recipe import Hardware, Initialization, Network, Recipe
from active_learning.parameters import Parameters
from active_learning.schemas import row_id

# What the trainer decides and nobody else.
_OURS = ("checkpoint_run_id", "enable_onnx_normalization", "random_seed")
# Where something runs and how long it is waited for, which changes no weight.
_BESIDE = {
    *("workspace", "data_asset", "compute", "experiment", "limits"),
    *("timeout_minutes", "poll_s"),
}


class AutoMLWorkspace(Parameters):
    """The workspace that trains; see ``services.azure.Workspace``."""

    subscription: str
    resource_group: str
    name: str


class AutoMLLimits(Parameters):
    """How much AutoML may try.

    Attributes:
        max_trials: Models that are trained, the best of which counts.
        max_concurrent_trials: At once, each on a node.
        timeout_minutes: After which Azure Machine Learning ends the job.
    """

    max_trials: PositiveInt
    max_concurrent_trials: PositiveInt
    timeout_minutes: PositiveInt


class Hyperparameters(BaseModel):
    """AutoML's own names, which the library checks, beside the one that must be."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())
    __pydantic_extra__: dict[str, str | int | float | bool]

    model_name: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _refuse_ours(cls, values: Any) -> Any:
        ours = sorted(set(values) & set(_OURS)) if isinstance(values, dict) else []
        if ours:
            raise ValueError(
                f"{ours} are set by the trainer: it goes on from the champion's run "
                "with 'train.init.start: previous', and the seed is 'train.seed'"
            )
        return values

    def by_name(self) -> dict[str, Any]:
        """Every value, that of ``model_name`` too."""
        return self.model_dump()


class AutoML(Parameters):
    """How AutoML trains; the words are those of Azure Machine Learning.

    Attributes:
        workspace: Where; ``None`` outside of ``conf/azure``.
        data_asset: The training set's data asset; its version is the training set's.
        compute: The cluster.
        experiment: The job's.
        primary_metric: By which the best trial is chosen.
        hyperparameters: ``model_name``, and what else
            ``ImageClassificationJob.set_training_parameters`` takes.
        limits: How much is tried.
        timeout_minutes: A run waits so long for a job, which goes on all the same.
        poll_s: Between two looks at the job.
    """

    workspace: AutoMLWorkspace | None
    data_asset: str
    compute: str
    experiment: str
    primary_metric: str
    hyperparameters: Hyperparameters
    limits: AutoMLLimits
    timeout_minutes: PositiveFloat
    poll_s: PositiveFloat


class TrainingSettings(Parameters):
    """What is trained, by whom, how and where."""

    network: Network
    preprocessing: Preprocessing
    init: Initialization
    recipe: Recipe
    hardware: Hardware
    seed: NonNegativeInt
    trainer: str
    automl: AutoML

    @property
    def fingerprint(self) -> str:
        """A hash of what decides a model's weights, the labels apart."""
        chosen = set(TrainingSettings.model_fields) - {"automl"}
        if self.trainer == "lightning":
            chosen -= {"trainer"}
        elif self.trainer == "automl":
            automl = self.automl.model_dump_json(exclude=_BESIDE)
            trials = self.automl.limits.max_trials
            return row_id(self.trainer, self.init.start, self.seed, automl, trials)
        return row_id(self.model_dump_json(include=chosen))

    @model_validator(mode="after")
    def _refuse_missing_weights(self) -> Self:
        if self.init.start == "pretrained" and self.network.weights is None:
            raise ValueError(
                "init.start is 'pretrained' but network.weights is null: name a file "
                "or, for a torchvision network, DEFAULT"
            )
        return self
