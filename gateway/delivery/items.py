"""What is delivered: sealed batches and received files, each as the object it becomes in the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.batching import aggregate
from gateway.core import clock
from gateway.core.streams import Stream
from gateway.delivery import object_keys
from gateway.delivery.packing import Packed
from gateway.spool import names
from gateway.spool.names import BY_ID, FIRST, KeyNumber
from gateway.spool.sidecar import Sidecar, read_sidecar
from gateway.spool.spool import Spool
from gateway.stores import Object

GZIP = "application/gzip"
# S3 takes 2 KB of metadata, names included; the fixed fields need less than a quarter of it.
MAX_METADATA_TEXT_BYTES = 1500


class Item(Protocol):
    """One thing to be delivered, under a key that has a number.

    Attributes:
        keeps_number: whether the number stands on the disk, so that no earlier attempt can have tried a higher one.
    """

    path: Path
    number: KeyNumber
    items: int
    keeps_number: bool

    def object(self, number: KeyNumber | None = None) -> Object:
        """The object under the current number, or under another one."""
        ...

    def companion(self) -> Object | None:
        """An object that has to be stored beside it, before it."""
        ...

    def next_number(self) -> KeyNumber:
        """A number that is to be tried after its own, and after those that this has given before; blocks."""
        ...

    def renumber(self, number: KeyNumber) -> None:
        """Go on under another number; blocks, and is durable where the number has to survive a restart."""
        ...


class SealedBatch:
    """The archive of a batch, or the file that becomes one while it is sent."""

    keeps_number = True

    def __init__(
        self, spool: Spool, stream: Stream, path: Path, summary: aggregate.Summary, packed: Packed | None = None
    ) -> None:
        parsed = names.parse_sealed(path.name)
        assert parsed is not None  # the spool hands out sealed files only
        self._spool = spool
        self._stream = stream
        self._summary = summary
        self.path = path
        self._packed = packed
        self.batch, self.number = parsed
        self.items = summary.lines

    def object(self, number: KeyNumber | None = None) -> Object:
        """See `Item.object`."""
        return Object(
            bucket=self._stream.bucket,
            key=object_keys.batch_key(self._stream.prefix, self.batch, self.number if number is None else number),
            source=self._packed or self.path,
            size=self.path.stat().st_size if self._packed is None else self._packed.size,
            content_type=GZIP,
            metadata={
                "stream": self._stream.name,
                "batch": self.batch.unique,
                "lines": str(self._summary.lines),
                "sha256": self._summary.sha256,
            },
            identity="batch",
        )

    def companion(self) -> Object | None:
        """None: all there is to say of a batch fits its metadata."""
        return None

    def next_number(self) -> KeyNumber:
        """See `Item.next_number`: no other batch has been given it."""
        return self._spool.numbers.next(self._stream, self.batch)

    def renumber(self, number: KeyNumber) -> None:
        """See `Item.renumber`: the sealed file is renamed before the attempt."""
        self.path = self._spool.renumber(self.path, number)
        if self._packed is not None:
            self._packed.path = self.path
        self.number = number


class ReceivedFile:
    """A received file with its sidecar.

    Its number is not kept over a restart: the names of two files collide so rarely that trying the first key again costs
    nothing, and what is found there decides.
    """

    items = 1
    keeps_number = False

    def __init__(self, stream: Stream, path: Path, sidecar: Sidecar) -> None:
        self._stream = stream
        self._sidecar = sidecar
        spooled = names.parse_spool_name(path.name)
        assert spooled is not None  # the spool hands out bodies only
        self._order = spooled.order
        self.path = path
        self.number = FIRST

    def object(self, number: KeyNumber | None = None) -> Object:
        """See `Item.object`."""
        metadata, _ = self._metadata()
        return Object(
            bucket=self._stream.bucket,
            key=self._key(self.number if number is None else number),
            source=self.path,
            size=self._sidecar.size,
            content_type=self._sidecar.type,
            metadata=metadata,
            identity="id",
        )

    def companion(self) -> Object | None:
        """The sidecar as `<key>.meta.json`, where not all that a client said of it fits the metadata."""
        metadata, complete = self._metadata()
        if complete:
            return None
        sidecar = self._sidecar.known() | {"received": clock.iso(self._sidecar.received)}
        body = json.dumps(sidecar, indent=2).encode("ascii") + b"\n"
        return Object(
            bucket=self._stream.bucket,
            key=f"{self._key(self.number)}.meta.json",
            source=body,
            size=len(body),
            content_type="application/json",
            metadata={"id": metadata["id"], "sha256": metadata["sha256"]},
            identity="id",
        )

    def next_number(self) -> KeyNumber:
        """See `Item.next_number`."""
        return KeyNumber(self.number + 1)

    def renumber(self, number: KeyNumber) -> None:
        """See `Item.renumber`."""
        self.number = number

    def _key(self, number: KeyNumber) -> str:
        sidecar = self._sidecar
        return object_keys.file_key(
            self._stream.prefix,
            user=sidecar.user,
            uri=sidecar.uri,
            media_type=sidecar.type,
            received_ns=sidecar.received,
            order=self._order,
            again={BY_ID: sidecar.id, FIRST: ""}.get(number, str(number)),
        )

    def _metadata(self) -> tuple[dict[str, str], bool]:
        """The metadata, and whether it says all of it."""
        sidecar = self._sidecar
        of_form = {"filename": sidecar.filename, "fields": json.dumps(sidecar.fields, separators=(",", ":"))}
        optional = {name: text for name, text in of_form.items() if getattr(sidecar, name)}
        texts, complete = object_keys.metadata_texts(
            {"user": sidecar.user, "uri": sidecar.uri}, MAX_METADATA_TEXT_BYTES, optional
        )
        return {
            "id": sidecar.id,
            **texts,
            "received": clock.iso(sidecar.received),
            "sha256": sidecar.sha256,
        }, complete


@dataclass(frozen=True, slots=True)
class UnreadableItem(Exception):
    """What waits cannot be read, and only a person can say what to do with it."""

    reason: str


def open_item(spool: Spool, stream: Stream, path: Path, summary: aggregate.Summary | None) -> Item:
    """Read what is to be delivered; blocks.

    Args:
        spool: where it waits.
        stream: whose it is.
        path: a sealed file or a body.
        summary: of the archive, if it is still known; None has it read, which proves it whole after a restart.

    Raises:
        UnreadableItem: the archive or the sidecar cannot be read.
        FileNotFoundError: it is gone: retired meanwhile.
    """
    if stream.form.has_segments:
        if not names.is_packed(path.name):
            packed = Packed(path)
            return SealedBatch(spool, stream, path, packed.summary, packed)
        try:
            return SealedBatch(spool, stream, path, summary or aggregate.summarize(path))
        except aggregate.UnreadableArchive as error:
            raise UnreadableItem(str(error)) from error
    size = path.stat().st_size
    try:
        sidecar = read_sidecar(path)
    except (ValueError, FileNotFoundError) as error:
        raise UnreadableItem(f"its sidecar cannot be read: {error}") from error
    if sidecar.size != size:
        raise UnreadableItem(f"it has {size} bytes and its sidecar says {sidecar.size}")
    return ReceivedFile(stream, path, sidecar)
