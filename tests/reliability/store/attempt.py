"""One gateway that meets one fault, from its first request to the account of all of them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.delivery import object_keys
from gateway.spool import names
from gateway.spool.names import KeyNumber
from gateway.spool.sidecar import Sidecar
from reliability.proxy.server import FaultProxy
from reliability.row import Site
from reliability.store.variants import Variant
from reliability.strangers import SharedBuckets
from testkit.deadlines import until
from testkit.gateway_process import HOST, STREAMS, settings_for
from testkit.ledger import REPORTS, Fate, WholeLedger
from testkit.load import SEGMENT_REPORT_LIMIT, Request, requests_of

MIB = 1 << 20
PART = 5 * MIB
# What failing attempts may take above the memory of a gateway that has sent everything, however many there are.
ALLOWANCE = 16 * MIB
SETTINGS: dict[str, dict[str, object]] = {
    # Small batches, so that a few reports make several.
    "aggregation": {"max_batch_bytes": "16KiB"},
    "spool": {"segment_report_limit": SEGMENT_REPORT_LIMIT, "segment_max_age": "100ms"},
    "s3": {"part_size": "5MiB"},
    "delivery": {"retry_min": "10ms", "retry_max": "30ms", "refused_retry": "30ms"},
    "shutdown": {"drain_timeout": "2s"},
}
# How long a failure lasts at least before it is told once more, with a count.
MINUTE_S = 60.0
# In which moment of its life the gateway meets the fault.
HOWS = ("calm", "start", "kill", "stop")

# A store that throttles is away for a while, as any other.
_KIND = {"throttled": "transient"}


class Try:
    """One gateway that meets one fault, from its first request to the account of all of them."""

    def __init__(self, site: Site, name: str, variant: Variant, how: str, proxy: FaultProxy, buckets: SharedBuckets) -> None:
        self.variant, self.how, self.proxy, self.buckets = variant, how, proxy, buckets
        self.ledger = WholeLedger()
        self.gateway = site.gateway(name, settings_for(buckets, **SETTINGS))
        self.gateway.configure(aws={"endpoint": proxy.endpoint}, s3=variant.s3)
        self.rules = variant.rules()
        self.kills = 0
        self.faults: list[str] = []
        self.note = ""
        self._requests = requests_of(0)
        self._large = itertools.count()

    def go(self) -> None:
        """Meet the fault; what was seen stands in `faults` and `note`."""
        if self.variant.missing:
            for bucket in self.buckets.all:
                self.buckets.client.remove_bucket(bucket)
        else:
            self.plant_ahead()
        if self.how == "start":
            self.begin()
        self.gateway.start()
        if self.how != "start":
            self.send_some()
            self.wait_for_the_rest()
            self.begin()
        before = self.gateway.forget_peak()
        self.send_some()
        self.plant_waiting()
        self.wait_for_fault()
        growth = self.gateway.peak_memory() - before
        if self.how in ("kill", "stop"):
            self.check_told(is_over=False)
            self._end_and_start_again()
            self.wait_for_fault()
        self.check_told(is_over=False)
        self.end()
        self.send_some()
        self.wait_for_the_rest()
        self.check_told(is_over=True)
        if self.how == "calm":
            self.note = f"{growth / MIB:.1f} MiB more than the {before / MIB:.0f} before"
            if growth > ALLOWANCE:
                self.faults.append(f"memory grew while it lasted: {self.note}")
        self.finish()

    def finish(self) -> None:
        """Stop, have the store do what was held back, and look at everything but the account."""
        if (code := self.gateway.stop(60)) != 0 or self.gateway.left():
            self.faults.append(f"exit {code}, left in the spool: {self.gateway.left()[:3]}")
        self.proxy.clear()
        self.proxy.release()
        for event in ("defect", "quarantined", "aggregation failed", "spool failed"):
            self.faults += [f"{event}: {line}" for line in self.gateway.events(event)[:1]]
        self.faults += [f"overwritten: {key}" for key in self.buckets.disturbed()[:3]]
        self.faults += self.proxy.defects
        # What nobody was told of cannot be noted, nor what is heard in the moment of a kill.
        unheard = self.proxy.unheard("CreateMultipartUpload")
        left = [key for bucket in self.buckets.all for key in self.buckets.unfinished_uploads(bucket)]
        if len(left) > unheard + self.kills:
            self.faults.append(f"{len(left)} uploads left, of which {unheard} had to be: {left[:3]}")
        if self.rules and not any(rule.met for rule in self.rules):
            self.faults.append("no request has met the fault")

    def deliver_in_peace(self) -> None:
        """Have what still waits delivered without any fault."""
        self.gateway.kill()
        self.proxy.clear()
        self.proxy.accept()
        self.gateway.start()
        self.wait_for_the_rest()

    # --- its steps ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Let the fault stand from now on."""
        if self.variant.missing:
            return
        if self.rules:
            self.proxy.add(*self.rules)
        else:
            self.proxy.refuse()

    def end(self) -> None:
        """Let everything through from now on."""
        if self.variant.missing:
            for bucket in self.buckets.all:
                self.buckets.client.make_bucket(bucket)
            self.plant_waiting()
        self.proxy.clear()
        self.proxy.accept()

    def send_some(self) -> None:
        """Two dozen requests of every kind, and a specimen of two parts."""
        for request in [*itertools.islice(self._requests, 24), large_specimen(next(self._large))]:
            self.send(request)

    def send(self, request: Request) -> None:
        """Send one, and write down what came of it."""
        try:
            status = self.gateway.put(request.path, request.body, headers={"Content-Type": request.content_type})
        except OSError:
            self.ledger.note(request.stream, request.contents, Fate.UNANSWERED)
            return
        self.ledger.note(request.stream, request.contents, Fate.ACKNOWLEDGED if status == 204 else Fate.REFUSED)
        if status != 204:
            self.faults.append(f"a request was answered with {status} because the store failed")

    def plant_ahead(self) -> None:
        """Take the first and the third key of this hour and of the next."""
        now = datetime.now(UTC)
        hours = {(now + timedelta(minutes=minutes)).strftime("%Y%m%d%H") for minutes in (0, 10)}
        for hour, number, bucket in itertools.product(hours, (1, 3), (self.buckets.usage, self.buckets.error)):
            self.buckets.plant(bucket, object_keys.batch_key("", names.Batch(hour, HOST, "0" * 32), KeyNumber(number)))

    def plant_waiting(self) -> None:
        """Take the very key, and the next one, under which each second thing that waits will be sent."""
        for stream in REPORTS:
            for path in sorted(self.gateway.cache.glob(f"{stream}/uploading/*.gz"))[::2]:
                parsed = names.parse_sealed(path.name)
                if parsed is None or not parsed[1]:
                    # A key with the id of the batch is one that no stranger can have.
                    continue
                for number in (parsed[1], parsed[1] + 1):
                    self.buckets.plant(getattr(self.buckets, stream), object_keys.batch_key("", parsed[0], KeyNumber(number)))
        for path in sorted(self.gateway.cache.glob("specimen/*.meta"))[::2]:
            with contextlib.suppress(FileNotFoundError):
                of = Sidecar.from_json(path.read_bytes())
                spooled = names.parse_spool_name(path.name)
                assert spooled is not None
                about = {"user": of.user, "uri": of.uri, "media_type": of.type}
                key = object_keys.file_key("", **about, received_ns=of.received, order=spooled.order, again="")
                self.buckets.plant(self.buckets.specimen, key)

    def wait_for_fault(self) -> None:
        """Until the fault was met often enough."""
        stuck = self.variant.stuck
        if stuck:
            until(lambda: self.gateway.has_retried(stuck, self.variant.lasts), "the failures", timeout_s=90)
        else:
            self.wait_for_the_rest()

    def wait_for_the_rest(self) -> None:
        """Until nothing waits in the spool."""
        until(lambda: self.gateway.left() == [], "the spool to be empty", timeout_s=120)

    def _end_and_start_again(self) -> None:
        if self.how == "kill":
            self.gateway.kill()
            self.kills += 1
        elif (code := self.gateway.stop(30)) != (3 if self.variant.stuck else 0):
            self.faults.append(f"the stop while the fault stood came with exit {code}")
        self.gateway.start()

    def check_told(self, *, is_over: bool) -> None:
        """Look how often the failure has been told so far, and its end."""
        for stream in STREAMS:
            told = self.gateway.events("delivery failed", stream=stream)
            # What concerns one object alone has no end of its own.
            begun = [line for line in told if "count" not in line and line["kind"] != "object"]
            self.faults += [f"told again too soon: {line}" for line in _too_soon(told)][:1]
            if is_over and begun:
                # It is told a moment after the last file is gone.
                enough = len(begun)
                with contextlib.suppress(AssertionError):
                    until(lambda: len(self.gateway.events("delivery recovered", stream=stream)) >= enough, "the end", timeout_s=5)  # noqa: B023
            ended = self.gateway.events("delivery recovered", stream=stream)
            if self.variant.once and (len(begun), len(ended)) != (1, int(is_over)):
                self.faults.append(f"{stream}: told {len(begun)} times that it failed, {len(ended)} times that it recovered")
            if (is_over and len(begun) != len(ended)) or not all(line["count"] >= 1 for line in ended):
                self.faults.append(f"{stream}: {len(begun)} beginnings and {len(ended)} ends")
            others = [line for line in told if _KIND.get(line["kind"], line["kind"]) not in self.variant.kinds]
            self.faults += [f"told as {line['kind']}: {line}" for line in others][:1]


