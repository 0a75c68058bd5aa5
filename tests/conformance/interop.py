"""gRPC's interop cases: grpc-go's own client through the gateway.

Left out: the cases about cloud credentials, and ``pick_first_unary``, which asks which server
answered (grpc-go's server does not say, and behind a proxy it is not the client's choice).
"""

from __future__ import annotations

import json
import subprocess

from tests.conformance.programs import Programs
from tests.conformance.results import Case, Result, Transport
from tests.conformance.rig import SERVER_NAME, Rig
from tests.testkit.processes import HOST

CASES = (
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
)
ORCA_CASES = ("orca_per_rpc", "orca_oob")
"""Load reports in trailers and as a stream; only grpc-go's server gives them."""

ORCA_CONFIG: dict[str, object] = {
    "loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]
}
CASE_TIMEOUT_S = 60


def run(
    programs: Programs, rig: Rig, transport: Transport, *, cases: tuple[str, ...], server: str
) -> Result:
    """The cases, each with a client process of its own."""
    done = tuple(Case(case, _fault(programs, rig, transport, case)) for case in cases)
    return Result(f"grpc-go client, {server} server", transport, done)


def _fault(programs: Programs, rig: Rig, transport: Transport, case: str) -> str | None:
    command = [str(programs.interop_client), f"--server_host={HOST}", f"--test_case={case}"]
    command += [f"--server_port={rig.port(transport)}"]
    if transport is Transport.TLS:
        command += ["--use_tls", "--use_test_ca", f"--ca_file={rig.authority}"]
        command += [f"--server_host_override={SERVER_NAME}"]
    if case in ORCA_CASES:
        command += [f"--service_config_json={json.dumps(ORCA_CONFIG)}"]
    try:
        ended = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=CASE_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"no end within {CASE_TIMEOUT_S} s"
    return None if ended.returncode == 0 else ended.stderr.strip()[-500:]
