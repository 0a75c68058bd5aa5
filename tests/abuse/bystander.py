"""The well-behaved client: one call after the other, each measured.

A process of its own, so that an attacker's work does not slow it. Started with HOST:PORT; `begin`
on its input starts, `end` stops and prints what it saw as a line of JSON.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time

import grpc

from tests.abuse.backend import ECHO

PACE_S = 0.002
CALL_TIMEOUT_S = 5.0
CALLS_MIN = 300
"""Calls made at least, so that the 99th percentile is not the worst one."""

ERRORS_MAX = 5
PAYLOAD = bytes(100)


def main(address: str) -> None:
    """Obey the input until it ends."""
    commands: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_commands, args=(commands,), daemon=True).start()
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)
        call(PAYLOAD, timeout=CALL_TIMEOUT_S, wait_for_ready=True)
        print("ready", flush=True)
        while commands.get() == "begin":
            print(json.dumps(_measure(call, commands)), flush=True)


def _read_commands(commands: queue.Queue[str]) -> None:
    for line in sys.stdin:
        commands.put(line.strip())
    commands.put("quit")


def _measure(
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes], commands: queue.Queue[str]
) -> dict[str, object]:
    taken_ms: list[float] = []
    errors: list[str] = []
    is_told_to_end = False
    while not is_told_to_end or len(taken_ms) < CALLS_MIN:
        began = time.perf_counter()
        try:
            answer = call(PAYLOAD, timeout=CALL_TIMEOUT_S)
            if answer != PAYLOAD:
                errors.append("another answer than the request")
        except grpc.RpcError as error:
            errors.append(f"{error.code().name}: {error.details()}")
        taken_ms.append((time.perf_counter() - began) * 1e3)
        try:
            is_told_to_end |= commands.get(timeout=PACE_S) != "begin"
        except queue.Empty:
            continue
    taken_ms.sort()
    return {
        "calls": len(taken_ms),
        "errors": len(errors),
        "first_errors": errors[:ERRORS_MAX],
        "p50_ms": taken_ms[len(taken_ms) // 2],
        "p99_ms": taken_ms[len(taken_ms) * 99 // 100],
    }


if __name__ == "__main__":
    main(sys.argv[1])
