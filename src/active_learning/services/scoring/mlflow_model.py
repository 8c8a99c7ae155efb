"""A release as a model of MLflow's, with signature and input example."""

from __future__ import annotations

import base64
import warnings
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from active_learning.services.scoring.model import InferenceModel

_CODE = Path(__file__).with_name("pyfunc.py")
# What answering takes, beside this package.
_NEEDED = ("mlflow", "numpy", "onnxruntime", "pandas", "pillow", "pydantic", "tqdm")


def save_mlflow_model(release: Path, path: Path, example: bytes) -> None:
    """Write a folder that ``mlflow.pyfunc.load_model`` and ``models serve`` take.

    Its code is a file that MLflow runs; nothing in it is pickled. It answers a table
    with one column ``image`` of image files in base64 with ``label``, ``classes`` and
    ``probabilities``.

    Args:
        release: As ``export`` wrote it.
        path: A folder that is not there yet.
        example: An image file, kept as the input example.

    Raises:
        CheckpointError: The release is damaged.
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    InferenceModel.load(release)
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "image")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(Array(DataType.string), "classes"),
                ColSpec(Array(DataType.double), "probabilities"),
            ]
        ),
    )
    image = base64.b64encode(example).decode("ascii")
    with warnings.catch_warnings():
        # MLflow wishes for type hints from which it would infer the signature.
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pyfunc.save_model(
            path,
            python_model=str(_CODE),
            artifacts={"release": str(release)},
            signature=signature,
            input_example=pd.DataFrame({"image": [image]}),
            pip_requirements=[
                f"active-learning-loop=={version('active-learning-loop')}",
                *(f"{name}=={version(name)}" for name in _NEEDED),
            ],
        )
