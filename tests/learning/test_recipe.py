import subprocess
import sys

import pytest
from pydantic import ValidationError
from tests.learning.builders import settings


def test_conf_base_is_a_recipe() -> None:
    assert settings().recipe.batch_size > 0


def test_pretrained_needs_to_know_its_weights() -> None:
    with pytest.raises(ValidationError, match=r"network\.weights is null: name a file"):
        settings(init={"start": "pretrained"}, network={"weights": None})


@pytest.mark.parametrize("devices", [0, -2])
def test_no_device_is_no_hardware(devices: int) -> None:
    with pytest.raises(ValidationError, match="use 1 or more, -1 or 'auto'"):
        settings(hardware={"devices": devices})


@pytest.mark.parametrize("devices", [1, 2, -1, "auto"])
def test_devices_are_the_words_of_lightning(devices: int | str) -> None:
    assert settings(hardware={"devices": devices}).hardware.devices == devices


@pytest.mark.parametrize(
    ("section", "leaf", "value"),
    [
        ("recipe", "learning_rate", 0),
        ("recipe", "batch_size", 0),
        ("recipe", "label_smoothing", 1),
        ("recipe", "balance", "magic"),
        ("init", "shrink", 1.5),
        ("init", "perturb", -1),
        ("init", "start", "middle"),
        ("network", "width", 0),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(
    section: str, leaf: str, value: float | str
) -> None:
    with pytest.raises(ValidationError, match=f"{section}.{leaf}"):
        settings(**{section: {leaf: value}})


def test_a_misspelt_name_is_told_the_nearest() -> None:
    with pytest.raises(ValidationError, match="did you mean 'learning_rate'"):
        settings(recipe={"learning_rat": 0.1})


def test_recipes_and_protocols_are_read_without_torch() -> None:
    code = (
        "import sys, active_learning.learning.recipe; "
        "import active_learning.learning.protocol; "
        "import active_learning.pipelines.train.params;"
        "print(*{'torch', 'pytorch_lightning', 'torchvision'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert ran.stdout.strip() == ""
