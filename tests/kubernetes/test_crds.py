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
