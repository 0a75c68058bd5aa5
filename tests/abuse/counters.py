"""The gateway's numbers, as anyone may ask for them."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from tests.testkit.processes import HOST


def numbers(admin_port: int) -> dict[str, int]:
    """The plain counters and gauges of ``/stats``."""
    with urllib.request.urlopen(f"http://{HOST}:{admin_port}/stats", timeout=10) as answer:
        stats: dict[str, Any] = json.load(answer)
    found: dict[str, int] = stats["core"]["numbers"]
    return found
