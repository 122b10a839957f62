"""Puts a parcel under the first key that is free."""

from __future__ import annotations

import asyncio
import contextlib

from gateway.core.errors import ObjectRefused, Refused
from gateway.core.streams import Stream
from gateway.delivery.items import Parcel
from gateway.spool.names import BY_ID, KeyNumber
from gateway.stores import Outcome, Store

# After so many looks for a free number a put has to tell, whatever the store says.
MAX_LOOKS = 1000


class Numbering:
    """Puts the parcels of one stream.

    Args:
        store: where they go.
        stream: whose they are.
    """

    def __init__(self, store: Store, stream: Stream) -> None:
        self._store = store
        self._stream = stream

    async def put(self, parcel: Parcel) -> Outcome:
        """Put under the first number that is free, or that this parcel has already; StoreError if the store does not take it."""
        if not await self._store.honours_condition(self._stream.bucket, self._stream.prefix):
            return await self._put_under_id(parcel)
        while (outcome := await self._put_once(parcel)) is Outcome.TAKEN:
            await asyncio.to_thread(parcel.renumber, await self._next_number(parcel))
        return outcome

    async def _next_number(self, parcel: Parcel) -> KeyNumber:
        """The number to be tried after one that is taken."""
        for _ in range(MAX_LOOKS):
            number = await asyncio.to_thread(parcel.next_number)
            # What is known to be taken is passed over, without sending the whole archive for each. Where an earlier attempt
            # whose answer was lost may have stored it under any higher number, only a put can tell.
            if not parcel.keeps_number or await self._store.is_free(parcel.object(number)):
                break
        return number

    async def _put_under_id(self, parcel: Parcel) -> Outcome:
        """For a store that would replace: a key that nothing else can have, and that a repeated put may overwrite."""
        if parcel.number != BY_ID:
            # The store may have honoured the condition when an earlier attempt was made, and its answer been lost.
            # Who may not look cannot know; the store would have to change its ways between two attempts to matter.
            with contextlib.suppress(Refused):
                if await self._store.holds(parcel.object()):
                    return Outcome.PRESENT
            await asyncio.to_thread(parcel.renumber, BY_ID)
        outcome = await self._put_once(parcel)
        if outcome is Outcome.TAKEN:
            raise ObjectRefused(f"{parcel.object().key} has its own id and holds something else")
        return outcome

    async def _put_once(self, parcel: Parcel) -> Outcome:
        companion = parcel.companion()
        if companion is not None and await self._store.put(companion) is Outcome.TAKEN:
            return Outcome.TAKEN
        return await self._store.put(parcel.object())
