"""The envelope around a report: who sent it, and when it came; see decision 4."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from gateway.core import clock
from gateway.core.errors import TooLarge
from gateway.core.text import is_readable, readable

# A chunk of many tiny lines grows with its envelopes to about this at most.
ENVELOPED_CHUNK_BYTES = 4 << 20


class Envelope:
    """What is written around each report of one body.

    A user that is not UTF-8 is percent-encoded, and a field says so.

    Args:
        user: that sent it.
        received: nanoseconds since the epoch.
    """

    __slots__ = ("_prefix", "_suffix")

    def __init__(self, user: str, received: int) -> None:
        encoded = "" if is_readable(user) else '"encoded":"user",'
        name = json.dumps(readable(user))
        self._prefix = f'{{"user":{name},{encoded}"received_at":"{clock.iso(received)}","report":'.encode("ascii")
        self._suffix = b"}"

    @property
    def added_bytes(self) -> int:
        """By so much each report grows."""
        return len(self._prefix) + len(self._suffix)

    def check(self, size: int, reports: int, max_bytes: int) -> None:
        """TooLarge if a body passes its limit so: many tiny reports of a long token would fill memory and disk."""
        if size + reports * self.added_bytes > max_bytes:
            raise TooLarge(f"with an envelope around each report the body is larger than the {max_bytes} bytes that are allowed")

    def around(self, lines: list[bytes]) -> list[bytes]:
        """Lines, each ended by LF, in envelopes."""
        prefix, suffix = self._prefix, self._suffix + b"\n"
        return [prefix + line[:-1] + suffix for line in lines]

    def around_all(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same for lines in chunks that are cut anywhere; the LF that ends the last line is left out of them."""
        between = self._suffix + b"\n" + self._prefix
        yield self._prefix
        for chunk in chunks:
            yield chunk.replace(b"\n", between)
        yield self._suffix + b"\n"

    def chunk_bytes(self, most: int) -> int:
        """How many bytes to give at once to `around_all`, `most` at the most, so that what comes out is not too much."""
        return max(1, min(most, 2 * ENVELOPED_CHUNK_BYTES // (self.added_bytes + 1)))
