"""The media type of a file, and the extension that goes with it."""

from __future__ import annotations

import re

from gateway.core.header_parameters import TOKEN, parameters_of

EXTENSION = re.compile(r"[A-Za-z0-9]{1,10}")
_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
)
MAGIC_BYTES = 16
MAX_TYPE_BYTES = 255
MAX_PARAMETERS_BYTES = 1024
UNKNOWN_TYPE = "application/octet-stream"
# What clients claim without having looked at the file; curl says the last of them of every body.
_UNSAID_TYPES = frozenset({"", UNKNOWN_TYPE, "binary/octet-stream", "application/x-www-form-urlencoded"})
# Of ASCII, without the white space that a signature of S3 folds on its way.
_KEPT_VALUE = re.compile(rf'{TOKEN}|"(?: ?(?:[!#-\[\]-~]|\\[!-~]))* ?"')
# A table of our own: those of the machine and of the interpreter change, and with them the key of a second attempt.
_EXTENSION_OF_TYPE = {
    "application/gzip": "gz",
    "application/x-gzip": "gz",
    "application/javascript": "js",
    "application/msword": "doc",
    "image/jpeg": "jpg",
    "image/svg+xml": "svg",
    "image/tiff": "tif",
    "image/vnd.microsoft.icon": "ico",
    "image/x-icon": "ico",
    "text/javascript": "js",
    "text/markdown": "md",
    "text/plain": "txt",
    UNKNOWN_TYPE: "bin",
}


def content_type(claimed: str, first_bytes: bytes) -> str:
    """The media type of a file: as claimed by the sender, else by its first bytes, else the unknown type.

    The parameters that were claimed stay with it, such as `charset`; type and names are in lower case, values are as sent.
    """
    plain = claimed.partition(";")[0].strip().lower()
    if (
        plain not in _UNSAID_TYPES
        and len(plain) <= MAX_TYPE_BYTES
        and re.fullmatch(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+", plain)
    ):
        return plain + _kept_parameters(claimed)
    for offset, magic, media_type in _MAGIC:
        if first_bytes[offset : offset + len(magic)] == magic:
            return media_type
    return UNKNOWN_TYPE + (_kept_parameters(claimed) if plain == UNKNOWN_TYPE else "")


def _kept_parameters(claimed: str) -> str:
    """The parameters of a type as the type of an object can carry them: all of them or, where one is malformed, none."""
    found = parameters_of(claimed)
    if found is None or not all(_KEPT_VALUE.fullmatch(value) for _, value in found):
        return ""
    text = "".join(f"; {name}={value}" for name, value in found)
    return text if len(text) <= MAX_PARAMETERS_BYTES else ""


def extension_of(media_type: str) -> str:
    """`image/png` is `png`: the subtype serves where the table is silent and it can be an extension."""
    bare = media_type.partition(";")[0]
    known = _EXTENSION_OF_TYPE.get(bare)
    subtype = bare.rpartition("/")[2]
    return known or (subtype if EXTENSION.fullmatch(subtype) else "bin")
