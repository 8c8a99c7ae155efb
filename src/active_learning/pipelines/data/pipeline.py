"""The ``data`` pipeline."""

from kedro.pipeline import Node, Pipeline

from active_learning.pipelines.data.nodes import unpack_images


def create_pipeline() -> Pipeline:
    """A published set of images in, a folder per class out."""
    return Pipeline(
        [
            Node(
                unpack_images,
                inputs="fashion_mnist",
                outputs="default_images",
                name="unpack_images",
            )
        ],
        namespace="data",
        prefix_datasets_with_namespace=False,
    )
