"""Puts a parcel under the first key that is free."""

from __future__ import annotations

import asyncio
import contextlib

from gateway import names
from gateway.errors import ObjectRefused, Refused
from gateway.parcels import Parcel
from gateway.stores import Outcome, Store
from gateway.streams import Stream

# After so many looks for a free number a put has to tell, whatever the store says.
MAX_LOOKS = 1000
# The next number to try is remembered for so many hours and hosts of a stream.
KEPT_NUMBERS = 100
# So many new batches are known as such; one that is forgotten only begins at its first number.
KEPT_NEW = 1000


class Numbering:
    """Puts the parcels of one stream.

    Args:
        store: where they go.
        stream: whose they are.
    """

    def __init__(self, store: Store, stream: Stream) -> None:
        self._store = store
        self._stream = stream
        self._numbers: dict[tuple[str, str], int] = {}
        # In the order in which they came.
        self._new: dict[str, None] = {}

    def is_new(self, batch: str) -> None:
        """Nobody has tried to send this batch, so any free number will do for it."""
        self._new[batch] = None
        if len(self._new) > KEPT_NEW:
            del self._new[next(iter(self._new))]

    async def put(self, parcel: Parcel, identity: str) -> Outcome:
        """Put under the first number that is free, or that this parcel has already; StoreError if the store does not take it."""
        if not await self._store.honours_condition(self._stream.bucket, self._stream.prefix):
            self._new.pop(identity, None)
            return await self._put_under_id(parcel)
        if identity in self._new:
            del self._new[identity]
            likely = self._likely_number(identity)
            if likely > parcel.number > 0:
                await asyncio.to_thread(parcel.renumber, likely)
        while (outcome := await self._put_once(parcel)) is Outcome.TAKEN:
            await asyncio.to_thread(parcel.renumber, await self._next_number(parcel, identity))
        self._remember(identity, parcel.number + 1)
        return outcome

    async def _next_number(self, parcel: Parcel, identity: str) -> int:
        """The number to be tried after one that is taken."""
        if not parcel.keeps_number:
            # An earlier attempt whose answer was lost may have stored it under any higher number: only a put can tell.
            return parcel.number + 1
        # What is known to be taken is passed over, without sending the whole archive for each.
        first = max(parcel.number + 1, self._likely_number(identity))
        for number in range(first, first + MAX_LOOKS):
            if await self._store.is_free(parcel.object(number)):
                break
        return number

    async def _put_under_id(self, parcel: Parcel) -> Outcome:
        """For a store that would replace: a key that nothing else can have, and that a repeated put may overwrite."""
        if parcel.number != 0:
            # The store may have honoured the condition when an earlier attempt was made, and its answer been lost.
            # Who may not look cannot know; the store would have to change its ways between two attempts to matter.
            with contextlib.suppress(Refused):
                if await self._store.holds(parcel.object()):
                    return Outcome.PRESENT
            await asyncio.to_thread(parcel.renumber, 0)
        outcome = await self._put_once(parcel)
        if outcome is Outcome.TAKEN:
            raise ObjectRefused(f"{parcel.object().key} has its own id and holds something else")
        return outcome

    async def _put_once(self, parcel: Parcel) -> Outcome:
        companion = parcel.companion()
        if companion is not None and await self._store.put(companion) is Outcome.TAKEN:
            return Outcome.TAKEN
        return await self._store.put(parcel.object())

    def _likely_number(self, identity: str) -> int:
        batch = names.parse_batch(identity)
        return self._numbers.get((batch.hour, batch.host), 1) if batch else 1

    def _remember(self, identity: str, number: int) -> None:
        """The sixtieth batch of an hour does not ask for sixty keys: it begins where the last one ended."""
        batch = names.parse_batch(identity)
        if batch is None:
            return
        series = (batch.hour, batch.host)
        self._numbers[series] = max(number, self._numbers.get(series, 1))
        while len(self._numbers) > KEPT_NUMBERS:
            del self._numbers[next(iter(self._numbers))]
