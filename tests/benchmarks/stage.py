"""Where benchmarks run the project: a folder of its own, the images, the clock."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from kedro.config import OmegaConfigLoader
from kedro.framework.project import settings
from kedro.framework.startup import bootstrap_project

ROOT = Path(__file__).parents[2]
RUNNER = "active_learning.runner.BranchRunner"


@dataclass(frozen=True)
class Ran:
    """What a process took from its start to its end, with all it started."""

    wall_s: float
    cpu_s: float
    output: str


class Stage:
    """A data folder whose images and decoded pixels are there and outputs are not.

    Args:
        folder: An empty one.
        overrides: Parameters by dotted name, as ``--params`` takes them.
    """

    def __init__(self, folder: Path, overrides: dict[str, Any]) -> None:
        """Link the project's images into the folder; ``make data`` has made them."""
        run(kedro("data", "--only-missing-outputs"), dict(os.environ))
        images = Path(os.environ.get("AL_DATA", ROOT / "data")).resolve()
        self.data = folder / "data"
        (self.data / "01_raw").mkdir(parents=True)
        (self.data / "01_raw" / "fashion-mnist").symlink_to(
            images / "01_raw" / "fashion-mnist"
        )
        self.arrays = folder / "arrays"
        self.environment = {**os.environ, "AL_DATA": str(self.data)}
        self.overrides = overrides
        self.params = self._parameters(overrides)

    def kedro(self, pipeline: str, *arguments: str) -> Ran:
        """Run a pipeline with the stage's parameters."""
        parameters = ("--env", "simulation", "--params", typed(self.overrides))
        command = kedro(pipeline, *arguments, *parameters)
        return run(command, self.environment)

    def bare_loop(self) -> Ran:
        """Run the same in the bare loop."""
        command = [sys.executable, "-m", "tests.benchmarks.bare_loop"]
        return run([*command, str(self.arrays)], self.environment)

    def bare_loops(self) -> Ran:
        """Run the same in a bare loop for each core, on one thread each."""
        n = os.cpu_count() or 1
        settings = json.loads((self.arrays / "settings.json").read_text())
        command = [sys.executable, "-m", "tests.benchmarks.bare_loop"]
        shares = [settings["strategies"][core::n] for core in range(n)]
        commands = [[*command, str(self.arrays), *some] for some in shares if some]
        environment = {**self.environment, "OMP_NUM_THREADS": "1"}
        with ThreadPoolExecutor() as pool:
            ran = list(pool.map(partial(run, environment=environment), commands))
        # The children's processor time is one sum for all of them.
        longest = max(ran, key=lambda one: one.wall_s)
        curves: dict[str, Any] = {}
        for one in ran:
            curves |= json.loads(one.output)
        return Ran(longest.wall_s, longest.cpu_s, json.dumps(curves))

    def clear(self) -> None:
        """Remove what rounds wrote; cache, test set and tracking database stay."""
        for name in ("07_model_output", "08_reporting"):
            shutil.rmtree(self.data / name, ignore_errors=True)

    def accuracies(self, strategy: str) -> list[float]:
        """Of the first seed's rounds, the shared start first."""
        seed = f"seed_{self.params['simulate']['seeds'][0]}"
        simulated = next((self.data / "07_model_output" / "simulation").iterdir())
        files = [
            *(simulated / seed / "start").glob("*/evaluation.json"),
            *sorted((simulated / seed / strategy).glob("*/evaluation.json")),
        ]
        return [json.loads(file.read_text())["accuracy"] for file in files]

    def write_arrays(self) -> None:
        """Prepare the bare loop's input from what a run of this stage drew."""
        from active_learning.imaging import ImageStore, Preprocessing

        simulate, train = self.params["simulate"], self.params["train"]
        seed = simulate["seeds"][0]
        simulated = self.data / "07_model_output" / "simulation"
        pool = pd.read_parquet(next(simulated.glob(f"*/seed_{seed}/pool.parquet")))
        pool = pool.sort_values("image_id", ignore_index=True)
        test = pd.read_parquet(
            next((self.data / "05_model_input" / "test_sets").glob("*.parquet"))
        )
        store = ImageStore(
            str(self.data / "01_raw" / "fashion-mnist"),
            cache=str(self.data / "02_intermediate" / "decoded"),
            max_pixels=10**8,
        )
        preprocessing = Preprocessing.model_validate(train["preprocessing"])
        self.arrays.mkdir()
        for name, table in (("pool", pool), ("test", test)):
            decoded = store.pixels(table["image_id"].tolist(), preprocessing)
            pixels = decoded.pixels.take(np.arange(len(decoded.pixels)))
            np.save(self.arrays / f"{name}_pixels.npy", pixels)
        classes = sorted(set(pool.loc[pool["round"] == 0, "label"]))
        np.savez(
            self.arrays / "arrays.npz",
            rounds=pool["round"].to_numpy(),
            targets=_codes(pool, classes),
            test_targets=_codes(test, classes),
        )
        plan = {
            "seed": seed,
            "rounds": simulate["rounds"],
            "strategies": [s for s in simulate["strategies"] if self._ran(s)],
            "labels_per_round": simulate["labels_per_round"],
            "score_batch_size": self.params["score"]["batch_size"],
            "evaluation_batch_size": train["evaluation_batch_size"],
            "n_classes": len(classes),
            "network": train["network"],
            "recipe": train["recipe"],
            "preprocessing": train["preprocessing"],
            "start": train["init"]["start"],
            "image_ids": pool["image_id"].tolist(),
        }
        (self.arrays / "settings.json").write_text(json.dumps(plan))

    def _ran(self, strategy: str) -> bool:
        seed = self.params["simulate"]["seeds"][0]
        simulated = self.data / "07_model_output" / "simulation"
        return any(simulated.glob(f"*/seed_{seed}/{strategy}"))

    def _parameters(self, overrides: dict[str, Any]) -> dict[str, Any]:
        bootstrap_project(ROOT)
        loader = OmegaConfigLoader(
            conf_source=str(ROOT / settings.CONF_SOURCE),
            env="simulation",
            **settings.CONFIG_LOADER_ARGS,
        )
        parameters: dict[str, Any] = loader["parameters"]
        for name, value in overrides.items():
            *sections, leaf = name.split(".")
            place = parameters
            for section in sections:
                place = place[section]
            place[leaf] = value
        return parameters


