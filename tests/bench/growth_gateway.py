"""The gateway of the growth benchmark: a native core with one worker, told what to take.

A line of input is the path of an update; the answer is a line of JSON: where it listens, how long
applying took, and for how long of that the worker moved no traffic. An update may say under `tap`
which calls are shown. What is told about calls is taken once a second and dropped.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from gateway.driver import Driver


def main() -> None:
    """Serve until the input ends."""
    ended = threading.Event()
    with Driver({"workers": 1, "cluster": "bench", "region": "bench"}) as driver:
        taking = threading.Thread(target=_take, args=(driver, ended))
        taking.start()
        for line in sys.stdin:
            document = json.loads(Path(line.strip()).read_bytes())
            driver.set_tap(document.pop("tap", None))
            update = json.dumps(document).encode()
            began = time.perf_counter_ns()
            applied = driver.apply_encoded(update)
            took_us = (time.perf_counter_ns() - began) / 1_000
            answer = {
                "address": applied.listeners[0].address,
                "took_us": took_us,
                "pause_us": applied.pause_us,
            }
            print(json.dumps(answer), flush=True)
        ended.set()
        taking.join()


def _take(driver: Driver, ended: threading.Event) -> None:
    while not ended.wait(1.0):
        driver.take_telemetry()
        driver.take_tap()


if __name__ == "__main__":
    main()
