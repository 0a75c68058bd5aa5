"""``fedctl cluster``: joining and parting, with an API server and an etcd that asks for names."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from federation.cli.authorities import open_authorities
from federation.cli.credentials import Signers
from federation.cli.lab.authority import KeyPair
from federation.cli.main import app
from tests.testkit.etcd import EtcdServer, TlsFiles, running_etcd
from tests.testkit.federation import FEDCTL, Process, process, until
from tests.testkit.kubernetes import EXPORTED_SERVICE, KubernetesServer, install_released_crds_now
from tests.testkit.ports import free_port

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
CLUSTER = "us-west-1"
NAMESPACE = "federation-system"
SECRETS = ("federation-etcd", "federation-agent", "federation-gateway")


@dataclass
class Site:
    """An etcd that knows its users, and a cluster that may join."""

    kubernetes: KubernetesServer
    etcd: EtcdServer
    authority: Path
    signers: Signers
    directory: Path

    def identity(self, user: str) -> tuple[str, ...]:
        """Global options that make ``fedctl`` that user of etcd."""
        files = self.write(user, self.signers.etcd_user(user))
        return self.options(files)

    def options(self, files: TlsFiles) -> tuple[str, ...]:
        return (
            *("--etcd", f"https://{self.etcd.endpoint}", "--etcd-ca", str(files.authority)),
            *("--etcd-cert", str(files.certificate), "--etcd-key", str(files.private_key)),
        )

    def write(self, name: str, pair: KeyPair) -> TlsFiles:
        place = self.directory / name
        place.mkdir(exist_ok=True)
        files = TlsFiles(place / "ca.crt", place / "tls.crt", place / "tls.key")
        files.authority.write_bytes(self.signers.etcd.certificate_pem)
        files.certificate.write_bytes(pair.certificate_pem)
        files.private_key.write_bytes(pair.key_pem)
        return files

    def fedctl(self, *arguments: str, user: str = "root") -> Result:
        return CliRunner().invoke(app, [*self.identity(user), *arguments])

    def ok(self, *arguments: str) -> str:
        done = self.fedctl(*arguments)
        assert done.exit_code == 0, done.output
        return done.output

    def add(self, *more: str) -> str:
        place = ("--kubeconfig", str(self.kubernetes.kubeconfig))
        joins = ("cluster", "add", CLUSTER, "--region", "us-west")
        return self.ok(*joins, *place, "--authority", str(self.authority), *more)

    def remove(self, *more: str, kubeconfig: Path | None = None) -> Result:
        place = ("--kubeconfig", str(kubeconfig or self.kubernetes.kubeconfig))
        return self.fedctl("cluster", "remove", CLUSTER, *place, *more)

    def secret(self, name: str) -> TlsFiles:
        """A Secret's files, as a Pod has them mounted."""
        data = self.kubernetes.object("secret", NAMESPACE, name)["data"]
        place = self.directory / "mounted" / name
        place.mkdir(parents=True, exist_ok=True)
        for key, value in data.items():
            (place / key).write_bytes(base64.b64decode(value))
        return TlsFiles(place / "ca.crt", place / "tls.crt", place / "tls.key")

    @contextlib.contextmanager
    def joined(self) -> Iterator[Process]:
        """The agent and a gateway, with nothing but what stands in the cluster."""
        etcd, agent, gateway = (self.secret(name) for name in SECRETS)
        config = self.kubernetes.object("configmap", NAMESPACE, "federation-cluster")["data"]
        token = self.kubernetes.kubectl("create", "token", "federation-agent", "-n", NAMESPACE)
        kubeconfig = self.kubernetes.write_kubeconfig("agent", token.strip())
        xds = f"127.0.0.1:{free_port()}"
        asked = (
            *(*FEDCTL, *self.options(etcd), "--prefix", config["FEDERATION_PREFIX"], "agent"),
            *("--cluster", config["FEDERATION_CLUSTER"], "--region", config["FEDERATION_REGION"]),
            *("--source", "kubernetes", "--kubeconfig", str(kubeconfig), "--xds", xds),
            *("--xds-cert", str(agent.certificate), "--xds-key", str(agent.private_key)),
            *("--xds-client-ca", str(agent.authority)),
            *("--state-dir", str(self.directory / "agent-state")),
        )
        serving = (
            *("-m", "gateway", "--name", "gw", "--cluster", CLUSTER),
            *("--agent", xds.replace("127.0.0.1", "localhost"), "--address", "127.0.0.1"),
            *("--agent-ca", str(gateway.authority), "--trust-bundle", str(gateway.authority)),
            *("--identity-cert", str(gateway.certificate)),
            *("--identity-key", str(gateway.private_key)),
            *("--eastwest-address", f"127.0.0.1:{free_port()}"),
            *("--state-dir", str(self.directory / "gateway-state")),
        )
        assert config["FEDERATION_ETCD"] == f"https://{self.etcd.endpoint}"
        with process(self.directory / "agent.log", *asked) as running:
            running.says("heartbeat is present")
            with process(self.directory / "gateway.log", *serving) as gateway_process:
                gateway_process.says("gateway started")
                running.says("gateways published")
                yield running

    def resolver(self) -> contextlib.AbstractContextManager[Process]:
        arguments = (*FEDCTL, *self.identity("resolver"), "resolver", "--name", "resolver-1")
        return process(self.directory / "resolver.log", *arguments)

    def silent(self) -> None:
        """Wait until the heartbeat of the agent that was killed has ended."""
        until(lambda: "Stale" in self.ok("status"), lambda: self.ok("status"))


