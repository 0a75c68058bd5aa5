"""The federation's kinds on a real API server: what it takes is what the models take.

Each field of valid objects is spoilt in turn (a wrong type, out of bounds, left out, unknown), and
the server's word (a dry run) is compared with the model's.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.adapters.kubernetes import Connection, ConnectionSettings, connected
from federation.adapters.kubernetes.connection import ApiServerRefused
from federation.model.objects import ApiObject
from federation.model.objects.registry import find_kind, plural
from federation.wire.crds import KINDS, custom_resource_definition
from federation.wire.manifests import Rejected, decode_value
from tests.testkit.federation import until
from tests.testkit.kubernetes import KubernetesServer, install_crds

MANIFESTS = Path(__file__).parents[1] / "manifests"
EVERYTHING = Path(__file__).parent / "data" / "everything.yaml"
OWN = {(kind.GROUP, kind.KIND) for kind in KINDS}


@pytest.fixture
async def connection(kubernetes: KubernetesServer) -> AsyncIterator[Connection]:
    async with connected(ConnectionSettings(kubernetes.kubeconfig)) as found:
        await install_crds(found, [custom_resource_definition(kind) for kind in KINDS])
        yield found


def documents() -> list[dict[str, Any]]:
    """Objects of our own kinds: the documents', and one with every field."""
    found = []
    for path in [*sorted(MANIFESTS.glob("*.yaml")), EVERYTHING]:
        for document in yaml.safe_load_all(path.read_text()):
            group = (document or {}).get("apiVersion", "").rpartition("/")[0]
            if (group, (document or {}).get("kind")) in OWN:
                found.append(document)
    return found


def metadata(kind: type[ApiObject]) -> dict[str, str]:
    """Of an object that is only tried."""
    return {"name": "tried", **({"namespace": "default"} if kind.NAMESPACED else {})}


async def taken(connection: Connection, document: dict[str, Any]) -> str:
    """Empty when the server takes the document, else what it says."""
    group, _, _ = document["apiVersion"].rpartition("/")
    kind = find_kind(group, document["kind"])
    assert kind is not None
    body = {**document, "metadata": metadata(kind)}
    inside = "/namespaces/default" if kind.NAMESPACED else ""
    path = f"/apis/{document['apiVersion']}{inside}/{plural(kind)}"
    query = "dryRun=All&fieldValidation=Strict"
    try:
        await connection.post(f"{path}?{query}", body)
    except ApiServerRefused as error:
        return str(error)
    return ""


def refused(document: dict[str, Any]) -> str:
    """Empty when the model takes the document, else what it says."""
    kind = find_kind(document["apiVersion"].rpartition("/")[0], document["kind"])
    assert kind is not None
    body = {**document, "metadata": metadata(kind)}
    decoded = decode_value(body, origin="test")
    assert isinstance(decoded, ApiObject | Rejected)
    return decoded.message if isinstance(decoded, Rejected) else ""


async def test_the_documents_are_taken_unchanged(connection: Connection) -> None:
    assert len(documents()) >= 4
    for document in documents():
        assert (await taken(connection, document), refused(document)) == ("", "")


