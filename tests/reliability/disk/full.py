"""Rows in which the disk is really full, of bytes or of names: a small tmpfs, which the gateway and a filler share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from reliability import scenario
from reliability.disk.goes_on import takes_everything
from reliability.disk.small_disk import KIB, MIB, ChunkedLoad, Disk, FullDisk, in_chunks
from reliability.row import Outcome, Row, Site
from reliability.scenario import PART_BYTES, Client, Died
from reliability.verdict import delivered
from testkit.deadlines import until
from testkit.ledger import Fate
from testkit.load import Request

GROUP = "Disk faults"
PAGE = 4 * KIB


# --- under load, until nothing fits any more -----------------------------------------------------------------------

DISKS = (
    Disk(128 * KIB),
    # More than what comes between two looks at the room that there is.
    Disk(2 * MIB, reserve=1 * MIB),
    Disk(2 * MIB, by_names=True),
    Disk(256 * KIB, envelope=True),
    Disk(3 * MIB, reserve=1 * MIB, envelope=True),
    Disk(64 * KIB),
    Disk(1 * MIB),
    Disk(4 * MIB, reserve=2 * MIB),
    Disk(2 * MIB, by_names=True, envelope=True),
)


def _under_load(site: Site) -> Outcome:
    outcome = Outcome()
    met: set[str] = set()
    for number, kind in enumerate(site.pick(list(DISKS))):
        bench = FullDisk(site, kind, str(number))
        with bench.running(outcome, str(kind)):
            with bench.watched() as strace:
                _until_full(bench, kind)
            met |= bench.met(strace)
            for line in bench.gateway.events("aggregation failed")[:1]:
                outcome.blame(f"{kind}: {line}")
            if (kind.reserve or kind.by_names) and bench.gateway.events("sealed unpacked"):
                outcome.blame(f"{kind}: no room for an archive")
            _until_it_goes_on(bench, kind, str(number))
    outcome.notes.append(f"the disk was full at: {', '.join(sorted(met))}")
    if not met:
        outcome.blame("no call has met a full disk")
    return outcome


def _until_full(bench: FullDisk, kind: Disk) -> None:
    """The store goes away, the load goes on, and the disk fills up."""
    bench.proxy.refuse()
    bench.fill()
    with ChunkedLoad(bench.gateway, bench.ledger, clients=8, breath_s=0.01).running():
        until(lambda: bench.ledger.statuses[507] >= 100, "requests to be answered with 507")
        # Of names some are always kept for it.
        if not kind.reserve and not kind.by_names:
            until(lambda: bench.gateway.events("sealed unpacked"), "files to be sealed without an archive")


def _until_it_goes_on(bench: FullDisk, kind: Disk, name: str) -> None:
    """What was taken leaves without anybody making room; then room is made, but where there is a reserve that does without."""
    bench.proxy.accept()
    delivered(bench.gateway, f"what was taken on {kind} to be delivered")
    if not kind.reserve:
        bench.disk.make_room()
    takes_everything(bench.gateway, bench.ledger, f"after-{name}")


# --- every kind of write by itself ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Write:
    """A kind of write, and how it is brought to find the disk full.

    Attributes:
        step: as `strace.steps` has it.
        pages: so many are left.
        requests: what is sent then.
        before: what is sent while there is room.
        mended: the step by which what was written of it is taken away.
        is_refused_before: whether room is asked for before the write, so that the disk itself need not refuse it.
    """

    step: str
    pages: int
    requests: Callable[[Client], list[Request]]
    before: Callable[[Client], list[Request]] = lambda _: []
    mended: str = ""
    is_refused_before: bool = False


def _small(client: Client, count: int = 1) -> list[Request]:
    return [client.small("usage", 3 * KIB) for _ in range(count)]


_SEGMENT = "usage/….jsonl.open"
_SEALED = "rename usage/aggregation/…/….jsonl -> usage/uploading/….jsonl"
WRITES = (
    _Write(f"write {_SEGMENT}", 1, lambda client: _small(client, 4), _small, f"truncate {_SEGMENT}"),
    # By itself it would fit one page, and in its envelope it does not.
    _Write(f"write {_SEGMENT}", 1, lambda client: [client.small("usage", PAGE - 60)], mended=f"remove {_SEGMENT}"),
    _Write("write tmp/draft", 1, lambda client: [client.large("usage", 20 * KIB)], is_refused_before=True),
    # The body fits once, and not a second time in its envelope.
    _Write("write tmp/draft", 8, lambda client: [client.large("error", 20 * KIB)], is_refused_before=True),
    _Write("write tmp/draft", 2, lambda client: [client.specimen(20 * KIB)], is_refused_before=True),
    _Write("write tmp/sidecar", 1, lambda client: [client.specimen(3 * KIB)], is_refused_before=True),
)


def _one_by_one(site: Site) -> Outcome:
    outcome = Outcome()
    writes = site.pick(list(WRITES))
    # So long that no segment is cut and no batch made in the middle of a try.
    bench = FullDisk(site, Disk(12 * MIB, envelope=True), "one", interval="3s")
    with bench.running(outcome, "one by one", tries=lambda: len(writes) + 2):
        for number, write in enumerate(writes):
            _write(outcome, bench, write, f"write-{number}")
        _archive(bench)
        _upload_note(bench)
    return outcome


def _write(outcome: Outcome, bench: FullDisk, write: _Write, name: str) -> None:
    client = Client(bench.gateway, bench.ledger, name)
    # What is left may become room when it is delivered.
    delivered(bench.gateway)
    with bench.watched() as strace:
        client.send(write.before(client))
        bench.disk.fill(leave=write.pages * PAGE)
        refused = bench.ledger.requests(Fate.REFUSED)
        with suppress(Died):
            client.send([in_chunks(request) for request in write.requests(client)])
    if bench.ledger.requests(Fate.REFUSED) == refused:
        outcome.blame(f"{write.step} has met a full disk, and nobody was told")
    if write.step not in bench.met(strace) and not write.is_refused_before:
        outcome.blame(f"{write.step} has not met a full disk, but {bench.met(strace)}")
    if write.mended and write.mended not in bench.done(strace):
        outcome.blame(f"{write.step} has met a full disk, and there was no {write.mended}")
    bench.disk.make_room()
    takes_everything(bench.gateway, bench.ledger, f"{name}-after")


def _archive(bench: FullDisk) -> None:
    """The disk is full when a batch is made: it leaves as it is, and nobody makes room."""
    delivered(bench.gateway)
    with bench.watched() as strace:
        # A segment takes the last room.
        bench.disk.fill(leave=PAGE)
        client = Client(bench.gateway, bench.ledger, "archive")
        client.send([client.small("usage")])
        until(lambda: _SEALED in bench.done(strace), "the segment to be sealed as it is")
    delivered(bench.gateway, "the batch to be delivered")
    bench.disk.make_room()


def _upload_note(bench: FullDisk) -> None:
    """The disk is full when a file is to be sent in parts."""
    bench.proxy.refuse()
    client = Client(bench.gateway, bench.ledger, "upload-note")
    client.send([client.specimen(PART_BYTES + 300_000)])
    bench.disk.fill(leave=0)
    with bench.watched() as strace:
        bench.proxy.accept()
        # The log told of the failure when it began, which was when the store went away.
        until(lambda: "write specimen/….body.upload" in bench.met(strace), "the note of the upload to find no room")
    bench.disk.make_room()
    delivered(bench.gateway, "the specimen to be delivered")


# --- killed on a full disk -----------------------------------------------------------------------------------------


def _killed(site: Site) -> Outcome:
    """Killed on a full disk, it is started on it; where it cannot start without room it says so, and does with room."""
    outcome = Outcome()
    started = 0
    kinds = site.pick(list(DISKS))
    for number, kind in enumerate(kinds):
        bench = FullDisk(site, kind, str(number))
        with bench.running(outcome, f"{kind}, killed"):
            bench.proxy.refuse()
            bench.fill()
            with ChunkedLoad(bench.gateway, bench.ledger, clients=8, breath_s=0.01).running():
                until(lambda bench=bench: bench.ledger.statuses[507] >= 20, "requests to be answered with 507")  # type: ignore[misc]
                bench.gateway.kill()
            if _starts(outcome, bench):
                started += 1
            else:
                bench.disk.make_room()
                bench.gateway.start()
            bench.proxy.accept()
            delivered(bench.gateway, f"what was taken on {kind} to be delivered after a kill")
            bench.disk.make_room()
            takes_everything(bench.gateway, bench.ledger, f"after-{number}")
    outcome.notes.append(f"{started} of {len(kinds)} started on the full disk")
    return outcome


def _starts(outcome: Outcome, bench: FullDisk) -> bool:
    gateway = bench.gateway
    try:
        scenario.start(gateway)
    except Died:
        code = gateway.wait()
        if code != 1 or "cache_dir" not in gateway.said():
            outcome.blame(f"{bench.kind}: exit code {code} at the start: {gateway.said()[-500:]}")
        return False
    return True


ROWS: tuple[Row, ...] = (
    Row("disk-full", GROUP, "the disk becomes full under load, of bytes or of names, with and without a reserve", _under_load),
    Row("disk-full-writes", GROUP, "the disk is full for each kind of write", _one_by_one),
    Row("disk-full-kill", GROUP, "the gateway is killed on a full disk, and started on it", _killed),
)
