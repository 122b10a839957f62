"""The checksums of S3, of bodies and of objects in parts.

"Checking object integrity" in the S3 user guide names the algorithms, and which of them go with which type of checksum.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from testkit.servers.strict_s3.refusals import Refusal

HEADER = "x-amz-checksum-"
COMPOSITE, FULL_OBJECT = "COMPOSITE", "FULL_OBJECT"
# What S3 computes by itself where nothing is said.
BY_DEFAULT = "CRC64NVME"
# The types that an algorithm allows for an object in parts; the first is taken where none is named.
TYPES = {
    "CRC32": (COMPOSITE, FULL_OBJECT),
    "CRC32C": (COMPOSITE, FULL_OBJECT),
    "CRC64NVME": (FULL_OBJECT,),
    "SHA1": (COMPOSITE,),
    "SHA256": (COMPOSITE,),
}
# Headers that begin like a checksum and are none.
_NO_CHECKSUMS = {f"{HEADER}algorithm", f"{HEADER}type", f"{HEADER}mode"}


def _table(polynomial: int) -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
        table.append(value)
    return table


def _crc(polynomial: int, size: int) -> Callable[[bytes], bytes]:
    table, ones = _table(polynomial), (1 << (8 * size)) - 1

    # A byte at a time is slow, and the same large part comes again and again.
    @lru_cache(maxsize=4)
    def digest(data: bytes) -> bytes:
        value = ones
        for byte in data:
            value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
        return (value ^ ones).to_bytes(size, "big")

    return digest


_DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "CRC32C": _crc(0x82F63B78, 4),
    "CRC64NVME": _crc(0x9A6C9329AC4BC9B5, 8),
    "SHA1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}


@dataclass(frozen=True)
class Checksum:
    """A checksum as S3 answers it.

    Attributes:
        algorithm: one of `TYPES`.
        value: base64; of a composite one with the number of parts behind it.
        kind: `COMPOSITE` or `FULL_OBJECT`.
    """

    algorithm: str
    value: str
    kind: str = FULL_OBJECT

    def headers(self) -> dict[str, str]:
        """The headers by which it is answered."""
        return {HEADER + self.algorithm.lower(): self.value, f"{HEADER}type": self.kind}


def of(algorithm: str, data: bytes) -> Checksum:
    """The checksum of a whole body."""
    return Checksum(algorithm, _encoded(_DIGESTS[algorithm](data)))


def of_parts(algorithm: str, kind: str, parts: Sequence[bytes]) -> Checksum:
    """The checksum of an object made of parts: of all its bytes, or of the checksums of the parts."""
    if kind == FULL_OBJECT:
        return of(algorithm, b"".join(parts))
    digest = _DIGESTS[algorithm]
    return Checksum(algorithm, f"{_encoded(digest(b''.join(map(digest, parts))))}-{len(parts)}", COMPOSITE)


def given(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The one checksum in headers or trailers: algorithm and value.

    Raises:
        Refusal: there are several, or one of an algorithm that is not known.
    """
    found = {name: value for name, value in headers.items() if name.startswith(HEADER) and name not in _NO_CHECKSUMS}
    if len(found) > 1:
        # InvalidRequest: only one checksum may be given.
        raise Refusal(400, "InvalidRequest", "Several x-amz-checksum- headers were given, and one is expected.")
    for name, value in found.items():
        algorithm = name.removeprefix(HEADER).upper()
        if algorithm not in TYPES:
            # InvalidRequest: the algorithm is none of those documented.
            raise Refusal(400, "InvalidRequest", f"The algorithm of {name} is not known.")
        return algorithm, value
    return None


def verified(headers: Mapping[str, str], data: bytes) -> Checksum | None:
    """The checksum of a body as it was given, if any.

    Raises:
        Refusal: it is malformed, or not that of the body.
    """
    found = given(headers)
    if found is None:
        return None
    algorithm, value = found
    actual = of(algorithm, data)
    try:
        size = len(base64.b64decode(value, validate=True))
    except ValueError:
        size = -1
    if size != len(_DIGESTS[algorithm](b"")):
        # InvalidRequest: no value that this algorithm can have.
        raise Refusal(400, "InvalidRequest", f"Value for {HEADER}{algorithm.lower()} header is invalid.")
    if value != actual.value:
        # BadDigest: the checksum is not that of the body.
        raise Refusal(400, "BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")
    return actual


def check_md5(value: str | None, data: bytes) -> None:
    """Check `Content-MD5`.

    Raises:
        Refusal: InvalidDigest for what is no MD5, BadDigest for that of something else.
    """
    if value is None:
        return
    try:
        given_md5 = base64.b64decode(value, validate=True)
    except ValueError:
        given_md5 = b""
    if len(given_md5) != 16:
        raise Refusal(400, "InvalidDigest", "The Content-MD5 you specified is not valid.")
    if given_md5 != hashlib.md5(data, usedforsecurity=False).digest():
        raise Refusal(400, "BadDigest", "The Content-MD5 you specified did not match what was received.")


def _encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
