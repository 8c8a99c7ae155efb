"""Branches in worker processes give what one process gives."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.project import configure_project
from kedro.io import DataCatalog, DatasetError, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner

from active_learning.runner import BranchRunner

SOON_S = 15
BUSY_S = 120

# Names that a simulation makes, and a pipeline that is refused for its namespaces.
pytestmark = [
    pytest.mark.filterwarnings("ignore:One or more dataset names contain '.'"),
    pytest.mark.filterwarnings("ignore:Namespace 'seed_0' is interrupted"),
]


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be the project, and let workers import this module."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    monkeypatch.setenv("AL_WORKERS", "2")
    configure_project("active_learning")


def double(number: int) -> int:
    return 2 * number


def total(*numbers: int) -> int:
    return sum(numbers)


def tell_process(number: int) -> int:
    return os.getpid()


def refuse(number: int) -> int:
    raise ArithmeticError(f"{number} is no number to work with")


def leave_mark(folder: str) -> int:
    """Say which process this is, then be busy for longer than a test may take."""
    Path(folder, str(os.getpid())).touch()
    time.sleep(BUSY_S)
    return 0


def refuse_after_mark(folder: str) -> int:
    """Fail as soon as the other branch is busy."""
    Path(folder, str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(Path(folder).iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    raise ArithmeticError("not this one")


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def chain(branch: str, *functions: Any, start: str = "seed") -> list[Node]:
    """Nodes of one branch, each fed by the one before."""
    names = [start, *(f"{branch}.{number}" for number in range(1, len(functions) + 1))]
    return [
        Node(
            function,
            inputs=names[number],
            outputs=names[number + 1],
            name=f"{function.__name__}_{number}",
            namespace=branch,
        )
        for number, function in enumerate(functions)
    ]


def run(nodes: list[Node], runner: Any = None, **inputs: Any) -> dict[str, Any]:
    catalog = DataCatalog({k: MemoryDataset(v) for k, v in inputs.items()})
    outputs = (runner or BranchRunner()).run(Pipeline(nodes), catalog)
    return {name: dataset.load() for name, dataset in outputs.items()}


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be asked after has."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def assert_soon_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + SOON_S
    while not all(map(is_gone, pids)):
        assert time.monotonic() < deadline, f"of {pids} some are still there"
        time.sleep(0.05)


def diamond() -> list[Node]:
    """Two branches between a node before and a node after them."""
    return [
        Node(double, inputs="seed", outputs="shared", name="before"),
        *chain("seed_0.random", double, double, start="shared"),
        *chain("seed_0.margin", double, start="shared"),
        Node(
            total,
            inputs=["seed_0.random.2", "seed_0.margin.1"],
            outputs="sum",
            name="after",
            namespace="report",
        ),
    ]


def test_it_gives_what_the_sequential_runner_gives() -> None:
    ours = run(diamond(), seed=1)

    assert ours == run(diamond(), SequentialRunner(), seed=1) == {"sum": 12}


def test_branches_run_in_processes_of_their_own() -> None:
    nodes = [
        *chain("seed_0.random", tell_process, total),
        *chain("seed_0.margin", tell_process, total),
        Node(tell_process, inputs="seed", outputs="here", name="here"),
    ]

    ran = run(nodes, seed=1)

    assert ran["here"] == os.getpid()
    assert os.getpid() not in (ran["seed_0.random.2"], ran["seed_0.margin.2"])


def test_a_worker_ends_with_its_run() -> None:
    nodes = [*chain("seed_0.random", tell_process), *chain("seed_0.margin", double)]

    ran = run(nodes, seed=1)

    assert_soon_gone([ran["seed_0.random.1"]])


def test_what_is_in_memory_crosses_from_branch_to_branch() -> None:
    nodes = [
        *chain("seed_0.start", double),
        *chain("seed_0.margin", double, start="seed_0.start.1"),
    ]

    assert run(nodes, seed=1) == {"seed_0.margin.1": 4}


def test_what_a_branch_uses_itself_crosses_too() -> None:
    nodes = [
        *chain("seed_0.start", double, double),
        *chain("seed_0.margin", double, start="seed_0.start.1"),
    ]

    ran = run(nodes, seed=1)

    assert ran == {"seed_0.start.2": 4, "seed_0.margin.1": 4}


def test_branches_that_wait_for_each_other_are_refused() -> None:
    nodes = [
        *chain("seed_0.start", double),
        Node(double, inputs="seed_0.start.1", outputs="between", name="between"),
        Node(
            double,
            inputs="between",
            outputs="seed_0.start.last",
            name="last",
            namespace="seed_0.start",
        ),
    ]
    before = signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(60)
    try:
        with pytest.raises(ValueError, match=r"seed_0\.start"):
            run(nodes, seed=1)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _give_up(number: int, frame: Any) -> None:
    raise TimeoutError("the runner waits for what cannot come")


def test_files_need_no_process_to_carry_them(tmp_path: Path) -> None:
    entry = {"type": "json.JSONDataset", "filepath": f"{tmp_path}/{{name}}.json"}
    catalog = DataCatalog.from_config({"{name}.1": entry})
    catalog["seed"] = MemoryDataset(1)
    nodes = [
        *chain("seed_0.start", double),
        *chain("seed_0.margin", double, start="seed_0.start.1"),
    ]

    BranchRunner().run(Pipeline(nodes), catalog)

    written = json.loads((tmp_path / "seed_0.margin.json").read_text())
    assert written == 4


def test_a_failing_node_stops_the_run_and_its_workers(tmp_path: Path) -> None:
    nodes = [
        *chain("seed_0.random", leave_mark, start="folder"),
        *chain("seed_0.margin", refuse_after_mark, start="folder"),
    ]

    with pytest.raises(ArithmeticError, match="not this one"):
        run(nodes, folder=str(tmp_path))

    marks = [int(mark.name) for mark in tmp_path.iterdir()]
    assert len(marks) == 2
    assert_soon_gone(marks)


def test_a_failing_node_stops_the_branches_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AL_WORKERS", "1")
    nodes = [
        *chain("seed_0.first", refuse),
        *chain("seed_0.then", leave_mark, start="folder"),
        *chain("seed_1.then", leave_mark, start="folder"),
    ]
    began = time.monotonic()

    with pytest.raises(ArithmeticError, match="1 is no number"):
        run(nodes, folder=str(tmp_path), seed=1)

    assert time.monotonic() - began < BUSY_S
    assert_soon_gone([int(mark.name) for mark in tmp_path.iterdir()])


def test_a_failing_node_outside_of_branches_does_too(tmp_path: Path) -> None:
    nodes = [
        *chain("seed_0.random", leave_mark, start="folder"),
        *chain("seed_0.margin", double),
        Node(refuse, inputs="seed_0.margin.1", outputs="nothing", name="refuse"),
    ]

    with pytest.raises(ArithmeticError, match="2 is no number"):
        run(nodes, folder=str(tmp_path), seed=1)

    assert_soon_gone([int(mark.name) for mark in tmp_path.iterdir()])


def test_a_worker_that_is_killed_stops_the_run() -> None:
    nodes = [*chain("seed_0.random", die), *chain("seed_0.margin", double)]

    with pytest.raises(Exception, match="terminated"):
        run(nodes, seed=1)


def test_the_hooks_of_the_project_run_in_workers(tmp_path: Path) -> None:
    times = {"type": "json.JSONDataset", "filepath": f"{tmp_path}/{{name}}.json"}
    catalog = DataCatalog.from_config({"{name}.step_times": times})
    catalog["seed"] = MemoryDataset(1)
    nodes = [
        *chain("seed_0.random.round_01.train", double),
        *chain("seed_0.margin.round_01.train", double),
    ]

    BranchRunner().run(Pipeline(nodes), catalog)

    for strategy in ("random", "margin"):
        file = tmp_path / f"seed_0.{strategy}.round_01.json"
        assert json.loads(file.read_text())["train"] > 0


def test_missing_inputs_are_refused_as_everywhere() -> None:
    with pytest.raises((ValueError, DatasetError), match="seed"):
        run(chain("seed_0.margin", double))


@pytest.mark.parametrize("count", ["", "0"])
def test_no_number_of_workers_is_one_a_core(
    count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AL_WORKERS", count)

    assert BranchRunner()._max_workers == os.cpu_count()


@pytest.mark.parametrize("count", ["-1", "many", "1.5"])
def test_a_strange_number_of_workers_is_named(
    count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AL_WORKERS", count)

    with pytest.raises(ValueError, match="AL_WORKERS"):
        BranchRunner()


def test_kedros_own_option_says_how_many_workers_too() -> None:
    assert BranchRunner(max_workers=3)._max_workers == 3


def test_one_worker_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AL_WORKERS", "1")

    assert run(diamond(), seed=1) == {"sum": 12}
