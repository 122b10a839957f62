"""Records a life of the gateway, and finds every state of disk and store that a power cut in it may leave."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path

from reliability.power.disk_states import Digests, Disk, Do, State, Step
from reliability.power.disk_states import Fate as FateOfChange
from reliability.power.recorded_store import RecordingStore, Stored, StoreState, fill
from reliability.power.recording import RecordedGateway, transitions
from testkit.gateway_process import Gateway, Settings, settings_for
from testkit.load import Request
from testkit.servers.fake_s3 import serving
from testkit.servers.minio import Minio

SEED = 5
CLIENTS = 4
EXTREMES = 2
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


def lay_out(state: State, root: Path) -> None:
    """Make a directory hold a state."""
    root.mkdir(parents=True)
    for path, content in state.items():
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


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
    with serving(RecordingStore()) as store:
        fill(store, recording.store)
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
