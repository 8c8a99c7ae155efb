"""What the page about Azure says can be typed, set and read is there."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import click
import pytest
from kedro.config import OmegaConfigLoader

from active_learning.cli import cli
from active_learning.pipeline_registry import register_pipelines
from active_learning.settings import CONFIG_LOADER_ARGS

PROJECT = Path(__file__).parents[1]
ESTATE = PROJECT / "src" / "azure_infrastructure"
PAGE = PROJECT / "conf" / "azure" / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
PROSE = re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE)
# What stands between backticks, in one line.
CODE = [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", PROSE)]
_WORD = re.compile(r"\s+#\s.*$", re.MULTILINE)
LINES = [
    part.strip()
    for block in BLOCKS
    for line in _WORD.sub("", block).replace("\\\n", " ").splitlines()
    for part in line.split("&&")
]
TYPED = [*LINES, *CODE]
KEDRO = sorted({line for line in TYPED if line.startswith("kedro ")})
MAKE = sorted({line for line in TYPED if line.startswith("make ")})
# Which of our variables a shell sets itself.
ASSIGNED = re.compile(r"(?:^|\s)([A-Z]+)=|\bread -rs ([A-Z]+)|\bfor (\w+) in", re.M)
# Azure's names of the roles that Bicep calls otherwise.
ROLES = {"azureMlDataScientist": "AzureML Data Scientist", "acrPull": "AcrPull"}


def words_of(line: str) -> list[str]:
    """A command as a shell would give it."""
    return shlex.split(line)


def outputs() -> set[str]:
    """The names that the deployment gives places by."""
    said = (ESTATE / "main.bicep").read_text(encoding="utf-8")
    return set(re.findall(r"^output (\w+)", said, re.MULTILINE))


def variables_of(folder: Path) -> dict[str, bool]:
    """What an environment's configuration reads, and whether it must be there."""
    found: dict[str, bool] = {}
    for path in sorted(folder.rglob("*.yml")):
        asked = re.findall(r"oc\.env:\s*(\w+)\s*([,}])", path.read_text())
        for name, end in asked:
            found[name] = found.get(name, False) or end == "}"
    return found


def test_there_is_a_page_with_commands() -> None:
    assert len(BLOCKS) > 10
    assert len(KEDRO) > 10
    assert len(MAKE) > 5


