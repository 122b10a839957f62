"""The proxy itself, and which request meets which fault."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from reliability.proxy.exchange import END, Exchange, Record, Request, reset
from reliability.proxy.faults import Fault, answered, passed
from testkit.deadlines import TIMEOUT_FACTOR
from testkit.servers.minio import Minio
from testkit.servers.process import free_port


class _Held:
    """A request that is kept back until somebody wants it done."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._doing: asyncio.Task[None] | None = None

    async def done(self) -> None:
        """Return when the store has done it, which it does once."""
        if self._doing is None:
            self._doing = asyncio.create_task(self._do())
        await asyncio.shield(self._doing)

    async def abandoned(self) -> None:
        """Return when nothing is done of it any more."""
        if self._doing is not None:
            self._doing.cancel()
            await asyncio.gather(self._doing, return_exceptions=True)

    async def _do(self) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._exchange.forward()


@dataclass
class Rule:
    """A fault, and who meets it.

    Attributes:
        operations: of these names; none means all.
        times: so many requests for each key, the first ones; None for every request.
        only: bucket and key, where it is for one object alone.
        most: so many requests in all.
        met: how many requests have met it.
    """

    fault: Fault
    operations: tuple[str, ...] = ()
    times: int | None = None
    only: tuple[str, str] | None = None
    most: int | None = None
    met: int = 0
    _of_key: Counter[tuple[str, str]] = field(default_factory=Counter)

    def takes(self, request: Request) -> bool:
        """Whether this request meets it, which is counted."""
        where = request.bucket, request.key
        if (self.operations and request.operation not in self.operations) or self.only not in (None, where):
            return False
        if (self.times is not None and self._of_key[where] >= self.times) or self.met == self.most:
            return False
        self._of_key[where] += 1
        self.met += 1
        return True


class FaultProxy:
    """The proxy, in a thread of its own, between the first and the last line of a with-block.

    Attributes:
        store: host and port of the real one.
        endpoint: where the proxy listens; the port stays, also while it refuses connections.
        records: what came of each exchange.
        defects: what the proxy itself did wrong, which no row may take for a fault of the gateway.
    """

    def __init__(self, minio: Minio) -> None:
        where = urlsplit(minio.endpoint)
        self.store = (where.hostname or "", where.port or 0)
        self.secret_key = minio.secret_key
        self.endpoint = f"http://127.0.0.1:{free_port()}"
        self.records: list[Record] = []
        self.defects: list[str] = []
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._held: list[_Held] = []
        self._clients: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10 * TIMEOUT_FACTOR)
        self._loop.close()

    # --- for rows ---------------------------------------------------------------------------------------------------

    def add(self, *rules: Rule) -> None:
        """Have these hold from now on; of several that take a request the first one does."""
        with self._lock:
            self._rules += rules

    def clear(self) -> None:
        """Let everything through from now on, but for what has begun."""
        with self._lock:
            self._rules.clear()

    def refuse(self) -> None:
        """Listen no more, and break every connection."""
        self._done(self._refuse())

    def accept(self) -> None:
        """Listen."""
        self._done(self._accept())

    def release(self) -> None:
        """Have the store do what is still held back."""
        self._done(self._release())

    def unheard(self, operation: str) -> int:
        """How many of these the store did without the client being told so."""
        return sum(record.is_unheard for record in self.records if record.operation == operation)

    def hold(self, exchange: Exchange, *, conflicts: int, after: bool) -> None:
        """Keep a request until another one for the key comes; for `late`."""
        held = _Held(exchange)

        async def overtaken(other: Exchange) -> None:
            if after:
                await passed(other)
                await held.done()
            else:
                await asyncio.gather(passed(other), held.done())

        self._held.append(held)
        only = exchange.request.bucket, exchange.request.key
        busy = Rule(answered(409, "ConditionalRequestConflict"), ("PutObject", "CompleteMultipartUpload"), conflicts, only)
        with self._lock:
            self._rules[:0] = [busy, Rule(overtaken, times=1, only=only)]

    # --- in its thread ----------------------------------------------------------------------------------------------

    def _done(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30 * TIMEOUT_FACTOR)

    async def _accept(self) -> None:
        if self._server is None:
            port = urlsplit(self.endpoint).port
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=1 << 20)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._clients):
            reset(writer)

    async def _release(self) -> None:
        # Those too that are being done.
        await asyncio.gather(*(held.done() for held in self._held))
        self._held.clear()

    async def _close(self) -> None:
        await self._refuse()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, *(held.abandoned() for held in self._held), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._clients.add(writer)
        try:
            while await self._exchange(reader, writer):
                continue
        except (OSError, asyncio.IncompleteReadError):
            # One of the two went away, and the other one learns of it.
            reset(writer)
        except Exception as error:  # noqa: BLE001 (told by the row)
            self.defects.append(repr(error))
        finally:
            self._serving.discard(task)
            self._clients.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        exchange = Exchange(self, Request.parse(await reader.readuntil(END)), reader, writer)
        self.records.append(exchange.record)
        with self._lock:
            rule = next((rule for rule in self._rules if rule.takes(exchange.request)), None)
        await (passed if rule is None else rule.fault)(exchange)
        return not exchange.is_last
