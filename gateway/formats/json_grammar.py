"""The grammar of JSON as RFC 8259 has it, compiled into patterns.

One pattern swallows a whole run of elements or members, each with what is nested in it to a few levels. Inside a token a
small automaton goes from byte to byte. All repeats in the patterns are possessive, so nothing is ever tried a second way,
and `re` keeps no memory of the way it came.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Final

# --- what a leap swallows ----------------------------------------------------------------------------------------


def _repeated(pattern: bytes, repeat: bytes = b"*+") -> bytes:
    """Repeat a pattern possessively.

    Before 3.11.5 a last repetition that fails half way leaves the match where it failed (gh-106052). An alternative
    that always fails puts it back.
    """
    return rb"(?:" + pattern + rb"|(?!))" + repeat if sys.version_info < (3, 11, 5) else rb"(?:" + pattern + rb")" + repeat


_WS = rb"[ \t\n\r]*+"
_PLAIN = rb'[^"\\\x00-\x1f]*+'
_REST = _PLAIN + _repeated(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}+)' + _PLAIN)
_STRING = rb'"' + _REST + rb'"'
_FRACTION, _EXPONENT = _repeated(rb"\.[0-9]++", b"?+"), _repeated(rb"[eE][-+]?+[0-9]++", b"?+")
_SCALAR = rb"(?:" + _STRING + rb"|true|false|null|-?+(?:0|[1-9][0-9]*+)" + _FRACTION + _EXPONENT + rb")"
_NAME = _STRING + _WS + rb":"


def _value(levels: int) -> bytes:
    """Give the pattern of a value with containers nested at most `levels` deep."""
    if levels == 0:
        return _SCALAR
    value = _value(levels - 1) + _WS
    # One copy of the inner pattern serves first, middle and last: what follows it is a comma that does not end the
    # container, or the end.
    elements = rb"\[" + _WS + _repeated(value + rb"(?:," + _WS + rb"(?!\])|(?=\]))") + rb"\]"
    members = rb"\{" + _WS + _repeated(_NAME + _WS + value + rb"(?:," + _WS + rb"(?!\})|(?=\}))") + rb"\}"
    return rb"(?:" + _SCALAR + rb"|" + members + rb"|" + elements + rb")"


# How many levels one match looks into a value; each one more doubles the pattern.
LOOK: Final = 4
_DEEP = _WS + _value(LOOK) + _WS
# As many as there are, each with its comma or before the end of its container; then perhaps a name.
ELEMENTS = re.compile(_repeated(_DEEP + rb"(?:,|(?=\]))"))
MEMBERS = re.compile(_repeated(_WS + _NAME + _DEEP + rb"(?:,|(?=\}))") + _repeated(_WS + _NAME, b"?+"))
MEMBER_VALUE = re.compile(_DEEP + rb"(?:,|(?=\}))")

# Many containers opened, or closed, one after the other, with flat values between them. Without these, each byte of
# such a run would be looked at once for every level that a match looks into.
_FLAT = _WS + _value(1)
_OPEN_ARRAY = rb"\[" + _repeated(_FLAT + _WS + rb",")
_OPEN_OBJECT = rb"\{" + _repeated(_WS + _NAME + _FLAT + _WS + rb",") + _WS + _NAME
DOWN = re.compile(_repeated(_WS + rb"(?:" + _OPEN_ARRAY + rb"|" + _OPEN_OBJECT + rb")"))
_CLOSE_ARRAY = _repeated(_WS + rb"," + _FLAT) + _WS + rb"\]"
_CLOSE_OBJECT = _repeated(_WS + rb"," + _WS + _NAME + _FLAT) + _WS + rb"\}"
UP = re.compile(_repeated(_CLOSE_ARRAY + rb"|" + _CLOSE_OBJECT) + _repeated(_WS + rb",", b"?+"))

BLANKS = re.compile(_WS)
_STRINGS = re.compile(_STRING)
STRING_OR_BRACKET = re.compile(_STRING + rb"|([\[\]{}])")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SQUARE = bytes.maketrans(b"{}", b"[]")
CLOSING = bytes.maketrans(b"[{", b"]}")


def brackets_of(run: bytes) -> bytes:
    """Give the brackets of a run in their order, without those that stand in strings."""
    if b'"' in run:
        run = _STRINGS.sub(b"", run)
    return run.translate(None, _NOT_BRACKETS)


def lone(brackets: bytes) -> bytes:
    """Drop the brackets of flat values: what stays has no partner in its run."""
    return brackets.replace(b"[]", b"").replace(b"{}", b"")


def nesting(run: bytes) -> int:
    """Tell how deep the values of a run are nested."""
    levels, brackets = 0, brackets_of(run).translate(_SQUARE)
    while brackets:
        levels, brackets = levels + 1, brackets.replace(b"[]", b"")
    return levels


# --- inside a token ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a token: where each byte leads ("" is the end of the token), and what else is known here."""

    wanted: str
    ways: dict[int, str]
    run: re.Pattern[bytes] | None = None
    # A number has no last byte of its own: in these places it may be over.
    whole: bool = False


def _places() -> dict[str, Place]:
    digits = re.compile(rb"[0-9]*+")
    digit = "a digit was expected"
    exponent, point = dict.fromkeys(b"eE", "exponent"), {ord("."): "point"}

    def to(place: str, characters: bytes = b"0123456789") -> dict[int, str]:
        return dict.fromkeys(characters, place)

    places = {
        "string": Place("the rest of a string was expected", to("", b'"') | to("escape", b"\\"), re.compile(_REST)),
        "escape": Place("an escape was expected", to("string", b'"\\/bfnrt') | to("hex4", b"u")),
        "minus": Place(digit, to("integer") | to("zero", b"0")),
        "zero": Place("", point | exponent, whole=True),
        "integer": Place("", point | exponent, digits, whole=True),
        "point": Place(digit, to("fraction")),
        "fraction": Place("", exponent, digits, whole=True),
        "exponent": Place("a digit, + or - was expected", to("power") | to("sign", b"+-")),
        "sign": Place(digit, to("power")),
        "power": Place("", {}, digits, whole=True),
    }
    for left in range(1, 5):
        after = f"hex{left - 1}" if left > 1 else "string"
        places[f"hex{left}"] = Place("a hexadecimal digit was expected", to(after, b"0123456789abcdefABCDEF"))
    for word in ("true", "false", "null"):
        for taken in range(1, len(word)):
            after = word[: taken + 1] if taken + 1 < len(word) else ""
            places[word[:taken]] = Place("true, false or null was expected", {ord(word[taken]): after})
    return places


PLACES: Final = _places()
BEGINNINGS: Final = (
    {ord('"'): "string", ord("-"): "minus", ord("0"): "zero"}
    | dict.fromkeys(b"123456789", "integer")
    | {ord(letter): letter for letter in "tfn"}
)
