"""What runs in the tests' Pods: an HTTP server that says what it sees, on the standard library.

`/` answers its environment, `/file?PATH` a file, `/fetch?URL` what it gets there, `/say?HOST:PORT`
what a server says to `hi` over TCP, `/dig?NAME+TYPE` what the Pod's name server answers;
`/touch?PATH` makes a file; `/fail` ends it.
`/drain` (the preStop hook) answers once `/finish` was asked for, `/hold` once `/drain` was.
"""

import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

PORT = 8080
draining, finishing = threading.Event(), threading.Event()
ANSWER_S = 30


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        try:
            self.answer(200, self.told(path, query))
        except OSError as error:
            self.answer(500, str(error))
        if path == "/finish":
            # After the answer: this ends the hook, and the server is told to end.
            finishing.set()

    def told(self, path: str, query: str) -> str:
        match path:
            case "/file":
                return Path(query).read_text()
            case "/fetch":
                trusting = ssl.create_default_context()
                trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
                with urllib.request.urlopen(query, timeout=3, context=trusting) as answer:
                    return str(answer.read().decode())
            case "/say":
                return said(*query.rsplit(":", 1))
            case "/dig":
                asked = ["dig", "+short", "+time=2", "+tries=2", *query.split("+")]
                return dug(asked)
            case "/drain":
                draining.set()
                finishing.wait(ANSWER_S)
            case "/hold":
                draining.wait(ANSWER_S)
            case "/touch":
                Path(query).touch()
            case "/fail":
                os._exit(3)
        return json.dumps({"host": socket.gethostname(), "env": dict(os.environ)})

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


def dug(asked: list[str]) -> str:
    return subprocess.run(asked, check=False, capture_output=True, text=True, timeout=10).stdout


def said(host: str, port: str) -> str:
    got = b""
    with socket.create_connection((host, int(port)), timeout=3) as client:
        client.settimeout(3)
        client.sendall(b"hi\n")
        client.shutdown(socket.SHUT_WR)
        while part := client.recv(4096):
            got += part
    return got.decode()


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("serving", flush=True)
http.server.ThreadingHTTPServer(("", PORT), Handler).serve_forever()
