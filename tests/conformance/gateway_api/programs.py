"""The suite and the servers that its manifests name, built from Go modules."""

from __future__ import annotations

from pathlib import Path

from federation.cli.lab.kubernetes.go_programs import GoPrograms

VERSION = "v1.6.3"
"""Of the Gateway API: the suite's module, and the released CRDs that it wants to find."""

GATEWAY_API = GoPrograms(
    module=Path(__file__).parent / "go",
    name="gateway-api",
    packages=("tool",),
    tests=(".",),
    build_timeout_s=1200,
    environment=(("CGO_ENABLED", "0"),),
    flags=("-ldflags=-s -w",),
)


def suite() -> Path:
    """The suite as a program. Raises ``NoProgramsError``."""
    return GATEWAY_API.build() / "gatewayapi.test"


def echo() -> Path:
    """The server behind every route of the suite. Raises ``NoProgramsError``."""
    return GATEWAY_API.build() / "echo-basic"
