"""HTTP/1.1 byte by byte: what a client says to a gateway, and what it hears."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

TIMEOUT_S = 10.0


@dataclass
class Answer:
    """One response, its body put together."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        return next((value for it, value in self.fields if it == name), None)


@dataclass
class Raw:
    """A connection whose bytes the test chooses."""

    socket: socket.socket
    unread: bytes = field(default=b"")

    def say(self, *words: bytes) -> None:
        self.socket.sendall(b"".join(words))

    def answer(self, *, head_only: bool = False) -> Answer:
        """The next response."""
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        fields = [
            (name, value.strip()) for name, _, value in (it.partition(":") for it in lines[1:])
        ]
        answer = Answer(int(lines[0].split(" ")[1]), fields, b"")
        if head_only or answer.status in {101, 204, 304} or answer.status < 200:
            return answer
        if answer.get("transfer-encoding") == "chunked":
            answer.body = self._chunks()
        elif (length := answer.get("content-length")) is not None:
            answer.body = self.exactly(int(length))
        else:
            answer.body = self.rest()
        return answer

    def exactly(self, count: int) -> bytes:
        while len(self.unread) < count:
            self._read()
        taken, self.unread = self.unread[:count], self.unread[count:]
        return taken

    def rest(self) -> bytes:
        """Everything until the gateway closes."""
        with contextlib.suppress(ConnectionResetError, EOFError):
            while True:
                self._read()
        taken, self.unread = self.unread, b""
        return taken

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.until(b"\r\n"), 16):
            body += self.exactly(size)
            assert self.exactly(2) == b"\r\n"
        while self.until(b"\r\n"):
            pass
        return body

    def until(self, end: bytes) -> bytes:
        while end not in self.unread:
            self._read()
        taken, _, self.unread = self.unread.partition(end)
        return taken

    def _read(self) -> None:
        part = self.socket.recv(65536)
        if not part:
            raise EOFError(f"the gateway closed; unread: {self.unread!r}")
        self.unread += part


@contextlib.contextmanager
def raw(address: str) -> Iterator[Raw]:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connected:
        yield Raw(connected)


def get(path: str = "/", *fields: str, host: str = "example.com") -> bytes:
    """A request without a body."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
