"""An HTTP/2 server that does to each request what a test says: refuse it, reset it, stay silent.

Real gRPC servers cannot be made to; this one speaks through hyper-h2 and knows no gRPC.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

_GRPC = ("content-type", "application/grpc")


@dataclass
class Exchange:
    """One request and the means to answer it."""

    connection: h2.connection.H2Connection
    stream_id: int
    headers: dict[str, str]

    def reset(self, code: h2.errors.ErrorCodes) -> None:
        """End the stream by RST_STREAM."""
        self.connection.reset_stream(self.stream_id, code)

    def respond(self, status: int, *more: tuple[str, str]) -> None:
        """Answer by a header block alone."""
        headers = [(":status", str(status)), *more]
        self.connection.send_headers(self.stream_id, headers, end_stream=True)

    def status(self, code: int, *more: tuple[str, str]) -> None:
        """Answer as gRPC does without a message."""
        self.respond(200, _GRPC, ("grpc-status", str(code)), *more)

    def message(self, content: bytes = b"") -> None:
        """Answer by one message and OK."""
        send = self.connection
        send.send_headers(self.stream_id, [(":status", "200"), _GRPC])
        send.send_data(self.stream_id, b"\0" + len(content).to_bytes(4) + content)
        send.send_headers(self.stream_id, [("grpc-status", "0")], end_stream=True)


@dataclass
class Http2Server:
    """Listens from its start; ``seen`` are the requests so far, ``received`` their bytes.

    Without ``reads`` no window is ever given back.
    """

    answer: Callable[[Exchange], None]
    reads: bool = True
    seen: list[dict[str, str]] = field(default_factory=list)
    received: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def stop(self) -> None:
        """Close everything and wait for its threads."""
        for opened in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                self._sockets.append(accepted)
                thread = threading.Thread(target=self._serve, args=(accepted,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, opened: socket.socket) -> None:
        settings = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        connection = h2.connection.H2Connection(settings)
        connection.initiate_connection()
        with contextlib.suppress(OSError):
            opened.sendall(connection.data_to_send())
            while content := opened.recv(65_536):
                for event in connection.receive_data(content):
                    self._take(connection, event)
                opened.sendall(connection.data_to_send())

    def _take(self, connection: h2.connection.H2Connection, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            headers = {str(name): str(value) for name, value in event.headers or ()}
            self.seen.append(headers)
            self.answer(Exchange(connection, event.stream_id or 0, headers))
        elif isinstance(event, h2.events.DataReceived):
            self.received += len(event.data or b"")
            if self.reads and event.flow_controlled_length:
                connection.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id or 0
                )


@contextlib.contextmanager
def http2_server(
    answer: Callable[[Exchange], None], *, reads: bool = True
) -> Iterator[Http2Server]:
    """A running server."""
    server = Http2Server(answer, reads)
    try:
        yield server
    finally:
        server.stop()


def silence(_exchange: Exchange) -> None:
    """Never answers."""
