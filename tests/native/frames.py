"""HTTP/2 frame by frame: a client that reads, answers and speaks only when the test says so.

The `h2` library takes nothing after a GOAWAY, where the end of a connection only begins.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.native.support import DEADLINE_S

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
WINDOW = 1 << 24


@dataclass
class Client:
    """One connection; ``heard`` are the frames that it has read."""

    socket: socket.socket
    heard: list[Frame] = field(default_factory=list)
    encoder: Encoder = field(default_factory=Encoder)
    _unread: bytes = b""

    def say(self, *frames: Frame) -> None:
        self.socket.sendall(b"".join(frame.serialize() for frame in frames))

    def call(self, stream_id: int, method: str, request: bytes) -> None:
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "backend"),
            (":path", f"/test.Echo/{method}"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        message = b"\0" + len(request).to_bytes(4, "big") + request
        self.say(
            HeadersFrame(stream_id, self.encoder.encode(fields), flags=["END_HEADERS"]),
            DataFrame(stream_id, message, flags=["END_STREAM"]),
        )

    def widen(self, stream_id: int, by: int) -> None:
        self.say(WindowUpdateFrame(stream_id, window_increment=by))

    def frames(self, *, answer: bool = True) -> Iterator[Frame]:
        """What comes until the gateway ends; ``answer``: PINGs and SETTINGS as HTTP/2 asks for."""
        while True:
            while len(self._unread) < HEADER_BYTES:
                if not self._read():
                    return
            frame, length = Frame.parse_frame_header(memoryview(self._unread[:HEADER_BYTES]))
            while len(self._unread) < HEADER_BYTES + length:
                assert self._read(), "the gateway ended within a frame"
            frame.parse_body(memoryview(self._unread[HEADER_BYTES : HEADER_BYTES + length]))
            self._unread = self._unread[HEADER_BYTES + length :]
            self.heard.append(frame)
            if answer:
                self._answer(frame)
            yield frame

    def all_frames(self, *, answer: bool = True) -> list[Frame]:
        """Everything heard, now that the gateway has ended."""
        for _ in self.frames(answer=answer):
            pass
        return self.heard

    def until_goodbye(self) -> None:
        """Read on to a GOAWAY."""
        next(frame for frame in self.frames() if isinstance(frame, GoAwayFrame))

    def goodbyes(self) -> list[tuple[int, int, bytes]]:
        """Last stream, code and debug data of the GOAWAYs heard."""
        return [
            (it.last_stream_id, it.error_code, it.additional_data)
            for it in self.heard
            if isinstance(it, GoAwayFrame)
        ]

    def data(self, stream_id: int) -> bytes:
        """Bodies heard on a stream."""
        return b"".join(
            it.data for it in self.heard if isinstance(it, DataFrame) and it.stream_id == stream_id
        )

    def ended(self, stream_id: int) -> bool:
        """The stream's last frame was heard."""
        return any(it.stream_id == stream_id and "END_STREAM" in it.flags for it in self.heard)

    def _answer(self, frame: Frame) -> None:
        if isinstance(frame, (PingFrame, SettingsFrame)) and "ACK" not in frame.flags:
            same = {"opaque_data": frame.opaque_data} if isinstance(frame, PingFrame) else {}
            with contextlib.suppress(OSError):  # The gateway may be gone by now.
                self.say(type(frame)(0, flags=["ACK"], **same))

    def _read(self) -> bool:
        part = self.socket.recv(65536)
        self._unread += part
        return part != b""


@contextlib.contextmanager
def client(address: str, *, window: int = WINDOW) -> Iterator[Client]:
    """A connection whose streams begin with this window."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as opened:
        made = Client(opened)
        opened.sendall(PREFACE)
        wide = {SettingsFrame.INITIAL_WINDOW_SIZE: window}
        made.say(SettingsFrame(settings=wide), WindowUpdateFrame(0, window_increment=WINDOW))
        yield made
