"""Rows of power cuts: every state that a disk may be left in, tried with the gateway that finds it."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import random
import select
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from unittest.mock import patch

import fake_s3
from integration.buckets import StoredObject
from integration.gateway_process import Gateway, Settings, clean_environment, executable, settings_for
from integration.ledger import FILES, REPORTS, Account, Fate, Ledger
from integration.load import Request
from integration.minio import TIMEOUT_FACTOR, Minio
from integration.stored import PROOF

from reliability.disk_states import Digests, Disk, Do, NameChange, State, Step
from reliability.disk_states import Fate as FateOfChange
from reliability.recording import RecordedGateway, RecordingStore, Stored, StoreState, copied, transitions
from reliability.row import Outcome, Row, Site

SEED = 5
CLIENTS = 4
WORKERS = 3
# So many states a row are tried at most, and so many recordings made to find them.
MOST_TRIES = 120
EXTREMES = 2
MOST_RECORDINGS = 3
DEADLINE_S = 30.0
SEGMENT_REPORT_LIMIT = 1024
PART_BYTES = 5 << 20


@dataclass(frozen=True)
class Target:
    """A fake store with the names of its buckets."""

    minio: Minio
    usage: str = "usage"
    error: str = "error"
    specimen: str = "specimen"


def settings(endpoint: str) -> Settings:
    """Segments and batches so small that a few requests fill several."""
    return settings_for(
        Target(Minio(endpoint, "of-a-fake-store", "of-a-fake-store")),
        aggregation={"max_batch_bytes": "3KiB"},
        s3={"part_size": PART_BYTES},
        spool={"segment_report_limit": SEGMENT_REPORT_LIMIT, "segment_max_bytes": "1KiB", "segment_max_age": "50ms"},
        delivery={"retry_min": "10ms", "retry_max": "50ms"},
    )


# --- the recording -----------------------------------------------------------------------------------------------


@dataclass
class Recording:
    """One life of the gateway, and what it began with."""

    requests: dict[str, Request] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    disk: Disk = field(default_factory=Disk)
    store: StoreState = field(default_factory=StoreState)
    acknowledged: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Moment:
    """An instant at which the power may be cut."""

    transition: str
    where: str
    disk: Disk
    stores: list[StoreState]
    acknowledged: frozenset[str]


def requests(run: int) -> list[Request]:
    """Of every kind some, unlike those of every other run."""
    made = [_report("usage", f"{run}-{number}", 300) for number in range(16)]
    made += [_report("error", f"{run}-e{number}", 200) for number in range(6)]
    for number in range(3):
        lines = tuple(_report("usage", f"{run}-n{number}-{line}", 60).body for line in range(4))
        made.append(Request("usage", "/usage", b"\n".join(lines), lines, "application/x-ndjson"))
    made += [_report("usage", f"{run}-l{number}", 2 * SEGMENT_REPORT_LIMIT) for number in range(2)]
    made += [_specimen(f"{run}-s{number}", 100) for number in range(3)]
    random.Random(run).shuffle(made)
    return [*made, _specimen(f"{run}-parts", PART_BYTES // 16 + 1)]


def _report(stream: str, name: str, size: int) -> Request:
    body = b'{"id":"%s","text":"%s"}' % (name.encode(), b"x" * size)
    return Request(stream, f"/{stream}", body, (body,))


def _specimen(name: str, sixteens: int) -> Request:
    body = name.encode().ljust(16) * sixteens
    return Request("specimen", f"/specimen?uri=file:///{name}.bin", body, (body,), "application/octet-stream")


def record(folder: Path, sent: Sequence[Request], run: int, begin: Recording | None = None) -> Recording:
    """Have a gateway receive, batch, deliver and stop, on an empty disk or on what the begin says."""
    recording = begin or Recording()
    named = {f"request-{run}-{number}": request for number, request in enumerate(sent)}
    with _store(RecordingStore) as store:
        assert isinstance(store, RecordingStore)
        _fill(store, recording.store)
        gateway = RecordedGateway(folder, settings(store.endpoint))
        lay_out(recording.disk.state(recording.disk.everything()), gateway.cache)
        try:
            gateway.start()
            with ThreadPoolExecutor(CLIENTS) as clients:
                statuses = list(clients.map(lambda name: _send(gateway, name, named[name]), named))
            assert set(statuses) <= {204}, f"a request of the recording was answered with {statuses}"
            assert (code := gateway.stop()) == 0, f"the recorded gateway exited {code}:\n{gateway.said()}"
        finally:
            gateway.kill()
        recording.requests |= named
        recording.steps, recording.stored = gateway.steps(), store.stored
    answered = {step.path for step in recording.steps if step.do is Do.ANSWER}
    assert answered == named.keys(), f"recorded answers to {len(answered)} of {len(named)} requests"
    return recording


def _send(gateway: Gateway, name: str, request: Request) -> int:
    headers = {"USER_TOKEN": "alice", "Content-Type": request.content_type, "X-Request-ID": name}
    return gateway.request("PUT", request.path, request.body, headers).status


def moments(recording: Recording) -> Iterator[Moment]:
    """Each instant after a change of the disk or the store, or when somebody is told that something is safe."""
    disk, store, acknowledged = recording.disk.copy(), recording.store, recording.acknowledged
    waiting = deque(sorted(recording.stored, key=lambda stored: stored.done_ns))
    for step, transition in zip(recording.steps, transitions(recording.steps), strict=True):
        while waiting and waiting[0].done_ns <= step.at_ns:
            store = store.after(waiting.popleft())
            yield Moment("deliver", "the store has changed", disk.copy(), [store], acknowledged)
        disk.apply(step)
        if step.do is Do.ANSWER:
            acknowledged |= {step.path}
        if step.do not in (Do.BEGIN_SYNC, Do.END_SYNC, Do.LISTEN):
            # What has been sent to the store may be done when the power is gone, or not; the end of a sync leaves no state
            # that was not possible before it.
            under_way = [store.after(stored) for stored in waiting if stored.begun_ns <= step.at_ns]
            yield Moment(transition, str(step), disk.copy(), [store, *under_way], acknowledged)


# --- the cuts ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """One state of disk and store after a power cut, and who had been told by then that their requests were safe."""

    transition: str
    where: str
    rank: int
    state: Callable[[], State]
    store: StoreState
    acknowledged: frozenset[str]
    requests: dict[str, Request]


def cuts(recording: Recording, *, whole: Callable[[Moment], bool] = lambda _: True) -> list[Cut]:
    """Every cut that is to be tried; of those that leave the same, the one when most had been told.

    Of the moments that are not wanted whole only those cuts that leave all, or nothing, of what was not synced.
    """
    lot = random.Random(SEED)
    found: dict[object, Cut] = {}
    digests = Digests()
    for moment in moments(recording):
        for rank, fates in enumerate(islice(moment.disk.fates(lot), None if whole(moment) else EXTREMES)):
            digest = digests.of(_telling(moment.disk.state(fates)))
            for store in moment.stores:
                key = digest, frozenset(store.objects), frozenset((name, len(up.parts)) for name, up in store.uploads.items())
                if key not in found or len(found[key].acknowledged) < len(moment.acknowledged):
                    where = f"{moment.transition}, {moment.where}: {_told(fates)}"
                    state = _later(moment.disk, fates)
                    found[key] = Cut(moment.transition, where, rank, state, store, moment.acknowledged, recording.requests)
    return list(found.values())


def _telling(state: State) -> State:
    """A state without what tells nothing: drafts are erased at the start, so it matters only whether there are any."""
    told = {path: content for path, content in state.items() if not path.startswith("tmp/")}
    return told if len(told) == len(state) else {**told, "tmp/": b""}


def _told(fates: Sequence[FateOfChange]) -> str:
    """What became of the changes that were not synced, in their order: `3 kept, 1 lost`."""
    return ", ".join(f"{len(list(same))} {fate.value}" for fate, same in groupby(fates)) or "everything was synced"


def _later(disk: Disk, fates: Sequence[FateOfChange]) -> Callable[[], State]:
    return lambda: disk.state(fates)


def chosen(candidates: Sequence[Cut], count: int) -> list[Cut]:
    """So many of them: half of them the extremes, evenly spread, and of the others as many."""
    ranked = sorted(candidates, key=lambda cut: cut.rank)
    extremes = spread(ranked[: max(count // 2, sum(cut.rank < EXTREMES for cut in ranked))], count - count // 2)
    taken = {id(cut) for cut in extremes}
    others = [cut for cut in candidates if id(cut) not in taken]
    return extremes + spread(others, count - len(extremes))


def spread(candidates: Sequence[Cut], count: int) -> list[Cut]:
    """So many of them, evenly spread."""
    if count >= len(candidates):
        return list(candidates)
    return [candidates[(2 * number + 1) * len(candidates) // (2 * count)] for number in range(count)]


# --- the gateway that finds it -----------------------------------------------------------------------------------

# Starts gateways that have done their imports already, one after the other: these are three quarters of a start.
_TEMPLATE = """
import json, os, sys
import aiobotocore.session, gateway.cli, gateway.commands
for line in sys.stdin:
    order = json.loads(line)
    if not (pid := os.fork()):
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(log, 1), os.dup2(log, 2)
        os.chdir(order["folder"])
        sys.argv[1:] = order["arguments"]
        gateway.cli.main()
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Template:
    """A process that becomes a gateway again and again."""

    def __init__(self, interpreter: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [interpreter, "-c", _TEMPLATE],
            env=clean_environment(),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Unbuffered, so that what select says of the pipe is all there is to know.
            bufsize=0,
        )

    def fork(self, order: dict[str, object]) -> int:
        """Start one and return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return self._number(DEADLINE_S)

    def wait(self, timeout_s: float) -> int | None:
        """The exit code of the one that was started last, None if it still runs."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        return self._number(0) if ready else None

    def _number(self, timeout_s: float) -> int:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s * TIMEOUT_FACTOR)
        line = self._process.stdout.readline() if ready else b""
        assert line, "the template of the gateway has ended or does not answer"
        return int(line)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def interpreter() -> str | None:
    """Which Python has the gateway; None if that is no program of a Python, but a frozen one."""
    command = executable()
    if command[1:] == ["-m", "gateway.cli"]:
        return command[0]
    return None if "GATEWAY_TEST_EXECUTABLE" in os.environ else sys.executable


