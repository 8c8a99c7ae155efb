"""The ``simulate`` pipeline: the production pipelines, unrolled."""

from kedro.pipeline import Node, Pipeline

from active_learning.evaluation.curves import summarize
from active_learning.pipelines.label_ingest.pipeline import (
    create_pipeline as label_ingest,
)
from active_learning.pipelines.oracle.pipeline import create_pipeline as oracle
from active_learning.pipelines.score.pipeline import create_pipeline as score
from active_learning.pipelines.select.pipeline import create_selection as select
from active_learning.pipelines.simulate.nodes import (
    describe_settings,
    draw_pool,
    draw_stream,
    hold_out_test_set,
    join_frames,
    join_points,
    label_start,
    look_back,
    measure_round,
    measure_start,
    offer_candidates,
    picture_first_asked,
    recall_predictions,
)
from active_learning.pipelines.simulate.params import VARIABLE
from active_learning.pipelines.simulate.plan import START, Branch, Plan, current_plan
from active_learning.pipelines.simulate.report import (
    plot_learning_curves,
    render_report,
    render_table,
)
from active_learning.pipelines.test_set.pipeline import create_pipeline as test_set
from active_learning.pipelines.train.pipeline import create_pipeline as train

# What select asks the engine in production, and its name in a replay.
ASKED = {
    "predictions@candidates": "candidates",
    "predictions@audit_candidates": "audit_candidates",
    "predictions@labeled_embeddings": "labeled_embeddings",
}
# What label-ingest asks the engine, and what a round keeps of what it tells.
RECALLED = {"predictions@asked": "asked_probabilities"}
INGESTED = ("labels", "rejected_labels", "disputed_labels", "training_set")
# What scores in production and what training goes on from: one model here.
CHAMPION = ("champion@inference", "champion@checkpoint")


def create_pipeline() -> Pipeline:
    """Labeled images in, the learning curve of every strategy and a report out.

    Each round holds the very pipelines of production, below the namespace
    ``seed_<s>.<strategy>.round_<n>``; its champion is the challenger of the round
    before.
    """
    plan = current_plan()
    pool, start, turn = _pool(), _start(), _turn()
    return Pipeline(
        [
            test_set(),
            _images(),
            *(_place_pool(pool, seed) for seed in plan.params.seeds),
            *(_place_start(start, branch) for branch in plan.starts),
            *(
                _place_turn(turn, branch, number)
                for branch in plan.branches
                for number in range(1, plan.params.rounds + 1)
            ),
            *(_curve(branch, plan) for branch in plan.branches),
            _report(plan),
        ]
    )


def _images() -> Pipeline:
    return Pipeline(
        [
            Node(
                hold_out_test_set,
                inputs={"labeled_images": "labeled_images", "test_set": "test_set"},
                outputs="training_images",
                name="hold_out_test_set",
            )
        ],
        namespace="prepare",
        prefix_datasets_with_namespace=False,
    )


def _pool() -> Pipeline:
    """Draw what a seed learns from, whatever else is varied."""
    return Pipeline(
        [
            Node(
                draw_pool,
                inputs={
                    "training_images": "training_images",
                    "params": "params:simulate",
                    "branch": "params:branch",
                },
                outputs="pool",
                name="draw_pool",
            )
        ]
    )


def _start() -> Pipeline:
    """Label the first images of a pool and train the first model."""
    return Pipeline(
        [
            Node(
                label_start,
                inputs={
                    "pool": "pool",
                    "now": "now",
                    "simulate": "params:simulate",
                    "params": "params:oracle",
                },
                outputs=[
                    "label_exports",
                    "known_labels",
                    "label_requests",
                    "past_rejections",
                    "asked_probabilities",
                ],
                name="label_start",
            ),
            Pipeline(label_ingest().to_outputs(*INGESTED), inputs=RECALLED),
            train().to_outputs("evaluation"),
            Node(
                measure_start,
                inputs={
                    "evaluation": "evaluation",
                    "step_times": "step_times",
                    "branch": "params:branch",
                    "simulate": "params:simulate",
                    "oracle": "params:oracle",
                },
                outputs="curve_point",
                name="measure_start",
            ),
        ]
    )


def _turn() -> Pipeline:
    """One turn of the loop with an oracle in the labelers' place."""
    return Pipeline(
        [
            Node(
                look_back,
                inputs={"last_requests": "last_requests", "last_labels": "last_labels"},
                outputs=["past_requests", "known_labels", "past_rejections"],
                name="look_back",
            ),
            Node(
                draw_stream,
                inputs={
                    "pool": "pool",
                    "past_requests": "past_requests",
                    "known_labels": "known_labels",
                    "params": "params:select",
                },
                outputs=["incoming_images", "scored_images"],
                name="draw_stream",
            ),
            score(),
            Node(
                offer_candidates,
                inputs={
                    "scored_batch": "scored_batch",
                    "embeddings": "embeddings",
                    "known_labels": "known_labels",
                    "params": "params:select",
                },
                outputs=list(ASKED.values()),
                name="offer_candidates",
            ),
            Pipeline(select(), inputs=ASKED),
            oracle(),
            Node(
                recall_predictions,
                inputs={
                    "past_predictions": "past_predictions",
                    "candidates": "candidates",
                    "labeling_queue": "labeling_queue",
                },
                outputs="asked_probabilities",
                name="recall_predictions",
            ),
            Pipeline(
                label_ingest().to_outputs(*INGESTED),
                inputs=RECALLED,
                outputs={"labels": "new_labels"},
            ),
            Node(
                join_frames,
                inputs=["known_labels", "new_labels"],
                outputs="labels",
                name="join_labels",
            ),
            # The champion was measured in the round that trained it.
            train().to_outputs("evaluation"),
            Node(
                measure_round,
                inputs={
                    "past_point": "past_point",
                    "evaluation": "evaluation",
                    "label_requests": "label_requests",
                    "scored_batch": "scored_batch",
                    "pool": "pool",
                    "step_times": "step_times",
                    "branch": "params:branch",
                    "oracle": "params:oracle",
                },
                outputs="curve_point",
                name="measure_round",
            ),
        ]
    )


