"""The ``test-set`` pipeline."""

from kedro.pipeline import Node, Pipeline

from active_learning.pipelines.test_set.nodes import freeze_test_set


def create_pipeline() -> Pipeline:
    """Labeled images in, the frozen test set out."""
    return Pipeline(
        [
            Node(
                freeze_test_set,
                inputs={
                    "labeled_images": "labeled_images",
                    "params": "params:test_set",
                },
                outputs="test_set",
                name="freeze_test_set",
            )
        ],
        namespace="test_set",
        prefix_datasets_with_namespace=False,
    )
