"""The MCS API on two clusters with an API server each: what KEP-1645 says of exports and imports.

The paragraphs are those of the KEP (keps/sig-multicluster/1645-multi-cluster-services-api).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from federation.adapters.kubernetes import ConnectionSettings, connected
from federation.adapters.kubernetes.connection import ChangedMeanwhile
from tests.testkit.etcd import running_etcd
from tests.testkit.federation import FEDCTL, Federation, Process, conditions, process, until
from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.ports import free_port

pytestmark = pytest.mark.timeout(90)

BASE = Path(__file__).parents[2] / "clusters" / "base"
REGIONS = {"us-west-1": "us-west", "us-east-1": "us-east"}
IMPORTS = "serviceimports.multicluster.x-k8s.io"
EXPORTS = "serviceexports.multicluster.x-k8s.io"
_namespaces = (f"mcs-{number}" for number in itertools.count())

GRPC = {"name": "grpc", "port": 9090, "protocol": "TCP"}
HTTP = {"name": "http", "port": 8080, "protocol": "TCP"}


@dataclass
class Cluster:
    """One member of the clusterset."""

    name: str
    server: KubernetesServer
    agent: Process
    federation: Federation
    options: tuple[str, ...]
    """Of its agent, without the state directory."""

    def get(self, kind: str, namespace: str, name: str = "users") -> dict[str, Any]:
        """An object; empty when there is none."""
        return self.server.object(kind, namespace, name)

    def kubectl(self, *arguments: str) -> str:
        """One command of kubectl."""
        return self.server.kubectl(*arguments)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change objects."""
        self.server.apply(*objects)

    def conditions(self, kind: str, namespace: str) -> dict[str, str]:
        """Conditions of the export or import as ``STATUS, REASON: MESSAGE``."""
        return conditions(self.get(kind, namespace).get("status", {}))


@dataclass
class Clusterset:
    """Two clusters and a namespace in both that is this test's own."""

    west: Cluster
    east: Cluster
    namespace: str

    @property
    def both(self) -> tuple[Cluster, Cluster]:
        return self.west, self.east

    def service(self, *ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
        """The Service ``users``."""
        return self._object("v1", "Service", spec={"ports": list(ports or (GRPC,)), **spec})

    def export(self, **spec: Any) -> dict[str, Any]:
        """Its ServiceExport."""
        return self._object("multicluster.x-k8s.io/v1beta1", "ServiceExport", spec=spec)

    def _object(self, api_version: str, kind: str, **fields: Any) -> dict[str, Any]:
        metadata = {"name": "users", "namespace": self.namespace}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}

    def imported(self, cluster: Cluster) -> dict[str, Any]:
        """The spec of the import in ``cluster``, once there is one."""
        found = until(
            lambda: cluster.get(IMPORTS, self.namespace), lambda: cluster.agent.output()[-2000:]
        )
        spec = found["spec"]
        assert isinstance(spec, dict)
        return spec

    def export_in_turn(self, first: dict[str, Any], second: dict[str, Any], **spec: Any) -> None:
        """Export ``first`` from the west and, once it is the oldest, ``second`` from the east."""
        self.west.apply(first, self.export(**spec))
        self.imported(self.east)
        self.east.apply(second, self.export())
        listed = {"us-east-1", "us-west-1"}

        def joined() -> bool:
            status = self.west.get(IMPORTS, self.namespace).get("status", {})
            return {entry["cluster"] for entry in status.get("clusters", [])} == listed

        until(joined, lambda: self.west.get(IMPORTS, self.namespace))

    def conflict(self, reason: str) -> None:
        """Wait until every exporter is told of the conflict, with the same words."""
        for cluster in self.both:
            until(*_told(cluster, self.namespace, reason))
        words = {c.conditions(EXPORTS, self.namespace)["Conflict"] for c in self.both}
        assert len(words) == 1


def _told(
    cluster: Cluster, namespace: str, reason: str
) -> tuple[Callable[[], bool], Callable[[], str]]:
    """Whether the exporter in ``cluster`` is told of a conflict, and what it is told."""

    def said() -> str:
        return cluster.conditions(EXPORTS, namespace).get("Conflict", "")

    def is_told() -> bool:
        return said().startswith("True") and reason in said().partition(":")[0]

    return is_told, said


