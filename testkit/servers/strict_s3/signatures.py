"""Signature version 4 as S3 verifies it, in the `Authorization` header.

"Authenticating requests (AWS Signature Version 4)" in the S3 API reference says what is signed and how.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote_to_bytes

from testkit.servers.strict_s3.refusals import Refusal

ALGORITHM = "AWS4-HMAC-SHA256"
# How far a request's date may be from the server's clock.
LEEWAY = timedelta(minutes=15)
_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} +Credential=([^/,]+)/(\d{{8}})/([^/]*)/([^/]*)/aws4_request, *SignedHeaders=([^,]+), *Signature=([0-9a-f]+)"
)


@dataclass(frozen=True)
class Head:
    """The head of a request, as far as it is signed.

    Attributes:
        target: path and query as they came.
        headers: names in lower case; values of a repeated field joined with commas.
    """

    method: str
    target: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Signer:
    """What signs the request and then its chunks: the key of a day, and what stands in each text."""

    key: bytes
    date: str
    scope: str

    def sign(self, *lines: str) -> str:
        """Sign a text of these lines, of which the first names what is signed."""
        kind, *rest = lines
        text = "\n".join((kind, self.date, self.scope, *rest))
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Verified:
    """A request whose head is signed by who it says: its signature, and what signs its chunks."""

    signature: str
    signer: Signer


def signer_of(secret: str, date: str, scope: str) -> Signer:
    """Derive the key of a scope, which is `DAY/REGION/s3/aws4_request`."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return Signer(key, date, scope)


def canonical(head: Head, signed: list[str]) -> str:
    """The canonical form of a request, of which the hash is signed."""
    path, _, query = head.target.partition("?")
    fields = [part.partition("=")[::2] for part in query.split("&") if part]
    pairs = sorted((_encoded(name), _encoded(value)) for name, value in fields)
    lines = [f"{name}:{' '.join(head.headers[name].split())}" for name in signed]
    return "\n".join(
        (
            head.method,
            _encoded(path, "/"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *lines,
            "",
            ";".join(signed),
            head.headers["x-amz-content-sha256"],
        )
    )


def _encoded(text: str, safe: str = "") -> str:
    return quote(unquote_to_bytes(text), safe=safe + "-_.~")


def verify(head: Head, *, keys: Mapping[str, str], region: str, now: datetime) -> Verified:
    """Verify the signature of a head.

    Args:
        head: what came.
        keys: the secret of each access key.
        region: of the server.
        now: its clock.

    Raises:
        Refusal: with the code that is documented for what is wrong.
    """
    access, day, named_region, service, names, signature = _parsed(head.headers.get("authorization"))
    if access not in keys:
        raise Refusal(403, "InvalidAccessKeyId", "This access key is not known.", AWSAccessKeyId=access)
    if service != "s3":
        raise Refusal(400, "AuthorizationHeaderMalformed", f"The service {service!r} in the credential is wrong; expecting 's3'.")
    if named_region != region:
        text = f"The authorization header is malformed; the region '{named_region}' is wrong; expecting '{region}'"
        # The element Region names the right one, by which clients find it.
        raise Refusal(400, "AuthorizationHeaderMalformed", text, Region=region)
    date = head.headers.get("x-amz-date", "")
    _check_date(date, day, now)
    signed = names.split(";")
    _check_signed(head.headers, signed)
    signer = signer_of(keys[access], date, f"{day}/{region}/s3/aws4_request")
    expected = signer.sign(ALGORITHM, hashlib.sha256(canonical(head, signed).encode()).hexdigest())
    if not hmac.compare_digest(signature, expected):
        raise Refusal(403, "SignatureDoesNotMatch", "The signature is not that of this request with this key's secret.")
    return Verified(signature, signer)


def _parsed(authorization: str | None) -> tuple[str, ...]:
    if authorization is None:
        # AccessDenied: an anonymous request to a bucket that is not public.
        raise Refusal(403, "AccessDenied", "Access Denied")
    if not authorization.startswith(ALGORITHM + " "):
        # InvalidRequest: signature version 2 and others are not taken.
        raise Refusal(400, "InvalidRequest", f"The authorization mechanism is not supported. Please use {ALGORITHM}.")
    found = _AUTHORIZATION.fullmatch(authorization)
    if found is None:
        raise Refusal(400, "AuthorizationHeaderMalformed", "The authorization header is malformed.")
    return found.groups()


def _check_date(date: str, day: str, now: datetime) -> None:
    try:
        instant = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        # AccessDenied: a signed request needs a valid date.
        raise Refusal(403, "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from None
    if not date.startswith(day):
        raise Refusal(403, "SignatureDoesNotMatch", "The day of the credential is not that of the request.")
    if abs(instant - now) > LEEWAY:
        raise Refusal(403, "RequestTimeTooSkewed", "The date of the request is too far from the server's clock.")


def _check_signed(headers: Mapping[str, str], signed: list[str]) -> None:
    if "x-amz-content-sha256" not in headers:
        # InvalidRequest: S3 wants the hash of the payload, or what stands for it, with every request.
        raise Refusal(400, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    required = {"host", *(name for name in headers if name.startswith("x-amz-"))}
    if unsigned := sorted(required - set(signed)):
        # AccessDenied: the host and every x-amz-* header have to be signed.
        text = "There were headers present in the request which were not signed"
        raise Refusal(403, "AccessDenied", text, HeadersNotSigned=", ".join(unsigned))
    if missing := [name for name in signed if name not in headers]:
        raise Refusal(403, "SignatureDoesNotMatch", f"Signed headers that are not there: {', '.join(missing)}")
