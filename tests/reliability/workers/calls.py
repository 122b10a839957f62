"""Rows in which a worker dies at one of its calls, or its disk fails for a while, and the others go on."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reliability.disk.strace import Fault, Strace, _names
from reliability.row import Outcome, Row, Site
from reliability.workers.bench import GROUP, TRIES_A_LIFE, Bench
from testkit.deadlines import until
from testkit.ledger import Fate
from testkit.worker_log import replaced, workers

# What a worker does to the disk, and the calls with which it answers and tells of its commits.
KILLED_AT = ("fdatasync", "rename", "fsync", "writev", "openat", "write", "unlink")
FAILING = ("fdatasync", "fsync", "rename", "writev")
SLOW = 4
# The how manieth of its kind in one thread.
NUMBERS = (1, 2, 3, 5, 9)
# Two cores: so long it may take until a thread has made so many calls.
_PATIENCE_S = 5.0
_FAULT_REQUESTS = 60
_DELAY_US = 200_000


@dataclass(frozen=True)
class Death(Fault):
    """A process that is killed as it makes a call: before that is done, and after what the thread did before it."""

    def expression(self) -> str:
        """See `Fault.expression`."""
        return f"inject={_names(self.calls)}:signal=KILL:when={self.when}"

    def __str__(self) -> str:
        return f"SIGKILL at {' or '.join(self.calls)} {self.when}"


@dataclass(frozen=True)
class Slow(Fault):
    """Calls that fail only after a while, in which others may look at what is to be taken back."""

    def expression(self) -> str:
        """See `Fault.expression`."""
        return f"{super().expression()}:delay_enter={_DELAY_US}"

    def __str__(self) -> str:
        return f"slow {super().__str__()}"


def _killed(site: Site) -> Outcome:
    outcome = Outcome()
    bench = Bench(site, outcome)
    met: Counter[str] = Counter()
    deaths = [Death((kind,), "", str(number)) for number in NUMBERS for kind in KILLED_AT]
    with bench.under_load():
        for number, death in enumerate(site.pick(deaths)):
            if number and number % TRIES_A_LIFE == 0:
                bench.restart(f"before {death}")
            bench.until_whole()
            if _dies(bench, death, site.folder / "strace"):
                met[death.calls[0]] += 1
                outcome.tried += 1
    outcome.notes.append(", ".join(f"{count} at {kind}" for kind, count in met.items()))
    if not met:
        outcome.blame("no worker came to any of the calls")
    return outcome


def _dies(bench: Bench, death: Death, log: Path) -> bool:
    pid = bench.random.choice(list(workers(bench.gateway).values()))
    with Strace(pid, log, death), suppress(AssertionError):
        until(lambda: pid not in bench.processes(), f"{death}", timeout_s=_PATIENCE_S)
    log.unlink(missing_ok=True)
    if pid in bench.processes():
        return False
    until(replaced(bench.gateway, pid), f"another worker after {death}")
    return True


def _failing(site: Site, error: str) -> Outcome:
    """Calls of one worker fail for a while: it says so to its clients, does not die, and goes on by itself."""
    outcome = Outcome()
    bench = Bench(site, outcome)
    failed = 0
    # The sync of a directory is the moment in which a name is there that may have to be taken back.
    faults: list[Fault] = [Slow(("fsync",), error, "1+") for _ in range(SLOW)]
    faults += [Fault((kind,), error, f"{number}{more}") for number in (1, 3) for more in ("", "+") for kind in FAILING]
    with bench.under_load():
        for number, fault in enumerate(site.pick(faults)):
            if number and number % TRIES_A_LIFE == 0:
                bench.restart(f"before {fault}")
            failed += _fails(bench, fault, site.folder / "strace")
            outcome.tried += 1
        if bench.gateway.events("worker died"):
            outcome.blame("a worker died of a fault of the disk")
    outcome.notes.append(f"{failed} calls failed")
    if not failed:
        outcome.blame("no call has failed")
    return outcome


def _fails(bench: Bench, fault: Fault, log: Path) -> int:
    answered = bench.ledger.statuses.total()
    with Strace(bench.random.choice(list(workers(bench.gateway).values())), log, fault) as strace:
        until(lambda: bench.ledger.statuses.total() > answered + _FAULT_REQUESTS, f"requests to be answered during {fault}")
        failed = strace.failed()
    acknowledged = bench.ledger.requests(Fate.ACKNOWLEDGED)
    until(lambda: bench.ledger.requests(Fate.ACKNOWLEDGED) > acknowledged + _FAULT_REQUESTS, f"it to go on after {fault}")
    log.unlink(missing_ok=True)
    return failed


ROWS: tuple[Row, ...] = (
    Row("workers-kill-calls", GROUP, "SIGKILL of a worker at a call that writes, syncs, renames, removes or answers", _killed),
    Row("workers-disk-eio", GROUP, "calls of one worker on the disk fail with EIO", lambda site: _failing(site, "EIO")),
    Row("workers-disk-enospc", GROUP, "calls of one worker on the disk fail with ENOSPC", lambda site: _failing(site, "ENOSPC")),
)
