"""One soak: a gateway under load that is killed, stopped and cut off from its store, and what came of all that was sent."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from reliability.proxy.server import FaultProxy
from reliability.row import Site
from reliability.soak import log as soak_log
from reliability.soak import plan as soak_plan
from reliability.soak import samples as soak_samples
from reliability.soak.ledger import HashLedger
from reliability.soak.load import SoakLoad
from reliability.soak.outages import KINDS, Outages
from reliability.soak.plan import Deed, Step
from reliability.soak.report import Report
from reliability.soak.requests import PART_BYTES, REPORT_BYTES, SEGMENT_REPORT_LIMIT
from reliability.soak.samples import MIB, spooled
from reliability.verdict import ended
from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import HOST, Settings, settings_for

# Past so many files in the spool the clients are held, and go on at half of it.
MOST_FILES = 400
_LOOK_EVERY_S = 0.25
# More than there are threads in any of the gateway's pools.
_BURST = 16
_DRAIN_S = 120.0
# Above what it takes at rest: bodies on their way in and out, whatever their size and however much waits.
PEAK_ALLOWANCE = 64 << 20
DRAINED, LEFT_DATA = 0, 3
# glibc raises these two by itself, up to 32 and 64 MiB, when large pieces of memory are freed, and then keeps what is free.
# That comes to its bound only after a long time; fixed at what they begin with, a leak is seen at once for what it is.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


class Soak:
    """Runs one soak.

    Args:
        site: where.
        minutes: about how long.
        seed: of all that is random; the instants are the machine's.
        say: told of each step.
        workers: how many processes receive.
    """

    def __init__(self, site: Site, minutes: float, seed: int, say: Callable[[str], None], *, workers: int = 1) -> None:
        self.report = Report(seed, minutes)
        self._pace = soak_plan.pace_of(minutes)
        self._say = say
        self._source = random.Random(seed)
        self._buckets = Buckets(site.minio.minio)
        self._proxy = FaultProxy(site.minio.minio)
        self._outages = Outages(self._proxy, random.Random(seed + 1))
        self._ledger = HashLedger()
        self._gateway = site.gateway("gateway", self._settings(workers), **ALLOCATOR)
        self._load = SoakLoad(self._gateway, self._ledger, seed, self._pace.heavy_s)
        self._looked_at = 0.0

    def _settings(self, workers: int) -> Settings:
        interval = f"{self._pace.interval_s * 1000:.0f}ms"
        return settings_for(
            self._buckets,
            server={"workers": workers},
            aggregation={"usage_interval": interval, "error_interval": interval, "max_batch_bytes": "4MiB"},
            spool={"segment_report_limit": SEGMENT_REPORT_LIMIT, "segment_max_bytes": "256KiB", "segment_max_age": "500ms"},
            limits={"report_bytes": REPORT_BYTES},
            s3={"part_size": PART_BYTES, "connect_timeout": "2s", "read_timeout": "2s"},
            aws={"endpoint": self._proxy.endpoint},
            shutdown={"drain_timeout": "60s"},
        )

    def run(self) -> Report:
        """Do it all, and account for everything that was sent; what goes wrong stands in the report."""
        try:
            with self._proxy, ended(self._gateway):
                self._live()
                self._account()
        finally:
            self._buckets.close()
        return self.report

    def _live(self) -> None:
        try:
            self._gateway.start()
            with self._load.running():
                self._phase("kills and outages", self._pace.killing_s, soak_plan.killing(self._source, self._pace, KINDS))
                self._calm()
                self._phase("kills and outages again", self._pace.killing_s, soak_plan.killing(self._source, self._pace, KINDS))
                self._end()
        except Exception as error:  # noqa: BLE001 (whatever it was, what was sent is accounted for)
            self._blame(f"broken off: {error!r}")
            # What only waits is not lost, and is not to be counted so.
            with suppress(AssertionError, OSError):
                self._deliver_in_peace()
        self.report.seconds = self._now()

    # --- phases -----------------------------------------------------------------------------------------------------

    def _phase(self, name: str, seconds: float, steps: Iterable[Step]) -> None:
        self._tell(name)
        deadline = time.monotonic() + seconds
        for step in steps:
            self._pass(step.after_s)
            if time.monotonic() > deadline:
                return
            self._do(step)

    def _calm(self) -> None:
        """A life of half of the time, so that whatever grows has time to."""
        self._outages.end()
        self._rename(2)
        self._do(Step(0, Deed.STOP))
        self._load.burst(_BURST)
        with ThreadPoolExecutor(_BURST) as askers:
            list(askers.map(self._gateway.get, ["/metrics"] * _BURST))
        stopping = self._load.refused()
        self.report.samples, others = self.report.calm, self.report.samples
        self._phase("outages alone", self._pace.calm_s, soak_plan.calm(self._source, self._pace, KINDS))
        self._outages.end()
        self._do(Step(0, Deed.QUIET))
        self.report.samples = others
        self._rename(3)
        if (refused := self._load.refused() - stopping) > 0:
            self._blame(f"{refused} good requests were answered with 503 while nothing was stopped")

    def _rename(self, number: int) -> None:
        """Give the gateway another name from its next start on.

        After each start it looks for the first free number of the hour one by one, and an hour of a soak has hundreds of
        batches where one of real life has six: with one name the stops of a long soak would be nothing but that search.
        """
        self._gateway.configure(aggregation={"host": f"{HOST}-{number}"})

    def _end(self) -> None:
        """A last stop under load, after which nothing is left."""
        self._outages.end()
        self._do(Step(0, Deed.QUIET))
        self._pass(self._pace.interval_s / 2)
        self._tell("the last stop")
        if (code := self._stop()) != DRAINED or spooled(self._gateway):
            self._blame(f"the last stop came with exit code {code}, and left {spooled(self._gateway)[:3]}")

    # --- steps ------------------------------------------------------------------------------------------------------

    def _do(self, step: Step) -> None:
        self._tell(step.deed.value + (step.outage and f": {step.outage}"))
        self.report.deeds[step.deed] += 1
        match step.deed:
            case Deed.OUTAGE:
                self._outages.begin(step.outage)
            case Deed.RECOVERY:
                self._outages.end()
            case Deed.QUIET:
                self._quiet()
            case Deed.STOP:
                self._stop_and_start()
            case Deed.KILL:
                self._kill()
                self._gateway.start()
            case Deed.KILL_IN_RECOVERY:
                self._kill()
                self._gateway.launch()
                until(lambda: self._gateway.events("gateway starting"), "the next start to begin")
                self._pass(self._source.uniform(0, 0.1))
                self._kill()
                self._gateway.start()

    def _kill(self) -> None:
        self.report.kills += 1
        self._take_peak()
        self._gateway.kill()
        self._read_log()

    def _stop_and_start(self) -> None:
        was_away = self._outages.stands
        code = self._stop()
        # What was refused three times in a row waits for a person, or for the next start.
        if code != DRAINED and not (was_away and code == LEFT_DATA):
            self._blame(f"a stop at {self._now():.1f} s came with exit code {code}")
        if (code == DRAINED) == bool(spooled(self._gateway)):
            self._blame(f"a stop at {self._now():.1f} s came with exit code {code}, and left {spooled(self._gateway)[:3]}")
        self._gateway.start()

    def _stop(self) -> int:
        self._take_peak()
        self._gateway.signal(signal.SIGTERM)
        if self._outages.stands:
            self._pass(self._source.uniform(*self._pace.pause_s), is_ending=True)
            self._outages.end()
        code = self._gateway.wait(_DRAIN_S)
        self._read_log()
        return code

    def _quiet(self) -> None:
        """Have everything delivered and every connection closed, and see what the gateway takes."""
        self._load.rest()
        until(lambda: not self._waiting(), "everything to be delivered", timeout_s=_DRAIN_S)
        # The store closes what is idle, so that it is the same number of connections each time: none.
        self._proxy.refuse()
        self._proxy.accept()
        sample = soak_samples.take(self._gateway, self._now())
        self.report.samples.append(sample)
        self.report.peak = max(self.report.peak, sample.peak)
        if sample.files:
            self._blame(f"with nothing under way {sample.drafts} drafts were left: {spooled(self._gateway)[:3]}")
        self._tell(
            f"{sample.memory / MIB:.1f} MiB, {sample.open_descriptors} descriptors, {sample.threads} threads, "
            f"{self._load.requests()} requests"
        )
        self._load.go()

    # --- in between -------------------------------------------------------------------------------------------------

    def _pass(self, seconds: float, *, is_ending: bool = False) -> None:
        """Let so much time pass, with an eye on the backlog."""
        end = time.monotonic() + seconds

        def is_over() -> bool:
            assert is_ending or self._gateway.is_running, f"the gateway ended by itself: {self._gateway.said()[-2000:]}"
            assert not self._load.defects, f"a client failed: {self._load.defects[0]!r}"
            self._bound_backlog()
            return time.monotonic() >= end

        until(is_over, "time to pass", timeout_s=seconds + 30)

    def _bound_backlog(self) -> None:
        if time.monotonic() - self._looked_at < _LOOK_EVERY_S:
            return
        files = len(spooled(self._gateway))
        self.report.most_files = max(self.report.most_files, files)
        if files > MOST_FILES:
            self._load.hold()
        elif files < MOST_FILES / 2:
            self._load.go()
        self._looked_at = time.monotonic()

    def _waiting(self) -> list[str]:
        """What is in the spool, but for drafts, which nobody was promised."""
        return [name for name in spooled(self._gateway) if not name.startswith("tmp/")]

    def _take_peak(self) -> None:
        self.report.peak = max(self.report.peak, self._gateway.peak_memory())

    def _read_log(self) -> None:
        faults, torn = soak_log.read_and_shorten(self._gateway._log_path)
        self.report.torn_segments += torn
        for fault in faults:
            self._blame(f"told before {self._now():.1f} s: {fault}")

    def _deliver_in_peace(self) -> None:
        # One that has ended by itself is not there to be killed.
        with suppress(ProcessLookupError):
            self._gateway.kill()
        self._outages.end()
        self._gateway.start()
        until(lambda: not self._waiting(), "everything to be delivered", timeout_s=_DRAIN_S)

    # --- the account ------------------------------------------------------------------------------------------------

    def _account(self) -> None:
        report = self.report
        self._tell("the account")
        report.account = self._ledger.account(self._buckets)
        report.sent = self._load.sent
        report.outages, report.outage_s = self._outages.counts, self._outages.seconds
        report.faults += report.account.examples
        report.faults += self._load.wrong[:3] + [repr(defect) for defect in self._load.defects[:3]] + self._proxy.defects[:3]
        uploads = [key for bucket in self._buckets.all for key in self._buckets.unfinished_uploads(bucket)]
        # What nobody was told of cannot be noted, nor what is heard in the moment of a kill.
        if len(uploads) > (unheard := self._proxy.unheard("CreateMultipartUpload") + report.kills):
            self._blame(f"{len(uploads)} unfinished uploads, of which {unheard} may be: {uploads[:3]}")
        if report.torn_segments > 2 * report.kills:
            self._blame(f"{report.torn_segments} torn segments after {report.kills} kills")
        report.faults += soak_samples.growths(report.calm)
        at_rest = min((sample.memory for sample in (*report.calm, *report.samples)), default=report.peak)
        if report.peak - at_rest > PEAK_ALLOWANCE:
            self._blame(f"memory went up to {report.peak / MIB:.0f} MiB from {at_rest / MIB:.0f} at rest")

    def _blame(self, fault: str) -> None:
        self.report.faults.append(fault)
        self._tell(f"FAULT {fault}")

    def _tell(self, text: str) -> None:
        self._say(f"{self._now():7.1f} s  {text}")

    def _now(self) -> float:
        return self._ledger.seconds()