def _place_pool(pool: Pipeline, seed: int) -> Pipeline:
    branch = Branch(seed, START)
    return Pipeline(
        pool,
        namespace=branch.round(0),
        inputs={"training_images": "training_images"},
        outputs={"pool": branch.pool},
        parameters={
            "params:simulate": "params:simulate",
            **_own_parameters(branch, "branch"),
        },
    )


def _place_start(start: Pipeline, branch: Branch) -> Pipeline:
    return Pipeline(
        start,
        namespace=branch.round(0),
        inputs={"images": "images", "test_set": "test_set", "pool": branch.pool},
        parameters={
            "params:simulate": "params:simulate",
            **_own_parameters(branch, "branch", "oracle", "label_ingest", "train"),
        },
    )


def _place_turn(turn: Pipeline, branch: Branch, number: int) -> Pipeline:
    before = branch.start.round(0) if number == 1 else branch.round(number - 1)
    return Pipeline(
        turn,
        namespace=branch.round(number),
        inputs={
            "images": "images",
            "test_set": "test_set",
            "pool": branch.pool,
            **dict.fromkeys(CHAMPION, f"{before}.challenger"),
            # Rounds are immutable: what was known is what the one before left.
            "last_requests": f"{before}.label_requests",
            "last_labels": f"{before}.labels",
            "past_predictions": f"{before}.asked_probabilities",
            "open_disputes": f"{before}.disputed_labels",
            "past_point": f"{before}.curve_point",
        },
        parameters=_own_parameters(branch, "branch", *VARIABLE),
    )


def _curve(branch: Branch, plan: Plan) -> Pipeline:
    numbers = range(1, plan.params.rounds + 1)
    first = branch.round(1)
    return Pipeline(
        [
            Node(
                join_points,
                inputs=[
                    f"params:{branch.namespace}.branch",
                    f"{branch.start.round(0)}.curve_point",
                    *(f"{branch.round(number)}.curve_point" for number in numbers),
                ],
                outputs=f"{branch.namespace}.learning_curve",
                name="join_points",
                namespace=branch.namespace,
            ),
            Node(
                picture_first_asked,
                inputs={
                    "label_requests": f"{first}.label_requests",
                    "scored_batch": f"{first}.scored_batch",
                    "pool": branch.pool,
                    "images": "images",
                    "branch": f"params:{branch.namespace}.branch",
                    "train": f"params:{branch.namespace}.train",
                },
                outputs=f"{branch.namespace}.first_asked",
                name="picture_first_asked",
                namespace=branch.namespace,
            ),
        ]
    )


def _report(plan: Plan) -> Pipeline:
    first = plan.starts[0].namespace
    return Pipeline(
        [
            Node(
                join_frames,
                inputs=[f"{b.namespace}.learning_curve" for b in plan.branches],
                outputs="learning_curves",
                name="join_learning_curves",
            ),
            Node(
                join_frames,
                inputs=[f"{b.namespace}.first_asked" for b in plan.branches],
                outputs="first_asked",
                name="join_first_asked",
            ),
            Node(
                summarize,
                inputs="learning_curves",
                outputs="simulation_summary",
                name="summarize",
            ),
            Node(
                plot_learning_curves,
                inputs="learning_curves",
                outputs="learning_curves_plot",
                name="plot_learning_curves",
            ),
            Node(
                describe_settings,
                inputs={
                    "simulate": "params:simulate",
                    # As they were, not as configured for production.
                    "oracle": f"params:{first}.oracle",
                    "train": f"params:{first}.train",
                    "label_ingest": f"params:{first}.label_ingest",
                    "test_set": "test_set",
                },
                outputs="simulation_settings",
                name="describe_settings",
            ),
            Node(
                render_report,
                inputs={
                    "curves": "learning_curves",
                    "summary": "simulation_summary",
                    "asked": "first_asked",
                    "settings": "simulation_settings",
                },
                outputs="simulation_report",
                name="render_report",
            ),
            Node(
                render_table,
                inputs="simulation_summary",
                outputs="simulation_table",
                name="render_table",
            ),
        ],
        namespace="report",
        prefix_datasets_with_namespace=False,
    )


def _own_parameters(branch: Branch, *sections: str) -> dict[str, str]:
    return {
        f"params:{section}": f"params:{branch.namespace}.{section}"
        for section in sections
    }
