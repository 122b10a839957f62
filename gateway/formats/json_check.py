"""Whether bytes are one JSON document, as the grammar of RFC 8259 has it.

No value is built. `Recognizer` takes a document in chunks of any size and remembers which containers are open (one byte
each), which token it is in, and at most three bytes of a cut character: its memory does not grow with the document.

It is quick because it leaps: one match of a regular expression swallows a whole run of elements or members, each with
what is nested in it to a few levels. Where a leap ends (deeper nesting, the edge of a chunk, a fault) single tokens are
taken, and inside a token a small automaton goes from byte to byte. The patterns are those of `formats/json_grammar.py`.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.core.errors import BadRequest
from gateway.formats.byte_count import count_up_to
from gateway.formats.json_grammar import (
    BEGINNINGS,
    BLANKS,
    CLOSING,
    DOWN,
    ELEMENTS,
    LOOK,
    MEMBER_VALUE,
    MEMBERS,
    PLACES,
    STRING_OR_BRACKET,
    UP,
    brackets_of,
    lone,
    nesting,
)

MAX_DEPTH = 1000
# The quick way holds the interpreter until it is done: a millisecond or two for this size.
QUICK_BYTES = 1 << 20
# Longer chunks are taken in pieces, which bounds the memory for checking UTF-8.
_PIECE_BYTES = 1 << 18


class NotJson(BadRequest):
    """The bytes are not one JSON document.

    Attributes:
        position: offset in bytes, from 0, of the first byte that cannot be; the length where more was expected.
        reason: what is wrong there, in a few words.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"not JSON at byte {position}: {reason}")
        self.position = position
        self.reason = reason


# Goes through a document by the grammar and builds nothing of it.
_skip = msgspec.json.Decoder(msgspec.Raw).decode


def check(document: bytes, max_depth: int | None = None) -> None:
    """Raise `NotJson` unless `document` is one JSON document; quick for small ones."""
    if not are_surely_json((document,), document, max_depth):
        recognizer = Recognizer(max_depth)
        recognizer.feed(document)
        recognizer.finish()


def are_surely_json(documents: Sequence[bytes], whole: bytes, max_depth: int | None = None) -> bool:
    """Whether each is one JSON document, as far as that can be seen quickly; a no says nothing.

    The fast parser's yes is taken when all is UTF-8, of which it sees nothing, and no nesting can be too deep. Its no is not:
    it refuses lone surrogates, which the grammar allows, and documents that it is not made for.

    Args:
        documents: each in a buffer of its own.
        whole: all their bytes, with or without something in between.
        max_depth: as of the `Recognizer`.
    """
    if len(whole) > QUICK_BYTES:
        return False
    try:
        for document in documents:
            _skip(document)
        if not whole.isascii():
            whole.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    most = MAX_DEPTH if max_depth is None else max_depth
    # Each level takes two brackets.
    return len(whole) <= 2 * most or all(len(each) <= 2 * most or _opened(each, most) <= most for each in documents)


def _opened(document: bytes, most: int) -> int:
    """How many brackets open, or some number above `most`."""
    return count_up_to(document, b"[", most) + count_up_to(document, b"{", most)


# --- between tokens ----------------------------------------------------------------------------------------------

# A state is called by what it expects, which is what the response says when something else comes.
_VALUE: Final = "a value was expected"
_FIRST_VALUE: Final = "a value or ']' was expected"
_NAME_NEXT: Final = "a name was expected"
_FIRST_NAME: Final = "a name or '}' was expected"
_COLON: Final = "':' was expected"
_MORE_ELEMENTS: Final = "',' or ']' was expected"
_MORE_MEMBERS: Final = "',' or '}' was expected"
# A part of the response too: `formats/json_lines.py` adds what to do.
NOTHING_MORE: Final = "nothing more was expected"
_END: Final = NOTHING_MORE
_TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH:,}"


