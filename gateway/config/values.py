"""The kinds of value that a configuration key can have.

A kind knows its bounds, reads what YAML or an environment variable gave, and prints a value back in the same notation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

Seconds = float
Bytes = int

Number = TypeVar("Number", int, float)

KIB, MIB, GIB, TIB = (1 << 10 * step for step in range(1, 5))
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile("".join(rf"(?:(?P<{unit}>[0-9]{{1,9}}(?:\.[0-9]{{1,9}})?){unit})?" for unit in _MILLISECONDS))

_SIZES = {
    **{f"{letter}iB": 1 << 10 * step for step, letter in enumerate("KMGTP", start=1)},
    **{f"{letter}B": 10 ** (3 * step) for step, letter in enumerate("KMGTP", start=1)},
    "B": 1,
}
_SIZE = re.compile(rf"(?P<number>[0-9]{{1,19}}(?:\.[0-9]{{1,9}})?) ?(?P<unit>{'|'.join(_SIZES)})?")


def parse_duration(text: str) -> Seconds:
    """Read `10m`, `90s`, `1h30m`, `1.5h` or `500ms` as seconds, exact to the millisecond; `0` needs no unit.

    Raises:
        ValueError: the text is no such duration.
    """
    if text == "0":
        return 0.0
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        raise ValueError(f"{quote(text)} has no unit (h, m, s or ms)")
    found = _DURATION.fullmatch(text)
    if not text or not found:
        raise ValueError(f"{quote(text)} is not a duration")
    total = sum(Decimal(number) * _MILLISECONDS[unit] for unit, number in found.groupdict(default="0").items())
    if total != int(total):
        raise ValueError(f"{quote(text)} is not a whole number of milliseconds")
    return int(total) / 1000


def format_duration(seconds: Seconds) -> str:
    """Print seconds the short way that `parse_duration` reads back: `10m`, `1h30m`, `1s500ms`."""
    rest = round(seconds * 1000)
    printed = ""
    for unit, length in _MILLISECONDS.items():
        count, rest = divmod(rest, length)
        printed += f"{count}{unit}" if count else ""
    return printed or "0s"


def parse_size(text: str) -> Bytes:
    """Read `64MiB`, `1.5GiB`, `1MB` (a million) or a bare number as bytes.

    Raises:
        ValueError: the text is no such size.
    """
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{quote(text)} is not a size")
    total = Decimal(found["number"]) * _SIZES[found["unit"] or "B"]
    if total != int(total):
        raise ValueError(f"{quote(text)} is not a whole number of bytes")
    return int(total)


def format_size(size: Bytes) -> str:
    """Print bytes in the largest unit that divides them: `64MiB`, `1MB`, `1234`."""
    for unit, length in sorted(_SIZES.items(), key=lambda entry: -entry[1]):
        if size and length > 1 and size % length == 0:
            return f"{size // length}{unit}"
    return str(size)


def quote(text: str) -> str:
    """Show a text in a message: on one line, its control characters escaped, its end cut off where it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _same(value: Any) -> Any:  # the value passes through untouched
    return value


@dataclass(frozen=True, slots=True)
class Kind:
    """What a configuration key may hold.

    Attributes:
        name: one word: duration, size, text, …
        wants: what would be right, to be read after "it must be".
        read: from what YAML gave (never None) to the value; raises ValueError with what is wrong.
        show: from the value to what YAML should print, so that `read` gives the value again.
        from_text: from a text of the environment to what YAML would have given.
        secret: the value must appear in no message and no print.
    """

    name: str
    wants: str
    read: Callable[[object], Any]
    show: Callable[[Any], object] = _same
    from_text: Callable[[str], object] = _same
    secret: bool = False


def duration(least: Seconds = 0.0, most: Seconds = DAY) -> Kind:
    """Make a kind for times, kept in seconds."""

    def read(value: object) -> Seconds:
        return _bounded(parse_duration(_number_or_text(value)), least, most, format_duration)

    wants = f"a duration from {format_duration(least)} to {format_duration(most)}"
    return Kind("duration", wants, read, show=format_duration)


