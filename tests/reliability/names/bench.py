"""Gateways that share a name and their buckets, and have clocks of their own."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from integration import stored
from integration.deadlines import until
from integration.gateway_process import HOST, settings_for
from integration.ledger import Fate
from integration.load import SEGMENT_REPORT_LIMIT, Load

from reliability.confined import Confined
from reliability.names import keys
from reliability.names.fake_clock import Clocked, FakeClock, fixed, passed_on_time
from reliability.opened import OpenedLedger, reports
from reliability.proxy.server import FaultProxy, Rule
from reliability.row import Outcome, Site
from reliability.strangers import SharedBuckets
from reliability.verdict import STOP_S, conclude, ended, serve

HOUR = timedelta(hours=1)
# In the middle of an hour, so that none turns where it is not meant to, and long ago, so that it never is the true one.
MIDDLE = datetime(2024, 11, 21, 14, 20, tzinfo=UTC)
# Between the clock of the gateway and the row's own, which are read one after the other when it is set.
_TOLERANCE = timedelta(milliseconds=20)
# What a start goes on from: committed, or claimed and not sealed.
_NAMED = re.compile(r"(?:usage|error|specimen)/(?:aggregation/[^/]+/)?(\d{19})\..*")


class NumberedLoad(Load):
    """A load whose clients are counted from a number on, so that several loads send nothing twice."""

    def __init__(self, gateway: Confined, ledger: OpenedLedger, *, first: int, clients: int = 4, breath_s: float = 0.1) -> None:
        super().__init__(gateway, ledger, clients=clients, breath_s=breath_s)
        numbers = range(first, first + clients)
        self._threads = [threading.Thread(target=self._client, args=(number,), daemon=True) for number in numbers]
        self.answers = [0] * (first + clients)


def newest(cache: Path) -> int:
    """The newest name of what waits in a spool, in nanoseconds since the epoch; 0 if there is none."""
    found = (path for path in cache.rglob("*") if path.is_file() and path.stat().st_size)
    return max((int(name[1]) for path in found if (name := _NAMED.fullmatch(str(path.relative_to(cache))))), default=0)


class NamingBench:
    """Gateways of one host name that deliver to one set of buckets, each with a clock and a spool of its own.

    Args:
        site: where.
        now: what their clocks show at first; None for a clock that can be set, of which there is one.
        stands: whether they show it for ever.
        count: how many gateways.
        prefix: what they run in.
        max_batch_bytes: see the configuration.
        may_refuse: whether a request may be answered with an error.
    """

    def __init__(
        self,
        site: Site,
        *,
        now: datetime | None = None,
        stands: bool = False,
        count: int = 1,
        prefix: Sequence[str] = (),
        max_batch_bytes: str = "16KiB",
        may_refuse: bool = False,
    ) -> None:
        self.buckets = SharedBuckets(site.minio.minio)
        self.ledger = OpenedLedger()
        self.proxy = FaultProxy(site.minio.minio)
        self._may_refuse = may_refuse
        self._dated: dict[bytes, tuple[datetime, datetime]] = {}
        self._above: dict[bytes, int] = {}
        folders = [site.folder / f"gateway-{number}" for number in range(count)]
        for folder in folders:
            folder.mkdir()
        self.clock = FakeClock(folders[0] / "clock")
        self._now = now
        environment = self.clock.environment if now is None else fixed(now, stands=stands)
        settings = settings_for(
            self.buckets,
            aggregation={"max_batch_bytes": max_batch_bytes, "envelope": True},
            spool={"segment_report_limit": SEGMENT_REPORT_LIMIT, "segment_max_bytes": "8KiB", "segment_max_age": "50ms"},
            aws={"endpoint": self.proxy.endpoint},
        )
        self.gateways = [Clocked(folder, settings, prefix, environment=environment) for folder in folders]
        self.gateway = self.gateways[0]

    @contextmanager
    def running(self, outcome: Outcome, where: str, *, tries: int = 1) -> Iterator[None]:
        """Serve; whatever comes of the block, account for all at the end, and look at every key."""
        with self.proxy, ended(*self.gateways):
            self.proxy.add(Rule(passed_on_time))
            for gateway in self.gateways:
                serve(gateway, self.buckets)
                gateway.must_show(self._now or self.clock.now())
            try:
                yield
            except AssertionError as error:
                outcome.blame(f"{where}: {error}")
                self.proxy.accept()
            self._conclude(outcome, where, tries)
        self.buckets.close()

    def _conclude(self, outcome: Outcome, where: str, tries: int) -> None:
        try:
            self._drain(outcome, where, tries)
        except AssertionError as error:
            outcome.blame(f"{where}: {error}")
            outcome.add(self.ledger.account(self.buckets), where)
        if (refused := self.ledger.requests(Fate.REFUSED)) and not self._may_refuse:
            outcome.blame(f"{where}: {refused} requests were answered with an error")
        for faults in (keys.faults(self.buckets, HOST), self._misdated(), self._not_above(), self.proxy.defects):
            outcome.faults += [f"{where}: {fault}" for fault in faults]

    def _drain(self, outcome: Outcome, where: str, tries: int) -> None:
        for gateway in self.gateways:
            if not gateway.is_running:
                # It has ended where it should not, which is blamed; what it has left is to be accounted for all the same.
                gateway.start()
        *others, last = self.gateways
        for gateway in others:
            if (code := gateway.stop(STOP_S)) != 0:
                outcome.blame(f"{where}: exit code {code}")
        conclude(outcome, last, self.buckets, self.ledger, where, tries=tries)

    # --- what is done ---------------------------------------------------------------------------------------------

    def put(self, gateway: Confined, stream: str, content: bytes) -> None:
        """Send one report, or one file of the name that all of them have."""
        path = "/specimen?uri=file:///same.bin" if stream == "specimen" else f"/{stream}"
        status = gateway.put(path, content)
        self.ledger.note(stream, [content], Fate.ACKNOWLEDGED if status == 204 else Fate.REFUSED)

    def put_above(self, gateway: Confined, instant: int) -> None:
        """Send a report that has to be dated after this instant."""
        content = b'{"above":%d}' % len(self._above)
        self.put(gateway, "error", content)
        self._above[content] = instant

    def put_dated(self) -> datetime:
        """Send a report, remember between which instants it was taken, and return the second of them."""
        content = b'{"dated":%d}' % len(self._dated)
        before = self.clock.now()
        self.put(self.gateway, "error", content)
        after = self.clock.now()
        self._dated[content] = (before, after)
        return after

    def plant(self, hour: datetime, *numbers: int) -> None:
        """Have a stranger take keys of an hour."""
        for bucket in (self.buckets.usage, self.buckets.error):
            for number in numbers:
                self.buckets.plant(bucket, keys.batch_key(hour, HOST, number))

    def acknowledged(self, more: int) -> None:
        """Return once so many more requests were acknowledged."""
        enough = self.ledger.requests(Fate.ACKNOWLEDGED) + more
        until(lambda: self.ledger.requests(Fate.ACKNOWLEDGED) >= enough, "requests to be acknowledged")

    @staticmethod
    def stop(gateway: Confined) -> None:
        """Have a gateway drain."""
        code = gateway.stop(STOP_S)
        assert code == 0, f"exit code {code}"

    # --- what is seen ---------------------------------------------------------------------------------------------

    def sent(self) -> int:
        """How many batches of usage reports were delivered."""
        return len(stored.keys(self.buckets, self.buckets.usage))

    def set_back(self, first: int) -> list[str]:
        """What of the load with this first number was dated before something that it had sent earlier."""
        mine = (one for one in reports(self.buckets, self.buckets.usage) if keys.client_of(one) // 100 == first // 100)
        return [f"set back: {fault}" for fault in keys.set_back(mine)]

    def _misdated(self) -> Iterator[str]:
        """What was given an instant that the clock did not show then."""
        for report in reports(self.buckets, self.buckets.error):
            if (between := self._dated.get(report.report)) is not None:
                # What comes after the microseconds is more than a datetime holds.
                received = datetime.fromisoformat(report.received[:26] + "+00:00")
                if not between[0] - _TOLERANCE <= received <= between[1] + _TOLERANCE:
                    yield f"received between {between[0]} and {between[1]}, and dated {report.received}"

    def _not_above(self) -> Iterator[str]:
        """What was dated before something that had waited in the spool when the gateway started."""
        for report in reports(self.buckets, self.buckets.error):
            if (instant := self._above.get(report.report)) is not None and keys.nanoseconds(report.received) <= instant:
                yield f"dated {report.received}, which is not above {instant}, the newest that waited"
