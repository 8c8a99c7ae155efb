import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from active_learning.imaging import Preprocessing

GRAY = {"height": 4, "width": 6, "channels": 1, "mean": (0.5,), "std": (0.25,)}


def preprocessing(**changes: Any) -> Preprocessing:
    return Preprocessing.model_validate({**GRAY, **changes})


@pytest.mark.parametrize("field", ["mean", "std"])
def test_each_channel_needs_its_value(field: str) -> None:
    with pytest.raises(ValidationError, match=f"{field} has 2 values for 1 channels"):
        preprocessing(**{field: (0.5, 0.5)})


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_a_std_that_cannot_divide_is_refused(std: float) -> None:
    with pytest.raises(ValidationError, match="std must be positive"):
        preprocessing(std=(std,))


def test_a_misspelt_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="heigth"):
        preprocessing(heigth=3)


def test_what_does_not_shape_the_pixels_does_not_change_their_key() -> None:
    assert preprocessing().decode_key == preprocessing(mean=(0,), std=(1,)).decode_key


def test_what_shapes_the_pixels_changes_their_key() -> None:
    color = {"channels": 3, "mean": (0, 0, 0), "std": (1, 1, 1)}
    changes: list[dict[str, Any]] = [{}, {"height": 6}, {"width": 4}, color]

    assert len({preprocessing(**change).decode_key for change in changes}) == 4


def test_asking_for_preprocessing_loads_neither_pillow_nor_pandas() -> None:
    code = (
        "import sys; from active_learning.imaging import Preprocessing; "
        "print(*{'PIL', 'pandas', 'torch', 'kedro'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert ran.stdout.strip() == ""