def kedro(pipeline: str, *arguments: str) -> list[str]:
    """The command line of a pipeline, by this interpreter's own Kedro."""
    return [sys.executable, "-m", "kedro", "run", "--pipelines", pipeline, *arguments]


def run(
    command: Sequence[str], environment: dict[str, str], folder: Path = ROOT
) -> Ran:
    """Run a process to its end; a failure stops the benchmark with its last words."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wall_s = perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ran(wall_s, cpu_s, done.stdout)


def interleave(
    repetitions: int, one: Callable[[], Ran], other: Callable[[], Ran]
) -> list[tuple[Ran, Ran]]:
    """Run two things in turns, so that what else the machine does falls on both."""
    pairs = []
    for number in range(repetitions):
        if number % 2:
            second = other()
            pairs.append((one(), second))
        else:
            pairs.append((one(), other()))
        sys.stderr.write(f"  {number + 1} of {repetitions}\n")
    return pairs


def ratios(pairs: Sequence[tuple[Ran, Ran]], of: str = "wall_s") -> list[float]:
    """The first of each pair by the second."""
    return [getattr(one, of) / getattr(other, of) for one, other in pairs]


def tell_ratio(what: str, values: Sequence[float], target: float | None) -> None:
    """Print one line: the median, the spread, the goal and whether it is met."""
    middle = median(values)
    spread = f"{min(values):.2f} to {max(values):.2f}"
    goal = ""
    if target is not None:
        goal = f"goal {target:.2f}: {'met' if middle <= target else 'MISSED'}"
    tell(f"  {what:<44} {middle:>6.2f}  ({spread}, n={len(values)})  {goal}")


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def typed(overrides: dict[str, Any]) -> str:
    """Parameters as ``--params`` takes them."""
    parts = []
    for name, value in overrides.items():
        several = isinstance(value, list)
        parts.append(f"{name}={'+'.join(map(str, value)) if several else value}")
    return ",".join(parts)


def collector_in(folder: Path, max_waiting: int) -> Any:
    """A collector with a spool and tables of its own."""
    from active_learning.services.telemetry.collector import (
        Collector,
        CollectorSettings,
    )
    from active_learning.services.telemetry.local import LocalTelemetry
    from active_learning.services.telemetry.spool import Spool

    settings = CollectorSettings(
        batch_rows=1000,
        linger_s=1,
        back_off_min_s=1,
        back_off_max_s=60,
        part_rows=250_000,
    )
    spool = Spool(folder / "spool.db", max_waiting)
    return Collector(spool, LocalTelemetry(folder), settings)


def _codes(table: pd.DataFrame, classes: list[str]) -> Any:
    return pd.Categorical(table["label"], categories=classes).codes.astype(np.int64)
