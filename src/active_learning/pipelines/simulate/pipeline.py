"""The ``simulate`` pipeline: the production pipelines, unrolled."""

from kedro.pipeline import Node, Pipeline

from active_learning.evaluation.curves import summarize
from active_learning.pipelines.label_ingest.pipeline import (
    create_pipeline as label_ingest,
)
from active_learning.pipelines.score.pipeline import create_pipeline as score
from active_learning.pipelines.select.pipeline import create_pipeline as select
from active_learning.pipelines.simulate.nodes import (
    answer_requests,
    describe_settings,
    draw_pool,
    draw_stream,
    hold_out_test_set,
    join_frames,
    join_points,
    label_start,
    measure_round,
    measure_start,
    offer_candidates,
    picture_first_asked,
)
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
# What scores in production and what training goes on from: one model here.
CHAMPION = ("champion@inference", "champion@checkpoint")


def create_pipeline() -> Pipeline:
    """Labeled images in, the learning curve of every strategy and a report out.

    Each round holds the very pipelines of production, below the namespace
    ``seed_<s>.<strategy>.round_<n>``; its champion is the challenger of the round
    before.
    """
    plan = current_plan()
    start, turn = _start(), _turn()
    return Pipeline(
        [
            test_set(),
            _images(),
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


def _start() -> Pipeline:
    """Draw a pool, label its first images and train the first model."""
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
            ),
            Node(
                label_start,
                inputs={"pool": "pool", "now": "now"},
                outputs=["label_exports", "known_labels", "label_requests"],
                name="label_start",
            ),
            label_ingest(),
            train().to_outputs("evaluation"),
            Node(
                measure_start,
                inputs={
                    "evaluation": "evaluation",
                    "step_times": "step_times",
                    "branch": "params:branch",
                },
                outputs="curve_point",
                name="measure_start",
            ),
        ]
    )


def _turn() -> Pipeline:
    """One turn of the loop with an oracle in the human's place."""
    return Pipeline(
        [
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
            Node(
                answer_requests,
                inputs={
                    "labeling_queue": "labeling_queue",
                    "pool": "pool",
                    "now": "now",
                },
                outputs="label_exports",
                name="answer_requests",
            ),
            label_ingest(),
            # The champion was measured in the round that trained it.
            train().to_outputs("evaluation"),
            Node(
                measure_round,
                inputs={
                    "evaluation": "evaluation",
                    "label_requests": "label_requests",
                    "scored_batch": "scored_batch",
                    "pool": "pool",
                    "step_times": "step_times",
                    "branch": "params:branch",
                },
                outputs="curve_point",
                name="measure_round",
            ),
        ]
    )


def _place_start(start: Pipeline, branch: Branch) -> Pipeline:
    return Pipeline(
        start,
        namespace=branch.round(0),
        inputs={
            "images": "images",
            "test_set": "test_set",
            "training_images": "training_images",
        },
        outputs={"pool": f"{branch.namespace}.pool"},
        parameters={
            "params:simulate": "params:simulate",
            "params:label_ingest": "params:label_ingest",
            **_own_parameters(branch, "branch", "train"),
        },
    )


def _place_turn(turn: Pipeline, branch: Branch, number: int) -> Pipeline:
    start = Branch(branch.seed, START)
    before = start.round(0) if number == 1 else branch.round(number - 1)
    return Pipeline(
        turn,
        namespace=branch.round(number),
        inputs={
            "images": "images",
            "test_set": "test_set",
            "pool": f"{start.namespace}.pool",
            **dict.fromkeys(CHAMPION, f"{before}.challenger"),
            # Rounds are immutable: what was labeled is the last training set.
            "known_labels": f"{before}.training_set",
            "past_requests": f"{before}.label_requests",
        },
        parameters={
            "params:label_ingest": "params:label_ingest",
            **_own_parameters(branch, "branch", "score", "select", "train"),
        },
    )


def _curve(branch: Branch, plan: Plan) -> Pipeline:
    numbers = range(1, plan.params.rounds + 1)
    start = Branch(branch.seed, START)
    first = branch.round(1)
    return Pipeline(
        [
            Node(
                join_points,
                inputs=[
                    f"params:{branch.namespace}.branch",
                    f"{start.round(0)}.curve_point",
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
                    "pool": f"{start.namespace}.pool",
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
                    "train": "params:train",
                    "label_ingest": "params:label_ingest",
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
