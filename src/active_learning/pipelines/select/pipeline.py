"""The ``select`` pipeline."""

from kedro.pipeline import Node, Pipeline

from active_learning.pipelines.select.nodes import (
    choose_batch,
    draw_audit,
    rank_candidates,
    record_requests,
    stage_images,
)


def create_pipeline() -> Pipeline:
    """What the champion said in, one batch of label requests out.

    The candidates are answers of the engine: it knows what is labeled or asked for, and
    gives a small multiple of the budget.
    """
    return Pipeline(
        [
            Node(
                draw_audit,
                inputs={
                    "audit_candidates": "predictions@audit_candidates",
                    "params": "params:select",
                },
                outputs="audit_sample",
                name="draw_audit",
            ),
            Node(
                rank_candidates,
                inputs={
                    "candidates": "predictions@candidates",
                    "labeled_embeddings": "predictions@labeled_embeddings",
                    "known_labels": "known_labels",
                    "params": "params:select",
                },
                outputs="ranked_candidates",
                name="rank_candidates",
            ),
            Node(
                choose_batch,
                inputs={
                    "ranked_candidates": "ranked_candidates",
                    "audit_sample": "audit_sample",
                    "past_requests": "past_requests",
                    "test_set": "test_set",
                    "images": "images",
                    "now": "now",
                    "params": "params:select",
                },
                outputs="batch",
                name="choose_batch",
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
        namespace="select",
        prefix_datasets_with_namespace=False,
    )
