"""The ``label-ingest`` pipeline."""

from kedro.pipeline import Node, Pipeline

from active_learning.pipelines.label_ingest.nodes import (
    build_training_set,
    check_answers,
    gather_answers,
    report_ingestion,
    settle_labels,
)


def create_pipeline() -> Pipeline:
    """Exports of labels in, the next training set out, and what is in doubt."""
    return Pipeline(
        [
            Node(
                gather_answers,
                inputs={
                    "label_exports": "label_exports",
                    "label_requests": "label_requests",
                    "images": "images",
                },
                outputs=["answers", "requests"],
                name="gather_answers",
            ),
            Node(
                check_answers,
                inputs={
                    "answers": "answers",
                    "requests": "requests",
                    "known_labels": "known_labels",
                    "past_rejections": "past_rejections",
                    "test_set": "test_set",
                    "images": "images",
                    "now": "now",
                    "params": "params:label_ingest",
                },
                outputs=[
                    "labels",
                    "rejected_labels",
                    "checked_answers",
                    "every_label",
                ],
                name="check_answers",
            ),
            Node(
                settle_labels,
                inputs={
                    "every_label": "every_label",
                    "asked_probabilities": "predictions@asked",
                    "params": "params:label_ingest",
                },
                outputs=["settled_labels", "disputed_labels", "changed_labels"],
                name="settle_labels",
            ),
            Node(
                build_training_set,
                inputs={
                    "settled_labels": "settled_labels",
                    "params": "params:label_ingest",
                },
                outputs=["training_set", "training_lineage"],
                name="build_training_set",
            ),
            Node(
                report_ingestion,
                inputs={
                    "checked_answers": "checked_answers",
                    "every_label": "every_label",
                    "changed_labels": "changed_labels",
                    "settled_labels": "settled_labels",
                    "disputed_labels": "disputed_labels",
                    "training_lineage": "training_lineage",
                    "now": "now",
                    "params": "params:label_ingest",
                },
                outputs="ingest_report",
                name="report_ingestion",
            ),
        ],
        namespace="label_ingest",
        prefix_datasets_with_namespace=False,
    )
