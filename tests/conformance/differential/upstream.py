"""A server that follows a script, try by try and frame by frame, and records what reached it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from tests.conformance.differential.scripts import (
    CASE_HEADER,
    After,
    Answer,
    At,
    Deed,
    Hangup,
    Header,
    Leave,
    Reset,
    Script,
    Side,
    Silence,
    content,
)
from tests.testkit.processes import HOST

READ_BYTES = 65_536
SETTLE_S = 0.4
FAULT_SIZE = 16
"""Size of the message that goes out before a fault."""


@dataclass(slots=True)
class Case:
    """A script in progress: the tries that reached an upstream, in their order."""

    script: Script
    tries: list[Side] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def settled(self) -> None:
        """Until every try has ended on this side, or it becomes clear that one does not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while any(side.end == "open" for side in self.tries):
                    self.changed.clear()
                    await self.changed.wait()


class Upstreams:
    """Servers of which every one follows the same scripts."""

    def __init__(self) -> None:
        self._cases: dict[str, Case] = {}
        self._connections: set[asyncio.Task[None]] = set()

    def expect(self, name: str, script: Script) -> Case:
        """Follow ``script`` for requests that carry this name."""
        case = self._cases[name] = Case(script)
        return case

    @asynccontextmanager
    async def listening(self, servers: int) -> AsyncIterator[list[int]]:
        """The ports of this many servers."""
        started = [await asyncio.start_server(self._serve, HOST, 0) for _ in range(servers)]
        try:
            yield [server.sockets[0].getsockname()[1] for server in started]
        finally:
            for server in started:
                server.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        connection = Connection(self, reader, writer)
        try:
            await connection.run()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            connection.closed()
            self._connections.discard(task)

    def case_of(self, headers: list[Header]) -> Case | None:
        return self._cases.get(dict(headers).get(CASE_HEADER, ""))


@dataclass(slots=True)
class Stream:
    """One try on a connection."""

    case: Case
    side: Side
    deed: Deed
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    unread: int = 0
    task: asyncio.Task[None] | None = None

    def over(self, how: str) -> None:
        if self.side.end == "open":
            self.side.end = how
            self.case.changed.set()


