"""Names: of files in the spool, of batches, and of the numbers in keys.

Everything here is a pure function of its arguments. What is to be delivered gets its key from what was written down at
receipt, never from the clock, the pid or the host at the moment of sending: a second attempt must find the same key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from gateway.core.text import encode

MAX_NAME_BYTES = 255

OPEN_SEGMENT = "jsonl.open"
CUT_SEGMENT = "jsonl"
WHOLE_REPORT = "json"
BODY = "body"
SIDECAR = "meta"
# Stands beside a file that is being sent in parts and holds the id of that upload.
UPLOAD_NOTE = "upload"

# Names of format 1 lack the second number.
_SPOOLED = re.compile(r"([0-9]{19})\.(?:([0-9]{19})\.)?(0|[1-9][0-9]*)\.(?:([^.]+)\.)?(jsonl\.open|jsonl|json|body|meta)")
_SEALED = re.compile(r"(\d{10})\.([^.]+)\.([0-9a-f]{32})\.(\d+)\.jsonl(?:\.gz)?")
_BATCH = re.compile(r"(\d{10})\.([^.]+)\.([0-9a-f]{32})")


# --- files in the spool ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpoolName:
    """The parts of the name of a spooled file: `<order>.<received>.<pid>[.<label>].<kind>`.

    Attributes:
        order: by which names sort, above that of every earlier one; no time of day.
        pid: of the process that gave the name.
        label: a user or a uri, encoded; may be empty.
        kind: what it is.
        received: when, in nanoseconds since the epoch, by the clock; None in a name of format 1, where the order says it.
    """

    order: int
    pid: int
    label: str
    kind: str
    received: int | None = None

    def __str__(self) -> str:
        received = "" if self.received is None else f".{self.received:019d}"
        label = f".{self.label}" if self.label else ""
        return f"{self.order:019d}{received}.{self.pid}{label}.{self.kind}"

    @property
    def received_ns(self) -> int:
        """When it was received, in nanoseconds since the epoch."""
        return self.order if self.received is None else self.received


def spool_name(order: int, received: int, pid: int, kind: str, text: str = "", *, max_bytes: int = MAX_NAME_BYTES) -> str:
    """Name a spooled file; `text` (a user, a uri) is encoded and cut so that the whole fits a directory entry of `max_bytes`."""
    bare = str(SpoolName(order, pid, "", kind, received))
    # The name of the upload note is the longest that stands beside a file.
    room = max_bytes - len(bare) - 1 - len(UPLOAD_NOTE) - 1
    return str(SpoolName(order, pid, encode(text, room), kind, received))


def parse_spool_name(name: str) -> SpoolName | None:
    """Return the parts of a spooled file's name, or None if it is not one."""
    match = _SPOOLED.fullmatch(name)
    if match is None:
        return None
    order, received, pid, label, kind = match.groups()
    return SpoolName(int(order), int(pid), label or "", kind, None if received is None else int(received))


# --- batches -----------------------------------------------------------------------------------------------------

MAX_HOST_BYTES = 64


KeyNumber = NewType("KeyNumber", int)
"""Which of the keys that a thing could have: `FIRST` is the plain one, a higher one was given because others have those below."""
BY_ID = KeyNumber(0)
"""The key with the thing's own id, which nothing else can have, for stores that would replace what they have."""
FIRST = KeyNumber(1)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of reports of one UTC hour: what its directory and its sealed file are called.

    The host is part of the name, so that a batch that was sent once keeps its key when the machine is renamed (a
    container gets a new name at every start) before the answer of the store was seen.
    """

    hour: str
    host: str
    unique: str

    def __str__(self) -> str:
        return f"{self.hour}.{self.host}.{self.unique}"

    def sealed(self, number: KeyNumber, *, packed: bool = True) -> str:
        """The name of the sealed file that is to be tried under the key of this number.

        One that is not packed is compressed while it is sent: see `Spool.seal_unpacked`.
        """
        return f"{self}.{number}.jsonl{'.gz' if packed else ''}"


def new_batch(hour: str, host: str, random_bytes: bytes) -> Batch:
    """Name a new batch; `random_bytes` are 16 random bytes."""
    return Batch(hour, encode(host, MAX_HOST_BYTES) or "unknown", random_bytes.hex())


def parse_batch(name: str) -> Batch | None:
    """Return the batch a directory is named after, or None."""
    match = _BATCH.fullmatch(name)
    return Batch(*match.groups()) if match else None


def parse_sealed(name: str) -> tuple[Batch, KeyNumber] | None:
    """Return the batch and the number of the key to be tried from a sealed file's name, or None."""
    match = _SEALED.fullmatch(name)
    return (Batch(*match.groups()[:3]), KeyNumber(int(match[4]))) if match else None


def is_packed(sealed: str) -> bool:
    """Whether a sealed file is an archive already."""
    return sealed.endswith(".gz")


def identity_of(name: str) -> str:
    """What a file that waits for the store is, whatever number it is tried under."""
    sealed = parse_sealed(name)
    return str(sealed[0]) if sealed else name
