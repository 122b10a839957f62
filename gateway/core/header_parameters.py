"""Parameters of header fields, as in `text/plain; charset=utf-8` and `form-data; name="a"; filename="b.png"`."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 (RFC 9110 calls a word of a header field so)
# More lenient than RFC 9110 where a value has no quotes: clients leave them out around `/` and around other alphabets.
_WORD: Final = r'[^;"\s]*'
_ESCAPING: Final = re.compile(rf""";[ \t]*(?:({TOKEN})=("(?:[^"\\]|\\.)*"|{_WORD}))?[ \t]*""")
# Browsers escape nothing with a backslash, and a name may end in one.
_LITERAL: Final = re.compile(rf""";[ \t]*(?:({TOKEN})=("[^"]*"|{_WORD}))?[ \t]*""")
_ESCAPED: Final = re.compile(r'\\(["\\])')
_EXTENDED: Final = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE)


def parameters_of(value: str) -> list[tuple[str, str]] | None:
    """Give the parameters behind the first `;` of a field's value, in their order; None if they are not well formed.

    Names are in lower case. Values stay as they were sent, quotes included.
    """
    found = _read(_ESCAPING, value)
    return _read(_LITERAL, value) if found is None else found


def _read(parameter: re.Pattern[str], value: str) -> list[tuple[str, str]] | None:
    at = value.find(";")
    found: list[tuple[str, str]] = []
    while 0 <= at < len(value):
        match = parameter.match(value, at)
        if match is None:
            return None
        if match[1] is not None:
            found.append((match[1].lower(), match[2]))
        at = match.end()
    return found


def unquoted(value: str) -> str:
    r"""Give what a parameter's value stands for.

    A backslash escapes only a quote and another one: the file names of Windows have some that escape nothing.
    """
    return _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value


def extended(value: str) -> str | None:
    """Give what the value of a parameter such as `filename*` stands for (RFC 8187), None if it cannot be decoded."""
    match = _EXTENDED.fullmatch(unquoted(value))
    return unquote_to_bytes(match[2].encode("utf-8", "surrogateescape")).decode(match[1], "surrogateescape") if match else None
