"""The code of the MLflow model: MLflow runs this file, so that nothing is unpickled."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from active_learning.errors import ImageError
from active_learning.imaging.decode import decode
from active_learning.services.scoring.model import MAX_PIXELS, InferenceModel


class ImageModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]  # untyped
    """A release behind MLflow's own scoring server."""

    def load_context(self, context: Any) -> None:
        """Read the release that was saved as the artifact ``release``."""
        self._model = InferenceModel.load(Path(context.artifacts["release"]), threads=0)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: Any = None
    ) -> pd.DataFrame:
        """Answer for each image.

        Args:
            context: Not used; see ``load_context``.
            model_input: ``image``: an image file in base64.
            params: None are known.

        Returns:
            ``label``, and ``classes`` with their ``probabilities``.

        Raises:
            ImageError: Images cannot be used: how many, which first and why.
        """
        decoded = [self._pixels(text) for text in model_input["image"]]
        wrong = [n for n, one in enumerate(decoded) if isinstance(one, str)]
        if wrong:
            raise ImageError(
                f"{len(wrong)} of {len(decoded)} images cannot be used; the first is "
                f"number {wrong[0]}: {decoded[wrong[0]]}."
            )
        wanted = self._model.preprocessing
        shape = (len(decoded), wanted.height, wanted.width, wanted.channels)
        said = self._model.answer(np.array(decoded, dtype=np.uint8).reshape(shape))
        classes = self._model.classes
        return pd.DataFrame(
            {
                "label": [classes[n] for n in said.argmax(axis=1)],
                "classes": [list(classes)] * len(said),
                "probabilities": said.tolist(),
            },
            index=model_input.index,
        )

    def _pixels(self, text: str) -> Any:
        """Pixels, or why there are none."""
        try:
            data = base64.b64decode(text, validate=True)
            return decode(data, self._model.preprocessing, MAX_PIXELS)
        except binascii.Error as exc:
            return f"it is not base64 ({exc})"
        except ImageError as exc:
            return str(exc)


mlflow.models.set_model(ImageModel())
