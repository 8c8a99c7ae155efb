"""Digits, models that know them more or less, and the tables around them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from sklearn.datasets import load_digits
from tests.learning.builders import pixels, train, untrained
from tests.test_parameters import configured

from active_learning.imaging import ImageStore
from active_learning.learning.module import ImageClassifier
from active_learning.learning.networks import head
from active_learning.pipelines.deploy.nodes import (
    export_challenger,
    judge_challenger,
    record_release,
    register_challenger,
    roll_back_champion,
    roll_out_challenger,
)
from active_learning.pipelines.deploy.params import DeployParams
from active_learning.schemas import LABELS, MANIFEST, empty_frame, fingerprint
from active_learning.services.deployment import Endpoint
from active_learning.services.scoring.model import InferenceModel

SMALL = {"height": 8, "width": 8}
NAME = "digits"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def params(**changes: Any) -> DeployParams:
    quick = {"parity_images": 20, "smoke_images": 2, "step_s": 0.0}
    return DeployParams.model_validate(
        configured("deploy", **{**quick, "registered_model": NAME, **changes})
    )


@dataclass(frozen=True)
class Digits:
    """Images, and which of them are for what."""

    images: ImageStore
    training_set: pd.DataFrame
    test_set: pd.DataFrame

    def challenger(self, version: int, **changes: Any) -> ImageClassifier:
        """A classifier that says that it learned from the training set."""
        return classifier(version, fingerprint(self.training_set), **changes)


def digits_in(root: Path) -> Digits:
    """Every third image is a test image; the others may be learned from."""
    images = ImageStore(str(root), cache=None, max_pixels=10_000)
    names = images.image_ids()
    table = pd.DataFrame(
        {
            "image_id": names,
            "label": [name[0] for name in names],
            "content": images.fingerprints(names),
        }
    )
    test_set = table[::3].reset_index(drop=True)
    held_out = table["content"].isin(test_set["content"])
    learned = table[~held_out][::4]
    rows = empty_frame(LABELS).reindex(range(len(learned)))
    training_set = rows.assign(
        **{column: learned[column].to_list() for column in MANIFEST.names},
        batch_id="monday",
    )
    return Digits(images, training_set, test_set)


def classifier(
    version: int,
    training_set: str,
    spoiled: float = 0,
    classes: str = "0123456789",
    blind_to: str = "",
) -> ImageClassifier:
    """One that knows digits; spoiled by noise, or without one of the classes."""
    made = untrained(
        list(classes),
        lineage={
            "version": version,
            "parent": version - 1,
            "n_labels": 300,
            "training_set": training_set,
            "batches": ["monday"],
        },
        preprocessing=SMALL,
    )
    weights = _weights()
    name, layer = head(made.network)
    own = {
        key: value[: len(classes)] if key.startswith(f"network.{name}.") else value
        for key, value in weights.items()
    }
    made.load_state_dict(own)
    generator = torch.Generator().manual_seed(version)
    noise = torch.randn(layer.weight.shape, generator=generator)
    layer.weight.data.add_(noise, alpha=spoiled)
    if blind_to:
        layer.bias.data[classes.index(blind_to)] -= 100
    return made


@cache
def _weights() -> dict[str, Any]:
    images, targets = load_digits(return_X_y=True)
    trained = train(
        pixels(images.reshape(-1, 8, 8) * 15),
        targets,
        classes=[str(number) for number in range(10)],
        preprocessing=SMALL,
        recipe={"augmentation": {"flip": False, "crop": 0, "erase": 0}},
    )
    return trained.state_dict()


def deployed(
    challenger: ImageClassifier | None,
    digits: Digits,
    endpoint: Endpoint,
    **changes: Any,
) -> dict[str, Any]:
    """Go through the pipeline's nodes in their order.

    Returns:
        ``release``.
    """
    given = {
        "endpoint": endpoint,
        "test_set": digits.test_set,
        "images": digits.images,
        "params": params(**changes),
    }
    state = endpoint.state
    champion = (
        InferenceModel.load(endpoint.folder(state.champion)) if state.champion else None
    )
    exported = export_challenger(challenger, **given)
    judged = judge_challenger(
        exported, champion, training_set=digits.training_set, **given
    )
    registered = register_challenger(judged, **given)
    rollout = roll_out_challenger(registered, **given)
    return record_release(rollout, endpoint, NOW, given["params"])


def rolled_back(digits: Digits, endpoint: Endpoint) -> dict[str, Any]:
    rollout = roll_back_champion(endpoint, digits.test_set, digits.images, params())
    return record_release(rollout, endpoint, NOW, params())