class Recognizer:
    """Says of a document that comes in chunks whether it is JSON; after a fault only `reset` may follow.

    Args:
        max_depth: how many containers may stand in each other, `MAX_DEPTH` if it is not given.
    """

    def __init__(self, max_depth: int | None = None) -> None:
        self._max_depth = MAX_DEPTH if max_depth is None else max_depth
        self.reset()

    def reset(self) -> None:
        """Begin a new document."""
        self._state: str = _VALUE
        self._place = ""
        # The bytes that will close the open containers, the innermost last.
        self._closers = bytearray()
        self._before = 0
        self._cut = b""

    @property
    def blank(self) -> bool:
        """Whether nothing but JSON whitespace has come so far."""
        return self._state is _VALUE and not (self._closers or self._place or self._cut)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the document; raise `NotJson` at the first that cannot be."""
        for start in range(0, len(chunk), _PIECE_BYTES):
            self._feed_piece(chunk[start : start + _PIECE_BYTES])

    def finish(self) -> None:
        """Raise `NotJson` unless what was fed is a whole document."""
        if self._cut:
            raise NotJson(self._before, "not UTF-8")
        if self.blank:
            raise NotJson(self._before, "the document is empty")
        if self._place:
            if not PLACES[self._place].whole:
                raise NotJson(self._before, PLACES[self._place].wanted)
            self._end_token()
        if self._state is not _END:
            raise NotJson(self._before, self._state)

    def _feed_piece(self, piece: bytes) -> None:
        """Take the whole characters of a piece; what is cut at its end waits for the next one."""
        piece = self._cut + piece
        self._cut, sound = b"", True
        if not piece.isascii():
            try:
                used = codecs.utf_8_decode(piece, "strict", False)[1]
                self._cut = piece[used:]
            except UnicodeDecodeError as fault:
                used, sound = fault.start, False
            piece = piece[:used]
        self._take(piece)
        self._before += len(piece)
        if not sound:
            raise NotJson(self._before, "not UTF-8")

    def _take(self, piece: bytes) -> None:
        at = 0
        while at < len(piece):
            if self._place:
                at = self._inside(piece, at)
                continue
            reached = self._leap(piece, at)
            at = reached if reached > at else self._step(piece, at)

    # --- leaps

    def _leap(self, piece: bytes, at: int) -> int:
        """Swallow what one match can; give where it ends, which is `at` when a single token must be taken."""
        state = self._state
        if state is _MORE_ELEMENTS or state is _MORE_MEMBERS:
            return self._leap_up(piece, at)
        if state is _COLON or state is _END:
            return at
        if piece[at] in b"]}" and (state is _FIRST_VALUE or state is _FIRST_NAME):
            return self._leap_up(piece, at)
        named = state is _NAME_NEXT or state is _FIRST_NAME
        if self._closers:
            in_array = self._closers.endswith(b"]")
            found = (MEMBERS if named else ELEMENTS if in_array else MEMBER_VALUE).match(piece, at)
            if found and found.end() > at:
                room = self._max_depth - len(self._closers)
                if room < LOOK and nesting(found[0]) > room:
                    self._walk(found[0], at)
                return self._landed(piece, found.end())
        return at if named else self._leap_down(piece, at)

    def _landed(self, piece: bytes, end: int) -> int:
        """Know the state from the last byte of a leap: no value ends in a comma, a colon or an opening bracket."""
        last = piece[end - 1]
        if last == 0x2C:
            self._state = _VALUE if self._closers.endswith(b"]") else _NAME_NEXT
        elif last == 0x3A:
            self._state = _VALUE
        elif last == 0x5B:
            self._state = _FIRST_VALUE
        else:
            self._end_value()
        return end

    def _leap_down(self, piece: bytes, at: int) -> int:
        found = DOWN.match(piece, at)
        if not found or found.end() == at:
            return at
        brackets = brackets_of(found[0])
        opened = lone(brackets)
        # Flat values on the way are one level deeper than what they stand in.
        if len(self._closers) + len(opened) + (opened != brackets) <= self._max_depth:
            self._closers += opened.translate(CLOSING)
        else:
            self._walk(found[0], at)
        return self._landed(piece, found.end())

    def _leap_up(self, piece: bytes, at: int) -> int:
        found = UP.match(piece, at)
        # At the limit even a flat value is too deep, and only single tokens show whether it could stand here at all.
        if not found or found.end() == at or len(self._closers) == self._max_depth:
            return at
        run = found[0]
        closed = lone(brackets_of(run))
        if closed and closed != self._closers[: -len(closed) - 1 : -1]:
            end = self._walk(run, at)
        else:
            del self._closers[len(self._closers) - len(closed) :]
            # A comma after the whole document is a fault, which is left for the next token.
            end = found.end() if self._closers else at + len(run.rstrip(b", \t\n\r"))
            if self._closers and run.endswith(b","):
                return self._landed(piece, end)
        if end > at:
            self._end_value()
        return end

    def _walk(self, run: bytes, at: int) -> int:
        """Take the brackets of a run one by one, up to one that does not close the innermost container.

        Gives where the last one ends that closed a container which was open before the run.
        """
        end, inner = at, 0
        for found in STRING_OR_BRACKET.finditer(run):
            bracket = found[1]
            if bracket is None:
                continue
            if bracket in b"[{":
                self._open(bracket.translate(CLOSING), at + found.start())
                inner += 1
            elif not self._closers.endswith(bracket):
                break
            else:
                self._closers.pop()
                inner -= 1
                if inner < 0:
                    end, inner = at + found.end(), 0
        return end

    # --- tokens

    def _step(self, piece: bytes, at: int) -> int:
        """Take whitespace and one token, or its beginning; give where it ends."""
        blank = BLANKS.match(piece, at)
        at = blank.end() if blank else at
        if at == len(piece):
            return at
        byte, state = piece[at], self._state
        if state is _VALUE or state is _FIRST_VALUE:
            known = self._begin_value(byte, at)
        elif state is _NAME_NEXT or state is _FIRST_NAME:
            known = self._begin_name(byte)
        elif state is _COLON:
            known = byte == 0x3A
            self._state = _VALUE
        else:
            known = self._go_on(byte)
        if not known:
            raise NotJson(self._before + at, state)
        return at + 1

    def _begin_value(self, byte: int, at: int) -> bool:
        if byte in BEGINNINGS:
            self._place = BEGINNINGS[byte]
        elif byte == 0x5B:
            self._open(b"]", at)
            self._state = _FIRST_VALUE
        elif byte == 0x7B:
            self._open(b"}", at)
            self._state = _FIRST_NAME
        else:
            return self._state is _FIRST_VALUE and self._close(byte)
        return True

    def _begin_name(self, byte: int) -> bool:
        if byte == 0x22:
            self._place = "string"
            return True
        return self._state is _FIRST_NAME and self._close(byte)

    def _go_on(self, byte: int) -> bool:
        """After a value: a comma, or the end of its container."""
        if byte == 0x2C and self._closers:
            self._state = _VALUE if self._state is _MORE_ELEMENTS else _NAME_NEXT
            return True
        return self._close(byte)

    def _open(self, closer: bytes, at: int) -> None:
        if len(self._closers) == self._max_depth:
            raise NotJson(self._before + at, _TOO_DEEP)
        self._closers += closer

    def _close(self, byte: int) -> bool:
        if not self._closers or self._closers[-1] != byte:
            return False
        self._closers.pop()
        self._end_value()
        return True

    def _inside(self, piece: bytes, at: int) -> int:
        """Go on in a token; give where it ends, or the end of the piece."""
        while at < len(piece):
            place = PLACES[self._place]
            if place.run and (found := place.run.match(piece, at)) and found.end() > at:
                at = found.end()
                continue
            if piece[at] not in place.ways:
                if not place.whole:
                    raise NotJson(self._before + at, place.wanted)
                self._end_token()
                return at
            self._place = place.ways[piece[at]]
            at += 1
            if not self._place:
                self._end_token()
                return at
        return at

    def _end_token(self) -> None:
        self._place = ""
        if self._state is _NAME_NEXT or self._state is _FIRST_NAME:
            self._state = _COLON
        else:
            self._end_value()

    def _end_value(self) -> None:
        if not self._closers:
            self._state = _END
        else:
            self._state = _MORE_ELEMENTS if self._closers.endswith(b"]") else _MORE_MEMBERS
