"""Clients that ask for much and take nothing, or never finish what they began.

What nobody reads must wait in bounded memory, and must not stand in the way of the other clients
whose calls share the connection to the backend.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from hyperframe.frame import SettingsFrame

from tests.abuse.attack import Attack, Fate, Target, all_ended, held
from tests.abuse.backend import FLOOD, HOLD
from tests.abuse.gateway import CONNECTIONS_MAX, HANDSHAKE_TIMEOUT_MS
from tests.abuse.wire import PREFACE, WINDOW_MAX, Attacker, frame, wide_open

CONNECTIONS = 4
STREAMS = 250
ASKED_BYTES = 256 << 10
STAY_S = 1.5
"""How long an attacker that is let live is watched."""

INITIAL_WINDOW = SettingsFrame.INITIAL_WINDOW_SIZE
SLOW_CONNECTIONS = 20
END_MARGIN_S = 6.0


def _ask_and_stay(target: Target, attackers: list[Attacker], asked_bytes: int) -> None:
    for attacker in attackers:
        body = str(asked_bytes).encode()
        requests = (attacker.request(1 + 2 * number, FLOOD, body=body) for number in range(STREAMS))
        attacker.send(b"".join(requests))
    # Nothing is waited for: the other client measures meanwhile.
    time.sleep(STAY_S)


def _without_reading(
    window: int, *, opens_connection: bool, receive_buffer: int | None
) -> Callable[[Target], Fate]:
    def run(target: Target) -> Fate:
        with contextlib.ExitStack() as stack:
            made = [
                Attacker(
                    target.port, settings={INITIAL_WINDOW: window}, receive_buffer=receive_buffer
                )
                for _ in range(CONNECTIONS)
            ]
            attackers = [stack.enter_context(attacker) for attacker in made]
            if opens_connection:
                for attacker in attackers:
                    attacker.send(wide_open())
            _ask_and_stay(target, attackers, ASKED_BYTES)
        return held(f"{CONNECTIONS * STREAMS} streams unread")

    return run


def _slow_body(target: Target) -> Fate:
    """Bodies that come a byte at a time."""
    with Attacker(target.port) as attacker:
        streams = range(1, 2 * STREAMS, 2)
        attacker.send(b"".join(attacker.request(each, HOLD, end=False) for each in streams))
        deadline = time.monotonic() + STAY_S
        while time.monotonic() < deadline and not attacker.ended:
            attacker.send(b"".join(frame("data", each, b"\0") for each in streams))
            attacker.read(0.1)
        return held(f"{STREAMS} bodies under way, {len(attacker.resets)} streams reset")


# Beginnings without an end.


def _slow_preface(target: Target) -> Fate:
    halves = (
        b"",
        PREFACE[:3],
        PREFACE[:-1],
        PREFACE,
        PREFACE + SettingsFrame().serialize()[:-1],
        b"GET / HT",
    )
    return _begin_only(target, [halves[each % len(halves)] for each in range(SLOW_CONNECTIONS)])


def _slow_headers(target: Target) -> Fate:
    begin = PREFACE + SettingsFrame().serialize()
    unfinished = frame("headers", 1, b"\x83")
    half = frame("headers", 1, bytes(100))[:50]
    parts = (begin + unfinished, begin + half, begin + half[:5], begin + unfinished + half)
    return _begin_only(target, [parts[each % len(parts)] for each in range(SLOW_CONNECTIONS)])


def _begin_only(target: Target, beginnings: list[bytes]) -> Fate:
    with contextlib.ExitStack() as stack:
        attackers = [stack.enter_context(Attacker(target.port, speaks=False)) for _ in beginnings]
        for attacker, beginning in zip(attackers, beginnings, strict=True):
            attacker.send(beginning)
        deadline = time.monotonic() + HANDSHAKE_TIMEOUT_MS / 1e3 + END_MARGIN_S
        ended = sum(
            attacker.wait_for_end(max(0.01, deadline - time.monotonic())) for attacker in attackers
        )
    return all_ended(ended, len(beginnings))


# Too many of them.


def _over_max_streams(target: Target) -> Fate:
    with Attacker(target.port) as attacker:
        requests = [attacker.request(1 + 2 * each, HOLD, end=False) for each in range(3_000)]
        attacker.flood(b"".join(requests[at : at + 500]) for at in range(0, len(requests), 500))
        return all_ended(int(attacker.wait_for_end()), 1)


def _idle_connections(target: Target) -> Fate:
    over = 150
    with contextlib.ExitStack() as stack:
        attackers = [
            stack.enter_context(Attacker(target.port)) for _ in range(CONNECTIONS_MAX + over)
        ]
        refused = sum(attacker.wait_for_end(0.02) for attacker in attackers)
    # The well-behaved client holds one place, or two.
    fault = None if refused >= over else f"only {refused} of {over} over the limit were closed"
    return held(f"{len(attackers) - refused} idle, {refused} over the limit closed", fault=fault)


def _tls_flood(target: Target) -> Fate:
    """Handshakes as fast as they go, some never finished, some noise."""
    context = ssl.create_default_context(cafile=str(target.authority))
    context.set_alpn_protocols(["h2"])
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

    def shake(number: int) -> bool:
        with contextlib.suppress(OSError):
            if number % 4 == 0:
                with Attacker(target.tls_port, speaks=False) as attacker:
                    attacker.send(b"\x16\x03\x01\x00\x05noise" + bytes(100))
                    return attacker.wait_for_end()
            with Attacker(target.tls_port, tls=context, speaks=False):
                return True
        return False

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        silent = [
            stack.enter_context(Attacker(target.tls_port, speaks=False))
            for _ in range(SLOW_CONNECTIONS)
        ]
        for attacker in silent:
            attacker.send(hello)
        done = sum(pool.map(shake, range(400)))
        within_s = HANDSHAKE_TIMEOUT_MS / 1e3 + END_MARGIN_S
        ended = sum(attacker.wait_for_end(within_s) for attacker in silent)
    fate = all_ended(ended, SLOW_CONNECTIONS, what="half handshakes ended")
    return Fate(f"{done} of 400 handshakes and refusals, {fate.what}", fate.fault)


ATTACKS = (
    Attack("zero_window", _without_reading(0, opens_connection=True, receive_buffer=None), None),
    Attack(
        "slow_read",
        _without_reading(WINDOW_MAX, opens_connection=True, receive_buffer=4096),
        None,
    ),
    Attack(
        "unread streams on a shared upstream connection",
        _without_reading(WINDOW_MAX, opens_connection=False, receive_buffer=None),
        None,
    ),
    Attack("slow_body", _slow_body, None),
    Attack("slow_preface", _slow_preface, "downstream_handshake_failures", 10),
    Attack("slow_headers", _slow_headers, "slow_headers_ended", SLOW_CONNECTIONS),
    Attack("over_max_streams", _over_max_streams, "streams_refused", 1_000),
    Attack("idle_connections", _idle_connections, "downstream_refused", 100),
    Attack("tls_handshake_flood", _tls_flood, "downstream_handshake_failures", 100),
)