@pytest.fixture(scope="module")
def clusters(
    kubernetes_pair: tuple[KubernetesServer, KubernetesServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Cluster, Cluster]]:
    """Two clusters with an agent each, of one federation."""
    directory = tmp_path_factory.mktemp("mcs")
    with contextlib.ExitStack() as stack:
        federation = Federation(stack.enter_context(running_etcd()).endpoint, directory)
        resolver = (*FEDCTL, *federation.options, "resolver", "--name", "resolver-1")
        stack.enter_context(process(directory / "resolver.log", *resolver))
        found = []
        for (name, region), server in zip(REGIONS.items(), kubernetes_pair, strict=True):
            log = directory / f"{name}.log"
            for manifest in (BASE / "namespace.yaml", BASE / "agent" / "rbac.yaml"):
                server.kubectl("apply", "-f", str(manifest))
            token = server.kubectl("create", "token", "federation-agent", "-n", "federation-system")
            kubeconfig = server.write_kubeconfig("agent", token.strip())
            options = (
                *("agent", "--cluster", name, "--region", region),
                *("--source", "kubernetes", "--kubeconfig", str(kubeconfig)),
                *("--xds", f"127.0.0.1:{free_port()}"),
            )
            state = ("--state-dir", str(directory / name))
            agent = stack.enter_context(
                process(log, *FEDCTL, *federation.options, *options, *state)
            )
            found.append(Cluster(name, server, agent, federation, options))
        yield found[0], found[1]
        for cluster in found:
            assert ": 403" not in cluster.agent.output(), cluster.agent.output()


@pytest.fixture
def clusterset(clusters: tuple[Cluster, Cluster]) -> Clusterset:
    """The clusters with a new namespace in both."""
    found = Clusterset(*clusters, next(_namespaces))
    for cluster in found.both:
        cluster.kubectl("create", "namespace", found.namespace)
    return found


def test_nothing_is_imported_without_an_export(clusterset: Clusterset) -> None:
    """ "Service Export": "an export is required for each service that is to be shared"."""
    clusterset.west.apply(clusterset.service())
    other = Clusterset(clusterset.west, clusterset.east, next(_namespaces))
    for cluster in other.both:
        cluster.kubectl("create", "namespace", other.namespace)
    other.west.apply(other.service(), other.export())
    other.imported(other.east)  # by now the first service would be there
    assert not clusterset.east.get(IMPORTS, clusterset.namespace)
    assert not clusterset.west.get(IMPORTS, clusterset.namespace)


def test_an_import_is_in_every_cluster_with_the_namespace(clusterset: Clusterset) -> None:
    """ "Importing services": in each cluster where the namespace exists, exporters included."""
    lonely = Clusterset(clusterset.west, clusterset.east, next(_namespaces))
    lonely.west.kubectl("create", "namespace", lonely.namespace)
    lonely.west.apply(lonely.service(), lonely.export())
    lonely.imported(lonely.west)
    clusterset.west.apply(clusterset.service(), clusterset.export())
    for cluster in clusterset.both:
        assert clusterset.imported(cluster)["type"] == "ClusterSetIP"
    assert not lonely.east.get(IMPORTS, lonely.namespace)
    lonely.east.kubectl("create", "namespace", lonely.namespace)
    lonely.imported(lonely.east)


def test_an_import_lives_while_one_export_does(clusterset: Clusterset) -> None:
    """ "Importing services": it goes with the last export."""
    clusterset.export_in_turn(clusterset.service(), clusterset.service())
    clusterset.west.kubectl("delete", EXPORTS, "users", "-n", clusterset.namespace)

    def of_east() -> bool:
        status = clusterset.west.get(IMPORTS, clusterset.namespace)["status"]
        return [entry["cluster"] for entry in status.get("clusters", [])] == ["us-east-1"]

    until(of_east, lambda: clusterset.west.get(IMPORTS, clusterset.namespace))
    clusterset.east.kubectl("delete", EXPORTS, "users", "-n", clusterset.namespace)
    for cluster in clusterset.both:
        until(
            lambda: not cluster.get(IMPORTS, clusterset.namespace),  # noqa: B023 - waited for here
            cluster.agent.output,
        )


