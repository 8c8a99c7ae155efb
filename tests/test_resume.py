"""A simulation that is killed and resumed is the simulation that was left alone."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

PROJECT = Path(__file__).parents[1]
BRANCHES = "active_learning.runner.BranchRunner"
SEQUENTIAL = "kedro.runner.SequentialRunner"
TIMES = ["train_s", "score_s", "select_s"]
PARAMETERS = {
    "train.preprocessing.height": 8,
    "train.preprocessing.width": 8,
    "train.network.width": 4,
    "train.recipe.min_steps": 10,
    "train.recipe.min_epochs": 1,
    "train.recipe.augmentation.crop": 1,
    "train.recipe.augmentation.erase": 2,
    "simulate.rounds": 3,
    "simulate.strategies": "random+margin",
    "simulate.seeds": "0+1",
    "simulate.pool_size": 300,
    "simulate.initial_labels": 40,
    "simulate.labels_per_round": 20,
    "simulate.stream_size": 100,
    # Labelers who err and disagree: what is in doubt goes from round to round, too.
    "oracle.noise": 0.3,
    "oracle.labelers": 2,
    "oracle.abstain": 0.1,
    "label_ingest.suspicion.min_labels": 10,
    "label_ingest.suspicion.min_confidence": 0.3,
}
# Long enough for a machine that is busy with something else.
PATIENCE_S = 300
SOON_S = 15

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="kills process groups"),
]


class Simulation:
    """One command, typed again and again."""

    def __init__(self, images: Path, data: Path, runner: str) -> None:
        self.images = images
        self.data = data
        self.runner = runner

    def start(self, *options: str) -> subprocess.Popen[str]:
        typed = {"images": self.images, **PARAMETERS}
        command = [
            *(sys.executable, "-m", "kedro", "run", "--pipelines", "simulate"),
            *("--runner", self.runner, "--only-missing-outputs", *options),
            *("--params", ",".join(f"{key}={value}" for key, value in typed.items())),
        ]
        self.data.mkdir(parents=True, exist_ok=True)
        # One thread in every process: two runners then add numbers in one order.
        one = {"OMP_NUM_THREADS": "1", "AL_WORKERS": "2"}
        with (self.data / "log.txt").open("a") as log:
            return subprocess.Popen(
                command,
                cwd=PROJECT,
                env={**os.environ, **one, "AL_DATA": str(self.data)},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def finish(self, *options: str) -> None:
        process = self.start(*options)
        assert process.wait(PATIENCE_S) == 0, self.log()[-3000:]

    def log(self) -> str:
        return (self.data / "log.txt").read_text()

    def written(self) -> list[Path]:
        """What rounds have written, whole files alone."""
        rounds = self.data / "07_model_output"
        return sorted(p for p in rounds.glob("**/*.*") if not p.name.startswith("."))

    def curves(self) -> pd.DataFrame:
        report = self.data / "08_reporting" / "simulation"
        return pd.read_csv(report / "learning_curves.csv")

    def requests(self) -> pd.DataFrame:
        parts = [p for p in self.written() if p.name == "label_requests.parquet"]
        frames = [pd.read_parquet(p).assign(where=self._place(p)) for p in parts]
        return pd.concat(frames, ignore_index=True)

    def _place(self, part: Path) -> str:
        # Below the folder of the experiment, whose name is a hash of the settings.
        rounds = self.data / "07_model_output" / "simulation"
        return Path(*part.relative_to(rounds).parts[1:-1]).as_posix()


@pytest.fixture(scope="module")
def left_alone(
    digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Simulation]:
    """The same simulation, never disturbed; one for each runner."""
    done: dict[str, Simulation] = {}

    def run(runner: str) -> Simulation:
        if runner not in done:
            data = tmp_path_factory.mktemp("left_alone")
            done[runner] = Simulation(digits, data, runner)
            done[runner].finish()
        return done[runner]

    return run


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    # The dead that nobody has asked after still count for killpg.
    return any(_runs_in(group, status) for status in Path("/proc").glob("[0-9]*/stat"))


def _runs_in(group: int, status: Path) -> bool:
    try:
        fields = status.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] != "Z" and int(fields[2]) == group


def kill(simulation: Simulation, n_files: float, delay_s: float, whole: bool) -> None:
    """Kill a run so long after so many files are there, and see that all of it ends.

    Counted in files, moments are spread over the work alike on any machine.
    """
    process = simulation.start()
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and len(simulation.written()) < n_files:
        assert time.monotonic() < deadline, simulation.log()[-3000:]
        time.sleep(0.01)
    time.sleep(delay_s)
    if whole:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait(PATIENCE_S)
    deadline = time.monotonic() + SOON_S
    while is_alive(process.pid):
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"workers were still there {SOON_S} s after their parent died")
        time.sleep(0.05)


def assert_same(ours: Simulation, theirs: Simulation) -> None:
    pd.testing.assert_frame_equal(
        ours.curves().drop(columns=TIMES),
        theirs.curves().drop(columns=TIMES),
        check_exact=True,
    )
    pd.testing.assert_frame_equal(ours.requests(), theirs.requests(), check_exact=True)


@pytest.mark.parametrize(
    ("runner", "whole", "n_kills", "seed"),
    [
        pytest.param(BRANCHES, False, 5, 1, id="main process, five times"),
        pytest.param(BRANCHES, True, 2, 2, id="whole group, twice"),
        pytest.param(SEQUENTIAL, False, 1, 3, id="sequential, once"),
    ],
)
def test_killed_at_any_moment_it_ends_the_same(
    digits: Path,
    tmp_path: Path,
    left_alone: Callable[[str], Simulation],
    runner: str,
    whole: bool,
    n_kills: int,
    seed: int,
) -> None:
    reference = left_alone(runner)
    killed = Simulation(digits, tmp_path, runner)
    generator = random.Random(seed)
    total = len(reference.written())
    moments = [
        ((number + generator.random()) / n_kills * total, generator.random())
        for number in range(n_kills)
    ]

    if n_kills > 2:
        moments[0] = (0.0, 5 * generator.random())  # while it starts

    n_written = []
    for n_files, delay_s in moments:
        # One more file at least, or a run is killed before it is at work again.
        kill(
            killed, n_files and max(n_files, len(killed.written()) + 1), delay_s, whole
        )
        n_written.append(len(killed.written()))
    killed.finish()

    told = f"seed {seed}: killed at {n_written} of {total} files"
    sys.stdout.write(f"{told}, moments {moments}\n")
    assert len(killed.written()) == total, told
    assert_same(killed, reference)


def test_half_files_are_believed_by_nobody(
    digits: Path, tmp_path: Path, left_alone: Callable[[str], Simulation]
) -> None:
    reference = left_alone(BRANCHES)
    resumed = Simulation(digits, tmp_path / "data", BRANCHES)
    shutil.copytree(reference.data, resumed.data)
    files = resumed.written()
    generator = np.random.default_rng(4)
    lost = set(generator.choice(len(files), len(files) // 4, replace=False))
    decoded = (resumed.data / "02_intermediate").glob("**/*.npy")
    for number, file in enumerate([*files, *decoded]):
        # Such a name, with half of its content, is what a killed writer leaves.
        half = file.read_bytes()[: file.stat().st_size // 2]
        file.with_name(f".{file.name}.{'0' * 32}.tmp").write_bytes(half)
        if number in lost:
            file.unlink()

    resumed.finish()

    # How long a step took is noted while it runs, and is not made again.
    names = [file.name for file in files if file.name != "step_times.json"]
    again = [file.name for file in resumed.written() if file.name != "step_times.json"]
    assert sorted(again) == sorted(names)
    assert_same(resumed, reference)


def test_one_branch_alone_makes_no_report(
    digits: Path, tmp_path: Path, left_alone: Callable[[str], Simulation]
) -> None:
    reference = left_alone(BRANCHES)
    alone = Simulation(digits, tmp_path, BRANCHES)

    alone.finish("--namespaces=test_set,prepare,seed_1.start,seed_1.margin")

    theirs = reference.requests()
    mine = theirs["where"].str.startswith("seed_1/margin/")
    pd.testing.assert_frame_equal(
        alone.requests(), theirs[mine].reset_index(drop=True), check_exact=True
    )
    assert not (tmp_path / "08_reporting").exists()


def test_a_branch_goes_on_alone_from_what_is_written(
    digits: Path, tmp_path: Path, left_alone: Callable[[str], Simulation]
) -> None:
    reference = left_alone(BRANCHES)
    alone = Simulation(digits, tmp_path / "data", BRANCHES)
    shutil.copytree(reference.data, alone.data)
    for folder in alone.data.glob("07_model_output/simulation/*/seed_1/margin"):
        shutil.rmtree(folder)

    alone.finish("--namespaces=seed_1.margin")

    pd.testing.assert_frame_equal(
        alone.requests(), reference.requests(), check_exact=True
    )
