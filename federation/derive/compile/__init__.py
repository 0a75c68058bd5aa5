"""From one cluster's objects and the federation's state to its routing snapshot and statuses."""

from __future__ import annotations

from federation.derive.compile.compiler import Compiler, compile_cluster
from federation.derive.compile.inputs import (
    CONTROLLER_NAME,
    Compiled,
    CompileInputs,
    CompileSettings,
    spiffe_id,
)

__all__ = [
    "CONTROLLER_NAME",
    "CompileInputs",
    "CompileSettings",
    "Compiled",
    "Compiler",
    "compile_cluster",
    "spiffe_id",
]