def spoilt(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies of the document, each wrong (or only other) at one place of its spec."""
    for path, value in _leaves(document["spec"], ()):
        for name, other in _others(value):
            changed = copy.deepcopy(document)
            _set(changed["spec"], path, other)
            yield f"{'.'.join(map(str, path))} {name}", changed
        dropped = copy.deepcopy(document)
        _drop(dropped["spec"], path)
        yield f"{'.'.join(map(str, path))} left out", dropped
    unknown = copy.deepcopy(document)
    unknown["spec"]["unknown"] = 1
    yield "unknown field", unknown


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, (*path, name))
    elif isinstance(value, list):
        for position, part in enumerate(value):
            yield from _leaves(part, (*path, position))
    if path:
        yield path, value


def _others(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, bool):
        return [("other", not value), ("text", "x")]
    if isinstance(value, int):
        return [("negative", -1), ("zero", 0), ("big", 10**7), ("text", "7"), ("half", 0.5)]
    if isinstance(value, str):
        return [
            ("empty", ""),
            ("number", 5),
            ("odd", "No_Such Thing!"),
            ("long", "a" * 300),
            ("zero time", "0s"),
            ("long time", "99999h"),
        ]
    if isinstance(value, list):
        return [("empty list", []), ("no list", {}), ("twice", [*value, *value])]
    return [("empty map", {}), ("no map", [])]


def _set(root: Any, path: tuple[Any, ...], value: Any) -> None:
    for part in path[:-1]:
        root = root[part]
    root[path[-1]] = value


def _drop(root: Any, path: tuple[Any, ...]) -> None:
    for part in path[:-1]:
        root = root[part]
    del root[path[-1]]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
async def test_server_and_model_agree(connection: Connection, kind: type[ApiObject]) -> None:
    differences = []
    for document in (entry for entry in documents() if entry["kind"] == kind.KIND):
        for name, changed in spoilt(document):
            server, model = await taken(connection, changed), refused(changed)
            if bool(server) != bool(model):
                differences.append(f"{name}: server: {server or 'ok'}; model: {model or 'ok'}")
    assert not differences, "\n".join(differences)


# --- what kubectl makes of them ---------------------------------------------------------------

TABLES = {
    "backendtrafficpolicy": ["NAME", "TARGETKIND", "TARGETNAME", "AGE"],
    "observabilitypolicy": ["NAME", "TARGETKIND", "TARGETNAME", "AGE"],
    "serviceimports.gateway.networking.k8s.io": ["NAME", "TYPE", "CLUSTERS", "AGE"],
    "multiclusterservice": ["NAME", "IMPORT", "BACKENDS", "ACCEPTED", "AGE"],
    "drain": [
        *("NAME", "TARGET", "SERVICE", "PHASE", "MOVED", "STREAMS", "ACCEPTED", "EXPIRES", "AGE"),
    ],
}
SHORT = {
    "btp": "BackendTrafficPolicy",
    "obs": "ObservabilityPolicy",
    "mcs": "MultiClusterService",
    "fdr": "Drain",
}


@pytest.mark.usefixtures("connection")
async def test_kubectl_explains_every_field_in_words(kubernetes: KubernetesServer) -> None:
    explained = {
        "backendtrafficpolicy.spec.retry": "Tries after the first one; 0 switches retries off.",
        "btp.spec.circuitBreaker": "How long an endpoint is out the first time.",
        "multiclusterservice.spec.clusterBackends": "Its part of the traffic relative to",
        "drain.spec": "Ramp of new calls from all to none.",
        "drain.status": "How much of the target's traffic is moved away.",
        "obs.spec.tracing": "Percent of the calls that are recorded, fractions too",
        "btp.status.ancestors": "The controller that wrote this entry.",
    }
    for field, text in explained.items():
        # A server publishes what it serves some time after it serves it.
        told = until(lambda: kubernetes.kubectl("explain", field, ok=False), lambda: field)  # noqa: B023
        assert text in " ".join(told.split()), told
        assert "<no description>" not in told, told
    recursive = kubernetes.kubectl("explain", "drain", "--recursive")
    assert "expires\t<string>" in recursive


@pytest.mark.usefixtures("connection")
async def test_kubectl_lists_them_in_the_documents_columns(kubernetes: KubernetesServer) -> None:
    for document in documents():
        scoped = "namespace" in metadata(_kind(document))
        body = {**document, "metadata": {"name": "listed"}}
        if scoped:
            body["metadata"]["namespace"] = "default"
        kubernetes.apply(body)
    for name, heading in TABLES.items():
        lines = kubernetes.kubectl("get", name, "listed").splitlines()
        assert lines[0].split() == heading, lines
        assert lines[1].split()[0] == "listed"
    policy = kubernetes.kubectl("get", "btp", "listed").splitlines()[1].split()
    assert policy[1] == "GRPCRoute"
    for short, kind in SHORT.items():
        assert kubernetes.kubectl("get", short, "listed", "-o", "jsonpath={.kind}") == kind
    everything = kubernetes.kubectl("get", "federation", "-o", "name").split()
    assert {line.partition(".")[0] for line in everything} >= {
        *("backendtrafficpolicy", "serviceimport", "multiclusterservice", "drain"),
    }


@pytest.mark.usefixtures("connection")
async def test_protected_groups_are_told_what_the_kinds_are(kubernetes: KubernetesServer) -> None:
    for kind in KINDS:
        name = f"{plural(kind)}.{kind.GROUP}"
        found = kubernetes.object("crd", "", name)
        annotations = found["metadata"].get("annotations", {})
        protected = kind.GROUP.endswith(".k8s.io")
        assert ("api-approved.kubernetes.io" in annotations) == protected
        assert all("status" in entry["subresources"] for entry in found["spec"]["versions"])
        assert found["spec"]["names"]["categories"] == ["federation"]


def _kind(document: dict[str, Any]) -> type[ApiObject]:
    kind = find_kind(document["apiVersion"].rpartition("/")[0], document["kind"])
    assert kind is not None
    return kind


# --- the words of `fedctl apply` --------------------------------------------------------------

SAME_WORDS: list[tuple[str, str, Any]] = [
    ("BackendTrafficPolicy", "retry.attempts", 11),
    ("BackendTrafficPolicy", "retry.attempts", -1),
    ("BackendTrafficPolicy", "retry.retryOnStatusCodes", [503, 700]),
    ("BackendTrafficPolicy", "retry.perTryTimeout", "1s"),
    ("BackendTrafficPolicy", "retry.backoff.defaultDuration", "soon"),
    ("BackendTrafficPolicy", "retry.backoff.defaultDuration", "0s"),
    ("BackendTrafficPolicy", "retry.backoff.defaultDuration", "5s"),
    ("BackendTrafficPolicy", "retryConstraint.budget.percent", 101),
    ("BackendTrafficPolicy", "retryConstraint.budget.interval", "10ms"),
    ("BackendTrafficPolicy", "targetRef.name", "Not_A_Name"),
    ("BackendTrafficPolicy", "targetRef.name", ""),
    ("BackendTrafficPolicy", "circuitBreaker.maxEjectionTime", "10ms"),
    ("BackendTrafficPolicy", "circuitBreaker.failurePercentage.threshold", 0),
    ("BackendTrafficPolicy", "loadBalancer.type", "ConsistentHash"),
    ("BackendTrafficPolicy", "loadBalancer.slowStart.window", "2h"),
    ("BackendTrafficPolicy", "loadBalancer.consistentHash", {"type": "SourceIP"}),
    (
        "BackendTrafficPolicy",
        "loadBalancer",
        {"type": "ConsistentHash", "consistentHash": {"type": "Header"}},
    ),
    (
        "BackendTrafficPolicy",
        "loadBalancer",
        {
            "type": "ConsistentHash",
            "consistentHash": {"type": "SourceIP", "cookie": {"name": "c"}},
        },
    ),
    ("BackendTrafficPolicy", "failover.regionFailover", [{"from": "a", "to": "a"}]),
    ("BackendTrafficPolicy", "failover.regionFailover", []),
    ("BackendTrafficPolicy", "healthCheck.active.unhealthyThreshold", 0),
    ("BackendTrafficPolicy", "rateLimit", {"type": "Global"}),
    (
        "BackendTrafficPolicy",
        "rateLimit.local.rules",
        [{"limit": {"requestsPerUnit": 2 * 10**7, "unit": "Second"}}],
    ),
    (
        "BackendTrafficPolicy",
        "rateLimit.local.rules",
        [
            {
                "limit": {"requestsPerUnit": 1, "unit": "Second"},
                "clientSelectors": [{"headers": [{"name": f"x-{n}"} for n in range(5)]}],
            }
        ],
    ),
    (
        "BackendTrafficPolicy",
        "rateLimit.local.rules",
        [
            {
                "limit": {"requestsPerUnit": 1, "unit": "Second"},
                "clientSelectors": [{"headers": [{"name": "x", "type": "Exact"}]}],
            }
        ],
    ),
    ("BackendTrafficPolicy", "faultInjection.delay.percentage", 100.5),
    ("BackendTrafficPolicy", "faultInjection.abort.httpStatus", 500),
    ("BackendTrafficPolicy", "faultInjection", {}),
    ("ObservabilityPolicy", "tracing.samplingRate", 100.5),
    ("ObservabilityPolicy", "tracing.provider.backendRef.port", 0),
    ("ObservabilityPolicy", "tracing.customTags.0", {"name": "a"}),
    (
        "ObservabilityPolicy",
        "tracing.customTags",
        [{"name": "a", "literal": {"value": "1"}}, {"name": "a", "env": {"name": "A"}}],
    ),
    ("ObservabilityPolicy", "accessLog.path", "/dev/stdout"),
    ("ObservabilityPolicy", "accessLog.type", "File"),
    ("ObservabilityPolicy", "accessLog.format", {"type": "Text"}),
    ("ObservabilityPolicy", "accessLog.format", {"type": "JSON", "text": "%METHOD%"}),
    ("ServiceImport", "ports", []),
    ("ServiceImport", "ports.0.port", 65536),
    ("ServiceImport", "resolution", "Static"),
    ("MultiClusterService", "clusterBackends.0.weight", -1),
    ("MultiClusterService", "clusterBackends", []),
    ("MultiClusterService", "clusterBackends", [{"cluster": "a", "weight": 0}]),
    ("MultiClusterService", "clusterBackends", [{"cluster": "a"}, {"cluster": "a"}]),
    ("Drain", "target", "us west"),
    ("Drain", "over", "25h"),
    ("Drain", "expires", "never"),
]
"""Kind, field below spec, bad value: refused in the same words by both."""

SAME_FACTS: list[tuple[str, str, Any, str]] = [
    ("BackendTrafficPolicy", "retry.retryOn", ["never"], "unavailable"),
    ("BackendTrafficPolicy", "rateLimit.local.rules.0.limit.unit", "Week", "Minute"),
    ("BackendTrafficPolicy", "targetRef", {"group": "g", "kind": "k"}, "equired"),
    ("BackendTrafficPolicy", "retry.attempts", "two", "integer"),
    ("ObservabilityPolicy", "accessLog.format", {"fields": {"a": "%METHODS%"}}, "METHOD, "),
    ("ObservabilityPolicy", "accessLog.type", "Syslog", "OpenTelemetry"),
    ("MultiClusterService", "clusterBackends.0.wieght", 3, "unknown field"),
    ("Drain", "target", "a" * 64, "63"),
]
"""What every API server tells in words of its own: field and what would be right are the same."""


def bad(kind: str, field: str, value: Any) -> dict[str, Any]:
    """The valid object of ``kind`` with most in it, with one field changed."""
    of_kind = [entry for entry in documents() if entry["kind"] == kind]
    document = copy.deepcopy(max(of_kind, key=lambda entry: len(str(entry))))
    path = [int(part) if part.isdigit() else part for part in field.split(".")]
    _set(document["spec"], tuple(path), value)
    return document


def problem(document: dict[str, Any]) -> tuple[str, str]:
    """Field and words of the first thing that ``fedctl apply`` says."""
    body = {**document, "metadata": metadata(_kind(document))}
    decoded = decode_value(body, origin="test")
    assert isinstance(decoded, Rejected), document
    return decoded.problems[0].field_path, decoded.problems[0].message


@pytest.mark.timeout(120)
async def test_kubectl_apply_says_what_fedctl_apply_says(connection: Connection) -> None:
    differences = []
    for kind, field, value in SAME_WORDS:
        document = bad(kind, field, value)
        path, said = problem(document)
        words, _, _ = said.partition(", got ")  # servers tell the value before
        server = await taken(connection, document)
        if f"{path}: Invalid value: " not in server or f": {words}" not in server:
            differences.append(f"{field}={value}:\n  fedctl: {path}: {words}\n  server: {server}")
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize(("kind", "field", "value", "fact"), SAME_FACTS)
async def test_what_the_server_words_itself_names_the_field_and_the_fact(
    connection: Connection, kind: str, field: str, value: Any, fact: str
) -> None:
    document = bad(kind, field, value)
    path, _ = problem(document)
    server = await taken(connection, document)
    assert path in server, (path, server)
    assert fact in server
