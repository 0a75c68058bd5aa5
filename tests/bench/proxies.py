"""The proxies that are measured: how each is started for the same path to the same backend."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from federation.cli.lab.authority import Authority, write_private
from tests.testkit.ports import free_port
from tests.testkit.processes import HOST, running

AUTHORITY = "bench.example.com"
METHOD = "/com.example.api.UserService/GetUser"
GRPC_BODY = b"\x00\x00\x00\x00\x08" + b"\x0a\x06user-1"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy: its name in the table, where it listens, whose time counts."""

    name: str
    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        """User and system time of the process and its children so far."""
        times = [p.cpu_times() for p in (self.process, *self.process.children(recursive=True))]
        return sum(each.user + each.system for each in times)


@contextlib.contextmanager
def backend(directory: Path) -> Iterator[int]:
    """nghttpd answering the method's path with a gRPC message and a status trailer."""
    root = directory / "htdocs"
    page = root / METHOD.lstrip("/")
    page.parent.mkdir(parents=True)
    page.write_bytes(GRPC_BODY)
    port = free_port()
    command = ["nghttpd", "--no-tls", f"--address={HOST}", f"--htdocs={root}"]
    command += ["--trailer=grpc-status: 0", "--no-content-length", str(port)]
    with running(command, (port,), directory / "nghttpd.log"):
        yield port


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The certificate that every proxy shows to clients, and its key."""

    certificate: Path
    key: Path


def make_tls(directory: Path) -> TlsFiles:
    """A certificate for the bench's host (ECDSA P-256, as all proxies take it)."""
    pair = Authority("bench").issue(AUTHORITY, dns=(AUTHORITY,))
    files = TlsFiles(directory / "bench.pem", directory / "bench.key")
    files.certificate.write_bytes(pair.certificate_pem)
    write_private(files.key, pair.key_pem)
    return files


@contextlib.contextmanager
def gateway(directory: Path, backend_port: int, tls: TlsFiles | None) -> Iterator[Proxy]:
    """Our gateway, standalone, from manifests."""
    manifests = directory / "manifests"
    manifests.mkdir()
    port = free_port()
    (manifests / "bench.yaml").write_text(_manifests(port, backend_port, tls))
    command = [str(Path(sys.executable).with_name("fedctl")), "standalone"]
    command += [f"--manifests={manifests}", f"--address={HOST}", "--workers=1"]
    command += ["--port-offset=0", f"--admin={HOST}:{free_port()}", "--cluster=bench"]
    with running(command, (port,), directory / "gateway.log") as child:
        yield Proxy("gateway", port, psutil.Process(child.pid))


@contextlib.contextmanager
def nghttpx(directory: Path, backend_port: int, tls: TlsFiles | None) -> Iterator[Proxy]:
    """nghttpx with one worker."""
    port = free_port()
    frontend = f"--frontend={HOST},{port}" + ("" if tls else ";no-tls")
    command = ["nghttpx", frontend, "--workers=1", "--no-ocsp"]
    command += [str(tls.key), str(tls.certificate)] if tls else []
    command += [f"--backend={HOST},{backend_port};;proto=h2", "--no-location-rewrite"]
    command += ["--accesslog-file=/dev/null", f"--errorlog-file={directory / 'nghttpx-error.log'}"]
    with running(command, (port,), directory / "nghttpx.log") as child:
        yield Proxy("nghttpx", port, psutil.Process(child.pid))


@contextlib.contextmanager
def envoy(directory: Path, backend_port: int, tls: TlsFiles | None) -> Iterator[Proxy]:
    """Envoy with one worker and the same route as static configuration."""
    port = free_port()
    config = directory / "envoy.json"
    config.write_text(json.dumps(_envoy_config(port, backend_port, tls)))
    command = [str(Path(sys.executable).with_name("envoy")), "-c", str(config)]
    command += ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
    with running(command, (port,), directory / "envoy.log") as child:
        yield Proxy("envoy", port, psutil.Process(child.pid))


