"""The estate in Bicep: it parses, its parts fit, nobody holds a key or more roles."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

pycep = pytest.importorskip("pycep", reason="needs pycep-parser, of the extra 'dev'")

ROOT = Path(__file__).parents[1]
ESTATE = ROOT / "src" / "azure_infrastructure"
MAIN = ESTATE / "main.bicep"
MODULES = sorted((ESTATE / "modules").glob("*.bicep"))
FILES = [MAIN, *MODULES]

# Azure's own names and ids of its roles; no role that may hand out roles is among them.
BUILT_IN = {
    "managedIdentityOperator": "f1a07417-d97a-45cb-824c-7a7467783830",
    "acrPull": "7f951dda-4ed3-4680-a7ca-43fe172d538d",
    "azureMlDataScientist": "f6c7c914-8db3-469d-8ca1-694a8f32e121",
    "keyVaultSecretsOfficer": "b86a8fe4-44ce-4948-aee5-eccb2c155cd7",
    "keyVaultSecretsUser": "4633458b-17de-408a-b874-0445c86b69e6",
    "monitoringMetricsPublisher": "3913510d-42f4-4e42-8a64-420c390055eb",
    "storageBlobDataContributor": "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
    "storageBlobDataOwner": "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
    "storageBlobDataReader": "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1",
    "storageQueueDataMessageProcessor": "8a0f0c08-91a1-4084-bc3d-661d67233fed",
    "storageQueueDataMessageSender": "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a",
    "storageQueueDataReader": "19e7f393-937e-4f77-808e-94535e297925",
}
# Who may be given a role: parameters of a module that hold an identity's id, one of a
# list of them, or the identity of a resource itself.
KNOWN = {
    "engineersGroupId",
    "endpointPrincipalId",
    "functionPrincipalId",
    "jobsPrincipalId",
    "workflowsPrincipalId",
}
# What conf/azure and the workflows read.
VARIABLES = {
    "AL_ADX_CLUSTER",
    "AL_ADX_DATABASE",
    "AL_ENDPOINT",
    "AL_ENDPOINT_CLIENT_ID",
    "AL_ENDPOINT_IDENTITY_ID",
    "AL_LABELING_CONTAINER",
    "AL_STORAGE_ACCOUNT",
    "AZUREML_WORKSPACE_NAME",
    "AZURE_RESOURCE_GROUP",
    "AZURE_SUBSCRIPTION_ID",
    "MLFLOW_TRACKING_URI",
}
NO_KEYS = re.compile(
    r"listKeys|listAccountSas|listServiceSas|listAdminKeys|listCredentials|AccountKey"
    r"|SharedAccess|primaryKey|secondaryKey|adminUserEnabled: true|@secure",
    re.IGNORECASE,
)


@cache
def parsed(file: Path) -> dict[str, Any]:
    said: dict[str, Any] = pycep.BicepParser().parse(text=file.read_text())
    return said


def bodies(said: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each resource that is made here: its name, its type and what it is told."""
    for name, resource in said.get("resources", {}).items():
        if resource["existing"]:
            continue
        config = resource["config"]
        yield name, resource["type"], config.get("config", config)


def only(file: str, kind: str) -> dict[str, Any]:
    """The one resource of a kind in a module."""
    found = [
        body
        for _, type_, body in bodies(parsed(ESTATE / "modules" / file))
        if type_.lower() == kind.lower()
    ]
    assert len(found) == 1
    return found[0]