def test_ports_are_those_of_the_service(clusterset: Clusterset) -> None:
    """ "Service Port": names, numbers, protocols and appProtocol are carried."""
    port = {**GRPC, "appProtocol": "kubernetes.io/h2c"}
    clusterset.west.apply(clusterset.service(port, HTTP), clusterset.export())
    ports = clusterset.imported(clusterset.east)["ports"]
    assert ports == [port, HTTP]


def test_ports_of_all_exports_are_joined(clusterset: Clusterset) -> None:
    """ "Service Port": the union, and every exporter is told where the sets differ."""
    clusterset.export_in_turn(clusterset.service(GRPC), clusterset.service(HTTP))
    for cluster in clusterset.both:
        until(
            lambda: clusterset.imported(cluster)["ports"] == [GRPC, HTTP],  # noqa: B023
            lambda: clusterset.imported(cluster),  # noqa: B023
        )
    clusterset.conflict("PortConflict")


def test_the_oldest_export_has_its_way_with_a_port(clusterset: Clusterset) -> None:
    """ "Conflict Resolution": precedence is by age, on each exporter's condition."""
    clusterset.export_in_turn(clusterset.service(GRPC), clusterset.service({**GRPC, "port": 9999}))
    clusterset.conflict("PortConflict")
    assert [clusterset.imported(c)["ports"] for c in clusterset.both] == [[GRPC], [GRPC]]


def test_session_affinity_is_carried(clusterset: Clusterset) -> None:
    """ "Session Affinity": the exported Service's, with its configuration."""
    config = {"clientIP": {"timeoutSeconds": 42}}
    service = clusterset.service(sessionAffinity="ClientIP", sessionAffinityConfig=config)
    clusterset.west.apply(service, clusterset.export())
    found = clusterset.imported(clusterset.east)
    assert (found["sessionAffinity"], found["sessionAffinityConfig"]) == ("ClientIP", config)


def test_internal_traffic_policy_is_carried(clusterset: Clusterset) -> None:
    """ "Internal Traffic Policy"."""
    clusterset.west.apply(clusterset.service(internalTrafficPolicy="Local"), clusterset.export())
    assert clusterset.imported(clusterset.east)["internalTrafficPolicy"] == "Local"


def test_traffic_distribution_is_carried(clusterset: Clusterset) -> None:
    """ "Traffic Distribution"."""
    clusterset.west.apply(
        clusterset.service(trafficDistribution="PreferClose"), clusterset.export()
    )
    assert clusterset.imported(clusterset.east)["trafficDistribution"] == "PreferClose"


def test_a_headless_service_is_imported_headless(clusterset: Clusterset) -> None:
    """ "Supporting headless services": of type Headless, without an IP."""
    clusterset.west.apply(clusterset.service(clusterIP="None"), clusterset.export())
    found = clusterset.imported(clusterset.east)
    assert (found["type"], found.get("ips")) == ("Headless", None)


def test_types_in_conflict_follow_the_oldest(clusterset: Clusterset) -> None:
    """ "Headlessness": the oldest export decides, and every exporter is told."""
    clusterset.export_in_turn(clusterset.service(), clusterset.service(clusterIP="None"))
    clusterset.conflict("TypeConflict")
    assert [clusterset.imported(c)["type"] for c in clusterset.both] == ["ClusterSetIP"] * 2


def test_an_external_name_cannot_be_exported(clusterset: Clusterset) -> None:
    """ "Restricting exports": ExternalName is not valid."""
    service = clusterset._object(
        "v1", "Service", spec={"type": "ExternalName", "externalName": "example.com"}
    )
    clusterset.west.apply(service, clusterset.export())

    def refused() -> bool:
        found = clusterset.west.conditions(EXPORTS, clusterset.namespace).get("Valid", "")
        return found.startswith("False, InvalidServiceType")

    until(refused, lambda: clusterset.west.conditions(EXPORTS, clusterset.namespace))
    assert not clusterset.east.get(IMPORTS, clusterset.namespace)


