"""The ``deploy`` pipeline."""

from kedro.pipeline import Node, Pipeline

from active_learning.errors import SettingsError
from active_learning.parameters import announced
from active_learning.pipelines.deploy.nodes import (
    export_challenger,
    judge_challenger,
    raise_failure,
    record_release,
    register_challenger,
    roll_back_champion,
    roll_out_challenger,
)

_ON_TEST_IMAGES = {
    "endpoint": "endpoint",
    "test_set": "test_set",
    "images": "images",
    "params": "params:deploy",
}


def create_pipeline() -> Pipeline:
    """Challenger and champion in, the decision out; or the way back.

    With the parameter ``deploy.rollback`` it is the pipeline of a rollback.
    """
    steps = _way_back() if _rolls_back() else _way_on()
    return Pipeline(
        [
            *steps,
            Node(
                record_release,
                inputs={
                    "rollout": "rollout",
                    "endpoint": "endpoint",
                    "now": "now",
                    "params": "params:deploy",
                },
                outputs="release",
                name="record_release",
            ),
            Node(
                raise_failure,
                inputs={"release": "release"},
                outputs=None,
                name="raise_failure",
            ),
        ],
        namespace="deploy",
        prefix_datasets_with_namespace=False,
    )


def _way_on() -> list[Node]:
    return [
        Node(
            export_challenger,
            inputs={"challenger": "challenger", **_ON_TEST_IMAGES},
            outputs="exported_challenger",
            name="export_challenger",
        ),
        Node(
            judge_challenger,
            inputs={
                "exported_challenger": "exported_challenger",
                "champion": "champion@inference",
                "training_set": "training_set",
                **_ON_TEST_IMAGES,
            },
            outputs="judged_challenger",
            name="judge_challenger",
        ),
        Node(
            register_challenger,
            inputs={"judged_challenger": "judged_challenger", **_ON_TEST_IMAGES},
            outputs="registered_challenger",
            name="register_challenger",
        ),
        Node(
            roll_out_challenger,
            inputs={
                "registered_challenger": "registered_challenger",
                **_ON_TEST_IMAGES,
            },
            outputs="rollout",
            name="roll_out_challenger",
        ),
    ]


def _way_back() -> list[Node]:
    return [
        Node(
            roll_back_champion,
            inputs=_ON_TEST_IMAGES,
            outputs="rollout",
            name="roll_back_champion",
        )
    ]


def _rolls_back() -> bool:
    try:
        return bool(announced("deploy.rollback"))
    except SettingsError:
        # `kedro registry list` and Kedro-Viz make pipelines outside of any session.
        return False