def code(file: Path) -> str:
    """A file without its comments."""
    lines = file.read_text().splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("//"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_parses(file: Path) -> None:
    assert parsed(file)["resources" if file is not MAIN else "modules"]


def test_what_is_broken_does_not_parse() -> None:
    broken = MAIN.read_text().replace("module storage '", "modul storage '")

    with pytest.raises(Exception, match=r"."):
        pycep.BicepParser().parse(text=broken)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_parameter_and_variable_is_used(file: Path) -> None:
    said, text = parsed(file), code(file)

    for name in {**said.get("parameters", {}), **said.get("variables", {})}:
        uses = len(re.findall(rf"(?<![\w.]){re.escape(name)}\b", text))
        assert uses >= 2, f"{name} is declared and never used"


def test_every_module_is_used_and_told_exactly_what_it_asks_for() -> None:
    modules = parsed(MAIN)["modules"]
    places = {name: ESTATE / each["detail"]["path"] for name, each in modules.items()}

    assert sorted(places.values()) == MODULES
    for name, place in places.items():
        asked = parsed(place).get("parameters", {})
        told = set(modules[name]["config"]["params"])
        needed = {key for key, each in asked.items() if each.get("default") is None}
        assert needed <= told <= set(asked), name


def test_every_output_that_is_read_is_written() -> None:
    modules = parsed(MAIN)["modules"]
    read = re.findall(r"\b(\w+)\.outputs\.(\w+)", code(MAIN))

    assert read
    for module, output in read:
        place = ESTATE / modules[module]["detail"]["path"]
        assert output in parsed(place)["outputs"], f"{module}.outputs.{output}"


def test_the_outputs_are_the_variables_that_the_loop_reads() -> None:
    outputs = set(parsed(MAIN)["outputs"])
    read = "".join(file.read_text() for file in (ROOT / "conf/azure").rglob("*.yml"))
    needed = set(re.findall(r"oc\.env:\s*(\w+)\s*\}", read))

    assert outputs >= VARIABLES
    assert needed <= outputs, "conf/azure asks for what no output says"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_key_is_asked_for_or_told(file: Path) -> None:
    assert not NO_KEYS.findall(code(file))


def test_a_key_would_be_found() -> None:
    for leak in (
        "output key string = account.listKeys().keys[0].value",
        "value: 'AccountName=a;AccountKey=${k}'",
    ):
        assert NO_KEYS.search(leak)


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_roles_are_azures_own_and_each_is_used(file: Path) -> None:
    roles = parsed(file).get("variables", {}).get("roles", {}).get("value", {})

    for name, role in roles.items():
        assert BUILT_IN[name] == role == str(UUID(role))
        assert code(file).count(f"roles.{name}") >= 2, f"nobody has {name}"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_every_role_is_given_to_a_known_identity_at_one_resource(file: Path) -> None:
    said, text = parsed(file), code(file)
    made = {name for name, _, _ in bodies(said)} | set(said.get("resources", {}))
    listed = set(re.findall(r"principalId: (\w+)$", text, re.MULTILINE))

    assert listed <= KNOWN | {"sender", "puller"}
    for name, type_, body in bodies(said):
        if type_ != "Microsoft.Authorization/roleAssignments":
            continue
        assert body["scope"] in made, f"{name} is for the whole resource group"
        block = text[text.index(f"resource {name} ") :].split("\n}", 1)[0]
        (identity,) = re.findall(r"^\s+principalId: (\S+)$", block, re.MULTILINE)
        (role,) = set(re.findall(r"roles\.(\w+)", block))
        looped = {"runner.principalId", "sender", "puller"}
        its_own = {"topic.identity.principalId"}
        assert identity in KNOWN | looped | its_own, name
        assert role in BUILT_IN
        # The name of an assignment says whose it is, or two would be one.
        (named,) = re.findall(r"name: guid\((.*)\)$", block, re.MULTILINE)
        owner = "topic.id" if identity in its_own else identity
        assert owner in named
        assert f"roles.{role}" in named


def test_what_a_module_is_told_of_an_identity_is_that_identity() -> None:
    for module in parsed(MAIN)["modules"].values():
        text = json.dumps(module["config"]["params"])
        for parameter in set(module["config"]["params"]) & KNOWN:
            said = re.escape(f"{parameter}: ")
            (given,) = set(re.findall(rf"^    {said}(\S+)$", code(MAIN), re.MULTILINE))
            assert given.rpartition(".")[2] == parameter, text


def test_storage_is_closed_to_keys_and_strangers() -> None:
    for file in ("storage.bicep", "function.bicep"):
        account = only(file, "Microsoft.Storage/storageAccounts")["properties"]
        assert account["allowSharedKeyAccess"] is False
        assert account["allowBlobPublicAccess"] is False
        assert account["minimumTlsVersion"] == "TLS1_2"
        assert account["supportsHttpsTrafficOnly"] is True


def test_the_containers_and_queues_are_there() -> None:
    said = parsed(ESTATE / "modules" / "storage.bicep")
    queues = {
        body["name"]
        for _, type_, body in bodies(said)
        if type_.endswith("/queueServices/queues")
    }

    containers = said["variables"]["containerNames"]["value"]
    assert set(containers) == {"images", "labeling", "loop"}
    assert queues == {"label-exports", "label-exports-poison"}


def test_an_export_becomes_a_message_by_an_identity() -> None:
    subscription = only(
        "events.bicep", "Microsoft.EventGrid/systemTopics/eventSubscriptions"
    )["properties"]
    delivery = subscription["deliveryWithResourceIdentity"]

    assert "destination" not in subscription
    assert delivery["identity"]["type"] == "SystemAssigned"
    assert delivery["destination"]["endpointType"] == "StorageQueue"
    said = subscription["filter"]
    assert said["includedEventTypes"] == ["Microsoft.Storage.BlobCreated"]
    values = [each["values"] for each in said["advancedFilters"]]
    assert values == [["/blobs/Labeling/"], [".json", ".jsonl", ".csv"]]


def test_the_function_is_told_where_by_names_that_it_reads() -> None:
    function = only("function.bicep", "Microsoft.Web/sites")["properties"]
    settings = {
        each["name"]: str(each["value"])
        for each in function["siteConfig"]["appSettings"]
    }

    assert {
        "LABELS_STORAGE__queueServiceUri",
        "LABELS_STORAGE__blobServiceUri",
        "LABELS_STORAGE__credential",
        "LABELS_STORAGE__clientId",
        "AL_GITHUB_REPOSITORY",
    } <= set(settings)
    assert settings["AL_GITHUB_TOKEN"].startswith("@Microsoft.KeyVault(SecretUri=")
    assert function["functionAppConfig"]["runtime"] == {
        "name": "python",
        "version": "3.11",
    }
    assert function["httpsOnly"] is True


def test_clusters_cost_nothing_at_rest_and_the_database_takes_streams() -> None:
    compute = only(
        "machine_learning.bicep",
        "Microsoft.MachineLearningServices/workspaces/computes",
    )
    cluster = only("data_explorer.bicep", "Microsoft.Kusto/clusters")

    assert compute["properties"]["properties"]["scaleSettings"]["minNodeCount"] == 0
    assert compute["identity"]["type"] == "UserAssigned"
    assert cluster["properties"]["enableStreamingIngest"] is True


def test_the_example_says_every_parameter_that_has_no_default() -> None:
    said = json.loads((ESTATE / "parameters.example.json").read_text())["parameters"]
    asked = parsed(MAIN)["parameters"]

    needed = {name for name, each in asked.items() if each.get("default") is None}
    assert needed <= set(said) <= set(asked)
