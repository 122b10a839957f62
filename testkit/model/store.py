"""A store in memory that never replaces, and misbehaves in every way that a network allows."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from dataclasses import dataclass, replace
from enum import Enum

from gateway.core import disk
from gateway.core.errors import ObjectRefused, Refused, Transient
from gateway.stores import Object, Outcome
from gateway.stores.file_slice import body_of
from testkit.model.fate import Fate
from testkit.spool import PowerCut


class Fault(Enum):
    """What goes wrong with one put."""

    AWAY = "nothing is stored, and the answer says try again"
    LOST = "it is stored, and the answer is lost"
    LATE = "it gets lost on its way, and is stored after its retry has begun"
    REFUSED = "a person has to change something"
    OBJECT_REFUSED = "this object is not taken, others are"
    NO_ANSWER = "no answer comes until the process ends"
    KILLED = "it is stored, and the process is killed before it has read the answer"


@dataclass(frozen=True)
class Kept:
    """One object."""

    data: bytes
    metadata: dict[str, str]
    is_strange: bool = False

    def lines(self) -> list[bytes]:
        """The lines of an archive."""
        return gzip.decompress(self.data).splitlines()


class ModelStore:
    """Objects by bucket and key.

    Attributes:
        honours: whether a put to a taken key is refused; else it replaces, and the gateway has to know.
        faults: what goes wrong with the puts to come, one after the other.
        is_hanging: whether a put waits for an answer that will not come.
        wrongs: what must never be seen here, in words.
    """

    def __init__(self, fate: Fate, *, honours: bool) -> None:
        self.honours = honours
        self.faults: list[Fault | None] = []
        self.objects: dict[tuple[str, str], Kept] = {}
        self.is_hanging = False
        self.wrongs: list[str] = []
        self._late: list[Object] = []
        self._fate = fate

    async def honours_condition(self, bucket: str, prefix: str) -> bool:
        """See `Store.honours_condition`."""
        del bucket, prefix
        return self.honours

    async def put(self, target: Object) -> Outcome:
        """See `Store.put`."""
        await asyncio.sleep(0)
        fault = self.faults.pop(0) if self.faults else None
        late, self._late = self._late, []
        if fault in (Fault.AWAY, Fault.LATE, Fault.REFUSED, Fault.OBJECT_REFUSED):
            self._land(late)
            if fault is Fault.LATE:
                self._late.append(_on_its_own(target))
            raise {Fault.REFUSED: Refused, Fault.OBJECT_REFUSED: ObjectRefused}.get(fault, Transient)(fault.value)
        outcome = self._put(target)
        self._land(late)
        if fault is Fault.KILLED:
            self._fate.die()
            raise PowerCut
        if fault is Fault.NO_ANSWER:
            self.is_hanging = True
            await asyncio.Event().wait()
        if fault is Fault.LOST:
            raise Transient(fault.value)
        return outcome

    async def holds(self, target: Object) -> bool:
        """See `Store.holds`."""
        found = self.objects.get((target.bucket, target.key))
        return found is not None and target.is_held_as(found.metadata)

    async def is_free(self, target: Object) -> bool:
        """See `Store.is_free`."""
        await asyncio.sleep(0)
        return (target.bucket, target.key) not in self.objects

    async def close(self) -> None:
        """Nothing is open."""

    def put_strange(self, target: Object) -> None:
        """Have somebody else be first at a key."""
        strange = Kept(b"strange", {target.identity: "somebody else's"}, is_strange=True)
        self.objects.setdefault((target.bucket, target.key), strange)

    def _put(self, target: Object) -> Outcome:
        place = (target.bucket, target.key)
        found = self.objects.get(place)
        if found is not None and self.honours:
            if not target.is_held_as(found.metadata):
                return Outcome.TAKEN
            if target.differences(found.metadata):
                self.wrongs.append(f"{target.key} was to be stored again with other content")
            return Outcome.PRESENT
        kept = Kept(_bytes_of(target), dict(target.metadata))
        if found is not None and (found.data, found.metadata) != (kept.data, kept.metadata):
            self.wrongs.append(f"{target.key} was replaced by something else")
        if not _is_true(target, kept):
            self.wrongs.append(f"the metadata of {target.key} are not those of its bytes")
        self.objects[place] = kept
        return Outcome.STORED

    def _land(self, late: list[Object]) -> None:
        for target in late:
            self._put(target)


def _bytes_of(target: Object) -> bytes:
    with body_of(target.source, 0, target.size) as body:
        return b"".join(iter(lambda: body.read(disk.COPY_CHUNK_BYTES), b""))


def _on_its_own(target: Object) -> Object:
    """The object with its bytes: by the time they arrive the file may be gone."""
    return replace(target, source=_bytes_of(target))


def _is_true(target: Object, kept: Kept) -> bool:
    if target.size != len(kept.data):
        return False
    if "lines" in kept.metadata:
        content = gzip.decompress(kept.data)
        told = (kept.metadata["lines"], kept.metadata["sha256"])
        return told == (str(content.count(b"\n")), hashlib.sha256(content).hexdigest())
    # A companion carries the hash of the file beside it.
    return target.key.endswith(".meta.json") or kept.metadata["sha256"] == hashlib.sha256(kept.data).hexdigest()