@pytest.mark.parametrize("line", MAKE)
def test_every_target_is_in_the_makefile(line: str) -> None:
    makefile = (PROJECT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    words = words_of(line)

    assert words[1] in targets
    for given in words[2:]:
        assert f"$({given.partition('=')[0]})" in makefile


@pytest.mark.parametrize("line", KEDRO)
def test_every_command_exists_with_its_options(line: str) -> None:
    _, name, *rest = words_of(line)
    if name == "run":
        known = {"--env", "--pipelines", "--params"}
        assert rest[:3] == ["--env", "azure", "--pipelines"]
        assert set(rest[3].split(",")) <= set(register_pipelines())
    else:
        command = cli.commands[name]
        known = {option for parameter in command.params for option in parameter.opts}
        (choices,) = [
            parameter.type.choices
            for parameter in command.params
            if isinstance(parameter.type, click.Choice)
        ] or [()]
        assert {word for word in rest[:1] if not word.startswith("-")} <= set(choices)
    assert {word for word in rest if word.startswith("--")} <= known


def test_what_a_job_is_asked_to_run_is_a_pipeline() -> None:
    asked = re.findall(r"(?:azure-job --pipeline |PIPELINE=)(\S+)", TEXT)

    assert asked
    assert set(asked) <= set(register_pipelines())


def test_every_parameter_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables_of(PAGE.parent):
        monkeypatch.setenv(name, "somewhere")
    loader = OmegaConfigLoader(str(PROJECT / "conf"), env="azure", **CONFIG_LOADER_ARGS)
    parameters = loader["parameters"]
    typed = [
        pair.partition("=")[0]
        for line in KEDRO
        if "--params" in line
        for pair in words_of(line)[words_of(line).index("--params") + 1].split(",")
    ]
    sections = "|".join(parameters)
    named = [
        words for words in CODE if re.fullmatch(rf"({sections})(\.[a-z_]+)+", words)
    ]

    assert len(typed) > 3
    assert len(named) >= 2
    for name in [*typed, *named]:
        value = parameters
        for part in name.split("."):
            assert part in value, name
            value = value[part]


def test_the_variables_are_those_that_the_configuration_reads() -> None:
    """And the other way round; what must be set, the deployment says."""
    table = re.search(r"<!-- variables -->\n(.*?)\n\n", TEXT, re.DOTALL)
    assert table is not None
    rows = table[1].splitlines()[2:]
    named = {
        name for row in rows for name in re.findall(r"`([A-Z_]+)`", row.split("|")[1])
    }
    read = variables_of(PAGE.parent)

    assert named == set(read)
    assert {name for name, needed in read.items() if needed} <= outputs()


def test_a_shell_knows_every_variable_that_it_is_given() -> None:
    known: set[str] = set()
    for block in BLOCKS:
        if "> .env" in block:
            known |= outputs()
        known |= {name for found in ASSIGNED.findall(block) for name in found}
        used = set(re.findall(r"\$\{?([A-Za-z_]+)", block))
        assert used <= known, used - known


def test_what_is_set_in_github_is_what_the_workflows_read() -> None:
    folder = PROJECT / ".github" / "workflows"
    read = {
        name
        for path in folder.glob("*.yml")
        for name in re.findall(r"\bvars\.(\w+)", path.read_text())
    }
    by_hand = set(re.findall(r"gh variable set (\w+)", TEXT))

    assert by_hand == read - outputs()
    for name in re.findall(r"gh workflow run (\S+)", TEXT):
        assert "workflow_dispatch" in (folder / name.strip("`.")).read_text()


@pytest.mark.parametrize("block", BLOCKS)
def test_bash_understands_every_block(block: str) -> None:
    ran = subprocess.run(
        ["bash", "-n"], input=block, capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stderr


def test_the_outputs_become_variables_whatever_azure_makes_of_their_capitals(
    tmp_path: Path,
) -> None:
    (block,) = [block for block in BLOCKS if "> .env" in block]
    said = {
        "azurE_RESOURCE_GROUP": {"type": "String", "value": "group"},
        "aL_ADX_CLUSTER": {"type": "String", "value": "https://c.r.kusto.windows.net"},
        "azurE_CLIENT_ID": {"type": "String", "value": "of-the-workflows"},
    }
    programs = tmp_path / "bin"
    programs.mkdir()
    az = programs / "az"
    az.write_text(f"#!/bin/sh\necho '{json.dumps(said)}'\n")
    az.chmod(0o700)

    ran = subprocess.run(
        ["bash", "-eu", "-c", f"{block}\nenv"],
        cwd=tmp_path,
        env={"PATH": f"{programs}:{os.environ['PATH']}", "GROUP": "group"},
        capture_output=True,
        text=True,
        check=True,
    )

    variables = dict(line.split("=", 1) for line in ran.stdout.splitlines())
    assert variables["AZURE_RESOURCE_GROUP"] == "group"
    assert variables["AL_ADX_CLUSTER"] == "https://c.r.kusto.windows.net"
    # With it, a machine in Azure would ask for tokens of an identity it does not have.
    assert "AZURE_CLIENT_ID" not in variables
    assert "AZURE_CLIENT_ID=of-the-workflows" in (tmp_path / ".env").read_text()


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    titles = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}

    assert len(links) > 8
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif not link.startswith("https://"):
            assert (PAGE.parent / link).exists(), link


def test_every_file_that_is_named_is_there() -> None:
    typed = re.findall(r"(?<![\w/])(?:src|tests|conf)/[\w./-]*\w", TEXT)
    names = re.findall(r"\b[\w-]+\.(?:bicep|yml)\b", TEXT)
    made = {"datastore.yml"}
    folders = [PROJECT / name for name in ("src", "conf", ".github")]
    there = {path.name for folder in folders for path in folder.rglob("*.*")}

    assert typed
    for name in typed:
        assert (PROJECT / name).exists(), name
    assert set(names) - made <= there


def test_git_knows_what_is_published() -> None:
    """A function that was not committed would be published without its files."""
    (folder,) = re.findall(r"HEAD:(\S+)", TEXT)

    assert (PROJECT / folder / "function_app.py").exists()
    assert (PROJECT / folder / "host.json").exists()


def test_what_git_must_not_know_is_ignored() -> None:
    if shutil.which("git") is None or not (PROJECT / ".git").exists():
        pytest.skip("this is no clone of a repository")
    written = re.findall(r"(?:> |--output )(\.env|build/\S+)", TEXT)

    assert ".env" in written
    for name in written:
        ran = subprocess.run(
            ["git", "check-ignore", "--quiet", name], cwd=PROJECT, check=False
        )
        assert ran.returncode == 0, name


@cache
def texts() -> tuple[str, ...]:
    """Every text in our code, with a gap where a value is put in."""
    found = []
    for folder in ("active_learning", "azure_function"):
        for path in sorted((PROJECT / "src" / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (
                        str(part.value) if isinstance(part, ast.Constant) else "\0"
                        for part in node.values
                    )
                    found.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return tuple(found)


def test_every_message_of_the_page_is_one_of_the_code() -> None:
    table = TEXT.partition("| what is said |")[2].partition("\n\n")[0]
    said = [
        message
        for row in table.splitlines()[2:]
        for message in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]

    assert len(said) > 10
    for message in said:
        assert any(message in text for text in texts()), message


def test_every_role_that_is_given_is_explained() -> None:
    section = TEXT.partition("## Who may do what")[2].partition("\n## ")[0]
    given = {
        name
        for path in ESTATE.rglob("*.bicep")
        for name in re.findall(r"^  (\w+): '[0-9a-f-]{36}'", path.read_text(), re.M)
    }

    assert len(given) > 8
    for name in given:
        spelled = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name[0].upper() + name[1:])
        assert ROLES.get(name, spelled) in section, name


def test_the_portal_is_told_the_names_that_the_configuration_has() -> None:
    written = (PAGE.parent / "labeling" / "azure_labeling.yml").read_text()
    queues = (ESTATE / "modules" / "storage.bicep").read_text()
    secret = (ESTATE / "modules" / "vault.bicep").read_text()

    for name in ("project", "asset"):
        (value,) = re.findall(rf"^  {name}: (\S+)", written, re.MULTILINE)
        assert f"`{value}`" in TEXT
    for name in ("label-exports", "label-exports-poison", "label-events"):
        assert f"'{name}'" in queues
        assert f"`{name}`" in TEXT
    assert "'github-token'" in secret
    assert "--name github-token" in TEXT


def test_every_datastore_that_is_used_is_made() -> None:
    used = {
        name
        for path in PAGE.parent.rglob("*.yml")
        for name in [
            *re.findall(r"datastores/(\w+)/", path.read_text()),
            *re.findall(r"^\s+(?:\w+_)?datastore: (\w+)", path.read_text(), re.M),
        ]
    }
    (made,) = re.findall(r"for name in (.*); do", TEXT)

    assert used
    assert used <= set(made.split())


def test_what_is_said_of_cost_and_time_is_what_is_asked_for() -> None:
    cluster = (ESTATE / "main.bicep").read_text()
    machines = (ESTATE / "modules" / "machine_learning.bicep").read_text()
    storage = (ESTATE / "modules" / "storage.bicep").read_text()
    watching = (ESTATE / "modules" / "watching.bicep").read_text()
    host = json.loads((PROJECT / "src" / "azure_function" / "host.json").read_text())
    page = " ".join(TEXT.split())

    (size,) = re.findall(r"name: '(Dev[^']*)'", cluster)
    assert f"`{size}`" in page
    assert "after five idle minutes" in page
    assert "'PT5M'" in machines
    assert "minNodeCount: 0" in machines
    assert "(deleted ones for 14 days more)" in page
    assert "days: 14" in storage
    assert "logs (for 30 days)" in page
    assert "retentionInDays: 30" in watching
    assert "five attempts failed" in page
    assert host["extensions"]["queues"]["maxDequeueCount"] == 5


def test_every_provider_that_is_needed_is_registered() -> None:
    needed = {
        provider
        for path in ESTATE.rglob("*.bicep")
        for provider in re.findall(r"'Microsoft\.(\w+)/", path.read_text())
    }
    (listed,) = re.findall(r"for provider in (.*?);", TEXT, re.DOTALL)

    # Whoever has a subscription has this one.
    always = {"Authorization"}
    assert set(listed.replace("\\", " ").split()) == needed - always


def test_every_cluster_that_is_named_is_made() -> None:
    machines = (ESTATE / "modules" / "machine_learning.bicep").read_text()
    named = {
        name
        for folder in ("base", "azure")
        for path in (PROJECT / "conf" / folder).rglob("*.yml")
        for name in re.findall(r"[:\s](\w+-cluster)\b", path.read_text())
    }

    assert named
    assert named == set(re.findall(r"name: '(\w+-cluster)'", machines))
