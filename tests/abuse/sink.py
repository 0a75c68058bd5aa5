"""An endpoint that takes every stream and answers none: it makes a gateway hold them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from hyperframe.frame import SettingsFrame

from tests.testkit.processes import HOST

GREETING = SettingsFrame().serialize() + SettingsFrame(flags=["ACK"]).serialize()
READ_BYTES = 1 << 18


@contextlib.contextmanager
def running_sink() -> Iterator[int]:
    """Its port."""
    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        # Wakes the one that accepts.
        server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            threading.Thread(target=_take, args=(client,), daemon=True).start()


def _take(client: socket.socket) -> None:
    with client, contextlib.suppress(OSError):
        client.sendall(GREETING)
        while client.recv(READ_BYTES):
            pass
