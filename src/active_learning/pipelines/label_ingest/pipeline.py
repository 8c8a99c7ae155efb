"""The ``label-ingest`` pipeline."""

from kedro.pipeline import Node, Pipeline

from active_learning.pipelines.label_ingest.nodes import (
    build_training_set,
    check_answers,
    gather_answers,
)


def create_pipeline() -> Pipeline:
    """Exports of labels in, the next training set out."""
    return Pipeline(
        [
            Node(
                gather_answers,
                inputs={
                    "label_exports": "label_exports",
                    "label_requests": "label_requests",
                    "known_labels": "known_labels",
                },
                outputs="answers",
                name="gather_answers",
            ),
            Node(
                check_answers,
                inputs={
                    "answers": "answers",
                    "test_set": "test_set",
                    "images": "images",
                    "now": "now",
                    "params": "params:label_ingest",
                },
                outputs=["labels", "rejected_labels"],
                name="check_answers",
            ),
            Node(
                build_training_set,
                inputs={
                    "known_labels": "known_labels",
                    "labels": "labels",
                    "images": "images",
                },
                outputs="training_set",
                name="build_training_set",
            ),
        ],
        namespace="label_ingest",
        prefix_datasets_with_namespace=False,
    )
