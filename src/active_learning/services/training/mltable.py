"""A training set as Azure Machine Learning reads one: JSON Lines and an ``MLTable``."""

from __future__ import annotations

import json

import pandas as pd
import yaml

ANNOTATIONS = "annotations.jsonl"
TABLE = "MLTable"

# What ends a URL's path, or stands for something else; the rest stays as it is written.
_ENCODED = str.maketrans({"%": "%25", "?": "%3F", "#": "%23"})


def table() -> str:
    """The ``MLTable`` beside ``ANNOTATIONS``: each image as a stream, and its label."""
    said = {
        "paths": [{"file": f"./{ANNOTATIONS}"}],
        "transformations": [
            {
                "read_json_lines": {
                    "encoding": "utf8",
                    "invalid_lines": "error",
                    "include_path_column": False,
                }
            },
            {
                "convert_column_types": [
                    {"columns": "image_url", "column_type": "stream_info"}
                ]
            },
        ],
    }
    return str(yaml.safe_dump(said, sort_keys=False))


def json_lines(training_set: pd.DataFrame, images: str) -> str:
    """One line of JSON for each image, in the order of their names.

    ``image_details`` are left out: nobody has looked how large the images are.

    Args:
        training_set: ``image_id`` and ``label``.
        images: URL of the folder in which the images lie.
    """
    rows = training_set.sort_values("image_id")[["image_id", "label"]]
    root = images.rstrip("/")
    lines = [
        json.dumps(
            {"image_url": f"{root}/{image_id.translate(_ENCODED)}", "label": label},
            ensure_ascii=False,
        )
        for image_id, label in rows.itertuples(index=False)
    ]
    return "".join(f"{line}\n" for line in lines)


def datastore_url(
    subscription: str, resource_group: str, workspace: str, datastore: str, path: str
) -> str:
    """A place in a datastore, spelled out so that every reader finds it."""
    scope = f"subscriptions/{subscription}/resourcegroups/{resource_group}"
    place = f"workspaces/{workspace}/datastores/{datastore}/paths/{path.strip('/')}"
    return f"azureml://{scope}/{place}".rstrip("/")
