"""Rows in which the disk fails: calls of the gateway that strace has fail, and a disk that is really full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from reliability import scenario
from reliability.confined import Confined
from reliability.disk import breaks as disk_breaks
from reliability.disk import elsewhere, quota, small_spool, two_gateways
from reliability.disk import full as disk_full
from reliability.disk.mistrust import wrongs
from reliability.disk.owed import ToldLedger, owed
from reliability.disk.strace import Fault, Strace, Traced, steps
from reliability.row import Outcome, Row, Site
from reliability.scenario import Client, Died
from reliability.verdict import conclude, delivered, ended, serve, told
from testkit.buckets import Buckets
from testkit.gateway_process import Settings, merged
from testkit.ledger import Ledger
from testkit.load import Request

GROUP = "Disk faults"
KINDS = ("fdatasync", "fsync", "writev", "rename", "unlink", "mkdir", "rmdir", "openat")
WRITING_KINDS = ("writev", "fdatasync", "openat", "mkdir", "rename", "fsync")
# Of one kind of call; what comes later in a thread is more of the same.
MOST_OF_A_KIND = 10
# What may be answered when only one thing is wrong with the disk.
STATUSES = {"EIO": (204, 503), "ENOSPC": (204, 507)}
_COPIED = "rename tmp/draft -> usage/….jsonl.open"
# Without these nothing could fail, and nothing would be safe.
SYNCS = (
    "usage/….jsonl.open",
    "error/….jsonl.open",
    "tmp/draft",
    "tmp/sidecar",
    "tmp/archive",
    "specimen/….body.upload",
    "usage (receive)",
    "usage (commit)",
    "usage (claim)",
    "usage/aggregation/… (claim)",
    "usage/uploading (seal)",
    "usage/aggregation/… (remove sources)",
    "usage/uploading (retire)",
    "specimen (commit)",
    "specimen (retire)",
)


# --- what is sent ------------------------------------------------------------------------------------------------


def _settings(buckets: Buckets) -> Settings:
    # Several syncs of one segment, so that one can fail after others have not.
    return merged(scenario.settings(buckets), {"spool": {"segment_max_age": "2s", "segment_max_bytes": "16KiB"}})


def _all_kinds(client: Client) -> Iterator[Sequence[Request]]:
    """Whatever is written to the disk in some way of its own."""
    yield [client.small("usage")]
    yield [client.specimen(2000)]
    yield [client.many("usage"), client.small("error"), client.large("usage"), client.small("usage")]
    yield [client.specimen(scenario.PART_BYTES + 300_000), client.small("usage"), client.specimen(100)]
    yield [client.large("error"), client.small("error")]


def _send_all_kinds(gateway: Confined, ledger: Ledger, name: str) -> None:
    client = Client(gateway, ledger, name)
    for requests in _all_kinds(client):
        # That there is no answer is one of those that are allowed.
        with suppress(Died):
            client.send(requests)
    assert gateway.is_running, f"the gateway ended:\n{gateway.said()[-2000:]}"


# --- one call fails ----------------------------------------------------------------------------------------------


class _Bench:
    """A gateway on which one fault after the other is tried, without a restart as long as it gets over them."""

    def __init__(self, site: Site, outcome: Outcome, statuses: Sequence[int]) -> None:
        self._site = site
        self._statuses = statuses
        self._outcome = outcome
        self._tries = 0
        self.met: Counter[str] = Counter()
        self.buckets = Buckets(site.minio.minio)
        self.ledger = ToldLedger()
        self.gateway = Confined(site.folder / "gateway", _settings(self.buckets))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve; all that was sent is accounted for at the end."""
        with ended(self.gateway):
            serve(self.gateway, self.buckets)
            yield
            told(self._outcome, self.gateway, "while calls failed", self._statuses)
            conclude(self._outcome, self.gateway, self.buckets, self.ledger, "at the end", tries=self._tries)
        self.buckets.remove()
        self.buckets.close()

    def attempt(self, name: str, *faults: Fault) -> list[Traced]:
        """Send everything while these stand, and return the calls once everything is delivered all the same."""
        log = self._site.folder / f"{name}.strace"
        refused = self.ledger.refusals()
        with Strace(self.gateway.pid, log, *faults) as strace:
            _send_all_kinds(self.gateway, self.ledger, name)
            delivered(self.gateway, f"all to be delivered after {', '.join(map(str, faults))}")
        calls = strace.calls()
        met = list(_met(calls, self.gateway.cache))
        # A call that was not made again tells nothing.
        self._tries += bool(met)
        self.met.update(met)
        self._outcome.faults += [f"{name}: {wrong}" for wrong in wrongs(calls)]
        for stream in self.ledger.untold(owed(steps(calls, str(self.gateway.cache))), refused):
            self._outcome.blame(f"{name}: {stream} was not told that calls had failed: {', '.join(met)}")
        log.unlink()
        return calls


def _met(calls: Sequence[Traced], spool: Path) -> Iterator[str]:
    return (f"{step.transition}: {step.text}" for call, step in steps(calls, str(spool)) if call.injected)


def _one_call(site: Site, *, kinds: Sequence[str], error: str) -> Outcome:
    outcome = Outcome()
    bench = _Bench(site, outcome, STATUSES[error])
    with bench.running():
        calls = bench.attempt("clean")
        synced = {step.text.removeprefix(call.name).strip() for call, step in steps(calls, str(bench.gateway.cache))}
        for missing in set(SYNCS) - synced:
            outcome.blame(f"never synced: {missing}")
        # The second sync of a segment is the one that has something to lose.
        second = Fault(("fdatasync",), error, "2")
        calls = bench.attempt("second", second)
        if not any(step.text == _COPIED for _, step in steps(calls, str(bench.gateway.cache))):
            outcome.blame("no segment was copied after a failed sync")
        for fault in site.pick([fault for kind in kinds for fault in _each(calls, kind, error)]):
            bench.attempt(f"{fault.calls[0]}-{fault.when}", fault)
    outcome.notes.append(f"{sum(bench.met.values())} calls failed, of {len(bench.met)} kinds: {', '.join(sorted(bench.met))}")
    return outcome


def _each(calls: Sequence[Traced], kind: str, error: str) -> Iterator[Fault]:
    """The first call of this kind of every thread, the second, …, as many as some thread makes."""
    by_thread = Counter(call.thread for call in calls if call.name == kind)
    most = min(max(by_thread.values(), default=0), MOST_OF_A_KIND)
    return (Fault((kind,), error, str(number)) for number in range(1, most + 1))


ROWS: tuple[Row, ...] = (
    Row("disk-eio", GROUP, "one call on the disk fails with EIO", partial(_one_call, kinds=KINDS, error="EIO")),
    Row("disk-enospc", GROUP, "one call on the disk fails with ENOSPC", partial(_one_call, kinds=WRITING_KINDS, error="ENOSPC")),
    *disk_breaks.ROWS,
    *disk_full.ROWS,
    *small_spool.ROWS,
    *two_gateways.ROWS,
    *elsewhere.ROWS,
    *quota.ROWS,
)
