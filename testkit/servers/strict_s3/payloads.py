"""The body of a request, out of whichever form it was sent in, with its checksums verified.

"Transferring payload in multiple chunks" and "including trailing headers" in the S3 API reference describe aws-chunked.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from testkit.servers.strict_s3 import checksums
from testkit.servers.strict_s3.checksums import Checksum
from testkit.servers.strict_s3.refusals import Refusal
from testkit.servers.strict_s3.signatures import Signer, Verified

UNSIGNED = "UNSIGNED-PAYLOAD"
# Each form of a streamed payload: whether its chunks are signed, and whether headers come behind them.
STREAMING = {
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD": (True, False),
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER": (True, True),
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER": (False, True),
}
# The least size of a signed chunk that is not the last one.
LEAST_CHUNK = 8192
_EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Payload:
    """A body as it was meant.

    Attributes:
        data: its bytes, out of their chunks.
        checksum: the one that came with it, verified; None if none came.
        has_digest: whether a checksum or a `Content-MD5` came with it.
    """

    data: bytes
    checksum: Checksum | None
    has_digest: bool


def payload_of(headers: Mapping[str, str], body: bytes, verified: Verified) -> Payload:
    """Take a body apart and verify it.

    Raises:
        Refusal: with the code that is documented for what is wrong.
    """
    form = headers["x-amz-content-sha256"]
    trailers: dict[str, str] = {}
    if form in STREAMING:
        signed, has_trailer = STREAMING[form]
        data, trailers = _Chunks(body, verified if signed else None).read(has_trailer=has_trailer)
        _check_length(headers, data)
        _check_trailers(headers, trailers)
    else:
        if form != UNSIGNED and form != hashlib.sha256(body).hexdigest():
            raise Refusal(400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match the body.")
        data = body
    md5 = headers.get("content-md5")
    checksums.check_md5(md5, data)
    checksum = checksums.verified({**headers, **trailers}, data)
    if checksum is None and "x-amz-sdk-checksum-algorithm" in headers:
        # InvalidRequest: a checksum is announced and none comes.
        text = (
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found."
        )
        raise Refusal(400, "InvalidRequest", text)
    return Payload(data, checksum, checksum is not None or md5 is not None)


def _check_length(headers: Mapping[str, str], data: bytes) -> None:
    length = headers.get("x-amz-decoded-content-length", "")
    if not length.isdecimal():
        raise Refusal(411, "MissingContentLength", "You must provide the x-amz-decoded-content-length header.")
    if int(length) != len(data):
        # IncompleteBody: fewer bytes came, or more, than were announced.
        raise Refusal(400, "IncompleteBody", "The number of bytes is not that of x-amz-decoded-content-length.")
    if "aws-chunked" not in [each.strip() for each in headers.get("content-encoding", "").split(",")]:
        # InvalidRequest: a chunked payload says so in Content-Encoding.
        raise Refusal(400, "InvalidRequest", "A streamed payload needs Content-Encoding: aws-chunked.")


def _check_trailers(headers: Mapping[str, str], trailers: Mapping[str, str]) -> None:
    announced = {name.strip().lower() for name in headers.get("x-amz-trailer", "").split(",") if name.strip()}
    if announced != set(trailers):
        raise Refusal(400, "MalformedTrailerError", "The trailers are not those that x-amz-trailer announces.")


class _Chunks:
    """A body in the form of aws-chunked, read from its beginning; with `verified` every chunk's signature is checked."""

    def __init__(self, body: bytes, verified: Verified | None) -> None:
        self._body = body
        self._at = 0
        self._signer: Signer | None = verified.signer if verified else None
        self._previous = verified.signature if verified else ""

    def read(self, *, has_trailer: bool) -> tuple[bytes, dict[str, str]]:
        """All data, and the trailers."""
        chunks: list[bytes] = []
        while True:
            size, signature = self._head_of_chunk()
            if size == 0:
                self._check(signature, b"")
                break
            chunk = self._body[self._at : self._at + size]
            self._at += size
            if len(chunk) < size or self._line() != b"":
                raise Refusal(400, "IncompleteBody", "A chunk has not the size that it announces.")
            self._check(signature, chunk)
            chunks.append(chunk)
        if self._signer is not None and any(len(chunk) < LEAST_CHUNK for chunk in chunks[:-1]):
            raise Refusal(403, "InvalidChunkSizeError", f"Only the last chunk may be smaller than {LEAST_CHUNK} bytes.")
        trailers = self._trailers() if has_trailer else {}
        if not has_trailer and self._line() != b"":
            raise Refusal(400, "IncompleteBody", "The body does not end behind its last chunk.")
        if self._at != len(self._body):
            raise Refusal(400, "IncompleteBody", "Bytes follow the end of the body.")
        return b"".join(chunks), trailers

    def _line(self) -> bytes:
        end = self._body.find(b"\r\n", self._at)
        if end < 0:
            raise Refusal(400, "IncompleteBody", "The body ends in the middle of a chunk.")
        line, self._at = self._body[self._at : end], end + 2
        return line

    def _head_of_chunk(self) -> tuple[int, str]:
        size, _, extension = self._line().decode("latin-1").partition(";")
        name, _, signature = extension.partition("=")
        try:
            number = int(size, 16)
        except ValueError:
            raise Refusal(400, "IncompleteBody", f"{size!r} is not the size of a chunk.") from None
        if (name == "chunk-signature") != (self._signer is not None):
            raise Refusal(403, "SignatureDoesNotMatch", "Chunks are signed where the payload says so, and only there.")
        return number, signature

    def _check(self, signature: str, chunk: bytes) -> None:
        """Check a chunk's signature, which contains the one before it."""
        if self._signer is not None:
            digest = hashlib.sha256(chunk).hexdigest()
            self._check_signature(signature, self._signer.sign("AWS4-HMAC-SHA256-PAYLOAD", self._previous, _EMPTY, digest))

    def _check_signature(self, signature: str, expected: str) -> None:
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            raise Refusal(403, "SignatureDoesNotMatch", "The signature of a chunk or of the trailers does not match.")
        self._previous = expected

    def _trailers(self) -> dict[str, str]:
        trailers: dict[str, str] = {}
        signature = ""
        while line := self._line().decode("latin-1"):
            name, colon, value = line.partition(":")
            if not colon:
                raise Refusal(400, "MalformedTrailerError", "A line of the trailers is no header.")
            if name.lower() == "x-amz-trailer-signature":
                signature = value.strip()
            else:
                trailers[name.lower()] = value.strip()
        if self._signer is not None:
            signed = "".join(f"{name}:{value}\n" for name, value in sorted(trailers.items()))
            digest = hashlib.sha256(signed.encode()).hexdigest()
            self._check_signature(signature, self._signer.sign("AWS4-HMAC-SHA256-TRAILER", self._previous, digest))
        return trailers
