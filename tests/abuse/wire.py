"""One hostile connection: raw frames out, and what the gateway said to them.

Decides nothing about attacks. Every send and read has a deadline; a connection that the gateway has
ended takes no further bytes.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from hpack import Decoder, Encoder, HPACKError
from hyperframe.frame import (
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

HOST = "127.0.0.1"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STEP_TIMEOUT_S = 10.0
WINDOW_MAX = 2**31 - 1
HEADER_BYTES = 9

Header = tuple[bytes, bytes]
FRAME_TYPES = {"data": 0, "headers": 1, "priority": 2, "rst": 3, "settings": 4, "ping": 6}
FRAME_TYPES |= {"window_update": 8, "continuation": 9}
END_STREAM = 0x1
END_HEADERS = 0x4


def frame(kind: str, stream_id: int, payload: bytes = b"", *, flags: int = 0) -> bytes:
    """A frame's bytes, also where no library would write them."""
    head = struct.pack(">I", len(payload))[1:] + bytes((FRAME_TYPES[kind], flags))
    return head + struct.pack(">I", stream_id) + payload


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE, also of 0."""
    return frame("window_update", stream_id, struct.pack(">I", increment))


def message(content: bytes) -> bytes:
    """A gRPC message with its prefix."""
    return b"\0" + struct.pack(">I", len(content)) + content


def request_headers(path: str, *, more: Iterable[Header] = ()) -> list[Header]:
    """The fields of a gRPC request."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"backend"),
        (b":path", path.encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    ]


class Attacker:
    """A connection; a context manager."""

    def __init__(
        self,
        port: int,
        *,
        settings: Mapping[int, int] | None = None,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        speaks: bool = True,
    ) -> None:
        self.ended = False
        self.goaway: int | None = None
        self.resets: dict[int, int] = {}
        self.answers: dict[int, dict[str, str]] = {}
        self.encoder = Encoder()
        self._decoder = Decoder()
        self._read = b""
        self._socket: socket.socket = _connected(port, receive_buffer)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        if speaks:
            self.send(PREFACE + SettingsFrame(settings=dict(settings or {})).serialize())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave without a word."""
        self._socket.close()

    def send(self, content: bytes) -> bool:
        """Whether the connection lives on. Bytes that are not taken in time end nothing."""
        if self.ended:
            return False
        self._socket.settimeout(STEP_TIMEOUT_S)
        try:
            self._socket.sendall(content)
        except TimeoutError:
            return False
        except OSError:
            self.ended = True
        return not self.ended

    def flood(self, parts: Iterable[bytes], *, at_most_s: float = STEP_TIMEOUT_S) -> None:
        """Send part after part until all are out, time is over or the gateway has had enough."""
        deadline = time.monotonic() + at_most_s
        for part in parts:
            if time.monotonic() > deadline or not self.send(part):
                break
            self.read(0.0)

    def request(
        self, stream_id: int, path: str, *, body: bytes | None = None, end: bool = True
    ) -> bytes:
        """The frames of a request; without a body its headers alone."""
        block = self.encoder.encode(request_headers(path), huffman=False)
        ends_here = END_STREAM if body is None and end else 0
        out = frame("headers", stream_id, block, flags=END_HEADERS | ends_here)
        if body is not None:
            out += frame("data", stream_id, message(body), flags=END_STREAM if end else 0)
        return out

    def read(self, wait_s: float) -> None:
        """Take in what has come, waiting for it at most so long."""
        if self.ended:
            return
        self._socket.settimeout(wait_s)
        try:
            content = self._socket.recv(1 << 18)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            content = b""
        self.ended = not content
        self._read += content
        self._take_frames()

    def wait_for_end(self, within_s: float = STEP_TIMEOUT_S) -> bool:
        """Whether the gateway ends the connection in time."""
        deadline = time.monotonic() + within_s
        while not self.ended and (left_s := deadline - time.monotonic()) > 0:
            self.read(left_s)
        return self.ended

    def wait_for_answer(self, stream_id: int, within_s: float = STEP_TIMEOUT_S) -> None:
        """Read until the stream has an answer or a reset, or the connection has ended."""
        deadline = time.monotonic() + within_s
        while not self.ended and (left_s := deadline - time.monotonic()) > 0:
            if stream_id in self.answers or stream_id in self.resets:
                return
            self.read(left_s)

    def _take_frames(self) -> None:
        while len(self._read) >= HEADER_BYTES:
            head, length = Frame.parse_frame_header(memoryview(self._read[:HEADER_BYTES]))
            if len(self._read) < HEADER_BYTES + length:
                return
            head.parse_body(memoryview(self._read[HEADER_BYTES : HEADER_BYTES + length]))
            self._read = self._read[HEADER_BYTES + length :]
            self._note(head)

    def _note(self, received: Frame) -> None:
        match received:
            case GoAwayFrame():
                self.goaway = received.error_code
            case RstStreamFrame():
                self.resets[received.stream_id] = received.error_code
            case HeadersFrame():
                with contextlib.suppress(HPACKError):
                    fields = self._decoder.decode(received.data)
                    known = self.answers.setdefault(received.stream_id, {})
                    known.update((str(name), str(value)) for name, value in fields)
            case _:
                pass


def wide_open() -> bytes:
    """As much connection window as there is."""
    update: bytes = WindowUpdateFrame(0, window_increment=WINDOW_MAX - 65_535).serialize()
    return update


def _connected(port: int, receive_buffer: int | None) -> socket.socket:
    made = socket.socket()
    if receive_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.settimeout(STEP_TIMEOUT_S)
    made.connect((HOST, port))
    return made
