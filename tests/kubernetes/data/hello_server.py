"""A server over TCP that says where it is and ends, as the MCS API's suite has it: it speaks first.

`PORT ADDRESS`: the port to listen at, and what to say.
"""

import signal
import socket
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with socket.create_server(("", int(sys.argv[1])), backlog=64) as listening:
    print("serving", flush=True)
    while True:
        client, _ = listening.accept()
        with client:
            client.sendall(f"pod ip {sys.argv[2]}\n".encode())
            client.shutdown(socket.SHUT_WR)
