"""Every notebook runs, on a project of any age, and is stored without its answers."""

import io
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from active_learning.datasets import TableDataset
from active_learning.schemas import row_id
from active_learning.services.telemetry.rows import predictions_table

PROJECT = Path(__file__).parents[1]
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
CLASSES = [str(digit) for digit in range(10)]
MODEL = "small_cnn"
DAYS, PER_DAY = 30, 16
RELEASED = 20  # days ago, version 2 took over


class Ran(NamedTuple):
    """What the cells of one notebook put out, by the cells' ids."""

    outputs: dict[str, list[NotebookNode]]

    def said(self, cell: str) -> str:
        """All text of a cell, tables among it."""
        texts = []
        for output in self.outputs[cell]:
            data = output.get("data", {})
            texts += [output.get("text", ""), data.get("text/markdown", "")]
            texts += [data.get("text/html", "")]
        return "\n".join(texts)

    def n_tables(self, cell: str) -> int:
        return self.said(cell).count("<table")

    def n_pictures(self, cell: str) -> int:
        return sum("image/png" in o.get("data", {}) for o in self.outputs[cell])


def run_all(data: Path, home: Path, env: str) -> dict[str, Ran]:
    """Run every notebook of the project, by name."""
    return {path.stem: run(path, data, home, env) for path in NOTEBOOKS}


def run(notebook: Path, data: Path, home: Path, env: str) -> Ran:
    """Run every cell where the notebook lies; a cell that fails raises."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AL_DATA", str(data))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("IPYTHONDIR", str(home / "ipython"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(home / "jupyter"))
        patch.setenv("KEDRO_ENV", env)
        opened = nbformat.read(notebook, as_version=4)
        where = {"metadata": {"path": str(notebook.parent)}}
        NotebookClient(opened, timeout=120, resources=where).execute()
    return Ran({cell.id: cell.get("outputs", []) for cell in opened.cells})


def table(ran: Ran, cell: str) -> pd.DataFrame:
    """The first table of a cell, as pandas wrote it."""
    head, body = re.findall(
        r"<thead>(.*?)</thead>.*?<tbody>(.*?)</tbody>", ran.said(cell), re.DOTALL
    )[0]
    # A named index has a header row of its own.
    names = ["".join(parts) for parts in zip(*rows(head), strict=True)]
    lines = ["\t".join(row) for row in (names, *rows(body))]
    return pd.read_csv(io.StringIO("\n".join(lines)), sep="\t")


def rows(html: str) -> list[list[str]]:
    return [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
        for row in re.findall(r"<tr.*?</tr>", html, re.DOTALL)
    ]


def kedro(data: Path, *words: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "kedro", "run", *words],
        cwd=PROJECT,
        env={**os.environ, "AL_DATA": str(data), "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]


def fill(data: Path, image_ids: list[str]) -> None:
    """Predictions of thirty days and two versions, audit requests and their labels."""
    now = datetime.now(UTC)
    rng = np.random.default_rng(0)
    database = data / "03_primary"
    predictions = TableDataset(table="predictions", path=str(database / "predictions"))
    scored = []
    for day in range(DAYS):
        p = rng.dirichlet(np.full(len(CLASSES), 0.2), size=PER_DAY)
        table = predictions_table(
            image_ids[day * PER_DAY : (day + 1) * PER_DAY],
            p,
            CLASSES,
            MODEL,
            1 if day > RELEASED else 2,
            "online",
            now - timedelta(days=day, hours=1),
        )
        scored.append(table.to_pandas())
        predictions.save(scored[-1])
    audited = pd.concat(scored[:RELEASED]).iloc[::32].reset_index(drop=True)
    TableDataset(table="label_requests", path=str(database / "label_requests")).save(
        requests(audited, now - timedelta(hours=2))
    )
    TableDataset(table="labels", path=str(database / "labels")).save(
        answers(audited, now)
    )


def requests(audited: pd.DataFrame, requested_at: datetime) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "request_id": [row_id("request", name) for name in audited["image_id"]],
            "image_id": audited["image_id"],
            "round": 1,
            "strategy": "random",
            "utility": audited["sampling_key"],
            "rank": range(1, len(audited) + 1),
            "propensity": 0.1,
            "population": 300,
            "audit": True,
            "model_name": MODEL,
            "model_version": 2,
            "requested_at": requested_at,
        }
    )


def answers(audited: pd.DataFrame, labeled_at: datetime) -> pd.DataFrame:
    """The folder's name is the truth."""
    return pd.DataFrame(
        {
            "label_id": [row_id("label", name) for name in audited["image_id"]],
            "image_id": audited["image_id"],
            "label": audited["image_id"].str[0],
            "labeler": "ann",
            "labeled_at": labeled_at,
            "batch_id": "one",
            "source": "csv",
            "request_id": [row_id("request", name) for name in audited["image_id"]],
            "answer": "label",
        }
    )


