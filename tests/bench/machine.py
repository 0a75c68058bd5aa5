"""The machine and the moment that figures come from, and where figures are kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "bench-results"


def cpu_model() -> str:
    """The CPU's name as the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    elif platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return platform.machine()


def machine_line() -> str:
    """CPU model, cores and the day."""
    return f"{cpu_model()}, {os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}"


def keep(name: str, machine: str, figures: dict[str, Any]) -> Path:
    """Write ``figures`` to ``bench-results/NAME.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine, **figures}, indent=2) + "\n")
    return path
