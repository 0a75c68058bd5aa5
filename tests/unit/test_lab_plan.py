"""The lab's plan and certificates: complete, without collisions, readable again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from cryptography import x509

from federation.cli.lab.app import end_like_ctrl_c
from federation.cli.lab.authority import Authority, gateway_identity
from federation.cli.lab.commands import with_processes
from federation.cli.lab.plan import LISTENER_PORTS, SERVICES, LabPlan, Role, lay_out


def plan_of(*regions: str) -> LabPlan:
    layout = lay_out(
        directory=Path("/nowhere"), regions=regions, latency_ms=40, calls_per_second=10
    )
    return with_processes(layout)


def plan_on_kubernetes(*regions: str) -> LabPlan:
    layout = lay_out(
        directory=Path("/nowhere"),
        regions=regions,
        latency_ms=0,
        calls_per_second=0,
        programs=Path("/programs"),
    )
    return with_processes(layout)


def addresses(plan: LabPlan) -> list[str]:
    found = [plan.etcd, plan.etcd_peer, plan.console]
    for cluster in plan.clusters:
        found += [cluster.xds, cluster.dns, cluster.relay.control]
        found += [route.listen for route in cluster.relay.routes]
        found += [endpoint.address for endpoint in cluster.demo.endpoints]
        found += [endpoint.pod for endpoint in cluster.demo.endpoints if endpoint.pod]
        if cluster.kubernetes is not None:
            found += [cluster.kubernetes.api, cluster.kubernetes.etcd]
        for gateway in cluster.gateways:
            found.append(gateway.admin)
            found += [gateway.listener(port) for port in LISTENER_PORTS]
    return found


def test_no_address_is_planned_twice() -> None:
    found = addresses(plan_of("a", "b", "c"))
    assert len(found) == len(set(found))


def test_no_address_is_planned_twice_on_kubernetes() -> None:
    plan = plan_on_kubernetes("a", "b", "c")
    found = addresses(plan)
    assert len(found) == len(set(found))
    assert sum(address.startswith("198.18.") for address in found) == 3 * sum(SERVICES.values())
    assert LabPlan.model_validate_json(plan.model_dump_json(by_alias=True)) == plan


def test_on_kubernetes_every_region_has_a_control_plane() -> None:
    plan = plan_on_kubernetes("a", "b")
    for region in ("a", "b"):
        commands = {p.role: p.command for p in plan.processes if p.cluster == region}
        control = plan.cluster(region).kubernetes
        assert control is not None
        assert commands[Role.KUBE_API][0] == "/programs/kube-apiserver"
        assert f"--etcd-servers=http://{control.etcd}" in commands[Role.KUBE_API]
        assert f"--listen-client-urls=http://{control.etcd}" in commands[Role.KUBE_ETCD]
        assert commands[Role.KUBE_CONTROLLERS][0] == "/programs/kube-controller-manager"
        agent = commands[Role.AGENT]
        assert "--source=kubernetes" in agent
        assert f"--kubeconfig=/nowhere/kubernetes/{region}/federation-agent.kubeconfig" in agent
        assert f"--endpoint-dial=/nowhere/endpoint-dial-{region}.json" in agent
    federation = next(p for p in plan.processes if p.role is Role.ETCD)
    assert federation.command[0] == "/programs/etcd"


def test_no_connection_can_be_given_a_planned_port() -> None:
    """The system chooses ports of connections from 32,768 on (Linux)."""
    ports = [int(address.rpartition(":")[2]) for address in addresses(plan_on_kubernetes("a", "b"))]
    assert max(ports) < 32_768


def test_every_region_has_its_processes() -> None:
    plan = plan_of("a", "b")
    for region in ("a", "b"):
        roles = [p.role for p in plan.processes if p.cluster == region]
        assert sorted(roles) == sorted(
            [Role.RELAY, Role.DEMO, Role.AGENT, Role.GATEWAY, Role.GATEWAY, Role.CLIENT]
        )
    assert [p.role for p in plan.processes if p.cluster is None] == [
        Role.ETCD,
        Role.RESOLVER,
        Role.RESOLVER,
        Role.CONSOLE,
    ]


def test_relays_reach_etcd_and_every_gateway_of_the_other_regions() -> None:
    plan = plan_of("a", "b", "c")
    relay = plan.cluster("a").relay
    targets = {route.target for route in relay.routes}
    others = {g.eastwest for name in ("b", "c") for g in plan.cluster(name).gateways}
    assert targets == {plan.etcd} | others
    assert relay.etcd() in {route.listen for route in relay.routes}


def test_demo_services_have_several_endpoints_each() -> None:
    endpoints = plan_of("a").cluster("a").demo.endpoints
    assert {e.service for e in endpoints} == set(SERVICES)
    for service in SERVICES:
        assert sum(1 for e in endpoints if e.service == service) >= 2


def test_a_plan_reads_back_as_it_was_written() -> None:
    plan = plan_of("a", "b")
    assert LabPlan.model_validate_json(plan.model_dump_json(by_alias=True)) == plan


@pytest.mark.parametrize("regions", [(), ("a", "a"), tuple("abcdefghi")])
def test_regions_are_one_to_eight_different_names(regions: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="--regions wants 1 to 8 different names"):
        plan_of(*regions)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match='no region "mars"; its regions: a, b'):
        plan_of("a", "b").cluster("mars")


def test_a_gateway_certificate_names_its_cluster_and_is_signed_by_the_authority() -> None:
    authority = Authority("test")
    pair = authority.issue_gateway("gateway-1", cluster="us-east-1")
    certificate = x509.load_pem_x509_certificate(pair.certificate_pem)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate_pem))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        gateway_identity("us-east-1")
    ]
    assert "PRIVATE" not in repr(pair)


@pytest.mark.parametrize("region", ["a b", "US", "-a", "a/b", "x" * 41])
def test_a_region_that_no_cluster_could_be_called_is_refused_at_once(region: str) -> None:
    with pytest.raises(ValueError, match="is no region; write lower-case letters"):
        plan_of("us-west-1", region)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_ends_the_lab_like_ctrl_c(number: signal.Signals) -> None:
    before = {known: signal.getsignal(known) for known in (signal.SIGHUP, signal.SIGTERM)}
    try:
        end_like_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
