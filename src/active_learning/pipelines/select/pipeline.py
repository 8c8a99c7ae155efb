"""The ``select`` pipeline."""

from kedro.pipeline import Node, Pipeline

from active_learning.pipelines.select.nodes import (
    choose_batch,
    draw_audit,
    draw_second_opinions,
    rank_candidates,
    record_requests,
    stage_images,
)
from active_learning.pipelines.select.report import render_stopping
from active_learning.pipelines.select.stopping import heed_advice, judge_stopping


def create_pipeline() -> Pipeline:
    """What the champion said in, one batch of label requests and a stopping report out.

    The candidates are answers of the engine: it knows what is labeled or asked for, and
    gives a small multiple of the budget.
    """
    return Pipeline(
        [
            _ranking(),
            _stopping(),
            Pipeline(_batching(), inputs={"ranked_candidates": "wanted_candidates"}),
        ]
    )


def create_selection() -> Pipeline:
    """The same without the report, and so without its advice: for a simulation."""
    return Pipeline([_ranking(), _batching()])


def _ranking() -> Pipeline:
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
        ],
        namespace="select",
        prefix_datasets_with_namespace=False,
    )


def _stopping() -> Pipeline:
    return Pipeline(
        [
            Node(
                judge_stopping,
                inputs={
                    "known_labels": "known_labels",
                    "audit_answers": "predictions@audit_answers",
                    "version_history": "predictions@version_history",
                    "version_agreement": "predictions@version_agreement",
                    "overall_uncertainty": "predictions@overall_uncertainty",
                    "now": "now",
                    "params": "params:select",
                },
                outputs="stopping_report",
                name="judge_stopping",
            ),
            Node(
                render_stopping,
                inputs={"stopping_report": "stopping_report"},
                outputs="stopping_page",
                name="render_stopping",
            ),
            Node(
                heed_advice,
                inputs={
                    "ranked_candidates": "ranked_candidates",
                    "stopping_report": "stopping_report",
                    "params": "params:select",
                },
                outputs="wanted_candidates",
                name="heed_advice",
            ),
        ],
        namespace="select",
        prefix_datasets_with_namespace=False,
    )


def _batching() -> Pipeline:
    return Pipeline(
        [
            Node(
                draw_second_opinions,
                inputs={
                    "open_disputes": "open_disputes",
                    "past_requests": "past_requests",
                    "known_labels": "known_labels",
                    "test_set": "test_set",
                    "images": "images",
                    "now": "now",
                    "params": "params:select",
                },
                outputs="second_opinions",
                name="draw_second_opinions",
            ),
            Node(
                choose_batch,
                inputs={
                    "ranked_candidates": "ranked_candidates",
                    "second_opinions": "second_opinions",
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
