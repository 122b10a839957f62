"""The contract between delivery and whatever keeps the objects.

One suite of tests holds every store to it: `tests/unit/stores/test_stores.py`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol


class Outcome(Enum):
    """What came of a put that raised nothing."""

    STORED = "stored"
    """The object is there now, durably."""
    PRESENT = "present"
    """The object was there already: an earlier put of ours had succeeded."""
    TAKEN = "taken"
    """Another object has the key; nothing was changed."""


class Readable(Protocol):
    """What can be read again and again, and gives the same bytes each time."""

    def open(self) -> io.IOBase:
        """A reader at the beginning, which can be closed, and go back."""
        ...


Source = Path | bytes | Readable


@dataclass(frozen=True, slots=True)
class Object:
    """What is to be stored.

    Attributes:
        bucket: a name.
        key: at most 1,024 bytes of ASCII.
        source: a file that nobody changes any more, the bytes themselves, or what gives them as they are read.
        size: of the source, in bytes.
        content_type: media type.
        metadata: ASCII names in lower case and ASCII values, at most 2 KB in all.
        identity: the name of the metadata field by which an object is known as ours.
    """

    bucket: str
    key: str
    source: Source
    size: int
    content_type: str
    metadata: Mapping[str, str]
    identity: str

    def is_held_as(self, found: Mapping[str, str]) -> bool:
        """Whether metadata found at the key says that this very object is there already."""
        return found.get(self.identity) == self.metadata[self.identity]

    def differences(self, found: Mapping[str, str]) -> list[str]:
        """The names of the fields in which what is there differs from what was to be stored."""
        return [name for name, value in self.metadata.items() if found.get(name) != value]


class Store(Protocol):
    """Keeps objects under keys and never replaces one by another.

    Every method may be called again after any failure, a crash of the process included, and then finishes what was
    begun. Errors are of two kinds, with one exception each:

    * `Transient`: the same call will succeed later.
    * `Refused`: a person has to change something; `ObjectRefused` where that concerns this one object only.
    """

    async def honours_condition(self, bucket: str, prefix: str) -> bool:
        """Whether a put to a taken key is refused by the store itself, and the object there can be known again.

        Proved once for each bucket and prefix, along with whatever else a small object needs. Where it is not so, keys that
        can collide must not be used. To be asked before the first put.
        """
        ...

    async def put(self, target: Object) -> Outcome:
        """Store the object durably. `STORED` and `PRESENT` both mean that the source may be removed."""
        ...

    async def holds(self, target: Object) -> bool:
        """Whether this very object is at its key already."""
        ...

    async def is_free(self, target: Object) -> bool:
        """Whether nothing is at its key, as far as can be known without sending it; a put decides."""
        ...

    async def close(self) -> None:
        """Give up connections; no put is running any more."""
        ...
