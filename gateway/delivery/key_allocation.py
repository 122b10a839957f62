"""Puts an item under the first key that is free."""

from __future__ import annotations

import asyncio
import contextlib

from gateway.core.errors import ObjectRefused, Refused
from gateway.core.streams import Stream
from gateway.delivery.items import Item
from gateway.spool.names import BY_ID, KeyNumber
from gateway.stores import Outcome, Store

# After so many looks for a free number a put decides, whatever the store says.
MAX_LOOKS = 1000


class KeyAllocation:
    """Puts the items of one stream.

    Args:
        store: where they go.
        stream: whose they are.
    """

    def __init__(self, store: Store, stream: Stream) -> None:
        self._store = store
        self._stream = stream

    async def put(self, item: Item) -> Outcome:
        """Put under the first number that is free, or that this item has already; StoreError if the store does not take it."""
        if not await self._store.honours_condition(self._stream.bucket, self._stream.prefix):
            return await self._put_under_id(item)
        while (outcome := await self._put_once(item)) is Outcome.TAKEN:
            await asyncio.to_thread(item.renumber, await self._next_number(item))
        return outcome

    async def _next_number(self, item: Item) -> KeyNumber:
        """The number to be tried after one that is taken."""
        for _ in range(MAX_LOOKS):
            number = await asyncio.to_thread(item.next_number)
            # What is known to be taken is passed over, without sending the whole archive for each. Where an earlier attempt
            # whose answer was lost may have stored it under any higher number, only a put shows.
            if not item.keeps_number or await self._store.is_free(item.object(number)):
                break
        return number

    async def _put_under_id(self, item: Item) -> Outcome:
        """For a store that would replace: a key that nothing else can have, and that a repeated put may overwrite."""
        if item.number != BY_ID:
            # The store may have honoured the condition when an earlier attempt was made, and its answer been lost.
            # Without permission to look it stays unknown; it matters only if the store changed its ways between two attempts.
            with contextlib.suppress(Refused):
                if await self._store.holds(item.object()):
                    return Outcome.PRESENT
            await asyncio.to_thread(item.renumber, BY_ID)
        outcome = await self._put_once(item)
        if outcome is Outcome.TAKEN:
            raise ObjectRefused(f"{item.object().key} has its own id and holds something else")
        return outcome

    async def _put_once(self, item: Item) -> Outcome:
        companion = item.companion()
        if companion is not None and await self._store.put(companion) is Outcome.TAKEN:
            return Outcome.TAKEN
        return await self._store.put(item.object())
