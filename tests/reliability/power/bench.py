"""Has gateways find what power cuts have left, and accounts for what they make of it."""

from __future__ import annotations

import queue
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from reliability.power.cuts import Cut, lay_out, settings
from reliability.power.forked_gateway import ForkedGateway, Template, interpreter
from reliability.power.recorded_store import fill
from reliability.row import Outcome
from testkit.buckets import StoredObject
from testkit.gateway_process import Gateway
from testkit.ledger import FILES, REPORTS, Account, Fate, Ledger, digest
from testkit.servers.fake_s3 import FakeS3, fake_s3
from testkit.stored import PROOF

WORKERS = 3


class Bench:
    """Tries states, one after the other, with a store and a template of its own."""

    def __init__(self, folder: Path, store: FakeS3, template: Template | None) -> None:
        self._folder = folder
        self._store = store
        self._template = template
        self._tries = 0

    def attempt(self, cut: Cut) -> tuple[Account, list[str], bool]:
        """What a gateway made of a state; what else is wrong; whether it quarantined anything."""
        self._tries += 1
        folder = self._folder / str(self._tries)
        fill(self._store, cut.store)
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

    def of_fake(self, store: FakeS3) -> Account:
        """Compare with what the store holds, and count."""
        account = Account()
        for stream in (*REPORTS, *FILES):
            held = [
                StoredObject(key, kept.body, kept.headers, kept.metadata)
                for (bucket, key), kept in store.objects.items()
                if bucket == stream and not key.endswith(PROOF)
            ]
            found = [one.body for one in held] if stream in FILES else [line for one in held for line in one.lines()]
            self._compare(account, stream, [digest(content) for content in found])
        return account


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
            benches.put(Bench(own, stack.enter_context(fake_s3()), template))
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