def large_specimen(number: int) -> Request:
    """A specimen of two parts, unlike every other."""
    body = b"".join(hashlib.sha256(b"%d %d" % (number, block)).digest() for block in range((PART + 100_000) // 32))
    return Request("specimen", f"/specimen?uri=large-{number}.bin", body, (body,), "application/octet-stream")


def check_refusing(one: Try, *, is_over: bool) -> None:
    """Look at what a probe and a monitor see of a store that refuses every stream, or of one that has done so."""
    ready = one.gateway.get("/ready")
    said = {"status": ready.json()["status"], "degraded": sorted(line.partition(":")[0] for line in ready.json()["degraded"])}
    wanted = {"status": "ready", "degraded": []} if is_over else {"status": "degraded", "degraded": sorted(STREAMS)}
    if ready.status != 200 or said != wanted:
        one.faults.append(f"/ready says {ready.status} {said}, and not {wanted}")
    for stream in STREAMS:
        if one.gateway.metric("store_refusing", stream=stream) != float(not is_over):
            one.faults.append(f"store_refusing of {stream} is not {not is_over:d}")


def _too_soon(told: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """What was told once more, of a kind that had been told less than a minute before; another kind is told at once."""
    last: dict[object, float] = {}
    for line in told:
        if line["kind"] == "object":
            continue
        if "count" not in line:
            last.clear()
        lasted = line.get("duration_s", 0.0)
        if lasted - last.get(line["kind"], -MINUTE_S) < MINUTE_S:
            yield line
        last[line["kind"]] = lasted