@pytest.fixture
def site(own_kubernetes: KubernetesServer, tmp_path: Path) -> Iterator[Site]:
    authority = tmp_path / "authority"
    signers, said = open_authorities(authority)
    assert len(said) == 2
    install_released_crds_now(own_kubernetes)
    own_kubernetes.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    found = Site(own_kubernetes, EtcdServer(tmp_path), authority, signers, tmp_path)
    server = found.write("etcd", signers.etcd.issue("etcd", addresses=("127.0.0.1",)))
    with running_etcd(server) as found.etcd:
        for user in ("resolver", "operator"):
            found.ok("access", "grant", user)
        found.ok("access", "enable")
        yield found


def rights(server: KubernetesServer) -> None:
    for name in ("namespace.yaml", "agent/rbac.yaml"):
        server.kubectl("apply", "-f", str(ROOT / "clusters" / "base" / name))


def test_a_cluster_joins_serves_and_parts(site: Site) -> None:
    told = site.add()
    assert f"etcd: {CLUSTER} may read and write /federation/v1/state/facts/{CLUSTER}/" in told
    assert "wrote Secret federation-system/federation-gateway" in told
    assert "apply --server-side -k clusters/base" in told
    rights(site.kubernetes)
    own = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "app"}}
    site.kubernetes.kubectl("apply", "-f", "-", stdin=EXPORTED_SERVICE)
    site.kubernetes.apply(own)
    with site.resolver(), site.joined():
        until(lambda: "app/users" in site.ok("status"), lambda: site.ok("status"))
        until(lambda: "carries traffic of app/users" in site.remove().output, site.remove)
    assert "carries traffic of app/users; drain it first" in site.remove().output
    done = site.remove("--force")
    assert done.exit_code == 0, done.output
    assert f"{CLUSTER} is removed" in done.output
    assert CLUSTER not in site.ok("status")
    for name in SECRETS:
        assert not site.kubernetes.object("secret", NAMESPACE, name)
    assert site.kubernetes.object("secret", "app", "mine")
    assert site.kubernetes.object("service", "app", "users")
    imports = site.kubernetes.kubectl(
        "get", "serviceimports.multicluster.x-k8s.io", "-A", "-o", "name"
    )
    assert not imports
    denied = CliRunner().invoke(
        app, [*site.options(site.write("old", site.signers.etcd_user(CLUSTER))), "status"]
    )
    assert denied.exit_code == 1, denied.output
    assert site.remove().exit_code == 4


def test_an_agent_that_runs_is_stopped_first(site: Site) -> None:
    site.add()
    rights(site.kubernetes)
    with site.joined():
        done = site.remove()
        assert done.exit_code == 5, done.output
        assert "still runs and would join again; stop it first" in done.output
    site.silent()
    assert site.remove().exit_code == 0


def test_adding_again_renews(site: Site) -> None:
    site.add()
    first = site.secret("federation-gateway").certificate.read_bytes()
    trusted = site.secret("federation-gateway").authority.read_bytes()
    site.add("--lifetime", "48h")
    renewed = site.secret("federation-gateway")
    assert renewed.certificate.read_bytes() != first
    assert renewed.authority.read_bytes() == trusted


def test_a_removal_is_not_held_up_by_an_etcd_that_is_away(site: Site) -> None:
    site.add()
    site.etcd.kill()
    assert site.remove().exit_code == 3
    assert site.kubernetes.object("secret", NAMESPACE, "federation-etcd")
    done = site.remove("--force")
    assert done.exit_code == 1, done.output
    assert f"left to do when etcd is back: fedctl cluster remove {CLUSTER}" in done.output
    assert not site.kubernetes.object("secret", NAMESPACE, "federation-etcd")
    site.etcd.start()
    assert CLUSTER not in site.ok("status")


def test_a_removal_is_not_held_up_by_an_api_server_that_is_away(site: Site) -> None:
    site.add()
    rights(site.kubernetes)
    with site.joined():
        pass
    site.silent()
    site.kubernetes.kill_api()
    done = site.remove()
    assert done.exit_code == 1, done.output
    assert "left to do in the cluster: kubectl --kubeconfig" in done.output
    assert CLUSTER not in site.ok("status")
    site.kubernetes.start_api()
    # A server that has just started asks for patience before it lists custom objects; what is gone
    # by then stays gone, so that the next time there may be nothing left (4).
    until(lambda: site.remove().exit_code in (0, 4), lambda: site.remove().output)
    assert not site.kubernetes.object("secret", NAMESPACE, "federation-etcd")


def test_half_an_authority_is_an_error(tmp_path: Path) -> None:
    open_authorities(tmp_path)
    (tmp_path / "etcd" / "ca.key").unlink()
    done = CliRunner().invoke(
        app, ["cluster", "add", "west", "--region", "west", "--authority", str(tmp_path)]
    )
    assert done.exit_code == 2, done.output
    assert "etcd/ca.key is missing beside ca.crt: bring it back" in done.output


def test_keys_of_another_authority_are_refused(tmp_path: Path) -> None:
    open_authorities(tmp_path)
    (tmp_path / "clusterset" / "ca.key").replace(tmp_path / "etcd" / "ca.key")
    (tmp_path / "clusterset" / "ca.crt").unlink()
    done = CliRunner().invoke(
        app, ["cluster", "add", "west", "--region", "west", "--authority", str(tmp_path)]
    )
    assert done.exit_code == 2, done.output
    assert "is not the key of" in done.output
    assert (tmp_path / "etcd" / "ca.key").stat().st_mode & 0o077 == 0
