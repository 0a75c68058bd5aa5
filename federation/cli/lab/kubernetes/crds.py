"""CustomResourceDefinitions on an API server: the released ones and the project's own.

Decides: which releases of the Gateway API and the MCS API there are (``released/go.mod`` names
them), and when their kinds count as served.
Leaves to others: the project's own definitions (``federation.wire``), fetching modules (Go).
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from federation.adapters.kubernetes import Connection
from federation.cli.lab.kubernetes.go_programs import NoProgramsError, Say, go_program, to_stderr

RELEASED = Path(__file__).with_name("released")
"""The Go module that pins the releases whose CRDs are installed."""

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ESTABLISHED_TIMEOUT_S = 60.0


def released_crds(say: Say = to_stderr, *, channel: str = "standard") -> list[Path]:
    """The CustomResourceDefinitions of the Gateway API (of that ``channel``) and the MCS API, of
    the releases that ``released/go.mod`` names. Raises ``NoProgramsError``."""
    go = go_program(say)
    modules = ("sigs.k8s.io/gateway-api", "sigs.k8s.io/mcs-api")
    fetched = subprocess.run(
        [go, "mod", "download", *modules],
        check=False,
        cwd=RELEASED,
        timeout=300,
        capture_output=True,
        text=True,
    )
    if fetched.returncode != 0:
        raise NoProgramsError(f"released CRDs cannot be fetched: {fetched.stderr.strip()[-500:]}")
    listed = subprocess.run(
        [go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", *modules],
        cwd=RELEASED,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    gateway_api, mcs_api = (Path(line) for line in listed.stdout.split())
    return sorted((gateway_api / "config/crd" / channel).glob("*.yaml")) + sorted(
        (mcs_api / "config/crd").glob("*.yaml")
    )


def released_definitions(
    say: Say = to_stderr, *, channel: str = "standard"
) -> list[dict[str, Any]]:
    """``released_crds`` as objects."""
    return [
        document
        for path in released_crds(say, channel=channel)
        for document in yaml.safe_load_all(path.read_text())
        if (document or {}).get("kind") == "CustomResourceDefinition"
    ]


async def install_crds(
    connection: Connection, definitions: Sequence[dict[str, Any]], *, manager: str
) -> None:
    """Apply CustomResourceDefinitions and wait until their kinds are served.

    Raises ``TimeoutError`` naming the first that is not after a minute.
    """
    wanted = [definition["metadata"]["name"] for definition in definitions]
    for name, definition in zip(wanted, definitions, strict=True):
        await connection.apply(f"{DEFINITIONS}/{name}", definition, manager=manager)
    deadline = time.monotonic() + ESTABLISHED_TIMEOUT_S
    for name in wanted:
        while not _established(await connection.get(f"{DEFINITIONS}/{name}")):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the API server does not serve {name}")
            await asyncio.sleep(0.05)


def _established(crd: dict[str, Any]) -> bool:
    # A definition that was made just now says `conditions: null`.
    conditions = crd.get("status", {}).get("conditions") or []
    return any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions)
