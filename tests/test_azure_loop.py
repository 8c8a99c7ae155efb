"""One turn of the loop on Azure, beside the same turn on a laptop.

Every ``kedro run --env azure`` is a process of its own with nothing but variables: the
real clients reach Azurite, an ADX over DuckDB, an ARM in memory and MLflow's own server
by tokens that DefaultAzureCredential gets from an identity endpoint.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pandas as pd
import pyarrow as pa
import pytest
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import (
    BlobServiceClient,
)
from azure.storage.queue import QueueServiceClient, TextBase64EncodePolicy
from tests.azure_function.messages import blob_created
from tests.standins.arm import Arm
from tests.standins.arm_resources import Scorer, proxy
from tests.standins.azurite import Azurite, missing
from tests.standins.function_host import FunctionHost
from tests.standins.github import GitHub
from tests.standins.identity import CLIENT, Identity
from tests.standins.kusto import Kusto
from tests.standins.mlflow_workspace import MlflowWorkspace
from tests.standins.tls import Tls, tls

from active_learning.schemas import TABLES
from active_learning.services.telemetry.parts import Parts

__all__ = ["tls"]  # a fixture

PROJECT = Path(__file__).parents[1]
ENDPOINT = "al-loop"
LABELING = "azureml-blobstore-loop"
SMALL = {
    "train.preprocessing.height": 8,
    "train.preprocessing.width": 8,
    "train.network.width": 8,
    "train.recipe.min_steps": 60,
    "train.recipe.augmentation.flip": "false",
    "train.recipe.augmentation.crop": 1,
    "train.recipe.augmentation.erase": 0,
    "start.labels": 80,
    "select.budget": 20,
    "deploy.step_s": 0,
    "deploy.tolerance": 0.5,
    "deploy.max_recall_drop": 1,
}


class Containers:
    """What Azure runs for each deployment: the real server with the entry script.

    Args:
        environment: Of the identity and of those it speaks to.
        folder: For models and logs.
    """

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, deployment: dict[str, Any]) -> Scorer:
        """Start one, with the model and the variables that were asked for."""
        said = deployment["properties"]
        folder = self._folder / f"{len(self._processes)}"
        *_, name, _, version = said["model"].split("/")
        model = folder / "azureml-models" / name / version
        run(
            *(sys.executable, "-c", _DOWNLOAD, f"models:/{name}/{version}", model),
            environment=self._environment,
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        entry = PROJECT / "src/active_learning/services/scoring/entry"
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}"),
                    *("-k", "gthread", "--threads", "2", "--no-control-socket"),
                    "azureml_inference_server_http.server.entry:app",
                ],
                cwd=folder,
                env={
                    **os.environ,
                    **self._environment,
                    **said["environmentVariables"],
                    "AZUREML_ENTRY_SCRIPT": str(entry / "score.py"),
                    "AML_APP_ROOT": str(entry),
                    "AZUREML_MODEL_DIR": str(model),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(server)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while not _answers(url):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        return proxy(f"{url}/score")

    def close(self) -> None:
        """End them as the service does: told to, with time to deliver."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(60)


_DOWNLOAD = """
import sys
import mlflow
mlflow.artifacts.download_artifacts(artifact_uri=sys.argv[1], dst_path=sys.argv[2])
"""


_ASK = """
import sys
import requests
from azure.identity import DefaultAzureCredential
token = DefaultAzureCredential().get_token("https://ml.azure.com/.default").token
headers = {"Authorization": "Bearer " + token, "Content-Type": "image/png"}
with open(sys.argv[2], "rb") as image:
    print(requests.post(sys.argv[1], data=image.read(), headers=headers).text)
"""


_ROLES = """
import json
import sys
import mlflow
found = mlflow.MlflowClient().search_model_versions(f"name='{sys.argv[1]}'")
print(json.dumps({str(v.version): v.tags["role"] for v in found}))
"""


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


