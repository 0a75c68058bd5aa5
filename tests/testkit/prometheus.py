"""Prometheus' own tool, for what Prometheus is to read: metrics, rules, queries."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MISSING = "promtool is not installed: apt-get install prometheus (it need not run)"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason=MISSING)


def promtool(*arguments: str, given: bytes | None = None, at: Path | None = None) -> str:
    """What ``promtool`` finds wrong; empty: nothing."""
    done = subprocess.run(
        ["promtool", *arguments], input=given, capture_output=True, cwd=at, timeout=60, check=False
    )
    said = (done.stdout + done.stderr).decode()
    return "" if done.returncode == 0 else said or f"promtool ended with {done.returncode}"
