"""MLflow's books: a database that is whole or not there."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from mlflow import MlflowClient

MAKE = """
import sys
from pathlib import Path
from active_learning.tracking import make_database
make_database(Path(sys.argv[1]))
"""


def make(database: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", MAKE, str(database)])


def can_be_used(database: Path) -> bool:
    client = MlflowClient(f"sqlite:///{database}")
    run = client.create_run(client.create_experiment(f"of {time.time()}"))
    client.log_metric(run.info.run_id, "accuracy", 0.9)
    return client.get_run(run.info.run_id).data.metrics == {"accuracy": 0.9}


def test_a_kill_leaves_no_half_made_database(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    killed = make(database)
    while not any(file.stat().st_size for file in tmp_path.iterdir()):
        assert killed.poll() is None
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not database.exists()

    assert make(database).wait() == 0

    assert can_be_used(database)


def test_processes_that_make_it_at_once_share_one(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"

    made = [make(database) for _ in range(2)]

    assert [process.wait() for process in made] == [0, 0]
    assert can_be_used(database)
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]
