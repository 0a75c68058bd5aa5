"""A client that sends one scripted request on a connection of its own and records the answer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from tests.conformance.differential.scripts import CASE_HEADER, Script, Side, content
from tests.testkit.processes import HOST

PATIENCE_S = 3.0
UNDER_WAY_S = 0.05
"""After this a request has reached its upstream, and a reset has to follow it there."""

READ_BYTES = 65_536
STREAM = 1


async def call(port: int, name: str, script: Script) -> Side:
    """The answer to the script's request, sent under this case's name."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        return await _Call(reader, writer, name, script).run()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class _Call:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        name: str,
        script: Script,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._name, self._script = name, script
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        codes = h2.settings.SettingCodes
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={codes.ENABLE_PUSH: 0, codes.INITIAL_WINDOW_SIZE: script.window},
        )
        self._room = asyncio.Event()
        self._answered = asyncio.Event()
        self._side = Side()

    async def run(self) -> Side:
        self._h2.initiate_connection()
        self._flush()
        reading = asyncio.create_task(self._read())
        sending = asyncio.create_task(self._send())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await reading
        except TimeoutError:
            self._side.end = f"no end within {PATIENCE_S} s"
        finally:
            for task in (reading, sending):
                task.cancel()
            done = await asyncio.gather(reading, sending, return_exceptions=True)
            for outcome in done:
                if isinstance(outcome, Exception) and not isinstance(
                    outcome, h2.exceptions.ProtocolError | OSError
                ):
                    raise outcome
        return self._side

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._writer.write(data)

    async def _send(self) -> None:
        script = self._script
        head = [(":method", "POST"), (":scheme", "http"), (":path", script.path)]
        head += [(":authority", script.authority), ("te", "trailers"), (CASE_HEADER, self._name)]
        if script.content_type is not None:
            head.append(("content-type", script.content_type))
        head += script.headers
        bare = script.ends and not script.chunks and not script.trailers
        self._h2.send_headers(STREAM, head, end_stream=bare)
        self._flush()
        for index, size in enumerate(script.chunks):
            last = index == len(script.chunks) - 1 and script.ends and not script.trailers
            await self._send_data(content(size) if size else b"", end=last)
        if script.trailers:
            self._h2.send_headers(STREAM, script.trailers, end_stream=True)
            self._flush()
        if (reset := script.reset) is not None:
            if reset.after_answer_headers:
                await self._answered.wait()
            else:
                await asyncio.sleep(UNDER_WAY_S)
            self._h2.reset_stream(STREAM, reset.code)
            self._flush()
            self._side.end = "reset by the client"
            # A proxy that reads this PING's answer has read the reset before.
            self._h2.ping(b"overover")
            self._flush()

    async def _send_data(self, data: bytes, *, end: bool) -> None:
        while True:
            room = min(self._h2.local_flow_control_window(STREAM), self._h2.max_outbound_frame_size)
            part, data = data[:room], data[room:]
            if part or not data:
                self._h2.send_data(STREAM, part, end_stream=end and not data)
                self._flush()
            if not data:
                return
            if not part:
                self._room.clear()
                await self._room.wait()

    async def _read(self) -> None:
        await asyncio.sleep(self._script.reads_after_s)
        while data := await self._reader.read(READ_BYTES):
            try:
                events = self._h2.receive_data(data)
            except h2.exceptions.ProtocolError as error:
                self._side.end = f"the proxy broke the protocol: {error}"
                return
            over = [self._on(event) for event in events]
            if any(over):
                return
            self._flush()
        self._side.end = "connection closed"

    def _on(self, event: h2.events.Event) -> bool:
        """Whether the call is over."""
        side = self._side
        match event:
            case h2.events.ResponseReceived(headers=headers):
                side.headers = [(str(n), str(v)) for n, v in headers or ()]
                self._answered.set()
            case h2.events.DataReceived(data=data, flow_controlled_length=length):
                side.body.add(data or b"")
                if length:
                    self._h2.acknowledge_received_data(length, STREAM)
            case h2.events.TrailersReceived(headers=headers):
                side.trailers = [(str(n), str(v)) for n, v in headers or ()]
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._room.set()
            case h2.events.StreamEnded():
                side.end = "ended"
                return True
            # After the answer's end a reset only says that the rest of the request is not wanted.
            case h2.events.StreamReset(error_code=code) if side.end == "open":
                side.end = f"reset {h2.errors.ErrorCodes(cast('int', code)).name}"
                return True
            case h2.events.PingAckReceived():
                return True
            case h2.events.ConnectionTerminated(error_code=code):
                side.end = f"GOAWAY {h2.errors.ErrorCodes(cast('int', code)).name}"
                return True
        return False
