"""What the README says can be typed, and does what it says."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from kedro.config import OmegaConfigLoader

from active_learning.pipeline_registry import register_pipelines
from active_learning.settings import CONFIG_LOADER_ARGS

PROJECT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "conf/README.md"]
# What a fence opens with, such as "mermaid", and what stands between the fences.
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMANDS = [
    (page, line.partition(" # ")[0].strip())
    for page in PAGES
    for _, block in FENCED.findall((PROJECT / page).read_text())
    for line in block.splitlines()
    if line.startswith(("make ", "kedro "))
]


def table_under(mark: str) -> pd.DataFrame:
    """The table of strategies that follows a mark in the README, by strategy."""
    text = (PROJECT / "README.md").read_text().partition(f"<!-- {mark} -->")[2]
    block = re.search(r"```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return parsed(block[1])


def parsed(table: str) -> pd.DataFrame:
    """``render_table``'s columns as numbers: spreads and signs left out."""
    rows = [
        re.split(r"\s{2,}", line.strip())
        for line in table.strip().splitlines()[2:]
        if line.strip()
    ]
    frame = pd.DataFrame(
        rows, columns=["strategy", "seeds", "aubc", "final", "labels", "saved"]
    ).set_index("strategy")
    return frame.map(lambda text: float(re.match(r"[\d.]+", text.replace(",", ""))[0]))


def test_there_are_commands_to_type() -> None:
    assert len(COMMANDS) > 8


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_exists(page: str, command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.M)
        assert words[1] in targets
        return
    assert words[1] == "run"
    names = words[words.index("--pipelines") + 1].split(",")
    assert set(names) <= set(register_pipelines())
    if "--params" in words:
        loader = OmegaConfigLoader(
            str(PROJECT / "conf"), env="base", **CONFIG_LOADER_ARGS
        )
        for pair in words[words.index("--params") + 1].split(","):
            section, _, name = pair.partition("=")[0].partition(".")
            assert section == "images" or name in loader["parameters"][section]


def test_every_target_of_the_makefile_is_explained() -> None:
    ran = subprocess.run(
        ["make", "--silent", "help"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    makefile = (PROJECT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.*)$", makefile, re.M)
    assert declared is not None
    assert {line.split()[0] for line in ran.stdout.splitlines()} == set(
        declared[1].split()
    )


@pytest.mark.slow
def test_the_quick_look_shows_what_the_readme_shows(tmp_path: Path) -> None:
    """The first command of the README, in an empty data folder."""
    ran = subprocess.run(
        ["make", "simulate"],
        cwd=PROJECT,
        env={**os.environ, "AL_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]

    found = parsed(ran.stdout.partition("strategy")[2].partition("\n\n")[0])
    told = table_under("quick")

    assert list(found.index) == list(told.index)
    # Another processor rounds otherwise, and thirty rounds carry it on.
    assert (found[["aubc", "final"]] - told[["aubc", "final"]]).abs().max(None) < 1.5
    assert (found["saved"]["margin"] > found["saved"]["random"]) == (
        told["saved"]["margin"] > told["saved"]["random"]
    )
    assert (tmp_path / "08_reporting/simulation/report.html").exists()
