"""The ``monitor`` pipeline."""

from kedro.pipeline import Node, Pipeline

from active_learning.pipelines.monitor.nodes import (
    compact_tables,
    ingest_predictions,
    judge_drift,
    measure_accuracy,
)
from active_learning.pipelines.monitor.report import plot_monitor, render_monitor


def create_pipeline() -> Pipeline:
    """New predictions in; the table, drift, accuracy in production and a page out."""
    shown = {
        "activity": "predictions@activity",
        "class_mix": "predictions@class_mix",
        "drift_report": "drift_report",
        "accuracy_report": "accuracy_report",
    }
    return Pipeline(
        [
            Node(
                ingest_predictions,
                inputs={
                    "scored_batch": "scored_batch",
                    "spooled_predictions": "spooled_predictions",
                },
                outputs="predictions@rows",
                name="ingest_predictions",
                confirms=["scored_batch", "spooled_predictions"],
            ),
            Node(
                compact_tables,
                inputs={
                    "predictions": "predictions@parts",
                    "embeddings": "embedding_parts",
                    "params": "params:monitor",
                },
                outputs="compaction",
                name="compact_tables",
            ),
            Node(
                judge_drift,
                inputs={
                    "histograms": "predictions@histograms",
                    "embedding_sample": "predictions@embedding_sample",
                    "activity": "predictions@activity",
                    "now": "now",
                    "params": "params:monitor",
                },
                outputs="drift_report",
                name="judge_drift",
            ),
            Node(
                measure_accuracy,
                inputs={
                    "audit_answers": "predictions@audit_answers",
                    "draws": "predictions@draws",
                    "params": "params:monitor",
                },
                outputs="accuracy_report",
                name="measure_accuracy",
            ),
            Node(
                plot_monitor,
                inputs=shown,
                outputs="monitor_plot",
                name="plot_monitor",
            ),
            Node(
                render_monitor,
                inputs=shown,
                outputs="monitor_report",
                name="render_monitor",
            ),
        ],
        namespace="monitor",
        prefix_datasets_with_namespace=False,
    )
