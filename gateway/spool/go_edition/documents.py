"""JSON documents that stand one after the other in a file, each beginning on a line of its own.

That is one document, however it is printed, or NDJSON, or what is left when such files are put together. Each comes out
as one report line; memory does not grow with the file or with a document.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator

from gateway.formats.json_check import NotJson, Recognizer

DIGEST_BYTES = 16
_BLANKS = b" \t\r"
_NEWLINES_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")
# By what a document begins with: where it may end. A scalar has no LF in it.
_CLOSING = {b"{": re.compile(rb"\}[ \t\r]*\n"), b"[": re.compile(rb"\][ \t\r]*\n")}


class NotDocuments(ValueError):
    """The file holds something else, or nothing; the text is the reason."""


def lines_of(chunks: Iterable[bytes], write: Callable[[bytes], object]) -> Iterator[bytes]:
    """Write each document as one line, in pieces, and yield a digest of that line when it is written whole.

    A line that was written and is read again gives the same line and the same digest. Whitespace before a document is
    dropped, and newlines in it become spaces.

    Raises:
        NotDocuments: the file is not made of documents only; what was yielded before may be pieces of something else.
    """
    reader = _Reader(write)
    found = False
    for chunk in chunks:
        start = 0
        while (end := reader.find_end(chunk, start)) >= 0:
            reader.take(chunk[start:end])
            if digest := reader.end_line():
                found = True
                yield digest
            start = end + 1
        reader.take(chunk[start:])
    if digest := reader.end():
        found = True
        yield digest
    if not found:
        raise NotDocuments("it holds no report")


class _Reader:
    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._recognizer = Recognizer()
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        # Lines of the file, from 1: where the reader is, and where the document began.
        self._line = self._first_line = 1
        self._closing: re.Pattern[bytes] | None = None

    def find_end(self, chunk: bytes, start: int) -> int:
        """Give the place of the next LF that may end a document, -1 where the chunk has none.

        A container ends only where its bracket does. A chunk's first LF always counts, since the bracket may stand in
        the chunk before it.
        """
        if start == 0 or self._recognizer.blank or self._closing is None:
            return chunk.find(b"\n", start)
        found = self._closing.search(chunk, start)
        return found.end() - 1 if found else -1

    def take(self, part: bytes) -> None:
        """Take bytes up to an LF, which is not included, or to the end of the chunk."""
        if self._recognizer.blank:
            part = part.lstrip(_BLANKS)
            self._first_line = self._line
            self._closing = _CLOSING.get(part[:1])
        if part:
            self._line += part.count(b"\n")
            self._feed(part)
            self._put(part.translate(_NEWLINES_TO_SPACES))

    def end_line(self) -> bytes:
        """Take the LF; give the digest of the document if it ends here, else nothing."""
        self._line += 1
        if self._recognizer.blank:
            return b""
        self._feed(b"\n")
        try:
            self._recognizer.finish()
        except NotJson:
            # The document goes on in the next line: after an LF nothing else can be the matter.
            self._put(b" ")
            return b""
        self._put(b"\n")
        digest = self._hash.digest()
        self._recognizer.reset()
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        return digest

    def end(self) -> bytes:
        """Take the end of the file, which ends a line as an LF would."""
        digest = self.end_line()
        if not self._recognizer.blank:
            raise NotDocuments(f"the document that begins in line {self._first_line} is torn")
        return digest

    def _feed(self, part: bytes) -> None:
        try:
            self._recognizer.feed(part)
        except NotJson as fault:
            raise NotDocuments(f"the document that begins in line {self._first_line} is {fault}") from fault

    def _put(self, data: bytes) -> None:
        self._hash.update(data)
        self._write(data)