def size(least: Bytes = 0, most: Bytes = 8 * TIB) -> Kind:
    """Make a kind for sizes, kept in bytes."""

    def read(value: object) -> Bytes:
        return _bounded(parse_size(_number_or_text(value)), least, most, format_size)

    def show(value: Bytes) -> object:
        printed = format_size(value)
        return int(printed) if printed.isdigit() else printed

    return Kind("size", f"a size from {format_size(least)} to {format_size(most)}", read, show=show)


def whole(least: int, most: int) -> Kind:
    """Make a kind for whole numbers."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"is {what(value)}")
        return _bounded(value, least, most, str)

    def from_text(text: str) -> object:
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text

    return Kind("number", f"a whole number from {least} to {most}", read, from_text=from_text)


def whole_or_auto(least: int, most: int) -> Kind:
    """Make a kind for whole numbers that the program may also find out by itself."""
    number = whole(least, most)

    def read(value: object) -> int | str:
        return "auto" if value == "auto" else int(number.read(value))

    return Kind("number", f"{number.wants}, or auto", read, from_text=number.from_text)


def flag() -> Kind:
    """Make a kind for yes or no, in the words that YAML takes too."""
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"is {what(value)}")
        return value

    return Kind("flag", "true or false", read, from_text=lambda text: words.get(text.lower(), text))


def choice(*choices: str) -> Kind:
    """Make a kind for one of a few words."""

    def read(value: object) -> str:
        # YAML 1.1 takes the bare words on and off for true and false.
        word = {True: "on", False: "off"}[value] if isinstance(value, bool) and "on" in choices else value
        if _text(word) not in choices:
            raise ValueError(f"{quote(_text(word))} is none of the known words")
        return _text(word)

    return Kind("choice", "one of " + ", ".join(word or '""' for word in choices), read)


def text(wants: str, pattern: str, *, name: str = "text", secret: bool = False) -> Kind:
    """Make a kind for texts that match the whole pattern; `wants` says in words what the pattern asks."""

    def read(value: object) -> str:
        if not re.fullmatch(pattern, _text(value)):
            raise ValueError("has characters that cannot be right" if secret else f"{quote(_text(value))} is not right")
        return _text(value)

    return Kind(name, wants, read, secret=secret)


def addresses() -> Kind:
    """Make a kind for the addresses and host names to listen on, kept as a tuple; empty for all of both families.

    One is written as a text, several as a list, in the environment with commas between them.
    """

    def read(value: object) -> tuple[str, ...]:
        given = value if isinstance(value, list) else [value]
        found = tuple(_text(each) for each in given)
        if found == ("",):
            return ()
        for each in found:
            if not re.fullmatch(r"[^,\[\]\x00-\x20\x7f-\U0010ffff]+", each):
                raise ValueError(f"{quote(each)} is no address and no name")
        return tuple(dict.fromkeys(found))

    def show(value: tuple[str, ...]) -> object:
        return value[0] if len(value) == 1 else list(value) or ""

    def from_text(text: str) -> object:
        return [each.strip() for each in text.split(",")]

    wants = "an address or a host name without brackets and port, or a list of them; empty for all addresses"
    return Kind("addresses", wants, read, show=show, from_text=from_text)


def word(*, secret: bool = False) -> Kind:
    """Make a kind for texts that fit in a header; empty where none is needed."""
    return text("ASCII characters without spaces", r"[!-~]*", name="secret" if secret else "word", secret=secret)


def name(*, reserved: Sequence[str] = ()) -> Kind:
    """Make a kind for names that become directories, labels of metrics and paths."""

    def read(value: object) -> str:
        given = _text(value)
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", given):
            raise ValueError(f"{quote(given)} is no name")
        if given in reserved:
            raise ValueError(f"{quote(given)} is a name that the gateway uses itself")
        return given

    others = f", and not {', '.join(reserved)}" if reserved else ""
    return Kind("name", f"1 to 32 of a-z, 0-9, hyphen and underscore, with a letter first{others}", read)


def url_path() -> Kind:
    """Make a kind for paths of the API, which need no encoding."""
    segment = r"[A-Za-z0-9_~-](?:[A-Za-z0-9._~-]*[A-Za-z0-9_~-])?"
    wants = "a path such as /crash, of letters, digits and . _ ~ -, at most 100 characters"
    return text(wants, rf"(?=.{{2,100}}\Z)(?:/{segment})+", name="path")


def bucket() -> Kind:
    """Make a kind for names of buckets; empty where none is needed."""
    ends = "[a-z0-9]"
    return text(
        "a bucket's name: 3 to 63 of a-z, 0-9, dot, hyphen, with a letter or digit at both ends",
        rf"|(?!.*\.\.){ends}[a-z0-9.-]{{1,61}}{ends}",
        name="bucket",
    )


def prefix() -> Kind:
    """Make a kind for beginnings of object keys: empty, or with a slash at the end, added where it is missing."""

    def read(value: object) -> str:
        given = _text(value)
        # A text that is printable has no lone surrogates, so that it can be encoded.
        parts = given.removesuffix("/").split("/") if given else []
        if any(part in {"", ".", ".."} for part in parts) or not given.isprintable():
            raise ValueError(f"{quote(given)} cannot begin a key")
        if len(given.encode()) > 512:
            raise ValueError(f"is {len(given.encode())} bytes long")
        return given.removesuffix("/") + "/" if given else ""

    return Kind("prefix", 'empty or folders such as a/b/, no "/" at the start, no "..", at most 512 bytes', read)


# The kernel has room for so much of the path of a socket, and a zero byte.
SOCKET_PATH_BYTES = 107


def file_path(*, optional: bool = False, most_bytes: int = 0) -> Kind:
    """Make a kind for paths, None where it is optional and empty; whether they exist is not looked at."""

    def read(value: object) -> Path | None:
        given = _text(value)
        if optional and not given:
            return None
        try:
            encoded = os.fsencode(given)
        except UnicodeEncodeError:
            encoded = b""
        if not encoded or b"\0" in encoded:
            raise ValueError(f"{quote(given)} is not a path")
        if most_bytes and len(encoded) > most_bytes:
            raise ValueError(f"is {len(encoded)} bytes long")
        return Path(given)

    wants = f"a path of at most {most_bytes} bytes" if most_bytes else "a path"
    return Kind("path", wants, read, show=lambda value: None if value is None else str(value))


def socket_path() -> Kind:
    """Make a kind for the path of a Unix socket, None where it is empty."""
    return file_path(optional=True, most_bytes=SOCKET_PATH_BYTES)


def url() -> Kind:
    """Make a kind for addresses of servers, without credentials, query or fragment; empty where none is needed."""

    def read(value: object) -> str:
        given = _text(value)
        if "@" in given:
            # The value is not shown: what stands before the @ may be a password.
            raise ValueError("has an @ in it, where addresses carry credentials")
        if given and not _is_address(given):
            raise ValueError(f"{quote(given)} is not the address of a server")
        return given

    return Kind("url", "empty or an address such as https://host:9000, its credentials in keys of their own", read)


def _is_address(given: str) -> bool:
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        return False
    plain = given.isascii() and given.isprintable() and not re.search(r"[\s?#]", given)
    return plain and parts.scheme in {"http", "https"} and bool(parts.hostname) and port != 0


def _bounded(value: Number, least: Number, most: Number, show: Callable[[Number], object]) -> Number:
    if not least <= value <= most:
        raise ValueError(f"{show(value)} is too {'small' if value < least else 'large'}")
    return value


def _number_or_text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"is {what(value)}")
    return str(value)


def _text(value: object) -> str:
    if isinstance(value, list | dict | None):
        raise ValueError(f"is {what(value)}")
    if not isinstance(value, str):
        raise ValueError(f"is {what(value)} unless it is put in quotes")
    return value


def what(value: object) -> str:
    """Name the type that YAML made of a value, and not the value: it may be a secret in the wrong place."""
    names = {
        type(None): "nothing",
        str: "text",
        bool: "a yes or no",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a section",
    }
    return names.get(type(value), "a date" if isinstance(value, date) else "no plain value")
