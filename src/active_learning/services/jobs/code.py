"""What a job carries of the project: its code and configuration, nothing else."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from active_learning.errors import SettingsError

# The client library leaves out what one of them names.
_IGNORE = (".gitignore", ".amlignore")
_LEFT_OUT = shutil.ignore_patterns(
    ".*",
    "*.db",
    "*.egg-info",
    "*.log",
    "*.pyc",
    "*.tmp",
    "__pycache__",
    "credentials*.json",
    "credentials*.y*ml",
    "local",
    "node_modules",
)


@contextmanager
def carried(project: Path, names: Sequence[str]) -> Iterator[Path]:
    """A copy of what a job carries, for as long as it is uploaded.

    What is not named is not there: no data, no virtual environment, no history of git.
    Of what is named, hidden files, ``credentials*.yml`` and ``conf/local`` stay here,
    and so does what ``.gitignore`` or ``.amlignore`` names. Equal files make equal
    copies, which Azure ML stores once.

    Args:
        project: The project's folder.
        names: Files and folders in it.

    Raises:
        SettingsError: One of them is not there, or is outside of the folder.
    """
    missing = [name for name in names if not _inside(project, name)]
    if missing:
        raise SettingsError(
            f"{len(missing)} of {len(names)} names in jobs.code are no file or folder "
            f"of the project; the first is {missing[0]!r}."
        )
    with TemporaryDirectory(prefix="job-") as folder:
        copy = Path(folder) / "code"
        copy.mkdir()
        for name in (*names, *_IGNORE):
            source = project / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=_LEFT_OUT)
            elif source.is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy / name)
        yield copy


def _inside(project: Path, name: str) -> bool:
    place = (project / name).resolve()
    return place.is_relative_to(project.resolve()) and place.exists()
