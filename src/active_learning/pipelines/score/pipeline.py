"""The ``score`` pipeline."""

from kedro.pipeline import Node, Pipeline

from active_learning.pipelines.score.nodes import score_images


def create_pipeline() -> Pipeline:
    """Images that came in, what the champion says of them out."""
    return Pipeline(
        [
            Node(
                score_images,
                inputs={
                    "incoming_images": "incoming_images",
                    "images": "images",
                    "champion": "champion@inference",
                    "scored_images": "scored_images",
                    "now": "now",
                    "params": "params:score",
                },
                outputs=["embeddings", "unreadable_images", "scored_batch"],
                name="score_images",
            ),
        ],
        namespace="score",
        prefix_datasets_with_namespace=False,
    )
