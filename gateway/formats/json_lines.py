"""How a body becomes report lines.

A line is one JSON document that ends in its only LF. CR and LF inside a document can only stand between tokens, where
a space means the same; every other byte stays as sent.

A body that fits in memory goes through `document_line` or `ndjson_lines`; a larger one through a `Folder`, which writes
the same bytes and finds the same faults however the body is cut into chunks, in memory that does not grow with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.errors import BadRequest
from gateway.formats import json_check
from gateway.formats.json_check import NOTHING_MORE, NotJson, Recognizer, are_surely_json, check

# Of the whitespace before a document on a line of NDJSON at most so much is kept. Until something else comes the line
# may be blank and must not be written, so it has to be held; and without meaning it is not worth more memory.
LEADING_BYTES = 1 << 16

NDJSON = "application/x-ndjson"
# What clients call the same: it has no registered name.
_NDJSON_TYPES = frozenset(
    {
        *(NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonl"),
        *("application/jsonlines", "application/x-jsonlines"),
    }
)

_BLANKS = b" \t\r\n"
# The last byte of a document or of the space behind it, and the first byte of another one. Not two digits: `01` is one fault.
_ANOTHER = re.compile(rb"""[\]}"\s][\[{"0-9tfn-]|.[\[{"]""", re.DOTALL)
# So much of a chunk is split at a time: a list of many short lines is fifty times their size.
_GROUP_BYTES = 1 << 16
_LF, _CR = b"\n\r"
_NEWLINES_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")


def is_ndjson(claimed: str) -> bool:
    """Whether a Content-Type says that a body is many documents, one on each line."""
    return claimed.partition(";")[0].strip().lower() in _NDJSON_TYPES


class BadLine(BadRequest):
    """A line of NDJSON is not one JSON document.

    Attributes:
        line: its number in the body, from 1, blank lines counted.
        fault: what is wrong with it; the position counts from the start of the line.
    """

    def __init__(self, line: int, fault: NotJson) -> None:
        super().__init__(f"line {line}: {fault}")
        self.line = line
        self.fault = fault


class Folder(Protocol):
    """Turns a body that comes in chunks into report lines.

    What was returned before an error is not to be kept: a body is taken as a whole or not at all.

    Attributes:
        lines: how many lines were returned whole so far.
    """

    lines: int

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the body; give what can be written now. Raises `BadRequest`."""

    def finish(self) -> bytes:
        """Take the end of the body; give what is left to be written. Raises `BadRequest`."""


# --- bodies in memory --------------------------------------------------------------------------------------------


def document_line(body: bytes) -> bytes:
    """Give the line of a body that is one document; raise `NotJson` when it is none."""
    try:
        check(body)
    except NotJson as fault:
        raise _with_remedy(fault, body, 0) from fault
    return _one_line(body) + b"\n"


def ndjson_lines(body: bytes) -> list[bytes]:
    """Give the lines of a body of NDJSON; raise `BadRequest` when one is bad or there is none."""
    *texts, last = body.split(b"\n")
    texts = _without_cr(texts, body)
    # Without an LF behind it a CR is whitespace like any other.
    texts.append(last)
    lines = _documents(texts, 1, body)
    if not lines:
        raise _no_report()
    return [line + b"\n" for line in _stored(lines, body)]


def _without_cr(texts: list[bytes], whole: bytes) -> list[bytes]:
    """What came before the newlines of a text, whose CR belongs to the newline."""
    return [text[:-1] if text.endswith(b"\r") else text for text in texts] if b"\r" in whole else texts


def _documents(texts: list[bytes], number: int, whole: bytes) -> list[bytes]:
    """Those of some texts that are not blank; BadLine if one of them is no document.

    Args:
        texts: lines without their newlines.
        number: of the first one in the body.
        whole: what they are parts of.
    """
    lines = [text for text in texts if text.strip(_BLANKS)]
    if (found := first_fault(lines, whole)) is not None:
        index, fault = found
        numbers = [at for at, text in enumerate(texts, start=number) if text.strip(_BLANKS)]
        raise BadLine(numbers[index], fault) from fault
    return lines


def _stored(lines: list[bytes], whole: bytes) -> list[bytes]:
    """What is stored of lines that are documents; `whole` is what they are parts of."""
    if len(whole) > LEADING_BYTES:
        lines = [_trimmed(b"", line) if len(line) > LEADING_BYTES else line for line in lines]
    # Only a CR can still be in them.
    return [_one_line(line) for line in lines] if b"\r" in whole else lines


def first_fault(lines: Sequence[bytes], whole: bytes) -> tuple[int, NotJson] | None:
    """Find the first of some lines that is not one JSON document: its index and what is wrong with it; None if all are.

    Args:
        lines: without their newlines.
        whole: the text that they are parts of.
    """
    if are_surely_json(lines, whole):
        return None
    for index, line in enumerate(lines):
        try:
            check(line)
        except NotJson as fault:
            return index, fault
    return None


def _trimmed(held: bytes, part: bytes) -> bytes:
    """Give the beginning of a line with no more whitespace before the document than is kept."""
    text = part.lstrip(_BLANKS)
    return (held + part[: len(part) - len(text)])[:LEADING_BYTES] + text


def _one_line(text: bytes) -> bytes:
    # Asked for numbers, because a search for one byte as bytes takes ten times as long.
    return text.translate(_NEWLINES_TO_SPACES) if _LF in text or _CR in text else text


def _no_report() -> BadRequest:
    return BadRequest("the body holds no report")


def _with_remedy(fault: NotJson, part: bytes, before: int) -> NotJson:
    """The fault of a document; one behind which another document begins names the type for many.

    Args:
        fault: found in the part.
        part: of the body, with the byte before the fault.
        before: bytes of the body before the part.
    """
    at = fault.position - before
    if fault.reason != NOTHING_MORE or at < 1 or not _ANOTHER.match(part, at - 1):
        return fault
    return NotJson(fault.position, f"{fault.reason}; many documents, one on each line, are sent as {NDJSON}")


# --- bodies in chunks --------------------------------------------------------------------------------------------


class DocumentFolder:
    """The `Folder` of a body that is one document."""

    def __init__(self) -> None:
        self.lines = 0
        self._recognizer = Recognizer()
        self._before = 0
        self._last = b""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the document."""
        try:
            self._recognizer.feed(chunk)
        except NotJson as fault:
            raise _with_remedy(fault, self._last + chunk, self._before - len(self._last)) from fault
        self._before += len(chunk)
        self._last = chunk[-1:] or self._last
        return _one_line(chunk)

    def finish(self) -> bytes:
        """Take the end of the document."""
        self._recognizer.finish()
        self.lines = 1
        return b"\n"


class NdjsonFolder:
    """The `Folder` of a body of NDJSON."""

    def __init__(self) -> None:
        self.lines = 0
        self._number = 1
        self._recognizer = Recognizer()
        # A CR at the end of a part is held until it is known whether it belongs to the newline.
        self._cr_held = False
        self._begin_line()

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes: whole lines are checked at once, only what a chunk cuts goes to the recognizer."""
        end = chunk.rfind(b"\n") + 1
        written, start = bytearray(), 0
        if end and self._begun:
            start = chunk.find(b"\n") + 1
            written += self._end_line(chunk[: start - 1])
        while start < end:
            stop = chunk.rfind(b"\n", start, min(start + _GROUP_BYTES, end)) + 1 or chunk.find(b"\n", start) + 1
            written += self._whole_lines(chunk[start:stop])
            start = stop
        written += self._go_on(chunk[end:])
        return bytes(written)

    def finish(self) -> bytes:
        """Take the end of the body, which ends the last line as an LF would."""
        # A CR that no LF followed is whitespace like any other.
        written = self._take(b"\r") if self._cr_held else b""
        if self._begun:
            self._cr_held = False
            written += self._end_line(b"")
        if not self.lines:
            raise _no_report()
        return written

    def _begin_line(self) -> None:
        self._recognizer.reset()
        # Whether a part of the line has come; whether any of it was written.
        self._begun = self._shown = False
        self._held = b""
        self._cr_held = False

    def _whole_lines(self, part: bytes) -> bytes:
        texts = _without_cr(part[:-1].split(b"\n"), part)
        lines = _documents(texts, self._number, part)
        self._number += len(texts)
        self.lines += len(lines)
        return b"".join(line + b"\n" for line in _stored(lines, part))

    def _go_on(self, part: bytes) -> bytes:
        """Take a part of a line that does not end with it."""
        if not part:
            return b""
        self._begun = True
        if self._cr_held:
            part = b"\r" + part
        self._cr_held = part.endswith(b"\r")
        return self._take(part[:-1] if self._cr_held else part)

    def _take(self, part: bytes) -> bytes:
        try:
            self._recognizer.feed(part)
        except NotJson as fault:
            raise BadLine(self._number, fault) from fault
        if self._shown:
            return _one_line(part)
        if self._recognizer.blank:
            self._held = (self._held + part)[:LEADING_BYTES]
            return b""
        self._shown = True
        return _one_line(_trimmed(self._held, part))

    def _end_line(self, part: bytes) -> bytes:
        """Take the last part of a line that began in an earlier chunk."""
        written = self._go_on(part)
        if self._shown:
            try:
                self._recognizer.finish()
            except NotJson as fault:
                raise BadLine(self._number, fault) from fault
            written += b"\n"
            self.lines += 1
        self._number += 1
        self._begin_line()
        return written


# --- lines on disk -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SoundPrefix:
    """How much of a segment is whole sound lines.

    Attributes:
        lines: how many there are from the start, one after the other.
        size: their bytes, newlines included.
        fault: what is wrong with what begins at `size`; None when nothing is there.
    """

    lines: int
    size: int
    fault: str | None


def sound_prefix(chunks: Iterable[bytes]) -> SoundPrefix:
    """Read a segment up to its end or to the first line that is torn or not one JSON document.

    Nothing is read past the chunk with the fault. A blank line is a fault: the gateway never writes one.
    """
    lines = size = begun = 0
    # What was let in at the limit stands one level deeper in its envelope.
    max_depth = json_check.MAX_DEPTH + 1
    recognizer = Recognizer(max_depth)
    try:
        for chunk in chunks:
            *ended, last = chunk.split(b"\n")
            for part in ended:
                if begun:
                    recognizer.feed(part)
                    recognizer.finish()
                    recognizer.reset()
                else:
                    check(part, max_depth)
                lines += 1
                size += begun + len(part) + 1
                begun = 0
            recognizer.feed(last)
            begun += len(last)
    except NotJson as fault:
        return SoundPrefix(lines, size, str(fault))
    return SoundPrefix(lines, size, "the last line is torn: it has no newline" if begun else None)
