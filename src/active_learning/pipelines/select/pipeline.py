"""The ``select`` pipeline."""

from kedro.pipeline import Node, Pipeline

from active_learning.pipelines.select.nodes import (
    choose_batch,
    find_candidates,
    rank_candidates,
    stage_images,
)


def create_pipeline() -> Pipeline:
    """Scored images in, one batch of label requests out."""
    return Pipeline(
        [
            Node(
                find_candidates,
                inputs={
                    "scored_batch": "scored_batch",
                    "known_labels": "known_labels",
                    "past_requests": "past_requests",
                },
                outputs="candidates",
                name="find_candidates",
            ),
            Node(
                rank_candidates,
                inputs={"candidates": "candidates", "params": "params:select"},
                outputs="ranked_candidates",
                name="rank_candidates",
            ),
            Node(
                choose_batch,
                inputs={
                    "ranked_candidates": "ranked_candidates",
                    "past_requests": "past_requests",
                    "test_set": "test_set",
                    "images": "images",
                    "now": "now",
                    "params": "params:select",
                },
                outputs="label_requests",
                name="choose_batch",
            ),
            Node(
                stage_images,
                inputs={
                    "label_requests": "label_requests",
                    "ranked_candidates": "ranked_candidates",
                    "images": "images",
                },
                outputs="labeling_queue",
                name="stage_images",
            ),
        ],
        namespace="select",
        prefix_datasets_with_namespace=False,
    )
