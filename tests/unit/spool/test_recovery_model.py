"""Any sequence of receipts, transitions, faults and crashes conserves what was acknowledged.

A model drives the product's own rooms through steps of its choice on a real spool, kills the process at any change of the
disk, and has a new one recover. After each step everything that was sent is looked for. At the end a last process recovers
and sends all there is.

GATEWAY_MODEL_EXAMPLES=5000 tries so many sequences instead of the few that fit into an ordinary run, and other ones each
time; GATEWAY_MODEL_STEPS=100 makes them longer.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.core import clock
from gateway.core.errors import GatewayError, Unanswerable
from gateway.core.streams import Stream
from gateway.core.text import readable
from gateway.delivery.items import open_item
from testkit.model.fate import Fate, Loss
from testkit.model.ledger import Answer, Ledger, everything, instants
from testkit.model.process import Process
from testkit.model.requests import FILES, PLAIN, SENDINGS, Body, File, Sending
from testkit.model.store import Fault, ModelStore
from testkit.model.thread import Monotonic, on_one_thread
from testkit.model.trouble import AHEAD, CLOCK_STEPS, RESTARTS, Restart, Trouble
from testkit.spool import ERROR, SPECIMEN, STREAMS, USAGE, Clock, PowerCut, folder_in_memory, tree

REPORT_STREAMS = st.sampled_from([USAGE, ERROR])
# How a receipt, which is over when the disk is asked no more, ends at the latest.
RECEIPT_TURNS = 300


class GatewayModel(RuleBasedStateMachine):
    """The gateway, the disk, the store and the clients; nothing of it but the folder outlives a process."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = self.stack.enter_context(folder_in_memory())
        self.root = self.folder / "spool"
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        self.fate = Fate(patch)
        self.writers = on_one_thread(patch, self.fate)
        self.loop = asyncio.new_event_loop()
        self.stack.callback(self.loop.close)
        self.loop.set_exception_handler(self._note)
        self.unhandled: list[object] = []
        self.clock, self.monotonic = Clock(), Monotonic()
        self.ledger = Ledger()
        self.count = 0
        # The instants of what waits, and the highest that this process has seen or given.
        self.seen: set[int] = set()
        self.highest = 0
        self.next = Restart()

    @initialize(honours=st.sampled_from([True, True, True, False]), envelope=st.booleans())
    def begin(self, *, honours: bool, envelope: bool) -> None:
        """Start for the first time."""
        self.store = ModelStore(self.fate, honours=honours)
        self.envelope = envelope
        self.process = self._new_process()

    # --- receive --------------------------------------------------------------------------------------------------

    @rule(requests=st.lists(st.tuples(REPORT_STREAMS, SENDINGS) | FILES, min_size=1, max_size=5), ahead=AHEAD)
    def receive(self, requests: list[tuple[Stream, Sending] | File], ahead: Trouble | None) -> None:
        """Receive requests that come at the same time; small reports of theirs share a round of the journal."""
        self._expect(ahead)
        self._receive_all([self._file(one) if isinstance(one, File) else self._some_reports(*one) for one in requests])

    @rule(stream=REPORT_STREAMS, count=st.integers(1, 4))
    def receive_plain(self, stream: Stream, count: int) -> None:
        """Receive some small reports, one after the other, as most are."""
        for _ in range(count):
            self._receive_all([self._some_reports(stream, PLAIN)])

    def _receive_all(self, steps: list[Coroutine[Any, Any, None]]) -> None:
        begun = self.process.begin(steps)
        self.process.turns(begun, RECEIPT_TURNS)
        for task in begun:
            if task.done() and not isinstance(task.exception(), PowerCut):
                task.result()
        self._bury()

    def _file(self, file: File) -> Coroutine[Any, Any, None]:
        self.count += 1
        data = b"\x89PNG\r\n\x1a\n%d" % self.count
        return self._receive(SPECIMEN, [data], data, file.end, user=file.user_text, uri=file.uri_text)

    def _some_reports(self, stream: Stream, sending: Sending) -> Coroutine[Any, Any, None]:
        reports, lines = self._reports(sending)
        body = b"\r\n".join(reports) + b"\n" + (b'{"bad"\n' if sending.end == "bad" else b"")
        kind = "application/x-ndjson" if sending.many else "application/json"
        return self._receive(stream, lines, body, sending.end, kind=kind, known=sending.known)

    def _reports(self, sending: Sending) -> tuple[list[bytes], list[bytes]]:
        """Give reports that nobody has sent before, and the line that is to be stored of each."""
        reports = []
        for size in sending.sizes if sending.many else sending.sizes[:1]:
            self.count += 1
            reports.append(b'{"n":%d,%s"x":"%s"}' % (self.count, b"" if sending.many else b"\r\n", b"x" * size))
        # The newline behind a document becomes a space, behind a line of many it is none of it.
        return reports, [report.replace(b"\r\n", b"  ") + (b"" if sending.many else b" ") for report in reports]

    async def _receive(
        self,
        stream: Stream,
        contents: Sequence[bytes],
        body: bytes,
        end: str,
        *,
        kind: str = "",
        known: bool = False,
        user: str = "u",
        uri: str = "",
    ) -> None:
        hour = clock.hour_of(self.clock.now_ns)
        for content in contents:
            self.ledger.sent(content, hour)
        length = len(body) if known else None
        try:
            sent = Body(body, gone=end == "gone")
            await self.process.receive(stream, sent, length=length, user=readable(user), uri=uri, kind=kind)
        except Unanswerable:
            return
        except (GatewayError, OSError):
            self.ledger.answered(contents, Answer.REFUSED)
        else:
            assert end == "whole", "a body was acknowledged that is none"
            self.ledger.answered(contents, Answer.ACKNOWLEDGED)

    # --- transitions ----------------------------------------------------------------------------------------------

    @rule(what=st.sampled_from(["batch_everything", "_batch_full_ones", "_batch_full_ones", "_resume", "cut"]), ahead=AHEAD)
    def batch(self, what: str, ahead: Trouble | None) -> None:
        """Claim, aggregate and seal: at the tick, when enough waits, or what an earlier attempt has left; or only cut."""
        self._expect(ahead)
        if what == "cut":
            self._steps([journal.cut() for journal in self.process.journals.values()])
        else:
            self._steps([one._attempt(getattr(one, what)) for one in self.process.batchers.values()])

    @rule(faults=st.lists(st.sampled_from([None, None, *Fault]), max_size=5), strange=st.booleans(), ahead=AHEAD)
    def deliver(self, faults: list[Fault | None], *, strange: bool, ahead: Trouble | None) -> None:
        """Deliver and retire to a store with faults, until the lanes have nothing to do or wait."""
        if strange:
            self._let_others_be_first()
        self._expect(ahead)
        self.store.faults = faults
        self.monotonic.now_s += 3600.0
        for stream in STREAMS:
            self.process.deliver(stream, is_hanging=lambda: self.store.is_hanging)
        self.store.faults = []
        self._bury()

    def _let_others_be_first(self) -> None:
        """Have somebody else take the keys that what waits would get, but for those with an id, which nobody else has."""
        for stream in STREAMS:
            for path in self.process.spool.deliverable(stream, set()):
                item = open_item(self.process.spool, stream, path, None)
                if item.number:
                    self.store.put_strange(item.object())

    # --- the world ------------------------------------------------------------------------------------------------

    @rule(step_ns=CLOCK_STEPS, writers_wait=st.booleans(), ahead=AHEAD)
    def let_time_pass(self, step_ns: int, *, writers_wait: bool, ahead: Trouble | None) -> None:
        """Move the clock of the machine, or let waits end: segments are old, and what is not restored is tried again."""
        self.clock.now_ns += step_ns
        if writers_wait:
            self._expect(ahead)
            self.monotonic.now_s += 3600.0
            for writer in self.writers:
                writer.wait_over()
            self.process.turns(self.process.tasks, RECEIPT_TURNS)
            self._bury()

    @rule(orderly=st.sampled_from([False, False, False, True]), restart=RESTARTS)
    def restart(self, *, orderly: bool, restart: Restart) -> None:
        """Kill the process while it does nothing, or have it send all that waits and end."""
        self.next = restart
        if orderly:
            self.process.stop()
        self._bury(always=True)

    # --- what has to hold -----------------------------------------------------------------------------------------

    @invariant()
    def conserves(self) -> None:
        """Everything acknowledged is there once, nothing refused is, and names only increase."""
        assert self.ledger.wrongs(everything(self.root, STREAMS, self.store)) == []
        assert self.store.wrongs == []
        assert self.unhandled == []
        now = instants(self.root, STREAMS)
        assert len(set(now)) == len(now), "two things have one instant"
        new = set(now) - self.seen
        assert not new or min(new) > self.highest, "a name is older than one that was given before it"
        self.seen = set(now)
        self.highest = max([self.highest, *now])

    def teardown(self) -> None:
        """Kill, recover and stop: everything is in the store, and the spool is empty."""
        with self.stack:
            if not hasattr(self, "process"):
                return
            self._bury(always=True)
            self.process.stop()
            assert [(tally.files, tally.bytes) for tally in self.process.spool.accounting.waiting.values()] == [(0, 0)] * len(
                STREAMS
            )
            assert self.process.end(Loss.NOTHING) == []
            assert self.ledger.wrongs(everything(self.root, STREAMS, self.store)) == []
            assert self.store.wrongs == []
            assert self.ledger.misplaced(STREAMS, self.store) == []
            # Only the torn end of a segment may have been set aside.
            torn = re.compile(r"quarantine/(usage|error)\.\d+\.\d+\.7\.jsonl\.open\.rest(\.\d+)?")
            assert [name for name in tree(self.root) if not torn.fullmatch(name)] == []

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Note what the loop would only log: an exception that nobody waits for."""
        if not isinstance(context.get("exception"), PowerCut):
            self.unhandled.append(context)

    # --- the life of processes ------------------------------------------------------------------------------------

    def _new_process(self) -> Process:
        self.writers.clear()
        process = Process(
            self.folder,
            clock=self.clock,
            monotonic=self.monotonic,
            store=self.store,
            fate=self.fate,
            envelope=self.envelope,
            loop=self.loop,
        )
        self.seen = set(instants(self.root, STREAMS))
        self.highest = max(self.seen, default=0)
        return process

    def _expect(self, ahead: Trouble | None) -> None:
        """Have something go wrong at one of the next changes of the disk."""
        if ahead is None:
            return
        if ahead.error:
            self.fate.refuse_at(ahead.calls, ahead.error, ahead.times)
            return
        self.fate.kill_at(ahead.calls, torn=ahead.torn)
        self.next = ahead.restart

    def _steps(self, steps: Sequence[Coroutine[Any, Any, object]]) -> None:
        self.process.run(_one_after_the_other(steps))
        self._bury()

    def _bury(self, *, always: bool = False) -> None:
        """Have a new process for one that has died, that waits for an answer for ever, or that is to go."""
        if not (always or self.fate.is_dead or self.store.is_hanging):
            return
        restart, self.next = self.next, Restart()
        assert self.process.end(restart.loss) == [], "a defect is told in the log"
        self.store.is_hanging, self.store.faults = False, []
        self.clock.now_ns += restart.step_ns
        for calls in restart.crashes:
            self.fate.kill_at(calls, torn=True)
            try:
                died_late = self._new_process()
            except PowerCut:
                self.fate.reset()
            else:
                assert died_late.end(Loss.NOTHING) == []
        self.process = self._new_process()


async def _one_after_the_other(steps: Sequence[Coroutine[Any, Any, object]]) -> None:
    try:
        for step in steps:
            await step
    finally:
        for step in steps:
            step.close()


EXAMPLES = int(os.environ.get("GATEWAY_MODEL_EXAMPLES", "0"))
TestRecoveryModel = GatewayModel.TestCase
TestRecoveryModel.settings = settings(
    settings(derandomize=False) if EXAMPLES else settings(),
    max_examples=EXAMPLES or 200,
    stateful_step_count=int(os.environ.get("GATEWAY_MODEL_STEPS", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
