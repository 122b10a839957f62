"""The strict stand-in takes what is right and refuses what S3 refuses, with S3's status and code."""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import botocore.session
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from testkit.servers.strict_s3 import (
    ACCESS_KEY,
    LEAST_PART,
    REGION,
    SECRET_KEY,
    StrictS3,
    checksums,
    payloads,
    signatures,
    strict_s3,
)
from testkit.servers.strict_s3.refusals import Refusal
from testkit.servers.sts import AUTHORITY, https

PART = 1000
ALGORITHMS = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]
every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


# --- speaking to it ----------------------------------------------------------------------------------------------


@pytest.fixture
def strict() -> Iterator[StrictS3]:
    """Run one whose parts may be small."""
    with strict_s3(["bucket", "other"], least_part=PART) as running:
        yield running


@dataclass(frozen=True)
class Answer:
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """S3's name of the error, if there is one."""
        found = re.search(rb"<Code>(\w+)</Code>", self.body)
        return found[1].decode() if found else ""


@dataclass
class Signed(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """The signer of botocore, with the hash of the payload as it is told."""

    payload_hash: str
    region: str = REGION
    access: str = ACCESS_KEY
    secret: str = SECRET_KEY

    def __post_init__(self) -> None:
        super().__init__(Credentials(self.access, self.secret), "s3", self.region)

    def payload(self, request: Any) -> str:
        """What stands for the payload in what is signed."""
        del request
        return self.payload_hash


def sign(
    strict: StrictS3, method: str, target: str, headers: Mapping[str, str], body: bytes, payload_hash: str = "", **who: str
) -> dict[str, str]:
    """The headers of a signed request, made by botocore."""
    request = AWSRequest(method=method, url=strict.endpoint + target, data=body, headers=dict(headers))
    Signed(payload_hash or hashlib.sha256(body).hexdigest(), **who).add_auth(request)
    return {str(name): str(value) for name, value in request.headers.items()}


def exchange(strict: StrictS3, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Send a request as it is, and return what is answered."""
    connection = http.client.HTTPConnection(strict.endpoint.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, target, body, dict(headers))
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def send(
    strict: StrictS3,
    target: str = "/bucket/key",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"data",
    *,
    method: str = "PUT",
    who: Mapping[str, str] | None = None,
) -> Answer:
    """Send a signed request."""
    return exchange(strict, method, target, sign(strict, method, target, headers or {}, body, **(who or {})), body)


def value(algorithm: str, data: bytes) -> str:
    """A checksum in base64."""
    return checksums.of(algorithm, data).value


# --- signatures --------------------------------------------------------------------------------------------------

# The examples of the S3 API reference, with the key that stands there.
EXAMPLE_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
EXAMPLE_KEY = "AKIAIOSFODNN7EXAMPLE"
EXAMPLE_NOW = datetime(2013, 5, 24, tzinfo=UTC)
EXAMPLE_DATA = b"a" * 66560
CHUNKED = [
    "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
]
TRAILED = [
    "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
]
TRAILER_SIGNATURE = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"


def example(form: str, signature: str, extra: Mapping[str, str]) -> signatures.Head:
    """The head of the chunked examples."""
    headers = {
        "content-encoding": "aws-chunked",
        "content-length": "66824",
        "host": "s3.amazonaws.com",
        "x-amz-content-sha256": form,
        "x-amz-date": "20130524T000000Z",
        "x-amz-decoded-content-length": "66560",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
        **extra,
    }
    if extra:
        del headers["content-length"]
    named = ";".join(sorted(headers))
    credential = f"Credential={EXAMPLE_KEY}/20130524/us-east-1/s3/aws4_request"
    headers["authorization"] = f"AWS4-HMAC-SHA256 {credential},SignedHeaders={named},Signature={signature}"
    return signatures.Head("PUT", "/examplebucket/chunkObject.txt", headers)


@pytest.mark.parametrize("trailed", [False, True])
def test_the_examples_of_the_reference_verify(trailed: bool) -> None:
    """The signatures that the reference of S3 gives for its examples, of head, chunks and trailers, are verified."""
    seed, *of_chunks = TRAILED if trailed else CHUNKED
    form = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailed else "")
    head = example(form, seed, {"x-amz-trailer": "x-amz-checksum-crc32c"} if trailed else {})
    verified = signatures.verify(head, keys={EXAMPLE_KEY: EXAMPLE_SECRET}, region="us-east-1", now=EXAMPLE_NOW)
    cut = (EXAMPLE_DATA[:65536], EXAMPLE_DATA[65536:], b"")
    body = b"".join(chunk_of(data, signature) for data, signature in zip(cut, of_chunks, strict=True)).removesuffix(b"\r\n")
    if trailed:
        body += b"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:" + TRAILER_SIGNATURE.encode() + b"\r\n"
    payload = payloads.payload_of(head.headers, body + b"\r\n", verified)
    assert payload.data == EXAMPLE_DATA
    assert (payload.checksum is not None) == trailed
    for wrong in (body.replace(b"aaaa", b"aaab", 1), body.replace(of_chunks[2].encode(), b"0" * 64)):
        with pytest.raises(Refusal, match="signature of a chunk"):
            payloads.payload_of(head.headers, wrong + b"\r\n", verified)


def chunk_of(data: bytes, signature: str = "") -> bytes:
    """One chunk of aws-chunked."""
    extension = f";chunk-signature={signature}" if signature else ""
    return f"{len(data):x}{extension}\r\n".encode() + data + b"\r\n"


@pytest.mark.parametrize("key", ["key", "a b/+c&d=e?f#g%2F.png", "日本/~x-._", "a//b/../c"])
@pytest.mark.parametrize("query", ["", "?b=2&a=1&empty", "?x=a%20b%2Fc"])
def test_a_right_signature_is_taken(key: str, query: str, strict: StrictS3) -> None:
    """What botocore signs is verified, whatever key and query it is for."""
    answer = send(strict, f"/bucket/{quote(key)}{query}", {"x-amz-meta-a": "x   y"})
    assert (answer.status, answer.code) == (200, "")
    assert strict.objects["bucket", key].body == b"data"


@pytest.mark.parametrize(
    ("who", "status", "code"),
    [
        ({"access": "nobody"}, 403, "InvalidAccessKeyId"),
        ({"secret": "wrong"}, 403, "SignatureDoesNotMatch"),
        ({"region": "eu-central-1"}, 400, "AuthorizationHeaderMalformed"),
        ({"payload_hash": hashlib.sha256(b"other").hexdigest()}, 400, "XAmzContentSHA256Mismatch"),
    ],
)
def test_a_wrong_signer_is_refused(who: dict[str, str], status: int, code: str, strict: StrictS3) -> None:
    """A key, a secret, a region or a payload that is not the right one has its own answer."""
    answer = send(strict, who=who)
    assert (answer.status, answer.code) == (status, code)
    assert (b"<Region>us-east-1</Region>" in answer.body) == ("region" in who)
    assert strict.objects == {}


def _unsigned_header(headers: dict[str, str]) -> None:
    headers["x-amz-meta-later"] = "1"


def _changed_header(headers: dict[str, str]) -> None:
    headers["x-amz-meta-a"] = "2"


def _no_authorization(headers: dict[str, str]) -> None:
    del headers["Authorization"]


def _old_version(headers: dict[str, str]) -> None:
    headers["Authorization"] = "AWS strict:c2lnbmF0dXJl"


def _malformed(headers: dict[str, str]) -> None:
    headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=strict"


def _no_hash(headers: dict[str, str]) -> None:
    del headers["X-Amz-Content-SHA256"]


def _no_date(headers: dict[str, str]) -> None:
    del headers["X-Amz-Date"]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (_unsigned_header, 403, "AccessDenied"),
        (_changed_header, 403, "SignatureDoesNotMatch"),
        (_no_authorization, 403, "AccessDenied"),
        (_old_version, 400, "InvalidRequest"),
        (_malformed, 400, "AuthorizationHeaderMalformed"),
        (_no_hash, 400, "InvalidRequest"),
        (_no_date, 403, "AccessDenied"),
    ],
)
def test_a_changed_head_is_refused(change: Callable[[dict[str, str]], None], status: int, code: str, strict: StrictS3) -> None:
    """A head that is not what was signed is refused."""
    headers = sign(strict, "PUT", "/bucket/key", {"x-amz-meta-a": "1"}, b"data")
    change(headers)
    answer = exchange(strict, "PUT", "/bucket/key", headers, b"data")
    assert (answer.status, answer.code) == (status, code)


def test_an_old_signature_is_refused() -> None:
    """A request that was signed more than a quarter of an hour ago, or from now, is refused."""
    head = example("UNSIGNED-PAYLOAD", CHUNKED[0], {})
    for away in (timedelta(minutes=16), -timedelta(minutes=16)):
        with pytest.raises(Refusal) as raised:
            signatures.verify(head, keys={EXAMPLE_KEY: EXAMPLE_SECRET}, region="us-east-1", now=EXAMPLE_NOW + away)
        assert (raised.value.status, raised.value.code) == (403, "RequestTimeTooSkewed")


# --- payloads ----------------------------------------------------------------------------------------------------

TRAILER_FORM = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
STREAMED = {"Content-Encoding": "aws-chunked", "x-amz-decoded-content-length": "9", "x-amz-trailer": "x-amz-checksum-crc32"}
GOOD_TRAILER = f"x-amz-checksum-crc32:{value('CRC32', b'some data')}\r\n".encode()


def test_known_checksums() -> None:
    """The check value of each algorithm, as its specification gives it, is the one computed here."""
    found = {name: base64.b64decode(value(name, b"123456789")).hex() for name in ALGORITHMS}
    assert (found["CRC32"], found["CRC32C"], found["CRC64NVME"]) == ("cbf43926", "e3069283", "ae8b14860a799888")
    assert found["SHA1"] == hashlib.sha1(b"123456789").hexdigest()
    assert found["SHA256"] == hashlib.sha256(b"123456789").hexdigest()


@every_algorithm
def test_the_checksum_of_a_body_is_verified(algorithm: str, strict: StrictS3) -> None:
    """The checksum of the body is taken and answered; another one is a bad digest, and what can be none a bad request."""
    name = f"x-amz-checksum-{algorithm.lower()}"
    answer = send(strict, headers={name: value(algorithm, b"data")})
    assert (answer.status, answer.headers[name]) == (200, value(algorithm, b"data"))
    for wrong, code in ((value(algorithm, b"else"), "BadDigest"), ("AAAA", "InvalidRequest"), ("!", "InvalidRequest")):
        answer = send(strict, "/bucket/wrong", {name: wrong})
        assert (answer.status, answer.code) == (400, code)
    assert list(strict.objects) == [("bucket", "key")]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content-MD5": base64.b64encode(hashlib.md5(b"else").digest()).decode()}, "BadDigest"),
        ({"Content-MD5": "AAAA"}, "InvalidDigest"),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, "InvalidRequest"),
        ({"x-amz-checksum-crc32": value("CRC32", b"data"), "x-amz-checksum-sha1": value("SHA1", b"data")}, "InvalidRequest"),
    ],
)
def test_a_wrong_digest_is_refused(headers: dict[str, str], code: str, strict: StrictS3) -> None:
    """An MD5 that is wrong or none, an announced checksum that is not there, and two of them are refused."""
    answer = send(strict, headers=headers)
    assert (answer.status, answer.code) == (400, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (chunk_of(b"some ") + chunk_of(b"data") + b"0\r\n" + GOOD_TRAILER + b"\r\n", ""),
        (chunk_of(b"some ") + chunk_of(b"dada") + b"0\r\n" + GOOD_TRAILER + b"\r\n", "BadDigest"),
        (chunk_of(b"some ") + b"0\r\n" + GOOD_TRAILER + b"\r\n", "IncompleteBody"),
        (chunk_of(b"some ") + chunk_of(b"data"), "IncompleteBody"),
        (chunk_of(b"some ") + chunk_of(b"data") + b"0\r\n\r\n", "MalformedTrailerError"),
        (chunk_of(b"some ") + chunk_of(b"data") + b"0\r\nno trailer\r\n\r\n", "MalformedTrailerError"),
        (b"x\r\nsome data\r\n0\r\n" + GOOD_TRAILER + b"\r\n", "IncompleteBody"),
        (chunk_of(b"some data") + b"0\r\n" + GOOD_TRAILER + b"\r\nmore", "IncompleteBody"),
    ],
)
def test_a_streamed_body_is_read_out_of_its_chunks(body: bytes, code: str, strict: StrictS3) -> None:
    """A body in chunks with its checksum behind it is taken if both are right, and else refused."""
    headers = sign(strict, "PUT", "/bucket/key", STREAMED, body, TRAILER_FORM)
    answer = exchange(strict, "PUT", "/bucket/key", headers, body)
    assert (answer.status, answer.code) == (400 if code else 200, code)
    if not code:
        assert strict.objects["bucket", "key"].body == b"some data"


@pytest.mark.parametrize(
    ("left_out", "status", "code"),
    [("x-amz-decoded-content-length", 411, "MissingContentLength"), ("Content-Encoding", 400, "InvalidRequest")],
)
def test_a_streamed_body_is_announced(left_out: str, status: int, code: str, strict: StrictS3) -> None:
    """A body in chunks says that it is one, and how long it is without them."""
    body = chunk_of(b"some data") + b"0\r\n" + GOOD_TRAILER + b"\r\n"
    given = {name: text for name, text in STREAMED.items() if name != left_out}
    answer = exchange(strict, "PUT", "/bucket/key", sign(strict, "PUT", "/bucket/key", given, body, TRAILER_FORM), body)
    assert (answer.status, answer.code) == (status, code)


def test_a_small_signed_chunk_is_the_last() -> None:
    """Of signed chunks only the last may be smaller than 8 KiB."""
    signer = signatures.signer_of("secret", "20261130T000000Z", "20261130/us-east-1/s3/aws4_request")
    headers = {"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "content-encoding": "aws-chunked"}
    body, previous = b"", "seed"
    for data in (b"small", b"last", b""):
        digests = hashlib.sha256(b"").hexdigest(), hashlib.sha256(data).hexdigest()
        previous = signer.sign("AWS4-HMAC-SHA256-PAYLOAD", previous, *digests)
        body += chunk_of(data, previous)
    with pytest.raises(Refusal) as raised:
        payloads.payload_of(headers, body, signatures.Verified("seed", signer))
    assert raised.value.code == "InvalidChunkSizeError"


def test_a_body_without_length_is_refused(strict: StrictS3) -> None:
    """A put whose length is not announced is refused."""
    headers = {**sign(strict, "PUT", "/bucket/key", {}, b"data"), "Transfer-Encoding": "chunked"}
    host, _, port = strict.endpoint.removeprefix("http://").partition(":")
    fields = "".join(f"{name}: {text}\r\n" for name, text in headers.items() if name != "Host")
    with socket.create_connection((host, int(port)), 30) as wire:
        wire.sendall(f"PUT /bucket/key HTTP/1.1\r\nHost: {host}:{port}\r\n{fields}\r\n4\r\ndata\r\n0\r\n\r\n".encode())
        assert wire.recv(100).startswith(b"HTTP/1.1 411 ")


# --- the head ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "headers", "status", "code"),
    [
        ("/bucket/key", {"x-amz-meta-a": "m" * 2047}, 200, ""),
        ("/bucket/key", {"x-amz-meta-a": "m" * 2048}, 400, "MetadataTooLarge"),
        ("/bucket/" + "k" * 1024, {}, 200, ""),
        ("/bucket/" + "k" * 1025, {}, 400, "KeyTooLongError"),
        ("/bucket/" + quote("日" * 342), {}, 400, "KeyTooLongError"),
        ("/bucket/key", {"x-amz-new-feature": "on"}, 501, "NotImplemented"),
        ("/bucket/key", {"x-amz-storage-class": "STANDARD_IA"}, 200, ""),
        ("/bucket/key", {"x-amz-storage-class": "CHEAP"}, 400, "InvalidStorageClass"),
        ("/bucket/key", {"x-amz-server-side-encryption": "aws:kms"}, 200, ""),
        ("/bucket/key", {"x-amz-server-side-encryption": "ROT13"}, 400, "InvalidArgument"),
        ("/bucket/key", {"x-amz-security-token": "token"}, 400, "InvalidToken"),
        ("/bucket/key", {"If-None-Match": '"etag"'}, 501, "NotImplemented"),
        ("/bucket/key", {"Cache-Control": "c" * 8000}, 400, "RequestHeaderSectionTooLarge"),
        ("/nowhere/key", {}, 404, "NoSuchBucket"),
    ],
)
def test_heads_that_are_refused(target: str, headers: dict[str, str], status: int, code: str, strict: StrictS3) -> None:
    """A head within the bounds is taken; beyond them it is refused, as are headers, values and buckets that are not known."""
    answer = send(strict, target, headers)
    assert (answer.status, answer.code) == (status, code)
    assert re.fullmatch("[0-9A-F]{16}", answer.headers["x-amz-request-id"])
    assert "x-amz-id-2" in answer.headers


@pytest.mark.parametrize(("status", "code"), [(301, "PermanentRedirect"), (307, "TemporaryRedirect")])
def test_a_redirect_says_where_to(status: int, code: str, strict: StrictS3) -> None:
    """A bucket that is elsewhere is answered with the region and the address."""
    strict.moved = (status, "http://elsewhere.example")
    answer = send(strict, "/bucket/key?x=1")
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["location"] == "http://elsewhere.example/bucket/key?x=1"
    assert answer.headers["x-amz-bucket-region"] == "eu-central-1"
    assert send(strict, method="HEAD", body=b"").status == status


@pytest.mark.parametrize("extra", [{}, {"Content-MD5": base64.b64encode(hashlib.md5(b"data").digest()).decode()}])
def test_object_lock_wants_a_digest(extra: dict[str, str], strict: StrictS3) -> None:
    """In a bucket with object lock a body without an MD5 or a checksum is refused."""
    strict.locked.add("bucket")
    answer = send(strict, headers=extra)
    assert (answer.status, answer.code) == ((200, "") if extra else (400, "InvalidRequest"))


# --- conditions, and what comes back -----------------------------------------------------------------------------


def test_a_condition_holds_or_not(strict: StrictS3) -> None:
    """Where the key is taken a conditional put is refused and changes nothing; a conflict is answered as one, and passes."""
    condition = {"If-None-Match": "*"}
    strict.conflicts = 1
    assert [send(strict, headers=condition).code for _ in range(3)] == ["ConditionalRequestConflict", "", "PreconditionFailed"]
    assert send(strict, headers=condition, body=b"else").status == 412
    assert strict.objects["bucket", "key"].body == b"data"
    assert send(strict, body=b"else").status == 200


def test_an_object_comes_back(strict: StrictS3) -> None:
    """An object is answered with its bytes, its metadata, its MD5, and its checksum to who asks for it."""
    send(strict, headers={"x-amz-meta-a": "1", "Content-Type": "text/plain"})
    md5 = f'"{hashlib.md5(b"data").hexdigest()}"'
    for method in ("GET", "HEAD"):
        answer = send(strict, method=method, body=b"")
        found = [answer.headers[name] for name in ("etag", "x-amz-meta-a", "content-type", "content-length")]
        assert (answer.status, found) == (200, [md5, "1", "text/plain", "4"])
        assert answer.body == (b"data" if method == "GET" else b"")
        assert "x-amz-checksum-crc64nvme" not in answer.headers
        asked = send(strict, headers={"x-amz-checksum-mode": "ENABLED"}, method=method, body=b"")
        assert asked.headers["x-amz-checksum-crc64nvme"] == value("CRC64NVME", b"data")


def test_what_is_missing_is_told_to_who_may_list(strict: StrictS3) -> None:
    """A missing object is 404, and 403 to a role that may not list; what it may not call is 403. HEAD has no body."""
    assert send(strict, method="GET", body=b"").code == "NoSuchKey"
    missing = send(strict, method="HEAD", body=b"")
    assert (missing.status, missing.body) == (404, b"")
    strict.may_list = False
    assert send(strict, method="HEAD", body=b"").status == 403
    strict.forbidden = {"PutObject"}
    assert send(strict).code == "AccessDenied"
    assert send(strict, method="DELETE", body=b"").status == 204


# --- in parts ----------------------------------------------------------------------------------------------------


@dataclass
class Uploading:
    """An upload in parts by botocore, call by call."""

    client: Any
    upload_id: str = ""

    def begin(self, **arguments: Any) -> str:
        """Begin one."""
        answer = self.client.create_multipart_upload(Bucket="bucket", Key="key", **arguments)
        self.upload_id = answer["UploadId"]
        return self.upload_id

    def part(self, number: int, body: bytes, **arguments: Any) -> dict[str, Any]:
        """Send a part; what the last call has to list of it is returned."""
        named = {"Bucket": "bucket", "Key": "key", "UploadId": self.upload_id, "PartNumber": number}
        answer = self.client.upload_part(**named, Body=body, **arguments)
        sums = {name: text for name, text in answer.items() if name.startswith("Checksum")}
        return {"PartNumber": number, "ETag": answer["ETag"], **sums}

    def complete(self, *parts: dict[str, Any], **arguments: Any) -> dict[str, Any]:
        """Complete it with these parts."""
        named = {"Bucket": "bucket", "Key": "key", "UploadId": self.upload_id}
        answer: dict[str, Any] = self.client.complete_multipart_upload(
            **named, MultipartUpload={"Parts": list(parts)}, **arguments
        )
        return answer


def client_of(strict: StrictS3, checksum: str, **arguments: Any) -> Any:
    """A client of botocore that does not try again."""
    config = Config(request_checksum_calculation=checksum, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    session = botocore.session.Session()
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
    return session.create_client("s3", REGION, endpoint_url=strict.endpoint, config=config, **keys, **arguments)


@pytest.fixture
def plain(strict: StrictS3) -> Iterator[Uploading]:
    """Give an upload whose client adds no checksums."""
    client = client_of(strict, "when_required")
    yield Uploading(client)
    client.close()


@pytest.fixture
def summed(strict: StrictS3) -> Iterator[Uploading]:
    """Give an upload whose client adds a CRC32 to each part."""
    client = client_of(strict, "when_supported")
    yield Uploading(client)
    client.close()


def refused(call: Callable[[], object]) -> tuple[int, str, str]:
    """Status, code and text of the error that a call ends with."""
    with pytest.raises(ClientError) as raised:
        call()
    answer = raised.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


def test_parts_become_an_object(plain: Uploading, strict: StrictS3) -> None:
    """Parts without checksums become one object, whose ETag is made of theirs, and whose checksum is of all its bytes."""
    plain.begin(Metadata={"a": "1"}, ContentType="text/plain")
    parts = [plain.part(number, body) for number, body in ((1, b"a" * PART), (3, b"b" * PART), (7, b"c"))]
    answer = plain.complete(*parts, IfNoneMatch="*")
    data = b"a" * PART + b"b" * PART + b"c"
    md5s = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
    assert answer["ETag"] == f'"{hashlib.md5(md5s).hexdigest()}-3"'
    assert (answer["ChecksumCRC64NVME"], answer["ChecksumType"]) == (value("CRC64NVME", data), "FULL_OBJECT")
    kept = strict.objects["bucket", "key"]
    assert (kept.body, kept.metadata, strict.uploads) == (data, {"a": "1"}, {})


@every_algorithm
def test_parts_with_checksums_become_an_object(algorithm: str, plain: Uploading) -> None:
    """Parts with the checksums that were named at the beginning become one object, with a checksum of the type it allows."""
    plain.begin(ChecksumAlgorithm=algorithm)
    name = f"Checksum{algorithm}"
    bodies = [b"a" * PART, b"b"]
    parts = [plain.part(number, body, **{name: value(algorithm, body)}) for number, body in enumerate(bodies, 1)]
    answer = plain.complete(*parts)
    if algorithm == "CRC64NVME":
        assert (answer[name], answer["ChecksumType"]) == (value(algorithm, b"".join(bodies)), "FULL_OBJECT")
    else:
        raw = b"".join(base64.b64decode(value(algorithm, body)) for body in bodies)
        assert (answer[name], answer["ChecksumType"]) == (f"{value(algorithm, raw)}-2", "COMPOSITE")


def test_parts_need_the_checksums_that_were_named(plain: Uploading, summed: Uploading) -> None:
    """A part whose checksum is not of the algorithm named at the beginning is refused: none, another, or one unasked for."""
    summed.begin()
    told = refused(lambda: summed.part(1, b"a"))
    assert told == (
        400,
        "InvalidRequest",
        "Checksum Type mismatch occurred, expected checksum Type: null, actual checksum Type: crc32",
    )
    summed.begin(ChecksumAlgorithm="SHA256")
    told = refused(lambda: summed.part(1, b"a"))
    assert told[1:] == ("InvalidRequest", told[2])
    assert "expected checksum Type: sha256, actual checksum Type: crc32" in told[2]
    plain.begin(ChecksumAlgorithm="CRC32")
    assert "expected checksum Type: crc32, actual checksum Type: null" in refused(lambda: plain.part(1, b"a"))[2]
    # That of the full object can be computed without those of the parts.
    plain.begin(ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    plain.complete(plain.part(1, b"a"), ChecksumCRC32=value("CRC32", b"a"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"ChecksumType": "COMPOSITE"},
        {"ChecksumAlgorithm": "SHA256", "ChecksumType": "FULL_OBJECT"},
        {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "COMPOSITE"},
        {"ChecksumAlgorithm": "ADLER32"},
    ],
)
def test_algorithm_and_type_go_together(arguments: dict[str, str], plain: Uploading) -> None:
    """An algorithm that is not known, or does not go with the type of the checksum, is refused at the beginning."""
    assert refused(lambda: plain.begin(**arguments))[:2] == (400, "InvalidRequest")


def test_the_last_call_names_what_was_sent(summed: Uploading, strict: StrictS3) -> None:
    """Checksums, ETags, numbers, type and size in the last call are those of the parts and of the object, or it is refused."""
    summed.begin(ChecksumAlgorithm="CRC32")
    first, second = summed.part(1, b"a" * PART), summed.part(2, b"b")
    bare = {name: first[name] for name in ("PartNumber", "ETag")}
    other = {**first, "ChecksumCRC32": second["ChecksumCRC32"]}
    swapped = {**first, "ETag": second["ETag"]}
    sha1 = {**bare, "ChecksumSHA1": value("SHA1", b"a" * PART)}
    for parts, code in (
        ((bare, second), "InvalidRequest"),
        ((other, second), "InvalidPart"),
        ((sha1, second), "InvalidPart"),
        ((swapped, second), "InvalidPart"),
        ((first, {**second, "PartNumber": 3}), "InvalidPart"),
        ((second, first), "InvalidPartOrder"),
        ((first, first), "InvalidPartOrder"),
        ((), "MalformedXML"),
    ):
        assert refused(lambda parts=parts: summed.complete(*parts))[:2] == (400, code), code  # type: ignore[misc]
    for arguments, code in (
        ({"ChecksumType": "FULL_OBJECT"}, "InvalidRequest"),
        ({"ChecksumCRC32": value("CRC32", b"else")}, "BadDigest"),
        ({"MpuObjectSize": 7}, "InvalidRequest"),
    ):
        assert refused(lambda more=arguments: summed.complete(first, second, **more))[:2] == (400, code)  # type: ignore[misc]
    assert strict.objects == {}
    assert summed.complete(first, second, ChecksumType="COMPOSITE", MpuObjectSize=PART + 1)["ChecksumType"] == "COMPOSITE"


def test_parts_have_a_least_size(plain: Uploading) -> None:
    """A part that is too small is refused by the last call, unless it is the last part."""
    plain.begin()
    parts = [plain.part(1, b"a" * (PART - 1)), plain.part(2, b"b")]
    assert refused(lambda: plain.complete(*parts))[:2] == (400, "EntityTooSmall")
    plain.complete(plain.part(1, b"a" * PART), parts[1])


@pytest.mark.parametrize("missing", [1, 0])
def test_the_least_size_is_that_of_s3(missing: int) -> None:
    """Unless told otherwise a part has 5 MiB at least."""
    with strict_s3() as strict:
        client = client_of(strict, "when_supported")
        upload = Uploading(client)
        upload.begin(ChecksumAlgorithm="CRC32")
        parts = [upload.part(1, bytes(LEAST_PART - missing)), upload.part(2, b"b")]
        if missing:
            assert refused(lambda: upload.complete(*parts))[:2] == (400, "EntityTooSmall")
        else:
            upload.complete(*parts)
        client.close()


def test_parts_have_numbers_up_to_ten_thousand(plain: Uploading) -> None:
    """The number of a part is from 1 to 10,000."""
    plain.begin()
    for number in (0, 10_001):
        assert refused(lambda number=number: plain.part(number, b"a"))[:2] == (400, "InvalidArgument")  # type: ignore[misc]
    plain.complete(plain.part(10_000, b"a"))


def test_the_last_call_obeys_the_condition(plain: Uploading, strict: StrictS3) -> None:
    """Where the key is taken the last call of a conditional upload is refused, and the upload stays until it is aborted."""
    send(strict)
    upload_id = plain.begin()
    part = plain.part(1, b"a")
    strict.conflicts = 1
    assert refused(lambda: plain.complete(part, IfNoneMatch="*"))[:2] == (409, "ConditionalRequestConflict")
    assert refused(lambda: plain.complete(part, IfNoneMatch="*"))[:2] == (412, "PreconditionFailed")
    assert strict.objects["bucket", "key"].body == b"data"
    abort = {"Bucket": "bucket", "Key": "key", "UploadId": upload_id}
    plain.client.abort_multipart_upload(**abort)
    assert refused(lambda: plain.client.abort_multipart_upload(**abort))[:2] == (404, "NoSuchUpload")
    assert refused(lambda: plain.part(1, b"a"))[:2] == (404, "NoSuchUpload")


def test_object_lock_wants_a_digest_of_parts(plain: Uploading, summed: Uploading, strict: StrictS3) -> None:
    """In a bucket with object lock a part without an MD5 or a checksum is refused."""
    strict.locked.add("bucket")
    plain.begin()
    assert refused(lambda: plain.part(1, b"a"))[:2] == (400, "InvalidRequest")
    summed.begin(ChecksumAlgorithm="CRC32")
    summed.complete(summed.part(1, b"a"))


def test_over_tls_bodies_come_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS botocore sends a body in chunks with its checksum behind them, and that is verified here."""
    (tmp_path / "authority.pem").write_text(AUTHORITY)
    seen: list[str] = []
    payload_of = payloads.payload_of

    def look(headers: Mapping[str, str], body: bytes, verified: signatures.Verified) -> payloads.Payload:
        seen.append(headers["x-amz-content-sha256"])
        return payload_of(headers, body, verified)

    monkeypatch.setattr("testkit.servers.strict_s3.server.payload_of", look)
    with strict_s3(tls=https(tmp_path)) as strict:
        client = client_of(strict, "when_supported", verify=str(tmp_path / "authority.pem"))
        answer = client.put_object(Bucket="bucket", Key="key", Body=b"data")
        client.close()
    assert (seen, answer["ChecksumCRC32"]) == ([TRAILER_FORM], value("CRC32", b"data"))


# --- buckets -----------------------------------------------------------------------------------------------------


def test_buckets_come_and_go(plain: Uploading, strict: StrictS3) -> None:
    """A bucket is made once, listed, and removed when it is empty."""
    plain.client.create_bucket(Bucket="made")
    assert refused(lambda: plain.client.create_bucket(Bucket="made"))[:2] == (409, "BucketAlreadyOwnedByYou")
    assert [bucket["Name"] for bucket in plain.client.list_buckets()["Buckets"]] == ["bucket", "made", "other"]
    send(strict, "/made/key")
    assert refused(lambda: plain.client.delete_bucket(Bucket="made"))[:2] == (409, "BucketNotEmpty")
    plain.client.delete_objects(Bucket="made", Delete={"Objects": [{"Key": "key"}]})
    plain.client.delete_bucket(Bucket="made")
    assert refused(lambda: plain.client.delete_bucket(Bucket="made"))[:2] == (404, "NoSuchBucket")


def test_keys_are_listed_a_thousand_at_a_time(plain: Uploading, strict: StrictS3) -> None:
    """Keys come in their order, whatever characters they have, a thousand in one answer."""
    send(strict)
    kept = strict.objects.pop(("bucket", "key"))
    keys = sorted(f"p/{number:04} ü<&" for number in range(1001))
    strict.objects.update({("bucket", key): kept for key in [*keys, "q"]})
    pages = list(plain.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix="p/"))
    assert [len(page["Contents"]) for page in pages] == [1000, 1]
    assert [found["Key"] for page in pages for found in page["Contents"]] == keys
    assert pages[0]["Contents"][0]["Size"] == len(b"data")


def test_uploads_are_listed_until_they_end(plain: Uploading) -> None:
    """An upload is listed from its beginning to its end."""
    upload_id = plain.begin()
    listed = plain.client.list_multipart_uploads(Bucket="bucket")["Uploads"]
    assert [(found["Key"], found["UploadId"]) for found in listed] == [("key", upload_id)]
    plain.client.abort_multipart_upload(Bucket="bucket", Key="key", UploadId=upload_id)
    assert "Uploads" not in plain.client.list_multipart_uploads(Bucket="bucket")


def test_deleting_many_wants_a_digest(strict: StrictS3) -> None:
    """A call that deletes many is refused without a digest of what it names, and where that is no XML."""
    assert send(strict, "/bucket?delete", method="POST").code == "InvalidRequest"
    md5 = base64.b64encode(hashlib.md5(b"data").digest()).decode()
    assert send(strict, "/bucket?delete", {"Content-MD5": md5}, method="POST").code == "MalformedXML"