class Connection:
    """One connection from a proxy."""

    def __init__(
        self, owner: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._owner, self._reader, self._writer = owner, reader, writer
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self._streams: dict[int, Stream] = {}
        self._room = asyncio.Event()
        self._leaving = False

    async def run(self) -> None:
        self._h2.initiate_connection()
        # One stream that is left unread must not stall the others of its connection.
        self._h2.increment_flow_control_window(1 << 24)
        self._flush()
        while data := await self._reader.read(READ_BYTES):
            try:
                events = self._h2.receive_data(data)
            except h2.exceptions.ProtocolError as error:
                for stream in self._streams.values():
                    stream.over(f"broke the protocol: {error}")
                self._flush()
                return
            for event in events:
                self._on(event)
            self._flush()

    def closed(self) -> None:
        self._writer.close()
        for stream in self._streams.values():
            stream.over("connection closed")
            if stream.task is not None:
                stream.task.cancel()

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._writer.write(data)

    def _on(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(stream_id), headers=headers):
                self._begin(stream_id, [(str(name), str(value)) for name, value in headers or ()])
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._room.set()
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        match event:
            case h2.events.DataReceived(data=data, flow_controlled_length=length):
                stream.side.body.add(data or b"")
                stream.unread += length or 0
                if not isinstance(stream.deed, Answer) or not stream.deed.reads_after_s:
                    self._read(stream, event.stream_id or 0)
            case h2.events.TrailersReceived(headers=headers):
                stream.side.trailers = [(str(n), str(v)) for n, v in headers or ()]
            case h2.events.StreamEnded():
                stream.over("ended")
                stream.ended.set()
            case h2.events.StreamReset(error_code=code):
                stream.over(f"reset {h2.errors.ErrorCodes(code or 0).name}")
                if stream.task is not None:
                    stream.task.cancel()

    def _begin(self, stream_id: int, headers: list[Header]) -> None:
        case = self._owner.case_of(headers)
        if case is None or self._leaving:
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        deeds = case.script.deeds
        deed = deeds[min(len(case.tries), len(deeds) - 1)]
        stream = Stream(case, Side(headers=headers), deed)
        case.tries.append(stream.side)
        self._streams[stream_id] = stream
        stream.task = asyncio.create_task(self._act(stream_id, stream))

    def _read(self, stream: Stream, stream_id: int) -> None:
        if stream.unread:
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self._h2.acknowledge_received_data(stream.unread, stream_id)
            stream.unread = 0

    async def _act(self, stream_id: int, stream: Stream) -> None:
        try:
            await self._do(stream_id, stream)
        except h2.exceptions.ProtocolError:
            pass  # the proxy has ended the stream meanwhile, which its events tell
        finally:
            if not self._writer.is_closing():
                self._flush()

    async def _do(self, stream_id: int, stream: Stream) -> None:
        match stream.deed:
            case Answer() as answer:
                await self._answer(stream_id, stream, answer)
            case Reset(code=code, after=after, at=at):
                await self._wait(stream, at)
                await self._begun(stream_id, after)
                self._h2.reset_stream(stream_id, code)
                stream.over("reset by the upstream")
            case Hangup(after=after, at=at):
                await self._wait(stream, at)
                await self._begun(stream_id, after)
                self._flush()
                stream.over("hung up by the upstream")
                self._writer.close()
            case Leave(refuse=refuse):
                self._leaving = True
                if refuse:
                    stream.over("refused by the upstream")
                    self._h2.close_connection(last_stream_id=stream_id - 2 if stream_id > 1 else 0)
                else:
                    self._h2.send_headers(
                        stream_id, [(":status", "200"), ("content-type", "application/grpc")]
                    )
                    await stream.ended.wait()
                    self._h2.send_data(stream_id, content(FAULT_SIZE))
                    self._h2.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)
                    self._h2.close_connection(last_stream_id=stream_id)
                self._flush()
                await self._writer.drain()
                self._writer.close()
            case Silence(after=after):
                await self._begun(stream_id, after)

    async def _wait(self, stream: Stream, at: At) -> None:
        if at is At.END:
            await stream.ended.wait()

    async def _begun(self, stream_id: int, after: After) -> None:
        if after is After.NOTHING:
            return
        head = [(":status", "200"), ("content-type", "application/grpc")]
        self._h2.send_headers(stream_id, head)
        if after is After.MESSAGE:
            self._h2.send_data(stream_id, content(FAULT_SIZE))
        self._flush()
        # So that it is on its way before the fault: proxies may drop what both came in one read.
        await asyncio.sleep(0.002 if after is After.HEADERS else 0.02)

    async def _answer(self, stream_id: int, stream: Stream, answer: Answer) -> None:
        if answer.reads_after_s:
            await asyncio.sleep(answer.reads_after_s)
            while not stream.ended.is_set():
                self._read(stream, stream_id)
                self._flush()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stream.ended.wait(), 0.005)
        await self._wait(stream, answer.at)
        await asyncio.sleep(answer.delay_s)
        head = [(":status", str(answer.status)), ("content-type", answer.content_type)]
        head += answer.headers
        if answer.trailers_only:
            self._h2.send_headers(stream_id, [*head, *answer.trailers], end_stream=True)
            return
        bare = not answer.messages and not answer.trailers
        self._h2.send_headers(stream_id, head, end_stream=bare)
        for size in answer.messages:
            last = size == answer.messages[-1] and not answer.trailers
            await self._send(stream_id, content(size), end=last and len(answer.messages) == 1)
        if answer.trailers:
            self._h2.send_headers(stream_id, answer.trailers, end_stream=True)
        elif len(answer.messages) > 1:
            self._h2.end_stream(stream_id)

    async def _send(self, stream_id: int, data: bytes, *, end: bool) -> None:
        while True:
            room = self._h2.local_flow_control_window(stream_id)
            part = data[: min(room, self._h2.max_outbound_frame_size)]
            data = data[len(part) :]
            if part or not data:
                self._h2.send_data(stream_id, part, end_stream=end and not data)
                self._flush()
            if not data:
                return
            if not part:
                self._room.clear()
                await self._room.wait()
