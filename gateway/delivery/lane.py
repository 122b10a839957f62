"""Delivery: drives everything that waits for the store into it, stream by stream.

Each stream has a lane of its own, so that a bucket that is away holds up nothing but its own stream.
A lane sends several things at a time while all goes well.
After a failure it waits, then tries one thing; when that succeeds it is itself again.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.batching.batcher import Summaries
from gateway.core.errors import ObjectRefused, Refused, StoreError, Throttled, Transient
from gateway.core.streams import Stream
from gateway.core.text import readable
from gateway.delivery.items import Item, UnreadableItem, open_item
from gateway.delivery.key_allocation import KeyAllocation
from gateway.delivery.throttling import Throttling
from gateway.spool import names
from gateway.spool.spool import Spool
from gateway.stores import Object, Outcome, Store
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.repeated_failure import Defect, Repeated

GREETING = "greeting"
# So many refusals in a row end a drain: one alone may concern one object.
DRAIN_REFUSALS = 3
# A stop has little time, and the store may be back at any moment of it.
DRAIN_PAUSE_S = 1.0
# Past so many things that are refused one by one, the refusal is the stream's.
MAX_HELD = 1000
# So are so many different things that are refused alike while none is taken: the bucket refuses them, or a setting does.
ALIKE_REFUSALS = 3
# Codes that are remembered for that; a store that makes up its codes is not refused by any one of them.
MAX_CODES = 100


@dataclass(slots=True)
class _Held:
    """Something that the store refuses by itself while it takes others."""

    path: Path
    due_at: float
    failures: int


class Lane:
    """Delivers one stream.

    Args:
        spool: where things wait.
        stream: whose things.
        store: where they go.
        summaries: of archives sealed by this process.
        parallel: how many are sent at the same time.
        log, metrics: where each delivery is reported.
    """

    def __init__(
        self,
        spool: Spool,
        stream: Stream,
        store: Store,
        *,
        summaries: Summaries,
        parallel: int,
        log: Log,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._spool = spool
        self._stream = stream
        self._store = store
        self._summaries = summaries
        self._parallel = parallel
        self._retry = stream.retry
        self._log = log
        self._monotonic = monotonic
        self._jitter = jitter
        self._metrics = metrics
        self._wake = asyncio.Event()
        # What was found to wait, and of that what has failed: the two take turns, so that neither keeps the other back.
        self._queue: deque[Path] = deque()
        self._again: deque[Path] = deque()
        self._is_turn_of_failed = False
        self._running: dict[str, asyncio.Task[None]] = {}
        self._held: dict[str, _Held] = {}
        # By code: which things were refused with it since the last one that was taken, at most `ALIKE_REFUSALS` of them.
        self._alike: dict[str, set[str]] = {}
        self._numbering = KeyAllocation(store, stream)
        self._throttling = Throttling(monotonic)
        self._look_again = True
        self._greeted = False
        self._failures = 0
        self._failed_at = -math.inf
        self._resume_at = -math.inf
        self._last_error: StoreError | None = None
        self._defect = Defect(log, f"delivery of {stream.name}")
        self._failing = Repeated(log, "delivery failed", "delivery recovered")
        self._draining = False
        self._gave_up = False

    # --- for others -----------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something new waits."""
        self._look_again = True
        self._wake.set()

    @property
    def trouble(self) -> str | None:
        """What keeps the stream from being delivered, in text that can be encoded; None if nothing does."""
        return None if self._last_error is None else readable(str(self._last_error))

    def drain(self) -> None:
        """From now on `run` ends as soon as nothing is left that can be sent without a person's help."""
        self._draining = True
        self._failures = 0
        self._resume_at = -math.inf
        # What was held is found by the next look and tried once more.
        self._held.clear()
        self.wake()

    async def run(self) -> None:
        """Deliver until drained; cancellation stops what is being sent, and all of it is found again at the next start."""
        try:
            while True:
                self._wake.clear()
                # One instant for the whole round: were the pause over for one step and not for the other, nothing
                # would be started and nothing waited for.
                now = self._monotonic()
                await self._refill(now)
                self._start_some(now)
                if self._is_drained():
                    return
                await self._wait(now)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _is_drained(self) -> bool:
        if not self._draining or self._running:
            return False
        return self._gave_up or not (self._queue or self._again or self._look_again)

    # --- choosing -------------------------------------------------------------------------------------------------

    async def _refill(self, now: float) -> None:
        """Look what waits, when the last look is used up; while the store is away there is no need to look."""
        if self._queue or not self._look_again or now < self._resume_at:
            return
        self._look_again = False
        known = {*self._running, *self._held, *(names.identity_of(path.name) for path in self._again)}
        try:
            found = await asyncio.to_thread(self._spool.deliverable, self._stream, known)
        except OSError as error:
            self._look_again = True
            if await asyncio.to_thread(self._spool.ballast.give_up, error):
                self._wake.set()
                return
            self._pause(Transient(f"the spool cannot be read: {error}"), self._monotonic())
            return
        self._queue.extend(found)
        if found:
            # There may be more than one look shows.
            self._look_again = True

    def _start_some(self, now: float) -> None:
        limit = 1 if self._failures else self._parallel
        while len(self._running) < limit and now >= self._resume_at and not self._gave_up:
            if not self._greeted and not self._draining:
                if GREETING not in self._running:
                    self._running[GREETING] = asyncio.create_task(self._greet())
                return
            path = self._next(now)
            if path is None:
                return
            identity = names.identity_of(path.name)
            self._running[identity] = asyncio.create_task(self._attempt(path, identity))

    def _next(self, now: float) -> Path | None:
        self._is_turn_of_failed = not self._is_turn_of_failed
        is_crowded = len(self._again) >= MAX_HELD
        if self._queue and not is_crowded and not (self._is_turn_of_failed and (self._again or self._held)):
            return self._queue.popleft()
        if (due := self._due(now)) is not None:
            return due
        if self._again:
            return self._again.popleft()
        return self._queue.popleft() if self._queue else None

    def _due(self, now: float) -> Path | None:
        """What was held by itself long enough; once a drain has begun, that was tried and is all that can be done for it."""
        if self._draining:
            return None
        due = (held.path for identity, held in self._held.items() if held.due_at <= now and identity not in self._running)
        return next(due, None)

    async def _wait(self, now: float) -> None:
        """Wait for something new, for the end of an attempt, or for the end of a pause."""
        ends = [held.due_at for identity, held in self._held.items() if identity not in self._running and not self._draining]
        if self._resume_at > now:
            ends = [self._resume_at]
        elif self._running and len(self._running) >= (1 if self._failures else self._parallel):
            ends = []
        try:
            async with asyncio.timeout(max(0.0, min(ends) - self._monotonic()) if ends else None):
                await self._wake.wait()
        except TimeoutError:
            return

    # --- one attempt ----------------------------------------------------------------------------------------------

    async def _greet(self) -> None:
        """Ask the store before there is anything to send, so that an operator sees at the start what would fail later."""
        begun = self._monotonic()
        try:
            await self._store.honours_condition(self._stream.bucket, self._stream.prefix)
            self._greeted = True
            self._succeeded(GREETING)
        except StoreError as error:
            self._pause(error, begun)
        except Exception as error:  # noqa: BLE001 (as in an attempt)
            self._defect.met(error)
            self._pause(Transient(repr(error)), begun)
        finally:
            del self._running[GREETING]
            self._wake.set()

    async def _attempt(self, path: Path, identity: str) -> None:
        begun = self._monotonic()
        item: Item | None = None
        try:
            self._spool.ownership.check()
            item = await self._open(path, identity)
            if item is None:
                return
            outcome = await self._numbering.put(item)
            delivered = item.object()
            await asyncio.to_thread(self._spool.retire, self._stream, item.path)
            self._succeeded(identity)
            self._alike.clear()
            self._report(delivered, item.items, self._monotonic() - begun, outcome)
        except FileNotFoundError:
            # Retired, or renumbered, after it was listed: it is listed again if it is still there.
            self._held.pop(identity, None)
            self._look_again = True
        except ObjectRefused as error:
            if self._is_refused_alike(identity, error):
                self._later(item.path if item else path, identity, _of_the_stream(error), begun)
            else:
                self._hold(item.path if item else path, identity, error)
        except (StoreError, OSError) as error:
            if isinstance(error, OSError) and await asyncio.to_thread(self._spool.ballast.give_up, error):
                # At once: the room that it has now may be gone after a pause.
                self._held.pop(identity, None)
                self._queue.appendleft(item.path if item else path)
            else:
                self._later(item.path if item else path, identity, error, begun)
        except Exception as error:  # noqa: BLE001 (a defect of ours must hold up neither the thing nor its stream for ever)
            self._defect.met(error)
            self._later(item.path if item else path, identity, Transient(repr(error)), begun)
        finally:
            del self._running[identity]
            self._wake.set()

    async def _open(self, path: Path, identity: str) -> Item | None:
        """Read what is to be delivered; None if it cannot be read and was set aside."""
        try:
            return await asyncio.to_thread(open_item, self._spool, self._stream, path, self._summaries.get(identity))
        except UnreadableItem as error:
            await asyncio.to_thread(self._spool.set_aside, self._stream, path, error.reason)
            self._held.pop(identity, None)
            return None

    # --- what came of it ------------------------------------------------------------------------------------------

    def _succeeded(self, identity: str) -> None:
        self._summaries.forget(identity)
        self._held.pop(identity, None)
        self._failures = 0
        self._defect.ended()
        self._throttling.took()
        if self._throttling.is_on and (self._queue or self._again or len(self._running) > 1):
            # One that is taken is no end of it, or each would have its lines in the log.
            return
        self._resume_at = -math.inf
        self._last_error = None
        self._metrics.refusing.labels(self._stream.name).set(0)
        self._failing.ended(stream=self._stream.name)

    def _report(self, delivered: Object, items: int, seconds: float, outcome: Outcome) -> None:
        name = self._stream.name
        self._metrics.delivery_duration.labels(name).observe(seconds)
        self._metrics.delivered.labels(name).inc(items)
        self._metrics.delivered_objects.labels(name).inc()
        self._metrics.delivered_bytes.labels(name).inc(delivered.size)
        self._log.info(
            "object delivered",
            stream=name,
            bucket=delivered.bucket,
            key=delivered.key,
            items=items,
            bytes=delivered.size,
            duration_s=seconds,
            outcome=outcome.value,
        )

    def _later(self, path: Path, identity: str, error: StoreError | OSError, begun: float) -> None:
        """Put it behind the others, so that one that fails for a reason of its own does not hold them up."""
        self._held.pop(identity, None)
        self._again.append(path)
        self._pause(error if isinstance(error, StoreError) else Transient(f"the spool: {error}"), begun)

    def _pause(self, error: StoreError, begun: float) -> None:
        """The store did not take one thing, and would most likely take nothing else either."""
        if isinstance(error, Throttled):
            self._slow_down(error)
            return
        kind = "refused" if isinstance(error, Refused) else "transient"
        if begun >= self._failed_at:
            # Of several that were under way together only the first makes the pause longer.
            self._failures += 1
        self._failed_at = self._monotonic()
        self._last_error = error
        wait_s = self._retry.wait_s(self._failures, error, self._jitter)
        self._resume_at = self._failed_at + (min(wait_s, DRAIN_PAUSE_S) if self._draining else wait_s)
        self._metrics.refusing.labels(self._stream.name).set(int(kind == "refused"))
        self._metrics.delivery_failures.labels(self._stream.name, kind).inc()
        self._failing.failed(stream=self._stream.name, kind=kind, reason=str(error))
        if self._draining and kind == "refused" and self._failures >= DRAIN_REFUSALS:
            # A person has to change something, and waiting for that would only hold up the stop.
            self._gave_up = True

    def _slow_down(self, error: Throttled) -> None:
        """The store takes some things: as many are tried at a time as before, less often."""
        wait_s = self._throttling.refused(self._retry.most_s) * (0.5 + self._jitter() / 2)
        self._last_error = error
        self._resume_at = self._monotonic() + (min(wait_s, DRAIN_PAUSE_S) if self._draining else wait_s)
        self._metrics.refusing.labels(self._stream.name).set(0)
        self._metrics.delivery_failures.labels(self._stream.name, "throttled").inc()
        self._failing.failed(stream=self._stream.name, kind="throttled", reason=str(error))

    def _is_refused_alike(self, identity: str, error: ObjectRefused) -> bool:
        """Whether different things are refused with the same code, and none is taken."""
        code = error.code or str(error.status)
        if code not in self._alike and len(self._alike) >= MAX_CODES:
            return False
        alike = self._alike.setdefault(code, set())
        if len(alike) < ALIKE_REFUSALS:
            alike.add(identity)
        return len(alike) >= ALIKE_REFUSALS

    def _hold(self, path: Path, identity: str, error: ObjectRefused) -> None:
        """The store takes others and not this one: it waits by itself, and the stream goes on."""
        if len(self._held) >= MAX_HELD and identity not in self._held:
            self._later(path, identity, error, self._monotonic())
            return
        failures = self._held[identity].failures + 1 if identity in self._held else 1
        due_at = self._monotonic() + self._retry.wait_s(failures, error, self._jitter)
        self._held[identity] = _Held(path, due_at, failures)
        self._metrics.delivery_failures.labels(self._stream.name, "object").inc()
        self._log.error(
            "delivery failed", stream=self._stream.name, kind="object", reason=str(error), file=path, failures=failures
        )


def _of_the_stream(error: ObjectRefused) -> Refused:
    """What is said of one thing, and is so of all of them."""
    said = f"{error} (so were {ALIKE_REFUSALS} different ones and none was taken: the bucket refuses them, or a setting does)"
    return Refused(said, status=error.status, code=error.code)
