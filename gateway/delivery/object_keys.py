"""The keys and the metadata of objects, made from what was fixed at receipt or claim: a second attempt finds the same key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from gateway.core.clock import NANOSECONDS
from gateway.core.media_type import EXTENSION, extension_of
from gateway.core.text import encode
from gateway.spool.names import BY_ID, FIRST, Batch, KeyNumber

MAX_KEY_BYTES = 1024
_MAX_KEY_USER_BYTES = 200
_MAX_KEY_NAME_BYTES = 200


def batch_key(prefix: str, batch: Batch, number: KeyNumber) -> str:
    """`<prefix>YYYY/MM/DD/HH/YYYYMMDDHH.<host>[.<number>].jsonl.gz`; `BY_ID` puts the batch's id in place of the number."""
    hour = batch.hour
    middle = {BY_ID: f".{batch.unique}", FIRST: ""}.get(number, f".{number}")
    return f"{prefix}{hour[:4]}/{hour[4:6]}/{hour[6:8]}/{hour[8:]}/{hour}.{batch.host}{middle}.jsonl.gz"


def file_key(prefix: str, *, user: str, uri: str, media_type: str, received_ns: int, order: int, again: str) -> str:
    """`<prefix><user>/YYYY/MM/DD/<name>.<order>[.<again>].<ext>`, at most 1,024 bytes.

    The day is that of receipt. The order is that of the name in the spool, which no other file of a gateway has.
    """
    day = f"{datetime.fromtimestamp(received_ns // NANOSECONDS, UTC):%Y/%m/%d}"
    name, extension = _name_and_extension(uri)
    extension = extension or extension_of(media_type)
    middle = f".{again}" if again else ""
    owner = encode(user, _MAX_KEY_USER_BYTES)
    return f"{prefix}{owner}/{day}/{encode(name, _MAX_KEY_NAME_BYTES)}.{order:019d}{middle}.{extension}"


def _name_and_extension(uri: str) -> tuple[str, str]:
    path = uri
    if re.match(r"[A-Za-z][A-Za-z0-9+-]*://", uri):
        try:
            path = urlsplit(uri).path
        except ValueError:  # `http://[` is no address, and any text may be a uri here
            path = uri
    # A uri may be a path of a Windows machine.
    last = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    stem, dot, extension = last.rpartition(".")
    if dot and stem and EXTENSION.fullmatch(extension):
        return stem, extension.lower()
    return last or "specimen", ""


def header_value(text: str) -> tuple[str, bool]:
    """Return the text as the metadata of an object can carry it, and whether it had to be percent-encoded for that.

    Printable ASCII stays as it is, but for white space that a store or a proxy would fold.
    """
    if text.isascii() and text.isprintable() and " ".join(text.split()) == text:
        return text, False
    return quote(text.encode("utf-8", "surrogateescape"), safe="/:?&=#+,;@!$'()*"), True


def metadata_texts(
    texts: Mapping[str, str], max_bytes: int, optional: Mapping[str, str] | None = None
) -> tuple[dict[str, str], bool]:
    """Return texts of any kind as metadata of `max_bytes` at most, and whether every one is there whole.

    A field `encoded` names those that are percent-encoded; one that does not fit its share is cut with a hash. Each of the
    `optional` ones is there whole if it fits what the others leave, else not at all: a part of it could be taken for all.
    """
    result: dict[str, str] = {}
    encoded: list[str] = []
    complete = True
    share = max_bytes // len(texts)
    for name, text in texts.items():
        value, was_encoded = header_value(text)
        if len(value) > share:
            value, was_encoded, complete = encode(text, share), True, False
        if was_encoded:
            encoded.append(name)
        result[name] = value
    left = max_bytes - sum(map(len, result.values()))
    for name, text in (optional or {}).items():
        value, was_encoded = header_value(text)
        if len(value) > left:
            complete = False
            continue
        left -= len(value)
        if was_encoded:
            encoded.append(name)
        result[name] = value
    if encoded:
        result["encoded"] = " ".join(encoded)
    return result, complete
