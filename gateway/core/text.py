"""Texts of clients where only some characters may stand: percent-encoded, cut, made readable; all of it can be undone."""

from __future__ import annotations

import hashlib
import os
import re
from urllib.parse import quote, unquote_to_bytes

_CUT_MARK = "~"
_HASH_CHARACTERS = 32


def encode(text: str, max_bytes: int | None = None) -> str:
    """Percent-encode so that no `/`, `.`, `~` or control byte survives, cut with a hash to `max_bytes`.

    Bytes that were not UTF-8 (surrogate escapes) are encoded as the bytes they were. The result is ASCII.
    """
    # quote leaves the four marks `_.-~` as they are, and two of them have a meaning in our names.
    encoded = quote(text.encode("utf-8", "surrogateescape"), safe="").replace(".", "%2E").replace("~", "%7E")
    if max_bytes is None or len(encoded) <= max_bytes:
        return encoded
    return _cut(encoded, max_bytes)


def _cut(encoded: str, max_bytes: int) -> str:
    digest = hashlib.sha256(encoded.encode("ascii")).hexdigest()[:_HASH_CHARACTERS]
    kept = encoded[: max_bytes - len(digest) - len(_CUT_MARK)]
    # An escape that the cut went through is dropped whole.
    return re.sub(r"%[0-9A-F]?$", "", kept) + _CUT_MARK + digest


def cut_bytes(name: str, max_bytes: int) -> str:
    """The beginning of a file's name that fits so many bytes, cut between characters."""
    return os.fsencode(name)[:max_bytes].decode("utf-8", "ignore") if len(os.fsencode(name)) > max_bytes else name


def decode(encoded: str) -> str:
    """Undo `encode` where nothing was cut."""
    return unquote_to_bytes(encoded).decode("utf-8", "surrogateescape")


def readable(text: str) -> str:
    """Percent-encode what cannot be UTF-8 (surrogates), and with it each `%`, so that it can be undone; see `is_readable`."""
    if is_readable(text):
        return text
    return "".join(quote(_bytes_of(char)) if "\ud800" <= char <= "\udfff" or char == "%" else char for char in text)


def is_readable(text: str) -> bool:
    """Whether a text is UTF-8, and so stands as it is; any other one is percent-encoded where it has to be UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _bytes_of(surrogate: str) -> bytes:
    """The byte that it escapes, or what it is in an encoding that would have it."""
    return surrogate.encode("utf-8", "surrogateescape" if _is_escape(surrogate) else "surrogatepass")


def _is_escape(char: str) -> bool:
    return "\udc80" <= char <= "\udcff"
