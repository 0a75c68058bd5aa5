"""The well-behaved client: one call after the other, each measured.

A process of its own, so that an attacker's work does not slow it. Started with HOST:PORT. Its
input: ``begin METHOD`` starts, ``count`` prints how many calls were made since, ``end`` stops and
prints what it saw as a line of JSON.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time

import grpc

from tests.abuse.backend import CALM_ECHO, ECHO

PACE_S = 0.002
CALL_TIMEOUT_S = 5.0
ERRORS_MAX = 5
PAYLOAD = bytes(100)

Commands = queue.Queue[str]


def main(address: str) -> None:
    """Obey the input until it ends."""
    commands: Commands = queue.Queue()
    threading.Thread(target=_read_commands, args=(commands,), daemon=True).start()
    with grpc.insecure_channel(address) as channel:
        for method in (ECHO, CALM_ECHO):
            first: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            first(PAYLOAD, timeout=CALL_TIMEOUT_S, wait_for_ready=True)
        print("ready", flush=True)
        while (told := commands.get().split())[0] == "begin":
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(told[1])
            print(json.dumps(_measure(call, commands)), flush=True)


def _read_commands(commands: Commands) -> None:
    for line in sys.stdin:
        commands.put(line.strip())
    commands.put("quit")


def _measure(
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes], commands: Commands
) -> dict[str, object]:
    taken_ms: list[float] = []
    errors: list[str] = []
    while True:
        began = time.perf_counter()
        try:
            answer = call(PAYLOAD, timeout=CALL_TIMEOUT_S)
            if answer != PAYLOAD:
                errors.append("another answer than the request")
        except grpc.RpcError as error:
            errors.append(f"{error.code().name}: {error.details()}")
        taken_ms.append((time.perf_counter() - began) * 1e3)
        try:
            command = commands.get(timeout=PACE_S)
        except queue.Empty:
            continue
        if command != "count":
            break
        print(len(taken_ms), flush=True)
    return {"taken_ms": taken_ms, "errors": len(errors), "first_errors": errors[:ERRORS_MAX]}


if __name__ == "__main__":
    main(sys.argv[1])