class ForkedGateway(Gateway):
    """A gateway that a template becomes."""

    def __init__(self, folder: Path, settings: Settings, template: Template) -> None:
        super().__init__(folder, settings)
        self._template = template
        self._pid = 0
        self._code: int | None = None

    def launch(self, port: int = 0) -> None:
        """See `Gateway.launch`."""
        arguments = ["-p", str(port), *self.with_config()]
        self._log_path = self.folder / "gateway.1.log"
        self._log_path.touch()
        self._pid = self._template.fork({"folder": str(self.folder), "log": str(self._log_path), "arguments": arguments})

    @property
    def is_running(self) -> bool:
        """See `Gateway.is_running`."""
        if self._pid and self._code is None:
            self._code = self._template.wait(0)
        return bool(self._pid) and self._code is None

    def signal(self, number: signal.Signals) -> None:
        """See `Gateway.signal`."""
        if self.is_running:
            os.kill(self._pid, number)

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """See `Gateway.wait`."""
        if self._code is None:
            self._code = self._template.wait(timeout_s * TIMEOUT_FACTOR)
        assert self._code is not None, f"the gateway did not end within {timeout_s * TIMEOUT_FACTOR:g} s:\n{self.said()}"
        return self._code

    def kill(self) -> None:
        """See `Gateway.kill`."""
        self.signal(signal.SIGKILL)
        if self._pid:
            self.wait()