PEERS = {"nghttpx": nghttpx, "envoy": envoy}


def missing_programs() -> list[str]:
    """Programs of the harness itself that are not installed."""
    return [name for name in ("h2load", "nghttpd") if shutil.which(name) is None]


def _manifests(port: int, backend_port: int, tls: TlsFiles | None) -> str:
    listener: dict[str, object] = {"name": "grpc", "port": port, "protocol": "HTTP"}
    objects: list[dict[str, object]] = []
    if tls is not None:
        listener |= {"protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "bench-cert"}]}}
        objects.append(_tls_secret(tls))
    objects += [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "federation"},
            "spec": {"controllerName": "federation.dev/gateway-controller"},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "bench", "namespace": "app"},
            "spec": {
                "gatewayClassName": "federation",
                "listeners": [listener],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "users", "namespace": "app"},
            "spec": {"ports": [{"name": "grpc", "port": 9090}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "users-1",
                "namespace": "app",
                "labels": {"kubernetes.io/service-name": "users"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": backend_port}],
            "endpoints": [{"addresses": [HOST]}],
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GRPCRoute",
            "metadata": {"name": "users", "namespace": "app"},
            "spec": {
                "parentRefs": [{"name": "bench"}],
                "hostnames": [AUTHORITY],
                "rules": [
                    {
                        "matches": [
                            {
                                "method": {
                                    "service": "com.example.api.UserService",
                                    "method": "GetUser",
                                }
                            }
                        ],
                        "backendRefs": [
                            {"name": "users", "port": 9090, "weight": 80},
                            {"name": "users", "port": 9090, "weight": 20},
                        ],
                    }
                ],
            },
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1alpha3",
            "kind": "BackendTrafficPolicy",
            "metadata": {"name": "users", "namespace": "app"},
            "spec": {
                "targetRef": {
                    "group": "gateway.networking.k8s.io",
                    "kind": "GRPCRoute",
                    "name": "users",
                },
                "retry": {
                    "retryOn": ["5xx", "connect-failure"],
                    "attempts": 2,
                    "backoff": {"defaultDuration": "100ms", "maxDuration": "1s"},
                },
            },
        },
    ]
    return "\n---\n".join(json.dumps(each) for each in objects)


def _tls_secret(tls: TlsFiles) -> dict[str, object]:
    def encoded(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bench-cert", "namespace": "app"},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": encoded(tls.certificate), "tls.key": encoded(tls.key)},
    }


def _envoy_config(port: int, backend_port: int, tls: TlsFiles | None) -> dict[str, object]:
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }

    def cluster(name: str) -> dict[str, object]:
        address = {"socket_address": {"address": HOST, "port_value": backend_port}}
        return {
            "name": name,
            "type": "STATIC",
            "lb_policy": "LEAST_REQUEST",
            "typed_extension_protocol_options": http2,
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }

    route = {
        "match": {"path": METHOD, "grpc": {}},
        "route": {
            "timeout": "0s",
            "retry_policy": {"retry_on": "5xx,connect-failure", "num_retries": 2},
            "weighted_clusters": {
                "clusters": [{"name": "a", "weight": 80}, {"name": "b", "weight": 20}]
            },
        },
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network."
        "http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [{"name": "bench", "domains": [AUTHORITY], "routes": [route]}]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    chain: dict[str, object] = {"filters": [{"name": "http", "typed_config": manager}]}
    if tls is not None:
        chain["transport_socket"] = _envoy_tls(tls)
    listener = {
        "address": {"socket_address": {"address": HOST, "port_value": port}},
        "filter_chains": [chain],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster("a"), cluster("b")]}}


def _envoy_tls(tls: TlsFiles) -> dict[str, object]:
    pair = {
        "certificate_chain": {"filename": str(tls.certificate)},
        "private_key": {"filename": str(tls.key)},
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
            "DownstreamTlsContext",
            "common_tls_context": {"alpn_protocols": ["h2"], "tls_certificates": [pair]},
        },
    }
