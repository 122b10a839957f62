"""One call to S3: the client it goes through, its patience, and its errors as store errors."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import NoCredentialsError

from gateway.aws.errors import STALE_CREDENTIALS, explain
from gateway.aws.stall import Patience, unless_silent


@dataclass(slots=True)
class _Connected:
    """A client, and how many calls use it now."""

    client: Any
    exits: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    users: int = 0
    is_retired: bool = False


class Calls:
    """Calls S3.

    A client never looks for other credentials than those it has found once. Where these were refused it is replaced, so that
    keys that were renewed in a file or in the environment of a role are found without a restart.

    Args:
        connect: makes a client's context manager.
        patience_s: how long the store may neither take anything of a body nor answer; longer on a link that is seen to be slow.
    """

    def __init__(self, connect: Callable[[], Any], patience_s: float) -> None:
        self._connect = connect
        self._patience = Patience(patience_s)
        self._connecting = asyncio.Lock()
        self._connected: _Connected | None = None

    async def call(self, operation: str, doing: str, arguments: dict[str, Any], body: io.IOBase | None = None) -> dict[str, Any]:
        """Give the answer to one call.

        Args:
            operation: a method of the client.
            doing: what it is for, as the beginning of an error's text.
            arguments: of the method, but for the body.
            body: what it sends.

        Raises:
            StoreError: what the answer means where it is an error, or that there was none.
        """
        async with self._client(doing) as connected:
            method = getattr(connected.client, operation)
            calling = method(**arguments) if body is None else method(**arguments, Body=body)
            try:
                answer: dict[str, Any]
                if body is None:
                    answer = await calling
                else:
                    answer = await self._send(calling, body, int(arguments["ContentLength"]))
            except Exception as error:
                explained = explain(error, doing)
                if isinstance(error, NoCredentialsError) or explained.code in STALE_CREDENTIALS:
                    self._retire(connected)
                raise explained from error
        return answer

    async def _send(self, calling: Coroutine[Any, Any, dict[str, Any]], body: io.IOBase, size: int) -> dict[str, Any]:
        begun, patience = time.monotonic(), self._patience
        factor = patience.factor

        def patience_s(position: int) -> float:
            return patience.for_body(size) if position >= size else patience.least_s

        try:
            answer = await unless_silent(calling, body.tell, patience_s)
        except TimeoutError:
            if body.tell() >= size:
                patience.ran_out(size, factor)
            raise
        self._patience.was_enough(size, time.monotonic() - begun)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        connected, self._connected = self._connected, None
        if connected is not None:
            await connected.exits.aclose()

    @contextlib.asynccontextmanager
    async def _client(self, doing: str) -> AsyncIterator[_Connected]:
        connected = await self._connection(doing)
        connected.users += 1
        try:
            yield connected
        finally:
            connected.users -= 1
            if connected.is_retired and not connected.users:
                await connected.exits.aclose()

    async def _connection(self, doing: str) -> _Connected:
        """The client, made at the first call; making it takes some 70 ms and no network. StoreError if it cannot be made."""
        async with self._connecting:
            if self._connected is None:
                made = _Connected(None)
                try:
                    made.client = await made.exits.enter_async_context(self._connect())
                except Exception as error:
                    raise explain(error, f"{doing}: preparing to talk to S3") from error
                self._connected = made
            return self._connected

    def _retire(self, connected: _Connected) -> None:
        connected.is_retired = True
        if self._connected is connected:
            self._connected = None


def missing(field_name: str, doing: str, answer: dict[str, Any]) -> str:
    """The sentence for a success that lacks what a success has."""
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 200)
    return f"{doing}: answered {status} without {field_name}: whatever answers there does not do what S3 does"
