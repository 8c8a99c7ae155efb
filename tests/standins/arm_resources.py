"""What is in the workspace of ``arm``: endpoints, assets, jobs, schedules.

A deployment answers requests to its endpoint by ``Workspace.scorer``, which a test
sets.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

from tests.standins.arm import Answer, Arm, Asked, refused

Resource = dict[str, Any]
Scorer = Callable[[Asked], Answer]

_TYPE = "Microsoft.MachineLearningServices/workspaces"
# What azureml-mlflow wants to know of a cloud beside what MLClient does.
_PLACES = (
    "sqlManagement",
    "batch",
    "gallery",
    "graphAudience",
    "vmImageAliasDoc",
    "media",
    "activeDirectoryDataLake",
)
_SUFFIXES = (
    "storage",
    "sqlServerHostname",
    "keyVaultDns",
    "azureDataLakeStoreFileSystem",
    "azureDataLakeAnalyticsCatalogAndJob",
    "acrLoginServer",
)
_ASSETS = "models|environments|codes|data|components"
_NAME = "([^/]+)"


class Workspace:
    """The workspace's resources and what becomes of them.

    Attributes:
        endpoints: Online and batch ones, by (kind, name).
        deployments: By (kind, endpoint, name).
        assets: By (kind, name), their versions in order.
        jobs: By name.
        schedules: By name.
        outcomes: What becomes of the next deployments, ``Succeeded`` where it is empty.
        polls: So many times an operation is under way before it ends.
        logs: What a deployment's containers said.
        metrics: Requests by the class of their status, by (endpoint, deployment).
        scorer: Makes what answers for a deployment, from its resource.
        on_batch: Called with the request of a batch job that is started.
    """

    def __init__(self, arm: Arm, storage: str | None) -> None:
        """Nothing is there."""
        self.storage = storage
        self.endpoints: dict[tuple[str, str], Resource] = {}
        self.deployments: dict[tuple[str, str, str], Resource] = {}
        self.assets: dict[tuple[str, str], dict[str, Resource]] = {}
        self.jobs: dict[str, Resource] = {}
        self.schedules: dict[str, Resource] = {}
        self.computes: set[str] | None = None
        self.outcomes: list[str] = []
        self.polls = 0
        self.logs = "the log of the container"
        self.metrics: dict[tuple[str, str], Mapping[str, int]] = {}
        self.scorer: Callable[[Resource], Scorer] = lambda _: _says_nothing
        self.on_batch: Callable[[Asked, Resource], None] = lambda *_: None
        self._scorers: dict[tuple[str, str], Scorer] = {}
        self._operations: dict[str, tuple[int, Answer]] = {}
        self._chance = Random(0)
        for method, pattern, handler in self._table():
            arm.add(method, pattern, handler)

    def traffic(self, endpoint: str) -> dict[str, int]:
        """Percent of the requests for each deployment."""
        found = self.endpoints["online", endpoint]
        return dict(found["properties"].get("traffic") or {})

    def up(self, endpoint: str) -> set[str]:
        """Deployments that are there."""
        return {
            name
            for kind, of, name in self.deployments
            if kind == "online" and of == endpoint
        }

    def _table(self) -> Sequence[tuple[str, str, Callable[[Asked], Answer]]]:
        one = rf"/(online|batch)Endpoints/{_NAME}"
        deployment = rf"{one}/deployments/{_NAME}"
        version = rf"/({_ASSETS})/{_NAME}/versions/{_NAME}"
        return [
            ("GET", "/metadata/endpoints", self._clouds),
            ("GET", "", self._workspace),
            ("GET", "/discovery", lambda asked: Answer(200, {"api": asked.host})),
            ("GET", r"/(?:operations)/(.+)", self._operation),
            ("GET", r"/(online|batch)Endpoints", self._list_endpoints),
            ("GET", one, self._get_endpoint),
            ("PUT", one, self._put_endpoint),
            ("PATCH", one, self._put_endpoint),
            ("DELETE", one, self._delete_endpoint),
            ("POST", rf"{one}/(?:listKeys|token)", self._keys),
            ("GET", rf"{one}/deployments", self._list_deployments),
            ("GET", deployment, self._get_deployment),
            ("PUT", deployment, self._put_deployment),
            ("DELETE", deployment, self._delete_deployment),
            ("POST", rf"{deployment}/getLogs", self._get_logs),
            ("POST", rf"/score/{_NAME}", self._score),
            ("POST", rf"/batch/{_NAME}/jobs", self._invoke),
            (
                "GET",
                rf"{one}/providers/Microsoft.Insights/metrics",
                self._get_metrics,
            ),
            ("GET", rf"/({_ASSETS})/{_NAME}/versions", self._list_versions),
            ("GET", rf"/({_ASSETS})/{_NAME}", self._get_asset),
            ("GET", version, self._get_version),
            ("PUT", version, self._put_version),
            ("POST", rf"{version}/startPendingUpload", self._upload),
            ("GET", r"/jobs", lambda _: _page(self.jobs)),
            ("GET", rf"/jobs/{_NAME}", lambda asked: _found(self.jobs, asked)),
            ("PUT", rf"/jobs/{_NAME}", self._put_job),
            ("POST", rf"/jobs/{_NAME}/cancel", self._cancel),
            ("GET", r"/schedules", lambda _: _page(self.schedules)),
            ("GET", rf"/schedules/{_NAME}", lambda a: _found(self.schedules, a)),
            ("PUT", rf"/schedules/{_NAME}", self._put_schedule),
            ("DELETE", rf"/schedules/{_NAME}", self._delete_schedule),
            ("GET", rf"/computes/{_NAME}", self._compute),
            ("GET", r"/datastores(?:/[^/]+)?", self._datastore),
        ]

    def _clouds(self, asked: Asked) -> Answer:
        cloud = {
            "name": "StandIn",
            "portal": "https://portal.azure.com",
            "resourceManager": asked.host,
            "authentication": {
                "loginEndpoint": "https://login.invalid/",
                "audiences": [asked.host],
            },
            "suffixes": dict.fromkeys(_SUFFIXES, "core.windows.net"),
            **dict.fromkeys(_PLACES, "https://elsewhere.invalid/"),
        }
        return Answer(200, [cloud])

    def _workspace(self, asked: Asked) -> Answer:
        return Answer(
            200,
            {
                "id": asked.scope,
                "name": asked.scope.rpartition("/")[2],
                "location": "westeurope",
                "properties": {
                    "workspaceId": "11111111-1111-1111-1111-111111111111",
                    "discoveryUrl": f"{asked.host}/discovery",
                    "mlFlowTrackingUri": f"azureml://westeurope{asked.scope}",
                },
            },
        )

    def _operation(self, asked: Asked) -> Answer:
        left, end = self._operations[asked.found[0]]
        if not left:
            return end
        self._operations[asked.found[0]] = left - 1, end
        going_on = {"id": asked.path, "status": "InProgress"}
        return Answer(200, going_on, {"Retry-After": "0.01"})

    def _under_way(
        self, asked: Asked, status: str = "Succeeded", message: str = ""
    ) -> dict[str, str]:
        """Headers of an answer that an operation goes on after."""
        name = uuid4().hex
        end: Resource = {"id": name, "status": status}
        if status != "Succeeded":
            end["error"] = {"code": status, "message": message}
        self._operations[name] = self.polls, Answer(200, end)
        return {"Azure-AsyncOperation": f"{asked.host}{asked.scope}/operations/{name}"}

    # Endpoints

    def _list_endpoints(self, asked: Asked) -> Answer:
        kind = asked.found[0]
        return _page({n: e for (k, n), e in self.endpoints.items() if k == kind})

    def _get_endpoint(self, asked: Asked) -> Answer:
        found = self.endpoints.get((asked.found[0], asked.found[1]))
        return _or_missing(found, asked.found[1])

    def _put_endpoint(self, asked: Asked) -> Answer:
        kind, name = asked.found
        properties = dict(asked.body.get("properties") or {})
        traffic = properties.get("traffic") or {}
        unknown = sorted(
            set(traffic) - {n for k, e, n in self.deployments if e == name}
        )
        if unknown:
            return refused(400, "BadArgument", f"No deployment is called {unknown}.")
        if sum(traffic.values()) not in (0, 100):
            return refused(400, "BadArgument", f"Traffic {traffic} is not 0 or 100.")
        place = f"/score/{name}" if kind == "online" else f"/batch/{name}/jobs"
        new = (kind, name) not in self.endpoints
        self.endpoints[kind, name] = {
            **asked.body,
            **_named(asked, f"{_TYPE}/{kind}Endpoints", name),
            "properties": {
                **properties,
                "provisioningState": "Succeeded",
                "scoringUri": f"{asked.host}{place}",
                "swaggerUri": f"{asked.host}/swagger/{name}",
            },
        }
        made = copy.deepcopy(self.endpoints[kind, name])
        return Answer(201 if new else 200, made, self._under_way(asked))

    def _delete_endpoint(self, asked: Asked) -> Answer:
        kind, name = asked.found
        self.endpoints.pop((kind, name), None)
        for key in [key for key in self.deployments if key[:2] == (kind, name)]:
            del self.deployments[key]
        return Answer(202, {}, self._under_way(asked))

    def _keys(self, asked: Asked) -> Answer:
        endpoint = self.endpoints["online", asked.found[1]]
        if endpoint["properties"].get("authMode", "").lower() == "aadtoken":
            return refused(400, "BadArgument", "The endpoint takes tokens, no keys.")
        return Answer(200, {"primaryKey": "primary-key", "secondaryKey": "other-key"})

    # Deployments

    def _list_deployments(self, asked: Asked) -> Answer:
        of = (asked.found[0], asked.found[1])
        return _page({k[2]: d for k, d in self.deployments.items() if k[:2] == of})

    def _get_deployment(self, asked: Asked) -> Answer:
        kind, endpoint, name = asked.found
        return _or_missing(self.deployments.get((kind, endpoint, name)), name)

    def _put_deployment(self, asked: Asked) -> Answer:
        kind, endpoint, name = asked.found
        if (kind, endpoint) not in self.endpoints:
            return refused(404, "ResourceNotFound", f"No endpoint {endpoint}.")
        outcome = self.outcomes.pop(0) if self.outcomes else "Succeeded"
        made = {
            **asked.body,
            **_named(asked, f"{_TYPE}/{kind}Endpoints/deployments", name),
            "sku": asked.body.get("sku") or {"name": "Default", "capacity": 1},
        }
        properties = dict(asked.body["properties"], provisioningState=outcome)
        if kind == "online":
            properties.setdefault("endpointComputeType", "Managed")
            if not properties.get("scaleSettings"):
                properties["scaleSettings"] = {"scaleType": "Default"}
        properties.setdefault("properties", {})
        made["properties"] = properties
        key = (kind, endpoint, name)
        new = key not in self.deployments
        self.deployments[key] = made
        if kind == "online" and outcome == "Succeeded":
            self._scorers[endpoint, name] = self.scorer(made)
        under_way = self._under_way(asked, outcome, "User container has crashed.")
        first = {**made, "properties": {**properties, "provisioningState": "Creating"}}
        return Answer(201 if new else 200, first, under_way)

    def _delete_deployment(self, asked: Asked) -> Answer:
        kind, endpoint, name = asked.found
        if kind == "online" and self.traffic(endpoint).get(name):
            return refused(409, "Conflict", f"{name} has traffic.")
        self.deployments.pop((kind, endpoint, name), None)
        self._scorers.pop((endpoint, name), None)
        return Answer(202, {}, self._under_way(asked))

    def _get_logs(self, asked: Asked) -> Answer:
        return Answer(200, {"content": self.logs})

    def _get_metrics(self, asked: Asked) -> Answer:
        endpoint = asked.found[1]
        chosen = [
            (name, counted)
            for (of, name), counted in self.metrics.items()
            if of == endpoint and f"'{name}'" in asked.query.get("$filter", "")
        ]
        series = [
            {
                "metadatavalues": [
                    {"name": {"value": "deployment"}, "value": name},
                    {"name": {"value": "statuscodeclass"}, "value": kind},
                ],
                "data": [{"timeStamp": "2026-01-01T00:00:00Z", "average": number}],
            }
            for name, counted in chosen
            for kind, number in counted.items()
        ]
        metric = {"name": {"value": "RequestsPerMinute"}, "timeseries": series}
        return Answer(200, {"value": [metric]})

    # Requests to a deployment

    def _score(self, asked: Asked) -> Answer:
        endpoint = asked.found[0]
        if not asked.headers.get("authorization", "").startswith("Bearer "):
            return refused(401, "Unauthorized", "No token.")
        name = asked.headers.get("azureml-model-deployment")
        if name is None:
            shares = self.traffic(endpoint)
            if not shares:
                return refused(404, "NoTraffic", "No deployment takes requests.")
            (name,) = self._chance.choices([*shares], [*shares.values()])
        scorer = self._scorers.get((endpoint, name))
        if scorer is None:
            return refused(404, "NoDeployment", f"No deployment is called {name}.")
        return scorer(asked)

    def _invoke(self, asked: Asked) -> Answer:
        name = f"batchjob-{uuid4().hex[:8]}"
        job = {
            "id": f"{asked.host}/jobs/{name}",
            "name": name,
            "properties": {
                **(asked.body or {}).get("properties", {}),
                "status": "Preparing",
            },
        }
        self.jobs[name] = {
            "id": name,
            "name": name,
            "properties": {
                "jobType": "Pipeline",
                "status": "Completed",
                "services": {},
                "properties": {},
                "tags": {},
            },
        }
        self.on_batch(asked, job)
        return Answer(201, job)

    # Assets

    def _get_version(self, asked: Asked) -> Answer:
        kind, name, version = asked.found
        found = self.assets.get((kind, name), {}).get(version)
        return _or_missing(found, f"{name}:{version}")

    def _put_version(self, asked: Asked) -> Answer:
        kind, name, version = asked.found
        versions = self.assets.setdefault((kind, name), {})
        made = {**asked.body, **_named(asked, f"{_TYPE}/{kind}/versions", version)}
        new = version not in versions
        versions[version] = made
        return Answer(201 if new else 200, made)

    def _list_versions(self, asked: Asked) -> Answer:
        kind, name = asked.found
        versions = list(self.assets.get((kind, name), {}).values())
        if "hash" in asked.query:
            versions = [
                one for one in versions if asked.query["hash"] in json.dumps(one)
            ]
        latest = versions[::-1][: int(asked.query.get("$top", len(versions) or 1))]
        return Answer(200, {"value": latest})

    def _get_asset(self, asked: Asked) -> Answer:
        kind, name = asked.found
        versions = self.assets.get((kind, name))
        if not versions:
            return _missing(name)
        properties = {"latestVersion": [*versions][-1], "nextVersion": "1"}
        return Answer(200, {**_named(asked, kind, name), "properties": properties})

    def _upload(self, asked: Asked) -> Answer:
        if self.storage is None:
            return refused(501, "NotHere", "This workspace was given no storage.")
        parts = urlsplit(self.storage)
        consumed = {
            "blobUri": f"{parts.scheme}://{parts.netloc}{parts.path}",
            "credential": {"credentialType": "SAS", "sasUri": self.storage},
        }
        return Answer(
            200,
            {
                "pendingUploadId": uuid4().hex,
                "pendingUploadType": "TemporaryBlobReference",
                "blobReferenceForConsumption": consumed,
            },
        )

    # Jobs, schedules and the rest

    def _put_job(self, asked: Asked) -> Answer:
        name = asked.found[0]
        properties = {"services": {}, **asked.body["properties"], "status": "Starting"}
        made = {**_named(asked, f"{_TYPE}/jobs", name), "properties": properties}
        new = name not in self.jobs
        self.jobs[name] = made
        return Answer(201 if new else 200, made)

    def _cancel(self, asked: Asked) -> Answer:
        self.jobs[asked.found[0]]["properties"]["status"] = "Canceled"
        return Answer(202, {}, self._under_way(asked))

    def _put_schedule(self, asked: Asked) -> Answer:
        name = asked.found[0]
        properties = {**asked.body["properties"], "provisioningState": "Succeeded"}
        made = {**_named(asked, f"{_TYPE}/schedules", name), "properties": properties}
        new = name not in self.schedules
        self.schedules[name] = made
        return Answer(201 if new else 200, made, self._under_way(asked))

    def _delete_schedule(self, asked: Asked) -> Answer:
        self.schedules.pop(asked.found[0], None)
        return Answer(202, {}, self._under_way(asked))

    def _compute(self, asked: Asked) -> Answer:
        name = asked.found[0]
        if self.computes is not None and name not in self.computes:
            return _missing(name)
        properties = {
            "computeType": "AmlCompute",
            "provisioningState": "Succeeded",
            "properties": {"vmSize": "STANDARD_DS3_V2", "scaleSettings": {}},
        }
        named = _named(asked, f"{_TYPE}/computes", name)
        return Answer(
            200, {**named, "location": "westeurope", "properties": properties}
        )

    def _datastore(self, asked: Asked) -> Answer:
        store = {
            **_named(asked, f"{_TYPE}/datastores", "workspaceblobstore"),
            "properties": {
                "datastoreType": "AzureBlob",
                "accountName": "devstoreaccount1",
                "containerName": "workspace",
                "endpoint": "core.windows.net",
                "protocol": "https",
                "isDefault": True,
                "credentials": {"credentialsType": "None"},
            },
        }
        one = not asked.path.endswith("/datastores")
        return Answer(200, store if one else {"value": [store]})


def proxy(url: str) -> Scorer:
    """Answer by a scoring service that listens elsewhere."""

    def ask(asked: Asked) -> Answer:
        passed = {
            name: value
            for name, value in asked.headers.items()
            if name not in ("host", "content-length", "connection")
        }
        request = Request(url, asked.body, passed)
        with urlopen(request, timeout=30) as answer:
            return Answer(answer.status, answer.read())

    return ask


def _says_nothing(_: Asked) -> Answer:
    return refused(502, "NoScorer", "This test gave the deployment nothing to say.")


def _named(asked: Asked, kind: str, name: str) -> Resource:
    return {"id": f"{asked.scope}{asked.path}", "name": name, "type": kind}


def _page(resources: Mapping[str, Resource]) -> Answer:
    return Answer(200, {"value": list(resources.values())})


def _found(resources: Mapping[str, Resource], asked: Asked) -> Answer:
    return _or_missing(resources.get(asked.found[0]), asked.found[0])


def _or_missing(resource: Resource | None, name: str) -> Answer:
    return _missing(name) if resource is None else Answer(200, copy.deepcopy(resource))


def _missing(name: str) -> Answer:
    return refused(404, "ResourceNotFound", f"{name} was not found.")
