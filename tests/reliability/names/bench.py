"""Gateways that share a name and their buckets, and have clocks of their own."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from reliability.confined import Confined
from reliability.names import keys
from reliability.names.fake_clock import Clocked, FakeClock, fixed, passed_on_time
from reliability.opened import OpenedLedger, reports
from reliability.proxy.server import FaultProxy, Rule
from reliability.row import Outcome, Site
from reliability.strangers import SharedBuckets
from reliability.verdict import STOP_S, conclude, ended, serve
from testkit import stored
from testkit.buckets import StoredObject
from testkit.deadlines import until
from testkit.gateway_process import HOST, settings_for
from testkit.ledger import REPORTS, Fate
from testkit.load import SEGMENT_REPORT_LIMIT, Load, Request

HOUR = timedelta(hours=1)
# In the middle of an hour, so that none turns where it is not meant to, and long ago, so that it never is the true one.
MIDDLE = datetime(2024, 11, 21, 14, 20, tzinfo=UTC)
# Of what a clock shows, in nanoseconds: it is set to the microsecond.
_TOLERANCE_NS = 20_000_000
# What a start goes on from: committed, or claimed and not sealed.
_NAMED = re.compile(r"(?:usage|error|specimen)/(?:aggregation/[^/]+/)?(\d{19})\..*")


# What was sent, and between which true instants the gateway has taken it, if it has.
Sent = dict[bytes, tuple[datetime, datetime]]


class NumberedLoad(Load):
    """A load whose clients are counted from a number on, so that several loads send nothing twice.

    Args:
        gateway, ledger, clients, breath_s: see `Load`.
        sent: where it is written down when each thing was sent and answered.
        first: the number of the first client.
    """

    def __init__(
        self, gateway: Confined, ledger: OpenedLedger, sent: Sent, *, first: int, clients: int = 4, breath_s: float = 0.1
    ) -> None:
        super().__init__(gateway, ledger, clients=clients, breath_s=breath_s)
        self._sent = sent
        numbers = range(first, first + clients)
        self._threads = [threading.Thread(target=self._client, args=(number,), daemon=True) for number in numbers]
        self.answers = [0] * (first + clients)

    def _send(self, connection: http.client.HTTPConnection, request: Request, number: int) -> bool:
        begun = datetime.now(UTC)
        can_be_used = super()._send(connection, request, number)
        self._sent.update(dict.fromkeys(request.contents, (begun, datetime.now(UTC))))
        return can_be_used


def newest(cache: Path) -> int:
    """The highest order in the names of what waits in a spool; 0 if there is none."""
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
        self._sent: Sent = {}
        self._above: dict[bytes, int] = {}
        folders = [site.folder / f"gateway-{number}" for number in range(count)]
        for folder in folders:
            folder.mkdir()
        self.clock = FakeClock(folders[0] / "clock")
        self._now = now
        self._stands = stands
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
        files = stored.files(self.buckets, self.buckets.specimen)
        wrongs = (keys.faults(self.buckets, HOST), self._misdated(files), self._not_above(files), keys.disordered(files))
        for faults in (*wrongs, self.proxy.defects):
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

    def load(self, gateway: Confined | None = None, *, first: int) -> NumberedLoad:
        """A load for a gateway, not begun; of what it sends it is looked at whether it is dated by the clock."""
        return NumberedLoad(gateway or self.gateway, self.ledger, self._sent, first=first)

    def put(self, gateway: Confined, stream: str, content: bytes) -> None:
        """Send one report, or one file of the name that all of them have."""
        path = "/specimen?uri=file:///same.bin" if stream == "specimen" else f"/{stream}"
        begun = datetime.now(UTC)
        status = gateway.put(path, content)
        self._sent[content] = begun, datetime.now(UTC)
        self.ledger.note(stream, [content], Fate.ACKNOWLEDGED if status == 204 else Fate.REFUSED)

    def put_above(self, gateway: Confined, order: int) -> None:
        """Send a file whose name has to be of a higher order than this one."""
        content = b"above %d" % len(self._above)
        self.put(gateway, "specimen", content)
        self._above[content] = order

    def put_dated(self) -> datetime:
        """Send a report, and return what the clock shows then."""
        self.put(self.gateway, "error", b'{"dated":%d}' % len(self._sent))
        return self.clock.now()

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

    def _misdated(self, files: Iterable[StoredObject]) -> Iterator[str]:
        """What was given an instant that the clock did not show while it was sent and answered, one of each stream."""
        for stream in REPORTS:
            found = reports(self.buckets, getattr(self.buckets, stream))
            yield from islice(self._false_dates((one.report, one.received) for one in found), 1)
        yield from islice(self._false_dates((file.body, file.metadata["received"]) for file in files), 1)

    def _false_dates(self, dated: Iterable[tuple[bytes, str]]) -> Iterator[str]:
        for content, received in dated:
            shown = self._shown(*self._sent[content]) if content in self._sent else None
            if shown is not None and not _is_within(keys.nanoseconds(received), shown):
                between = " or ".join(f"between {begin} and {end}" for begin, end in shown)
                yield f"received {between}, and dated {received}: {content[:40]!r}"

    def _shown(self, begun: datetime, ended: datetime) -> list[tuple[datetime, datetime]] | None:
        """What the clock of the gateway can have shown; None where that is not known."""
        if self._now is None:
            return self.clock.shown(begun, ended)
        return [(self._now, self._now)] if self._stands else None

    def _not_above(self, files: Iterable[StoredObject]) -> Iterator[str]:
        """What has a name of no higher order than something that had waited in the spool when the gateway started."""
        for file in files:
            if (order := self._above.get(file.body)) is not None and keys.order_of(file.key) <= order:
                yield f"{file.key} is not above {order}, the newest that waited"


def _is_within(instant: int, shown: Iterable[tuple[datetime, datetime]]) -> bool:
    return any(_instant(begin) - _TOLERANCE_NS <= instant <= _instant(end) + _TOLERANCE_NS for begin, end in shown)


def _instant(shown: datetime) -> int:
    return (shown - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