@pytest.fixture(scope="module")
def on_nothing(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    data, home = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("home")
    return run_all(data, home, "simulation")["monitoring"]


@pytest.fixture(scope="module")
def on_a_month(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    data, home = tmp_path_factory.mktemp("month"), tmp_path_factory.mktemp("home")
    (data / "01_raw").mkdir()
    # The place of the default images.
    (data / "01_raw" / "fashion-mnist").symlink_to(digits)
    names = [path.relative_to(digits).as_posix() for path in digits.glob("*/*.png")]
    shuffled = np.random.default_rng(1).permutation(sorted(names)).tolist()
    fill(data, shuffled)
    kedro(data, "--pipelines", "monitor")
    return run_all(data, home, "local")["monitoring"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_its_answers(notebook: Path) -> None:
    stored = nbformat.read(notebook, as_version=nbformat.NO_CONVERT)

    nbformat.validate(stored)
    assert stored.nbformat == 4
    assert stored.metadata.kernelspec.name == "python3"
    for cell in stored.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_the_environment_and_the_data_are_those_of_a_run(
    on_nothing: Ran, on_a_month: Ran
) -> None:
    assert "`simulation`, data in `/" in on_nothing.said("project")
    assert "/empty" in on_nothing.said("project")
    assert "`local`, data in `/" in on_a_month.said("project")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "what_to_run"),
    [
        ("activity", "kedro run --pipelines score,monitor"),
        ("classes", "kedro run --pipelines score,monitor"),
        ("scores", "kedro run --pipelines score,monitor"),
        ("histograms", "kedro run --pipelines score,monitor"),
        ("report", "kedro run --pipelines monitor"),
        ("accuracy", "kedro run --pipelines select"),
        ("candidates", "kedro run --pipelines score,monitor"),
        ("own", "No answer"),
    ],
)
def test_an_empty_project_is_told_what_to_run(
    on_nothing: Ran, cell: str, what_to_run: str
) -> None:
    assert what_to_run in on_nothing.said(cell)
    assert on_nothing.n_tables(cell) == on_nothing.n_pictures(cell) == 0


@pytest.mark.slow
def test_a_month_of_predictions_is_shown(on_a_month: Ran) -> None:
    for cell in ("activity", "classes", "scores", "histograms", "pictures"):
        assert on_a_month.n_pictures(cell) == 1
    for cell in ("activity", "candidates", "own"):
        assert on_a_month.n_tables(cell) == 1
    for cell in ("report", "accuracy"):
        assert on_a_month.n_tables(cell) == 2
    everything = "".join(map(on_a_month.said, on_a_month.outputs))
    assert "kedro run" not in everything
    assert "Warning" not in everything


@pytest.mark.slow
def test_the_figures_are_those_of_the_tables(on_a_month: Ran) -> None:
    activity = table(on_a_month, "activity")
    assert activity["model_version"].tolist() == [1, 2]
    assert activity["n"].sum() == DAYS * PER_DAY
    report = table(on_a_month, "report").set_index("signal")
    assert report.loc["classes", "n_current"] == 7 * PER_DAY
    assert report.loc["confidence", "verdict"] == "stable"
    audited = table(on_a_month, "accuracy")
    assert audited["n_audited"].tolist() == [RELEASED * PER_DAY // 32]
    own = table(on_a_month, "own")
    assert own["n"].sum() == DAYS * PER_DAY
    assert own["share"].is_monotonic_decreasing


@pytest.mark.slow
def test_the_candidates_are_the_champions_and_most_doubted_first(
    on_a_month: Ran,
) -> None:
    candidates = table(on_a_month, "candidates")

    assert len(candidates) == 8
    assert set(candidates["model_version"]) == {2}
    assert candidates["utility"].is_monotonic_decreasing
    # All of version 2 but the ten that are labeled.
    n_candidates = (RELEASED + 1) * PER_DAY - RELEASED * PER_DAY // 32
    assert f"{n_candidates} images" in on_a_month.said("candidates")
