"""The gateway of the growth benchmark: a native core with one worker, told what to take.

A line of input is the path of an update; the answer is a line of JSON: where it listens, how long
applying took, and for how long of that the worker moved no traffic.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from gateway.driver import Driver


def main() -> None:
    """Serve until the input ends."""
    with Driver({"workers": 1}) as driver:
        for line in sys.stdin:
            update = Path(line.strip()).read_bytes()
            began = time.perf_counter_ns()
            applied = driver.apply_encoded(update)
            took_us = (time.perf_counter_ns() - began) / 1_000
            answer = {
                "address": applied.listeners[0].address,
                "took_us": took_us,
                "pause_us": applied.pause_us,
            }
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
