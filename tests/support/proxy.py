"""A TCP proxy that can stop delivering: a network that lost its way, or a server that hangs."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_CHUNK = 65536
_POLL = 0.02
_REMEMBERED = 4096
"""Bytes of what a client sent last, by which a connection is told from others."""


@dataclass
class Proxy:
    """Forwards to a port of the loopback interface.

    With the server's own certificate and key it ends TLS, and sees what is asked.
    """

    target: int
    certificate: Path | None = None
    key: Path | None = None
    port: int = 0
    _held: bytes | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    def hold(self, asked: bytes = b"") -> None:
        """Deliver nothing more, in either direction, on connections over which this was asked."""
        self._held = asked

    def release(self) -> None:
        """Deliver again, also what was held."""
        self._held = None

    async def serve(self, ready: threading.Event, done: asyncio.Event) -> None:
        """Forward until ``done``."""
        context = None
        if self.certificate and self.key:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self.certificate, self.key)
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await done.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        context = ssl.create_default_context(cafile=str(self.certificate)) if self.certificate else None
        upstream = None
        with contextlib.suppress(OSError, asyncio.CancelledError):
            from_server, upstream = await asyncio.open_connection("127.0.0.1", self.target, ssl=context)
            asked = bytearray()
            pumps = [
                asyncio.ensure_future(self._pump(reader, upstream, asked, asking=True)),
                asyncio.ensure_future(self._pump(from_server, writer, asked, asking=False)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        for end in (writer, upstream):
            if end is not None:
                end.transport.abort()
        self._tasks.discard(task)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, asked: bytearray, *, asking: bool
    ) -> None:
        while data := await source.read(_CHUNK):
            if asking:
                asked += data
                del asked[:-_REMEMBERED]
            while self._held is not None and self._held in asked:
                await asyncio.sleep(_POLL)
            sink.write(data)
            await sink.drain()


@contextlib.contextmanager
def proxy(target: int, certificate: Path | None = None, key: Path | None = None) -> Iterator[Proxy]:
    """Forward to a port for the block."""
    running, ready = Proxy(target, certificate, key), threading.Event()
    loop, done = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(running.serve(ready, done),))
    thread.start()
    try:
        assert ready.wait(10)
        yield running
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()
