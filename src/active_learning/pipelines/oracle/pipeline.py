"""The ``oracle`` pipeline: what stands in a replay for people and their tool."""

from kedro.pipeline import Node, Pipeline

from active_learning.pipelines.oracle.nodes import answer_requests


def create_pipeline() -> Pipeline:
    """What is asked in, an export with the answers out."""
    return Pipeline(
        [
            Node(
                answer_requests,
                inputs={
                    "labeling_queue": "labeling_queue",
                    "pool": "pool",
                    "known_labels": "known_labels",
                    "now": "now",
                    "params": "params:oracle",
                },
                outputs="label_exports",
                name="answer_requests",
            )
        ],
        namespace="oracle",
        prefix_datasets_with_namespace=False,
    )
