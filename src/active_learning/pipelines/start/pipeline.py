"""The ``start`` pipeline."""

from kedro.pipeline import Node, Pipeline

from active_learning.pipelines.select.nodes import record_requests, stage_images
from active_learning.pipelines.start.nodes import draw_first


def create_pipeline() -> Pipeline:
    """Images in, the first label requests out; nothing in a project that has begun."""
    return Pipeline(
        [
            Node(
                draw_first,
                inputs={
                    "incoming_images": "incoming_images",
                    "known_labels": "known_labels",
                    "past_requests": "past_requests",
                    "test_set": "test_set",
                    "images": "images",
                    "now": "now",
                    "params": "params:start",
                },
                outputs="batch",
                name="draw_first",
            ),
            Node(
                stage_images,
                inputs={
                    "batch": "batch",
                    "past_requests": "past_requests",
                    "images": "images",
                },
                outputs="labeling_queue",
                name="stage_images",
            ),
            Node(
                record_requests,
                inputs={"batch": "batch", "labeling_queue": "labeling_queue"},
                outputs="label_requests",
                name="record_requests",
            ),
        ],
        namespace="start",
        prefix_datasets_with_namespace=False,
    )
