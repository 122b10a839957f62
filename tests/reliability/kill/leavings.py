"""A spool in which killed gateways have left everything that can be left, and what a start makes of it."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from reliability.calls import Step
from reliability.kill.traced import Kill
from reliability.kill.traced_gateway import TracedGateway
from reliability.row import Site
from reliability.scenario import PART_BYTES, Client, Died, FullLedger, drain, first, settings, start
from testkit.buckets import Buckets
from testkit.gateway_process import Gateway, Settings, merged
from testkit.ledger import Ledger
from testkit.servers.process import free_port

# After these calls gateways are killed whose store is away; what they leave is put together in one spool, as that of several
# that were killed one after the other. It is no matter which, as long as they leave all of `_STATES`.
_CALLS = (
    Step("claim", "make usage/aggregation/…", 1),
    Step("claim", "rename usage/….jsonl -> usage/aggregation/…/….jsonl", 1),
    Step("aggregate", "write tmp/archive", 1),
    Step("remove sources", "remove usage/aggregation/…/….jsonl", 1),
    Step("commit", "fdatasync usage/….jsonl.open", 2),
    Step("commit", "rename tmp/sidecar -> specimen/….meta", 1),
    Step("commit", "fsync specimen (commit)", 4),
)


_STATES = (
    "tmp/*",
    "usage/*.jsonl.open",
    "usage/*.jsonl",
    "usage/*.json",
    "usage/aggregation/*/*.jsonl",
    "usage/uploading/*.1.jsonl.gz",
    "specimen/*.body",
    "specimen/*.meta",
)


class Leavings:
    """The life of a gateway that finds such a spool, has it in order, and drains; see `attempt.Life`.

    Args:
        spool: where it is; it stays as it is, and every gateway gets a copy.
        ledger: what was sent for it.
    """

    def __init__(self, spool: Path, ledger: FullLedger) -> None:
        self._spool = spool
        self._ledger = ledger

    def settings(self, buckets: Buckets) -> Settings:
        """Batches so large that all that waits becomes one, for a try is to be short."""
        return merged(settings(buckets), {"aggregation": {"max_batch_bytes": None}})

    def prepare(self, folder: Path, buckets: Buckets) -> Ledger:
        """Copy the spool; the files that are sent in parts get the note of an upload that was begun in these buckets."""
        shutil.copytree(self._spool, folder / "spool")
        for body in (folder / "spool" / "specimen").glob("*.body"):
            if body.stat().st_size >= PART_BYTES:
                begin_upload(body, buckets)
        return self._ledger.copy()

    def clear(self, folder: Path) -> None:
        """There are only files."""

    def live(self, gateway: Gateway, ledger: Ledger) -> None:
        """Nothing more is sent."""
        drain(gateway)


def begin_upload(body: Path, buckets: Buckets) -> None:
    """What a gateway has done that was killed after the first part."""
    key = "begun-by-one-that-was-killed"
    # The client keeps these calls private.
    upload = buckets.client._create_multipart_upload(buckets.specimen, key, {})
    with body.open("rb") as file:
        buckets.client._upload_part(buckets.specimen, key, file.read(PART_BYTES), {}, upload, 1)
    noted = {"bucket": buckets.specimen, "key": key, "upload_id": upload}
    body.with_name(f"{body.name}.upload").write_text(json.dumps(noted))


def leave(site: Site) -> Leavings:
    """Have gateways killed, and put together what they leave."""
    ledger = FullLedger()
    spool = site.folder / "leavings"
    with ThreadPoolExecutor(2) as runs:
        for left in list(runs.map(lambda number: _left(site, number, ledger), range(len(_CALLS)))):
            shutil.copytree(left, spool, dirs_exist_ok=True)
            shutil.rmtree(left.parent)
    missing = [state for state in _STATES if not list(spool.glob(state))]
    assert not missing, f"nothing of this was left: {', '.join(missing)}"
    batches = list((spool / "usage" / "aggregation").iterdir())
    sealed = {path.name[: -len(".1.jsonl.gz")] for path in (spool / "usage" / "uploading").iterdir()}
    assert not all(any(batch.iterdir()) for batch in batches), "no batch was left empty"
    assert {batch.name in sealed for batch in batches} == {False, True}, "no batch was left sealed with its sources, or none not"
    assert len(list(spool.glob("specimen/*.meta"))) > len(list(spool.glob("specimen/*.body"))), "no sidecar was left alone"
    return Leavings(spool, ledger)


def _left(site: Site, number: int, ledger: Ledger) -> Path:
    buckets = Buckets(site.minio.minio)
    away = settings(buckets)
    away["aws"]["endpoint"] = f"http://127.0.0.1:{free_port()}"
    gateway = TracedGateway(site.folder / f"killed-{number}", away, Kill(after=True, step=_CALLS[number]))
    try:
        with suppress(Died):
            start(gateway)
            client = Client(gateway, ledger, f"killed-{number}")
            for requests in first(client):
                client.send(requests)
            gateway.wait()
    finally:
        gateway.end()
        buckets.remove()
        buckets.close()
    assert gateway.killed_at() is not None, f"it did not come to {_CALLS[number]}: {gateway.said()}"
    return gateway.cache