class Bench:
    """Tries states, one after the other, with a store and a template of its own."""

    def __init__(self, folder: Path, store: fake_s3.FakeS3, template: Template | None) -> None:
        self._folder = folder
        self._store = store
        self._template = template
        self._tries = 0

    def attempt(self, cut: Cut) -> tuple[Account, list[str], bool]:
        """What a gateway made of a state; what else is wrong; whether it quarantined anything."""
        self._tries += 1
        folder = self._folder / str(self._tries)
        _fill(self._store, cut.store)
        gateway = self._gateway(folder)
        lay_out(cut.state(), gateway.cache)
        try:
            faults = _life(gateway)
        finally:
            gateway.kill()
        faults += [f"overwritten: {key}" for key, kept in cut.store.objects.items() if self._store.objects.get(key) is not kept]
        faults += [f"left in the spool: {name}" for name in gateway.left() if not name.startswith("quarantine/")]
        quarantined = [path.read_bytes() for path in (gateway.cache / "quarantine").rglob("*") if path.is_file()]
        ledger = FakeLedger()
        for name, request in cut.requests.items():
            is_safe = name in cut.acknowledged
            ledger.note(request.stream, request.contents, Fate.ACKNOWLEDGED if is_safe else Fate.UNANSWERED)
            if is_safe and any(content in held for held in quarantined for content in request.contents):
                faults.append(f"quarantined though it was acknowledged: {name}")
        account = ledger.of_fake(self._store)
        if account.is_right and not faults:
            shutil.rmtree(folder)
        else:
            (folder / "cut").write_text(cut.where)
        return account, faults, bool(quarantined)

    def _gateway(self, folder: Path) -> Gateway:
        set_up = settings(self._store.endpoint)
        return Gateway(folder, set_up) if self._template is None else ForkedGateway(folder, set_up, self._template)


