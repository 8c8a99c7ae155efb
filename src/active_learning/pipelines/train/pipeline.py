"""The ``train`` pipeline."""

from kedro.pipeline import Node, Pipeline

from active_learning.pipelines.train.nodes import evaluate, train_challenger


def create_pipeline() -> Pipeline:
    """Training set and champion in, challenger and the figures of both out."""
    return Pipeline(
        [
            Node(
                train_challenger,
                inputs={
                    "training_set": "training_set",
                    "images": "images",
                    "champion": "champion@checkpoint",
                    "test_set": "test_set",
                    "params": "params:train",
                    "last_challenger": "last_challenger",
                },
                outputs="challenger",
                name="train_challenger",
            ),
            Node(
                evaluate,
                inputs={
                    "model": "challenger",
                    "test_set": "test_set",
                    "images": "images",
                    "params": "params:train",
                },
                outputs="evaluation",
                name="evaluate_challenger",
            ),
            Node(
                evaluate,
                inputs={
                    "model": "champion@checkpoint",
                    "test_set": "test_set",
                    "images": "images",
                    "params": "params:train",
                },
                outputs="champion_evaluation",
                name="evaluate_champion",
            ),
        ],
        namespace="train",
        prefix_datasets_with_namespace=False,
    )
