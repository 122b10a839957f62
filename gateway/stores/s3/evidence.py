"""What an answer of S3 proves.

That no error came proves nothing: a proxy in maintenance, a static server and a captive portal say 200 to everything. An
object is stored if the answer carries a checksum, or an ETag that is the MD5, of what was sent; else it has to be looked at.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.stores import Source
from gateway.stores.file_slice import body_of

_READ_BYTES = 1 << 20
_MD5_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class Body:
    """What one request sends: a file, a part of one, or bytes.

    Attributes:
        source: the file, or what else is sent whole.
        start, size: the part of it, in bytes.
        crc32: of that part.
    """

    source: Source
    start: int
    size: int
    crc32: int

    def checksum(self) -> str:
        """The CRC-32 as S3 writes it."""
        return _base64(self.crc32)

    def md5(self) -> str:
        """The MD5 in hexadecimal; reads the body, and blocks."""
        content = hashlib.md5(usedforsecurity=False)
        with body_of(self.source, self.start, self.size) as body:
            while chunk := body.read(_READ_BYTES):
                content.update(chunk)
        return content.hexdigest()


def body_to_send(source: Source, start: int, size: int) -> Body:
    """Read the body once for its checksum; blocks."""
    crc32 = 0
    with body_of(source, start, size) as body:
        while chunk := body.read(_READ_BYTES):
            crc32 = zlib.crc32(chunk, crc32)
    return Body(source, start, size, crc32)


def is_kept(answer: Mapping[str, Any], body: Body) -> bool:
    """Whether the answer to a body, whole object or part, proves that it is stored; may read the body, and block."""
    checksum = answer.get("ChecksumCRC32")
    if checksum:
        return bool(checksum == body.checksum())
    return len(etag_of(answer)) == _MD5_CHARACTERS and etag_of(answer) == body.md5()


def contradicts(answer: Mapping[str, Any], body: Body) -> bool:
    """Whether the answer says that other bytes are stored than those that were sent."""
    checksum = str(answer.get("ChecksumCRC32") or "")
    return bool(checksum) and checksum != body.checksum()


def is_composed(answer: Mapping[str, Any], etags: Sequence[str], crc32s: Sequence[int]) -> bool:
    """Whether the answer to CompleteMultipartUpload proves an object of these very parts.

    Args:
        answer: to Complete.
        etags: those of the parts.
        crc32s: likewise.
    """
    # Of the parts' checksums, one after the other; a hyphen and their number end it.
    if checksum := str(answer.get("ChecksumCRC32", "")):
        whole = zlib.crc32(b"".join(crc32.to_bytes(4, "big") for crc32 in crc32s))
        return checksum.partition("-")[0] == _base64(whole)
    try:
        together = b"".join(map(bytes.fromhex, etags))
    except ValueError:
        return False
    return etag_of(answer) == f"{hashlib.md5(together, usedforsecurity=False).hexdigest()}-{len(etags)}"


def _base64(crc32: int) -> str:
    return base64.b64encode(crc32.to_bytes(4, "big")).decode("ascii")


def etag_of(answer: Mapping[str, Any]) -> str:
    """The ETag without its quotes, empty if there is none."""
    return str(answer.get("ETag", "")).strip('"')


@dataclass(frozen=True, slots=True)
class Sight:
    """What a HEAD has shown of an object.

    Attributes:
        metadata: names in lower case.
        size: in bytes; 0 where the answer does not say, as of an empty object.
        is_own: whether the answer is a store's own, and not one of something before it.
    """

    metadata: Mapping[str, str]
    size: int
    is_own: bool


def sight_of(answer: Mapping[str, Any]) -> Sight:
    """Read the answer to a HEAD."""
    metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
    return Sight(metadata, int(answer.get("ContentLength", 0)), is_own(answer))


def is_own(answer: Mapping[str, Any]) -> bool:
    """Whether S3, or what speaks its language, has given the answer: a request id or another field of its own stands in it."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return any(name.lower().startswith("x-amz-") for name in headers)