def _life(gateway: Gateway) -> list[str]:
    """From the start to a stop that delivers everything; what went wrong."""
    gateway.start()
    # Who answers heeds signals as well.
    gateway.get("/ready")
    code = gateway.stop()
    faults = [] if code == 0 else [f"exited {code}: {gateway.said()[-300:]}"]
    return faults + [f"a defect: {event}" for event in gateway.events("defect")]


class FakeLedger(Ledger):
    """A ledger that is compared with a fake store."""

    def of_fake(self, store: fake_s3.FakeS3) -> Account:
        """Compare with what the store holds, and count."""
        account = Account()
        for stream in (*REPORTS, *FILES):
            held = [
                StoredObject(key, kept.body, kept.headers, kept.metadata)
                for (bucket, key), kept in store.objects.items()
                if bucket == stream and not key.endswith(PROOF)
            ]
            found = [one.body for one in held] if stream in FILES else [line for one in held for line in one.lines()]
            self._compare(account, stream, [_digest(content) for content in found])
        return account


def _digest(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@contextmanager
def _store(kind: type[fake_s3.FakeS3]) -> Iterator[fake_s3.FakeS3]:
    """A fake store of this kind."""
    with ExitStack() as stack:
        with patch.object(fake_s3, "FakeS3", kind):
            store = stack.enter_context(fake_s3.fake_s3())
        yield store


def _fill(store: fake_s3.FakeS3, state: StoreState) -> None:
    store.objects = dict(state.objects)
    store.uploads = copied(state.uploads)
    store.requests.clear()


def lay_out(state: State, root: Path) -> None:
    """Make a directory hold a state."""
    root.mkdir(parents=True)
    for path, content in state.items():
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


def attempt_all(wanted: Iterable[Cut], folder: Path, outcome: Outcome) -> None:
    """Try the cuts, several at a time, and count them."""
    python = interpreter()
    benches: queue.SimpleQueue[Bench] = queue.SimpleQueue()

    def attempt(cut: Cut) -> tuple[Cut, Account | None, list[str], bool]:
        bench = benches.get()
        try:
            return cut, *bench.attempt(cut)
        except Exception as error:  # noqa: BLE001 (the gateway did not start, or did not end)
            return cut, None, [repr(error)], False
        finally:
            benches.put(bench)

    with ExitStack() as stack:
        for number in range(WORKERS):
            own = folder / f"bench-{number}"
            template = None
            if python is not None:
                template = Template(python, own)
                stack.callback(template.close)
            benches.put(Bench(own, stack.enter_context(_store(fake_s3.FakeS3)), template))
        with ThreadPoolExecutor(WORKERS) as pool:
            quarantined = 0
            for cut, account, faults, has_quarantined in pool.map(attempt, wanted):
                if account is None:
                    outcome.tried += 1
                else:
                    outcome.add(account, cut.where)
                for fault in faults:
                    outcome.blame(f"{cut.where}: {fault}")
                quarantined += has_quarantined
    outcome.notes.append(f"{quarantined} of them had something of the unacknowledged to quarantine")


# --- the rows ----------------------------------------------------------------------------------------------------


def _in_step(transition: str) -> Callable[[Site], Outcome]:
    def run(site: Site) -> Outcome:
        wanted = site.of(MOST_TRIES)
        candidates: list[Cut] = []
        for number in range(MOST_RECORDINGS):
            recording = record(site.folder / f"recorded-{number}", requests(number), number)
            candidates += [cut for cut in cuts(recording) if cut.transition == transition]
            if len(candidates) >= wanted:
                break
        outcome = Outcome()
        outcome.notes.append(f"{len(candidates)} states found in {number + 1} recordings")
        attempt_all(chosen(candidates, wanted), site.folder, outcome)
        return outcome

    return run


def _in_recovery(site: Site) -> Outcome:
    """Cuts in the start of a gateway: of an empty disk, and of what a kill in each transition has left."""
    first = record(site.folder / "recorded", requests(0), 0)
    candidates = [cut for cut in cuts(first, whole=_in_start) if cut.transition == "start"]
    fullest: dict[str, Moment] = {}
    for moment in moments(first):
        if moment.transition not in fullest or _work_left(moment) >= _work_left(fullest[moment.transition]):
            fullest[moment.transition] = moment
    # The first start of all, then those kills that have left most unsynced.
    kills = sorted(fullest.values(), key=lambda moment: (_in_start(moment), _work_left(moment)), reverse=True)
    kills = kills[: site.of(len(kills))]
    for run, moment in enumerate(kills, 1):
        begin = Recording(first.requests.copy(), disk=moment.disk, store=moment.stores[0], acknowledged=moment.acknowledged)
        # The whole life of that gateway counts: what its start left undone would show only later.
        candidates += cuts(record(site.folder / f"recorded-{run}", requests(run)[:6], run, begin), whole=_in_start)
    outcome = Outcome()
    outcome.notes.append(f"{len(candidates)} states found after kills in {', '.join(moment.transition for moment in kills)}")
    attempt_all(chosen(candidates, site.of(MOST_TRIES)), site.folder, outcome)
    return outcome


def _in_start(moment: Moment) -> bool:
    return moment.transition == "start"


def _work_left(moment: Moment) -> tuple[bool, int]:
    """How much a start after a kill would find that is not durable: lines in a segment, and names; a draft is erased."""
    has_lines = moment.where.startswith(Do.WRITE.value) and moment.where.endswith(".jsonl.open")
    return has_lines, sum(isinstance(change, NameChange) for change in moment.disk.pending)


_WHAT = {
    "receive": "while a body or a line is being written",
    "commit": "between the write, the sync, the rename and the 204",
    "cut": "while a segment gets its final name",
    "claim": "while files are moved into a batch",
    "aggregate": "while an archive is being written",
    "seal": "while an archive is put in place and its sources removed",
    "deliver": "while it is being sent",
    "retire": "while what was delivered is removed",
}

ROWS: tuple[Row, ...] = (
    *(Row(f"power-{name}", "Power loss", f"power cut {what}", _in_step(name)) for name, what in _WHAT.items()),
    Row("power-recover", "Power loss", "power cut in the first start, or after a start that followed a kill", _in_recovery),
)
