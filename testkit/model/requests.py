"""Requests that the clients of the model send: bodies that are whole, wrong, or end in the middle."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Sending:
    """A request with reports.

    Attributes:
        sizes: of each of its reports, how many bytes more than the least.
        end: how it ends: `whole`, `bad` for one more that is no JSON, `gone` for a client that goes away.
        known: whether it says how long it is.
        many: whether it is NDJSON.
    """

    sizes: list[int]
    end: str
    known: bool
    many: bool


PLAIN = Sending([0], "whole", known=True, many=False)
SENDINGS = st.builds(
    Sending,
    # The last of them is above the limit of what goes into a segment.
    sizes=st.lists(st.sampled_from([0, 0, 5, 60, 250]), min_size=1, max_size=3),
    end=st.sampled_from(["whole", "whole", "whole", "bad", "gone"]),
    known=st.booleans(),
    many=st.booleans(),
)


# Stands for a text that fits neither a name nor metadata; examples that fail are printed, and it would fill them.
LONG = "long"


@dataclass(frozen=True)
class File:
    """A request with a file: from whom, of what name, and how it ends."""

    user: str
    uri: str
    end: str

    @property
    def user_text(self) -> str:
        """The user as sent."""
        return "ü" * 3000 if self.user == LONG else self.user

    @property
    def uri_text(self) -> str:
        """The uri as sent."""
        return "ü" * 3000 if self.uri == LONG else self.uri


FILES = st.builds(
    File,
    user=st.sampled_from(["u", "../ü\udcff", LONG]),
    uri=st.sampled_from(["a.png", "file:///a/../b", "http://h/日本.jpg?x=1", LONG]),
    end=st.sampled_from(["whole", "whole", "gone"]),
)


class Body:
    """A body that comes in two chunks, unless the client goes away before the second."""

    def __init__(self, data: bytes, *, gone: bool) -> None:
        half = len(data) // 2
        self._chunks = [data[:half], *([] if gone else [data[half:]])]
        self._gone = gone

    def is_eof(self) -> bool:
        """It never came with its head."""
        return False

    async def readany(self) -> bytes:
        """Give the next chunk, nothing at the end."""
        await asyncio.sleep(0)
        if self._chunks:
            return self._chunks.pop(0)
        if self._gone:
            raise ConnectionResetError
        return b""

    def feed_eof(self) -> None:
        """Nothing more is read."""