class Estate:
    """Everything that `--env azure` speaks to.

    Args:
        folder: For certificates, logs and what processes keep for themselves.
    """

    def __init__(self, folder: Path, tls: Tls) -> None:
        self.folder = folder
        self.tls = tls
        self.told: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Estate":
        enter = self._stack.enter_context
        self.identity = enter(Identity())
        self.storage = enter(Azurite(self.tls, self.identity))
        # The cluster's own storage, where clients put what is queued.
        self.queued = enter(Azurite())
        self.kusto = enter(Kusto(self.queued, check_tokens=True))
        self.arm = enter(
            Arm(self.queued.signed(self.queued.make_container("code")), self.tls)
        )
        mlflow = MlflowWorkspace(self.folder / "mlflow", self.tls, self.identity)
        self.mlflow = enter(mlflow)
        self.github = enter(GitHub())
        self.containers = Containers(self.environment(), self.folder / "containers")
        self._stack.callback(self.containers.close)
        self.arm.workspace.scorer = self.containers.start
        for name in ("images", "labeling", "loop", LABELING):
            self.storage.make_container(name)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def environment(self) -> dict[str, str]:
        """The variables of conf/README.md, and where the stand-ins are."""
        said = {
            **self.storage.environment(),
            **self.mlflow.environment(),
            **self.arm.environment(),
            "AZUREML_CURRENT_CLOUD": "StandIn",
            "AL_ADX_CLUSTER": self.kusto.url,
            "AL_ADX_DATABASE": self.kusto.database.rpartition("/")[2],
            "AL_ENDPOINT": ENDPOINT,
            "AL_ENDPOINT_IDENTITY_ID": "/subscriptions/s/resourceGroups/g/identity",
            "AL_ENDPOINT_CLIENT_ID": CLIENT,
            "AL_LABELING_CONTAINER": LABELING,
            "AL_DATA": str(self.folder / "data"),
        }
        # What the stand-ins alone would set: conf/azure says how blobs are reached.
        return {k: v for k, v in said.items() if k != "FSSPEC_ABFS"}

    @property
    def blobs(self) -> BlobServiceClient:
        """Of the storage account, for the test itself."""
        return BlobServiceClient(
            self.storage.url,
            credential=self.storage.credential,
            connection_verify=str(self.tls.authority),
        )

    def kedro(self, *words: str, **params: object) -> None:
        """Type a kedro command with ``--env azure``."""
        self.told.append(
            kedro(*words, "--env", "azure", environment=self.environment(), **params)
        )

    def rows(self, table: str) -> pd.DataFrame:
        """A table as KQL sees it."""
        names = [f'"{name}"' for name in TABLES[table].schema.names]
        said = self.kusto.sql(f"SELECT {', '.join(names)} FROM {table}")
        return pd.DataFrame(said, columns=TABLES[table].schema.names)

    def roles(self, model: str) -> dict[str, str]:
        """What each version in the registry is to production."""
        said = run(
            *(sys.executable, "-c", _ROLES, model), environment=self.environment()
        )
        found: dict[str, str] = json.loads(said.stdout.splitlines()[-1])
        return found

    def secrets(self) -> set[str]:
        """What may stand in no file, log or answer."""
        return {
            *(self.storage.key, self.queued.key, self.identity.secret),
            *(self.github.token, *self.identity.issued, *self.kusto.signatures),
        }


