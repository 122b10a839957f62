"""A spool on a disk without room for one more archive, nor for one more name, and how what waits in it leaves all the same."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

from gateway.spool import names
from reliability.row import CannotRun
from reliability.scenario import FullLedger, drain, settings
from testkit.buckets import Buckets
from testkit.gateway_process import Gateway, Settings, merged
from testkit.ledger import Fate, Ledger

# Less than what an archive may have above its lines, so that there is no room for one however much of this is free.
_SIZE = 128 << 10
_FIRST_NS, _HOUR, _PID = 1_795_269_540_000_000_000, "2026112113", 4711
_CLONE_NEWNS = 0x00020000
_FOLDERS = (
    "tmp",
    "quarantine",
    *(f"{stream}/{state}" for stream in ("usage", "error") for state in ("aggregation", "uploading")),
)


class FullSpool:
    """The life of a gateway that finds such a spool, and drains; see `attempt.Life`."""

    def __init__(self) -> None:
        _enter_namespace()

    def settings(self, buckets: Buckets) -> Settings:
        """As large as they may be, so that the size of a batch is no reason to make it small."""
        return merged(settings(buckets), {"aggregation": {"max_batch_bytes": None}})

    def prepare(self, folder: Path, buckets: Buckets) -> Ledger:
        """Mount the disk, and fill it with reports that wait and with batches that were claimed before it was full."""
        spool = folder / "spool"
        spool.mkdir(parents=True)
        _mount(f"size={_SIZE},mode=0700", spool)
        for name in (*_FOLDERS, "specimen"):
            (spool / name).mkdir(parents=True)
        (spool / "FORMAT").write_text("2\n")
        (spool / ".lock").touch()
        ledger = FullLedger()
        for number, (place, kind) in enumerate(_places()):
            order = _FIRST_NS + number
            line = b'{"id":"full-%d","text":"%s"}' % (number, b"x" * 1000)
            path = spool / place / names.spool_name(order, order, _PID, kind, "alice" * (kind == names.WHOLE_REPORT))
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(line + b"\n")
            ledger.note(place.partition("/")[0], [line], Fate.ACKNOWLEDGED)
        status = os.statvfs(spool)
        # The directory of a batch finds no name any more, until something has left.
        _mount(f"remount,nr_inodes={status.f_files - status.f_ffree}", spool)
        return ledger

    def clear(self, folder: Path) -> None:
        """Take the disk away."""
        subprocess.run(["umount", "--lazy", str(folder / "spool")], check=True)

    def live(self, gateway: Gateway, ledger: Ledger) -> None:
        """Nothing more is sent."""
        drain(gateway)


def _places() -> list[tuple[str, str]]:
    """Where reports are, and what they are."""
    claimed = [f"{stream}/aggregation/{names.Batch(_HOUR, 'full-host', '0' * 32)}" for stream in ("usage", "error")]
    return [
        ("usage", names.CUT_SEGMENT),
        ("usage", names.WHOLE_REPORT),
        ("usage", names.CUT_SEGMENT),
        ("error", names.WHOLE_REPORT),
        (claimed[0], names.CUT_SEGMENT),
        (claimed[0], names.WHOLE_REPORT),
        (claimed[1], names.CUT_SEGMENT),
    ]


def _enter_namespace() -> None:
    """Have what this thread mounts, and those that it starts, go when the process does."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWNS) != 0:
        raise CannotRun(f"no disk can be mounted in a namespace: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _mount(options: str, spool: Path) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(spool)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CannotRun(f"no disk can be mounted: {done.stderr.strip()}")
