"""A spool of an earlier format, or without its FORMAT, with something in every state, and what a start makes of it."""

from __future__ import annotations

from pathlib import Path

from reliability.kill.leavings import begin_upload
from reliability.scenario import PART_BYTES, FullLedger, drain, settings
from testkit.buckets import Buckets
from testkit.gateway_process import Gateway, Settings, merged
from testkit.ledger import Fate, Ledger
from testkit.spool_formats import PART_BYTES as OLD_PART_BYTES
from testkit.spool_formats import spool_of_format

assert OLD_PART_BYTES == PART_BYTES, "what was being sent in parts is to be sent so again"


class Upgrade:
    """The life of a gateway that finds such a spool, takes it over, and drains; see `attempt.Life`.

    Args:
        number: of the format.
        is_said: whether the file FORMAT is there.
    """

    def __init__(self, number: int, *, is_said: bool = True) -> None:
        self._old = spool_of_format(number)
        self._is_said = is_said

    def settings(self, buckets: Buckets) -> Settings:
        """Batches so large that all that waits becomes one, for a try is to be short."""
        return merged(settings(buckets), {"aggregation": {"max_batch_bytes": None}})

    def prepare(self, folder: Path, buckets: Buckets) -> Ledger:
        """Put the spool in place, and begin the upload in these buckets that it has a note of."""
        self._old.put(folder / "spool")
        if not self._is_said:
            (folder / "spool" / "FORMAT").unlink()
        begin_upload(folder / "spool" / self._old.in_parts, buckets)
        ledger = FullLedger()
        for stream, contents in self._old.acknowledged.items():
            for content in contents:
                ledger.note(stream, [content], Fate.ACKNOWLEDGED)
        return ledger

    def clear(self, folder: Path) -> None:
        """There are only files."""

    def live(self, gateway: Gateway, ledger: Ledger) -> None:
        """Nothing more is sent."""
        drain(gateway)