def test_exported_labels_and_annotations_are_the_imports(clusterset: Clusterset) -> None:
    """ "Exporting labels and annotations": those that the export names, the oldest's."""
    spec = {"exportedLabels": {"team": "users"}, "exportedAnnotations": {"note": "one"}}
    clusterset.export_in_turn(clusterset.service(), clusterset.service(), **spec)
    clusterset.conflict("LabelsConflict")
    metadata = clusterset.east.get(IMPORTS, clusterset.namespace)["metadata"]
    assert metadata["labels"]["team"] == "users"
    assert metadata["annotations"]["note"] == "one"


def test_an_import_that_is_not_ours_stays(clusterset: Clusterset) -> None:
    """Only objects under our label are changed or deleted."""
    theirs = clusterset._object(
        "multicluster.x-k8s.io/v1beta1",
        "ServiceImport",
        spec={"type": "Headless", "ports": [HTTP]},
    )
    clusterset.east.apply(theirs)
    clusterset.west.apply(clusterset.service(), clusterset.export())
    clusterset.imported(clusterset.west)
    clusterset.east.agent.says("an object of this name is not ours and stays as it is")
    assert clusterset.imported(clusterset.east)["type"] == "Headless"


def test_an_agent_that_finds_etcd_empty_takes_nothing_back(
    clusterset: Clusterset, tmp_path: Path
) -> None:
    """A Pod that starts anew while etcd was restored empty knows of no export of others: what it
    derived before stays, and what it learns goes on being written."""
    clusterset.east.apply(clusterset.service(), clusterset.export())
    clusterset.imported(clusterset.west)
    west = clusterset.west
    other = Clusterset(west, clusterset.east, next(_namespaces))
    west.kubectl("create", "namespace", other.namespace)

    def exporters() -> list[str]:
        status = west.get(IMPORTS, clusterset.namespace).get("status", {})
        return [entry["cluster"] for entry in status.get("clusters", [])]

    until(lambda: exporters() == ["us-east-1"], west.agent.output)
    empty = Federation(west.federation.etcd, tmp_path)
    options = (*west.options[:-1], f"127.0.0.1:{free_port()}", "--state-dir", str(tmp_path / "new"))
    os.kill(west.agent.command.pid, signal.SIGSTOP)
    try:
        with process(tmp_path / "new.log", *FEDCTL, *empty.options, *options) as agent:
            west.apply(other.service(), other.export())
            until(lambda: west.get(IMPORTS, other.namespace), agent.output)
            until(lambda: "derived objects stay" in agent.output(), agent.output)
            assert west.get(IMPORTS, clusterset.namespace)
            assert exporters() == ["us-east-1"]
            # And what is said to be gone goes.
            west.kubectl("delete", EXPORTS, "users", "-n", other.namespace)
            until(lambda: not west.get(IMPORTS, other.namespace), agent.output)
    finally:
        os.kill(west.agent.command.pid, signal.SIGCONT)
    assert west.get(IMPORTS, clusterset.namespace)


def test_what_was_changed_since_it_was_read_is_not_deleted(
    clusters: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    """The API server refuses to delete another object, or another version, than the one seen."""
    west, _ = clusters
    namespace = next(_namespaces)
    west.kubectl("create", "namespace", namespace)
    document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "users", "namespace": namespace},
        "spec": {"ports": [GRPC]},
    }
    west.apply(document)
    before = west.get("services", namespace)["metadata"]
    west.kubectl("label", "service", "users", "-n", namespace, "changed=yes")
    path = f"/api/v1/namespaces/{namespace}/services/users"

    async def delete(seen: dict[str, Any]) -> None:
        async with connected(ConnectionSettings(west.server.kubeconfig)) as connection:
            await connection.delete(path, seen=seen)

    with pytest.raises(ChangedMeanwhile):
        asyncio.run(delete(before))
    now = west.get("services", namespace)["metadata"]
    with pytest.raises(ChangedMeanwhile):
        asyncio.run(delete({**now, "uid": "11111111-1111-1111-1111-111111111111"}))
    asyncio.run(delete(now))
    until(lambda: not west.get("services", namespace), west.agent.output)
