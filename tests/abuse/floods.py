"""Frames in masses: each costs the sender nothing and asks the gateway for work.

Budgets of a connection end it with ENHANCE_YOUR_CALM.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from hyperframe.frame import PingFrame, SettingsFrame

from tests.abuse.attack import Attack, Fate, Stage, Target, all_ended
from tests.abuse.backend import ECHO, HOLD
from tests.abuse.wire import (
    END_HEADERS,
    Attacker,
    frame,
    request_headers,
    window_update,
)

CONNECTIONS = 4
BATCH = 500
BATCHES = 60

Parts = Callable[[Attacker], Iterator[bytes]]


def flood(parts: Parts) -> Callable[[Target, Stage], Fate]:
    """The attack that sends these parts on a few connections, one after the other."""

    def run(target: Target, _stage: Stage) -> Fate:
        ended = 0
        for _ in range(CONNECTIONS):
            with Attacker(target.port) as attacker:
                attacker.flood(parts(attacker))
                ended += attacker.wait_for_end()
        return all_ended(ended, CONNECTIONS)

    return run


def repeated(content: bytes) -> Parts:
    """One frame again and again."""
    return lambda _attacker: (content * BATCH for _ in range(BATCHES))


def _in_hold(content: bytes) -> Parts:
    def parts(attacker: Attacker) -> Iterator[bytes]:
        yield attacker.request(1, HOLD, end=False)
        yield from (content * BATCH for _ in range(BATCHES))

    return parts


def _rapid_reset(attacker: Attacker) -> Iterator[bytes]:
    stream_id = 1
    for _ in range(BATCHES):
        batch = bytearray()
        for _ in range(BATCH):
            batch += attacker.request(stream_id, ECHO, body=b"x")
            batch += frame("rst", stream_id, struct.pack(">I", 8))
            stream_id += 2
        yield bytes(batch)


def _made_you_reset(trigger: Callable[[int], bytes], *, ends: bool) -> Parts:
    """Streams that the gateway itself is brought to reset: CVE-2025-8671."""

    def parts(attacker: Attacker) -> Iterator[bytes]:
        stream_id = 1
        for _ in range(BATCHES):
            batch = bytearray()
            for _ in range(BATCH):
                batch += attacker.request(stream_id, HOLD, end=ends) + trigger(stream_id)
                stream_id += 2
            yield bytes(batch)

    return parts


def _continuations(fragment: bytes, count: int) -> Parts:
    def parts(attacker: Attacker) -> Iterator[bytes]:
        block = attacker.encoder.encode([(b":method", b"POST")])
        yield frame("headers", 1, block)
        one = frame("continuation", 1, fragment)
        for _ in range(count):
            yield one * max(1, (64 << 10) // len(one))

    return parts


def _hpack_bomb(_attacker: Attacker) -> Iterator[bytes]:
    """A table entry of 4 KiB named by one byte each time: 16 KiB ask for 64 MiB."""
    value = b"v" * 4_000
    literal = b"\x40\x01a\x7f" + _integer(len(value) - 127) + value
    bomb = b"\xbe" * 16_000
    yield frame("headers", 1, literal + b"\xbe" * 12_000, flags=END_HEADERS)
    for number in range(1, 2_000):
        yield frame("headers", 1 + 2 * number, bomb, flags=END_HEADERS)


def _huge_header(attacker: Attacker) -> Iterator[bytes]:
    """Lists over the limit: first those that cost a stream, then one that costs the connection."""
    fragment = b"v" * 16_000
    for number in range(8):
        yield from _list_of(attacker, 1 + 2 * number, [fragment] * 5)
    yield from _list_of(attacker, 101, [fragment] * 30)


def _list_of(attacker: Attacker, stream_id: int, values: list[bytes]) -> Iterator[bytes]:
    block = attacker.encoder.encode(request_headers(ECHO), huffman=False)
    yield frame("headers", stream_id, block)
    last = len(values) - 1
    for number, value in enumerate(values):
        literal = b"\x00\x01b\x7f" + _integer(len(value) - 127) + value
        flags = END_HEADERS if number == last else 0
        yield frame("continuation", stream_id, literal, flags=flags)


def _integer(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


OVERFLOW = 2**31 - 1
TRIGGERS: dict[str, tuple[Callable[[int], bytes], bool]] = {
    "window update of 0": (lambda stream_id: window_update(stream_id, 0), False),
    "window overflow": (lambda stream_id: window_update(stream_id, OVERFLOW) * 2, False),
    "data after the end": (lambda stream_id: frame("data", stream_id, b"x"), True),
    "priority of a wrong size": (lambda stream_id: frame("priority", stream_id, b"xxxx"), False),
}

ATTACKS = (
    Attack("rapid_reset", flood(_rapid_reset), "abuse_resets", CONNECTIONS),
    *(
        Attack(
            f"made_you_reset: {name}",
            flood(_made_you_reset(trigger, ends=ends)),
            # PRIORITY frames have a budget of their own, used up at the same time.
            "abuse_ignored" if name.startswith("priority") else "abuse_resets",
            CONNECTIONS,
        )
        for name, (trigger, ends) in TRIGGERS.items()
    ),
    Attack(
        "continuation_big",
        flood(_continuations(bytes(16_000), 400)),
        "abuse_continuations",
        CONNECTIONS,
    ),
    Attack(
        "continuation_empty", flood(_continuations(b"", 20)), "abuse_continuations", CONNECTIONS
    ),
    Attack(
        "ping_flood",
        flood(repeated(PingFrame(opaque_data=b"12345678").serialize())),
        "abuse_pings",
        CONNECTIONS,
    ),
    Attack(
        "settings_flood",
        flood(repeated(SettingsFrame().serialize())),
        "abuse_settings",
        CONNECTIONS,
    ),
    Attack("empty_data_flood", flood(_in_hold(frame("data", 1))), "abuse_empty_data", CONNECTIONS),
    Attack(
        "window_update_flood",
        flood(repeated(window_update(0, 1))),
        "abuse_window_updates",
        CONNECTIONS,
    ),
    Attack(
        "priority_flood",
        flood(repeated(frame("priority", 1, struct.pack(">IB", 3, 16)))),
        "abuse_ignored",
        CONNECTIONS,
    ),
    Attack("hpack_bomb", flood(_hpack_bomb), "header_lists_too_large", CONNECTIONS),
    Attack("huge_header", flood(_huge_header), "header_lists_too_large", 8 * CONNECTIONS),
)
