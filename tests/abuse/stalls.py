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

from tests.abuse.attack import Attack, Fate, Stage, Target, all_ended, await_number, held
from tests.abuse.backend import FLOOD, HOLD, IGNORE
from tests.abuse.counters import numbers
from tests.abuse.gateway import CONNECTIONS_MAX, HANDSHAKE_TIMEOUT_MS
from tests.abuse.wire import PREFACE, WINDOW_MAX, Attacker, frame, wide_open

CONNECTIONS = 4
STREAMS = 250
STEP_STREAMS = 25
STEP_S = 0.03
GREEDY = 9
"""Connections whose unread streams are more than ``BUFFERS_MAX_BYTES``."""

HELD_BYTES_MIN = 8 << 20
UPLOADS = 75
FIRST_WINDOW = 65_535
DATA_BYTES = 16_000
ASKED_BYTES = 256 << 10
STAY_MAX_S = 20.0
"""How long an attacker that is let live stays, when nobody tells it to go."""

DRIP_S = 0.1
INITIAL_WINDOW = SettingsFrame.INITIAL_WINDOW_SIZE
SLOW_CONNECTIONS = 20
END_MARGIN_S = 6.0


def _ask_and_stay(
    target: Target, stage: Stage, attackers: list[Attacker], *, too_much: bool
) -> Fate:
    name = "buffer_overflow_streams" if too_much else "buffered_bytes"
    least = numbers(target.admin_port)[name] + 1 if too_much else HELD_BYTES_MIN
    body = str(ASKED_BYTES).encode()
    for attacker in attackers:
        for first in range(0, STREAMS, STEP_STREAMS):
            ids = range(1 + 2 * first, 1 + 2 * (first + STEP_STREAMS), 2)
            attacker.send(b"".join(attacker.request(each, FLOOD, body=body) for each in ids))
            # No faster than the backend, written in Python, begins to answer.
            stage.over(STEP_S)
    asked = len(attackers) * STREAMS
    # Not all of them wait: what the kernel's socket buffers take is written.
    if not await_number(target, name, least):
        return held("not all", fault=f"`{name}` stays low after {asked} streams")
    stage.in_place()
    stage.over(STAY_MAX_S)
    what = f"{asked} streams asked for" if too_much else f"{asked} streams unread"
    return held(what)


def _without_reading(
    window: int,
    *,
    opens_connection: bool,
    receive_buffer: int | None,
    connections: int = CONNECTIONS,
    too_much: bool = False,
) -> Callable[[Target, Stage], Fate]:
    def run(target: Target, stage: Stage) -> Fate:
        with contextlib.ExitStack() as stack:
            made = [
                Attacker(
                    target.port, settings={INITIAL_WINDOW: window}, receive_buffer=receive_buffer
                )
                for _ in range(connections)
            ]
            attackers = [stack.enter_context(attacker) for attacker in made]
            if opens_connection:
                for attacker in attackers:
                    attacker.send(wide_open())
            return _ask_and_stay(target, stage, attackers, too_much=too_much)

    return run


def _slow_body(target: Target, stage: Stage) -> Fate:
    """Bodies that come a byte at a time."""
    with Attacker(target.port) as attacker:
        streams = range(1, 2 * STREAMS, 2)
        attacker.send(b"".join(attacker.request(each, HOLD, end=False) for each in streams))
        if not await_number(target, "calls_open", STREAMS):
            return held("not all", fault=f"fewer than {STREAMS} streams were taken")
        stage.in_place()
        deadline = time.monotonic() + STAY_MAX_S
        while time.monotonic() < deadline and not attacker.ended and not stage.over(DRIP_S):
            attacker.send(b"".join(frame("data", each, b"\0") for each in streams))
            attacker.read(0.0)
        return held(f"{STREAMS} bodies under way, {len(attacker.resets)} streams reset")


def _unread_requests(target: Target, stage: Stage) -> Fate:
    """Bodies that fill a window each, to a backend that does not read."""
    part = bytes(DATA_BYTES)
    with contextlib.ExitStack() as stack:
        attackers = [stack.enter_context(Attacker(target.port)) for _ in range(CONNECTIONS)]
        for attacker in attackers:
            for each in range(1, 2 * UPLOADS, 2):
                whole = frame("data", each, part) * (FIRST_WINDOW // DATA_BYTES)
                attacker.send(attacker.request(each, IGNORE, end=False) + whole)
                attacker.read(0.0)
        if not await_number(target, "buffered_bytes", HELD_BYTES_MIN):
            return held("not all", fault="the gateway holds hardly anything")
        stage.in_place()
        stage.over(STAY_MAX_S)
        return held(f"{CONNECTIONS * UPLOADS} bodies unread")


# Beginnings without an end.


def _slow_preface(target: Target, _stage: Stage) -> Fate:
    halves = (
        b"",
        PREFACE[:3],
        PREFACE[:-1],
        PREFACE,
        PREFACE + SettingsFrame().serialize()[:-1],
        b"GET / HT",
    )
    return _begin_only(target, [halves[each % len(halves)] for each in range(SLOW_CONNECTIONS)])


def _slow_headers(target: Target, _stage: Stage) -> Fate:
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


def _over_max_streams(target: Target, _stage: Stage) -> Fate:
    with Attacker(target.port) as attacker:
        requests = [attacker.request(1 + 2 * each, HOLD, end=False) for each in range(3_000)]
        attacker.flood(b"".join(requests[at : at + 500]) for at in range(0, len(requests), 500))
        return all_ended(int(attacker.wait_for_end()), 1)


def _idle_connections(target: Target, _stage: Stage) -> Fate:
    over = 150
    with contextlib.ExitStack() as stack:
        attackers = [
            stack.enter_context(Attacker(target.port)) for _ in range(CONNECTIONS_MAX + over)
        ]
        refused = sum(attacker.wait_for_end(0.02) for attacker in attackers)
    # The well-behaved client holds one place, or two.
    fault = None if refused >= over else f"only {refused} of {over} over the limit were closed"
    return held(f"{len(attackers) - refused} idle, {refused} over the limit closed", fault=fault)


def _tls_flood(target: Target, _stage: Stage) -> Fate:
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
    Attack(
        "zero_window",
        _without_reading(0, opens_connection=True, receive_buffer=None),
        "buffered_bytes",
        HELD_BYTES_MIN,
    ),
    Attack(
        "slow_read",
        _without_reading(WINDOW_MAX, opens_connection=True, receive_buffer=4096),
        "buffered_bytes",
        HELD_BYTES_MIN,
    ),
    Attack(
        "unread streams on a shared upstream connection",
        _without_reading(WINDOW_MAX, opens_connection=False, receive_buffer=None),
        "buffered_bytes",
        HELD_BYTES_MIN,
        shares_backend=True,
    ),
    Attack(
        "more unread than a worker may hold",
        _without_reading(
            0, opens_connection=True, receive_buffer=None, connections=GREEDY, too_much=True
        ),
        "buffer_overflow_streams",
        100,
    ),
    Attack("unread requests", _unread_requests, "buffered_bytes", HELD_BYTES_MIN),
    Attack("slow_body", _slow_body, "calls_open", STREAMS),
    Attack("slow_preface", _slow_preface, "downstream_handshake_failures", 10),
    Attack("slow_headers", _slow_headers, "slow_headers_ended", SLOW_CONNECTIONS),
    Attack("over_max_streams", _over_max_streams, "streams_refused", 1_000),
    Attack("idle_connections", _idle_connections, "downstream_refused", 100),
    Attack("tls_handshake_flood", _tls_flood, "downstream_handshake_failures", 100),
)
