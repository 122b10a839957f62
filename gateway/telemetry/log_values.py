"""Values in a line of the log."""

from __future__ import annotations

import re

import orjson

_SUSPECT = re.compile(r"[^!#-<>-\[\]-~]")
_AMBIGUOUS = re.compile(r'[ "=\\]')
_ESCAPED = re.compile(r"[^ !#-\[\]-~]")


MAX_TEXT_CHARACTERS = 256


def shortened(text: str | None) -> str | None:
    """A text of a client's own, cut to so many characters; one that was cut ends in its whole length."""
    if text is None or len(text) <= MAX_TEXT_CHARACTERS:
        return text
    return f"{text[:MAX_TEXT_CHARACTERS]}… ({len(text)} characters)"


def text_value(value: object) -> str:
    """Render a value for behind an `=`: bare where that cannot mislead, else quoted and escaped; always in one line."""
    if value is None:
        return "-"
    if not isinstance(value, str):
        if isinstance(value, float):
            return str(round(value, 3))
        value = json_value(value) if isinstance(value, bool | list | tuple | dict) else _as_text(value)
    bare = not _SUSPECT.search(value) or (value.isprintable() and not _AMBIGUOUS.search(value))
    if bare and value not in ("", "-"):
        return value
    return f'"{_ESCAPED.sub(_escape, value)}"'


def _escape(found: re.Match[str]) -> str:
    char = found[0]
    if char == '"':
        return '\\"'
    return char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode("ascii")


def json_value(value: object) -> str:
    """Render a value as JSON in one line; what JSON has no form for becomes a string."""
    try:
        return orjson.dumps(value, default=_as_text).decode()
    except TypeError:
        return orjson.dumps(_json_able(value)).decode()


def _as_text(value: object) -> str:
    return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)


def _json_able(value: object) -> object:
    if isinstance(value, dict):
        return {str(_json_able(str(key))): _json_able(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json_able(one) for one in value]
    if value is None or isinstance(value, bool | float):
        return value
    # A lone surrogate, which is a byte of a header that was not UTF-8, or an integer beyond 64 bits.
    return _as_text(value).encode("utf-8", "backslashreplace").decode()