def run(
    *command: object, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a process to its good end."""
    ran = subprocess.run(
        [str(word) for word in command],
        cwd=PROJECT,
        # One thread: the same numbers are added in the same order on both sides.
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout[-1000:]}\n{ran.stderr[-5000:]}"
    return ran


def kedro(*words: str, environment: dict[str, str], **params: object) -> str:
    """Type a kedro command, with the small images' parameters."""
    typed = ",".join(f"{key}={value}" for key, value in {**SMALL, **params}.items())
    command = (sys.executable, "-m", "kedro", "run", "--pipelines", *words)
    ran = run(*command, "--params", typed, environment=environment)
    return ran.stdout + ran.stderr


def coco(requests: pd.DataFrame) -> bytes:
    """What a labeling project exports, every image labeled as its folder is called."""
    names = requests["image_id"].tolist()
    classes = sorted({name.split("/")[0] for name in names})
    number = {name: place for place, name in enumerate(classes, start=1)}
    base = "https://account.blob.core.windows.net/labeling/queue/images"
    images = [
        {"id": n, "file_name": name, "absolute_url": f"{base}/{name}"}
        for n, name in enumerate(names, start=1)
    ]
    annotations = [
        {"id": n, "image_id": n, "category_id": number[name.split("/")[0]]}
        for n, name in enumerate(names, start=1)
    ]
    categories = [{"id": n, "name": name} for name, n in number.items()]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(document).encode()


def json_lines(requests: pd.DataFrame) -> bytes:
    """The same as JSON Lines, as a data asset holds them."""
    base = "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/labeling"
    lines = [
        {"image_url": f"{base}/paths/queue/images/{name}", "label": name.split("/")[0]}
        for name in requests["image_id"]
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def comparable(rows: pd.DataFrame, table: str) -> pd.DataFrame:
    """Rows in one order and without times, which differ between any two runs."""
    kept = rows.drop(columns=[name for name in rows if name.endswith("_at")])
    schema = TABLES[table].schema
    for name in kept:
        if pa.types.is_list(schema.field(name).type):
            kind = schema.field(name).type.value_type.to_pandas_dtype()
            kept[name] = [_listed(value, kind) for value in kept[name]]
    return kept.sort_values(list(kept.columns), ignore_index=True)


def _listed(value: Any, kind: type) -> tuple[Any, ...]:
    """A list from either side: of JSON as it came over the wire, or as it is."""
    values = json.loads(value) if isinstance(value, str) else value
    return tuple(kind(each) for each in values)


@pytest.fixture
def images(digits: Path, tmp_path: Path) -> Path:
    """Every fourth digit."""
    root = tmp_path / "images"
    for path in sorted(digits.glob("*/*.png"))[::4]:
        place = root / path.relative_to(digits)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return root


@pytest.fixture
def estate(tmp_path: Path, tls: Tls) -> Iterator[Estate]:
    """All stand-ins, started."""
    if reason := missing():
        pytest.skip(reason)
    with Estate(tmp_path / "estate", tls) as started:
        yield started


class Laptop:
    """The same project on files."""

    def __init__(self, folder: Path, images: Path) -> None:
        self.data = folder
        self._images = images

    def kedro(self, *words: str) -> None:
        kedro(*words, environment={"AL_DATA": str(self.data)}, images=self._images)

    def rows(self, table: str) -> pd.DataFrame:
        place = self.data / "03_primary" / table
        return Parts(place, table).read().to_pandas()

    def take(self, name: str, export: bytes) -> None:
        place = self.data / "01_raw/label_exports" / name
        place.parent.mkdir(parents=True)
        place.write_bytes(export)


@pytest.mark.slow
def test_a_turn_of_the_loop_on_azure_is_that_of_a_laptop(
    tmp_path: Path, images: Path, estate: Estate
) -> None:
    laptop = Laptop(tmp_path / "laptop", images)
    upload(estate, "images", images)
    for side in (laptop, estate):
        side.kedro("test-set")
        side.kedro("start")
    assert_same(laptop, estate, "label_requests")
    frozen = laptop.data / "05_model_input/test_sets/images.parquet"
    columns = TABLES["test_set"].schema.names
    pd.testing.assert_frame_equal(
        comparable(pd.read_parquet(frozen)[columns], "test_set"),
        comparable(estate.rows("test_set"), "test_set"),
    )

    # People label the first images in the tool; its export is a blob.
    first = laptop.rows("label_requests")
    name = "export/coco/first/labels.json"
    export(laptop, estate, name, coco(first))
    tell(estate, tmp_path, f"Labeling/{name}", times=1)
    assert len(estate.github.dispatched) == 1
    for side in (laptop, estate):
        side.kedro("label-ingest,train,deploy")
    assert estate.arm.workspace.traffic(ENDPOINT) == {"blue": 100}

    # One turn: what is in the store is scored, and some of it asked for.
    for side in (laptop, estate):
        side.kedro("score,monitor,select")
    for table in ("predictions", "embeddings", "label_requests"):
        assert_same(laptop, estate, table)
    asked = estate.rows("label_requests")
    asked = asked[asked["round"] == 1]
    assert len(asked) == 20 + 5
    staged = estate.blobs.get_container_client("labeling")
    there = {blob.name for blob in staged.list_blobs("queue/images/")}
    assert {f"queue/images/{name}" for name in asked["image_id"]} <= there

    # Their answers come back, and an event tells of them: three times.
    name = "export/jsonl/second/annotations.jsonl"
    export(laptop, estate, name, json_lines(asked))
    tell(estate, tmp_path, f"Labeling/{name}", times=3)
    assert len(estate.github.dispatched) == 2

    # What the workflow types that the event starts.
    for side in (laptop, estate):
        side.kedro("label-ingest,train,deploy")
    for table in ("labels", "rejected_labels", "label_requests"):
        assert_same(laptop, estate, table)
    assert len(estate.rows("labels")) == 80 + 25
    assert estate.arm.workspace.traffic(ENDPOINT) == {"green": 100}
    assert estate.arm.workspace.up(ENDPOINT) == {"green"}
    roles = estate.roles("active-learning-loop")
    assert roles == {"1": "retired", "2": "champion"}

    # A caller is answered by the second version, and the answer is collected.
    image = next(iter(sorted(images.glob("*/*.png"))))
    answer = ask(estate, image.read_bytes())
    assert answer["model_version"] == 2
    estate.kusto.until(lambda: "online" in set(estate.rows("predictions")["source"]))
    (online,) = estate.rows("predictions").query("source == 'online'").itertuples()
    assert online.prediction_id == answer["prediction_id"]
    assert online.model_version == 2
    estate.containers.close()

    assert_no_secret(estate)


def upload(estate: Estate, container: str, folder: Path) -> None:
    client = estate.blobs.get_container_client(container)
    for path in sorted(folder.glob("**/*.png")):
        client.upload_blob(path.relative_to(folder).as_posix(), path.read_bytes())


def export(laptop: Laptop, estate: Estate, name: str, content: bytes) -> None:
    """Put the same export where each side looks for it."""
    laptop.take(name, content)
    client = estate.blobs.get_container_client(LABELING)
    client.upload_blob(f"Labeling/{name}", content)
    # What a workspace writes there beside exports.
    client.upload_blob(f"Labeling/state/{len(name)}.json", b"{}", overwrite=True)


def tell(estate: Estate, folder: Path, name: str, times: int) -> None:
    """Let Event Grid put the event of a blob into the queue, and the function run."""
    queues = QueueServiceClient(
        estate.storage.service_url("queue"),
        credential=estate.storage.credential,
        connection_verify=str(estate.tls.authority),
    )
    queue = queues.get_queue_client(
        "label-exports", message_encode_policy=TextBase64EncodePolicy()
    )
    with suppress(ResourceExistsError):
        queue.create_queue()
    for _ in range(times):
        event = blob_created(name, container=LABELING)
        queue.send_message(json.dumps(event))
    settings = {
        **estate.environment(),
        **estate.github.environment(),
        "LABELS_STORAGE__blobServiceUri": estate.storage.url,
        "LABELS_STORAGE__queueServiceUri": estate.storage.service_url("queue"),
    }
    with FunctionHost(settings, folder / "function.log") as host:
        deadline = time.monotonic() + 120
        while queue.get_queue_properties().approximate_message_count:
            assert time.monotonic() < deadline, host.log()
            time.sleep(0.1)
    estate.told.append((folder / "function.log").read_text())


def ask(estate: Estate, content: bytes) -> dict[str, Any]:
    """Ask the endpoint as a caller with a token does."""
    endpoint = estate.arm.workspace.endpoints["online", ENDPOINT]
    image = estate.folder / "asked.png"
    image.write_bytes(content)
    said = run(
        *(sys.executable, "-c", _ASK, endpoint["properties"]["scoringUri"], image),
        environment=estate.environment(),
    )
    found: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
    return found


def assert_same(laptop: Laptop, estate: Estate, table: str) -> None:
    mine = comparable(laptop.rows(table), table)
    theirs = comparable(estate.rows(table), table)
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True, check_dtype=False)


def assert_no_secret(estate: Estate) -> None:
    """Nothing that was written, sent or said holds a key, a token or a signature."""
    secrets = [secret.encode() for secret in estate.secrets()]
    assert len(secrets) > 5
    written = {str(n): text.encode() for n, text in enumerate(estate.told)}
    for path in estate.folder.rglob("*"):
        if path.is_file() and "mlflow" not in path.relative_to(estate.folder).parts[0]:
            written[str(path)] = path.read_bytes()
    for container in ("images", "labeling", "loop", LABELING):
        client = estate.blobs.get_container_client(container)
        for blob in client.list_blobs():
            written[f"{container}/{blob.name}"] = client.download_blob(blob).readall()
    for number, asked in enumerate(estate.arm.requests):
        written[f"ARM {number} {asked.path}"] = repr(asked.body).encode()
    for place, content in estate.mlflow.blobs.items():
        written[f"MLflow {place}"] = content
    found = [place for place, text in written.items() for s in secrets if s in text]
    assert found == []


def test_a_place_that_is_not_set_stops_the_run_and_is_named(tmp_path: Path) -> None:
    said = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AL_", "AZURE", "MLFLOW_"))
    }

    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "kedro",
            "run",
            "--env",
            "azure",
            "--pipelines",
            "score",
        ],
        cwd=PROJECT,
        env={**said, "AL_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode != 0
    assert "'AL_STORAGE_ACCOUNT' not found" in ran.stderr
    assert not list(tmp_path.iterdir())
