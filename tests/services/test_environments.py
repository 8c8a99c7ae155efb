import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from subprocess import run

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from active_learning.errors import SettingsError
from active_learning.services.environments import (
    EnvironmentSpec,
    pinned,
    serving_environment,
    training_environment,
)

pytest.importorskip("azure.ai.ml", reason="the extra 'azure' is not installed")
pytest.importorskip(
    "azureml_inference_server_http", reason="the extra 'serve' is not installed"
)

ROOT = Path(__file__).parents[2]
SCORING = """
import sys
from importlib import import_module
for name in "batch bodies entry model releases service settings wsgi".split():
    import_module(f"active_learning.services.scoring.{name}")
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
TRAINING = ("torch", "pytorch-lightning", "kedro", "mlflow", "kedro-mlflow")


def packages(environment: EnvironmentSpec) -> dict[str, str]:
    lines = environment.conda["dependencies"][-1]["pip"]
    return dict(line.split("==") for line in lines)


def project(folder: Path, lock: str = "") -> Path:
    locked = (ROOT / "requirements.lock").read_text()
    (folder / "requirements.lock").write_text(f"{locked}\n{lock}")
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return folder


def test_every_package_has_the_version_of_the_lock_file() -> None:
    locked = (ROOT / "requirements.lock").read_text().splitlines()

    for environment in (training_environment(ROOT), serving_environment(ROOT)):
        lines = environment.conda["dependencies"][-1]["pip"]
        assert set(lines) <= set(locked)


def test_training_has_what_any_pipeline_needs_and_nothing_of_tests() -> None:
    there = packages(training_environment(ROOT))

    assert {*TRAINING, "azure-ai-ml", "adlfs", "gunicorn"} <= there.keys()
    assert not {"pytest", "ruff", "mypy"} & there.keys()


def test_serving_carries_no_training() -> None:
    assert not set(TRAINING) & packages(serving_environment(ROOT)).keys()


def test_serving_has_all_that_the_entry_scripts_import() -> None:
    said = run(
        [sys.executable, "-c", SCORING], capture_output=True, text=True, check=True
    )

    names = packages_distributions()
    wanted = {
        canonicalize_name(package)
        for module in said.stdout.split()
        for package in names.get(module, ())
    }
    there = packages(serving_environment(ROOT)).keys()
    # setuptools is in every image, and ours is carried as code.
    known = {"active-learning-loop", "setuptools", "cloudpickle"}
    assert wanted - there - known == set()


def test_the_same_content_is_the_same_version(tmp_path: Path) -> None:
    one = serving_environment(ROOT)
    again = serving_environment(project(tmp_path))

    assert one.version == again.version
    assert one.reference == f"azureml:active-learning-serving:{one.version}"


def test_another_version_of_a_package_is_another_environment(tmp_path: Path) -> None:
    before = serving_environment(ROOT)
    after = serving_environment(project(tmp_path, "numpy==9.9.9"))

    assert before.version != after.version
    assert packages(after)["numpy"] == "9.9.9"


def test_a_package_that_is_not_locked_is_named() -> None:
    with pytest.raises(SettingsError, match="own-package is needed and not in"):
        pinned([Requirement("own-package")], ROOT)


def test_a_package_that_is_not_installed_is_named_with_the_way_out(
    tmp_path: Path,
) -> None:
    with pytest.raises(SettingsError, match=r"own-package is not installed.*\[azure"):
        pinned([Requirement("own-package")], project(tmp_path, "own-package==1.0"))
