"""The strict stand-in itself: its buckets, its objects, and the operations that the gateway calls."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import unquote
from xml.sax.saxutils import escape

from aiohttp import web

from testkit.servers.strict_s3 import buckets, checksums, rules, uploads
from testkit.servers.strict_s3.checksums import Checksum
from testkit.servers.strict_s3.payloads import Payload, payload_of
from testkit.servers.strict_s3.refusals import Refusal
from testkit.servers.strict_s3.signatures import Head, verify
from testkit.servers.strict_s3.uploads import LEAST_PART, Upload

ACCESS_KEY = "strict"
SECRET_KEY = "only-for-tests-in-memory"
REGION = "us-east-1"
# Headers of a put that come back with the object.
_COME_BACK = ("content-type", "cache-control", "content-disposition", "content-language")


@dataclass(frozen=True)
class Kept:
    """One object."""

    body: bytes
    headers: Mapping[str, str]
    etag: str
    checksum: Checksum
    modified: datetime

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata, names without their prefix."""
        return {name.removeprefix(rules.META): value for name, value in self.headers.items() if name.startswith(rules.META)}


@dataclass(frozen=True)
class Call:
    """One request as it came, with the body as it was meant."""

    operation: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    payload: Payload = field(repr=False)


class StrictS3:
    """An S3 in memory that refuses what S3 documents as refused.

    Args:
        made: the buckets that are there from the start.
        least_part: the least size of a part that is not the last, in bytes; S3's own by default.

    Attributes:
        endpoint: where it listens.
        locked: buckets with object lock.
        forbidden: operations that the key's role may not call.
        may_list: whether the role has s3:ListBucket, without which what is missing cannot be told from what is forbidden.
        conflicts: so many conditional puts are answered as if another to the same key were running.
        moved: status 301 or 307, and where every request is sent instead; None answers here.
        objects: what is kept, by bucket and key.
        uploads: those begun and neither completed nor aborted, by id.
        calls: the operation, the bucket and the key of every request that was well signed.
    """

    def __init__(self, made: Iterable[str] = ("bucket",), *, least_part: int = LEAST_PART) -> None:
        self.endpoint = ""
        self.buckets = set(made)
        self.locked: set[str] = set()
        self.forbidden: set[str] = set()
        self.may_list = True
        self.conflicts = 0
        self.moved: tuple[int, str] | None = None
        self.objects: dict[tuple[str, str], Kept] = {}
        self.uploads: dict[str, Upload] = {}
        self.calls: list[tuple[str, str, str]] = []
        self._least_part = least_part

    # --- answering ------------------------------------------------------------------------------------------------

    async def go_on(self, http: web.Request) -> None:
        """Tell a client to send its body."""
        assert http.transport is not None
        http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Answer one request."""
        request_id = secrets.token_hex(8).upper()
        try:
            answer = self._answer(await self._call(http))
        except Refusal as refusal:
            answer = web.Response(status=refusal.status, headers=refusal.headers)
            # No answer to HEAD has a body, that of an error neither.
            if http.method != "HEAD":
                answer.text = refusal.xml(request_id)
                answer.content_type = "application/xml"
        answer.headers.update({"x-amz-request-id": request_id, "x-amz-id-2": secrets.token_hex(24), "Server": "AmazonS3"})
        return answer

    async def _call(self, http: web.Request) -> Call:
        headers: dict[str, str] = {}
        for name, value in http.headers.items():
            headers[name.lower()] = f"{headers[name.lower()]},{value}" if name.lower() in headers else value
        path, _, _ = http.raw_path.partition("?")
        bucket, _, key = unquote(path.removeprefix("/")).partition("/")
        body = await http.read()
        if self.moved is not None:
            raise self._sent_away(bucket, http.raw_path)
        verified = verify(
            Head(http.method, http.raw_path, headers), keys={ACCESS_KEY: SECRET_KEY}, region=REGION, now=datetime.now(UTC)
        )
        rules.check_headers(headers)
        operation = _operation(http, bucket, key)
        self.calls.append((operation, bucket, key))
        # A streamed payload may come in chunks of HTTP, since its own length is announced by a header of its own.
        if http.method == "PUT" and not {"content-length", "x-amz-decoded-content-length"} & set(headers):
            raise Refusal(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        # Of the checksums of the last call of an upload those of the object are meant, not of its body.
        of_body = {**headers} if operation != "CompleteMultipartUpload" else _without_checksums(headers)
        return Call(operation, bucket, key, dict(http.query), headers, payload_of(of_body, body, verified))

    def _sent_away(self, bucket: str, target: str) -> Refusal:
        assert self.moved is not None
        status, endpoint = self.moved
        # PermanentRedirect names the endpoint to use from now on, TemporaryRedirect one for this request.
        code = {301: "PermanentRedirect", 307: "TemporaryRedirect"}[status]
        headers = {"Location": endpoint + target, "x-amz-bucket-region": "eu-central-1"}
        return Refusal(status, code, "Send the request to this endpoint.", headers=headers, Endpoint=endpoint, Bucket=bucket)

    def _answer(self, call: Call) -> web.Response:
        if call.operation in self.forbidden:
            raise Refusal(403, "AccessDenied", "Access Denied")
        if call.operation in ("ListBuckets", "CreateBucket"):
            return self._around_buckets(call)
        if call.bucket not in self.buckets:
            raise Refusal(404, "NoSuchBucket", "The specified bucket does not exist", BucketName=call.bucket)
        rules.check_key(call.key)
        match call.operation:
            case "PutObject":
                return self._put(call)
            case "HeadObject" | "GetObject":
                return self._get(call)
            case "DeleteObject":
                self.objects.pop((call.bucket, call.key), None)
                return web.Response(status=204)
            case "CreateMultipartUpload":
                return self._create(call)
            case "UploadPart":
                return self._upload_part(call)
            case "ListParts":
                return _xml("ListPartsResult", uploads.parts_xml(self._upload(call), call.query))
            case "CompleteMultipartUpload":
                return self._complete(call)
            case "AbortMultipartUpload":
                self._upload(call)
                del self.uploads[call.query["uploadId"]]
                return web.Response(status=204)
        if not call.key:
            return self._of_bucket(call)
        # MethodNotAllowed: neither the gateway nor its tests have a use for anything else.
        raise Refusal(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")

    # --- buckets ----------------------------------------------------------------------------------------------------

    def _around_buckets(self, call: Call) -> web.Response:
        if call.operation == "ListBuckets":
            return _xml("ListAllMyBucketsResult", buckets.buckets_xml(self.buckets, datetime.now(UTC)))
        if call.bucket in self.buckets:
            raise Refusal(409, "BucketAlreadyOwnedByYou", "The bucket is there already, and yours.")
        self.buckets.add(call.bucket)
        return web.Response(headers={"Location": f"/{call.bucket}"})

    def _of_bucket(self, call: Call) -> web.Response:
        objects = {key: kept for (bucket, key), kept in self.objects.items() if bucket == call.bucket}
        match call.operation:
            case "ListObjectsV2":
                return _xml("ListBucketResult", buckets.objects_xml(call.bucket, call.query, objects))
            case "ListMultipartUploads":
                begun = [(upload.key, name) for name, upload in self.uploads.items() if upload.bucket == call.bucket]
                return _xml("ListMultipartUploadsResult", buckets.uploads_xml(call.bucket, begun))
            case "DeleteObjects":
                if not call.payload.has_digest:
                    # InvalidRequest: what deletes many needs a digest.
                    raise Refusal(400, "InvalidRequest", "Missing required header for this request: Content-MD5")
                for key in buckets.keys_to_delete(call.payload.data):
                    self.objects.pop((call.bucket, key), None)
                return _xml("DeleteResult", "")
            case "DeleteBucket":
                if objects:
                    raise Refusal(409, "BucketNotEmpty", "The bucket you tried to delete is not empty")
                self.buckets.remove(call.bucket)
                return web.Response(status=204)
        raise Refusal(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")

    # --- whole objects ----------------------------------------------------------------------------------------------

    def _put(self, call: Call) -> web.Response:
        self._check_lock(call)
        self._check_condition(call)
        body = call.payload.data
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        checksum = call.payload.checksum or checksums.of(checksums.BY_DEFAULT, body)
        self._keep(call.bucket, call.key, Kept(body, call.headers, md5, checksum, datetime.now(UTC)))
        return web.Response(headers={"ETag": f'"{md5}"', **checksum.headers()})

    def _get(self, call: Call) -> web.Response:
        kept = self.objects.get((call.bucket, call.key))
        if kept is None:
            if not self.may_list:
                raise Refusal(403, "AccessDenied", "Access Denied")
            raise Refusal(404, "NoSuchKey", "The specified key does not exist.", Key=call.key)
        headers = {name: value for name, value in kept.headers.items() if name.startswith(rules.META) or name in _COME_BACK}
        headers |= {
            "ETag": f'"{kept.etag}"',
            "Last-Modified": format_datetime(kept.modified, usegmt=True),
            "Accept-Ranges": "bytes",
        }
        if call.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
            headers |= kept.checksum.headers()
        return web.Response(body=kept.body, headers={"content-type": "binary/octet-stream"} | headers)

    def _keep(self, bucket: str, key: str, kept: Kept) -> None:
        self.objects[bucket, key] = kept

    def _check_condition(self, call: Call) -> None:
        if "if-none-match" not in call.headers:
            return
        if self.conflicts > 0:
            self.conflicts -= 1
            # ConditionalRequestConflict: another request to this key was under way; to be sent again.
            raise Refusal(409, "ConditionalRequestConflict", "A conflicting operation occurred.", Condition="If-None-Match")
        if (call.bucket, call.key) in self.objects:
            text = "At least one of the pre-conditions you specified did not hold"
            raise Refusal(412, "PreconditionFailed", text, Condition="If-None-Match")

    def _check_lock(self, call: Call) -> None:
        if call.bucket in self.locked and not call.payload.has_digest:
            # InvalidRequest: what object lock keeps has to come with a digest.
            request = "Put Part" if call.operation == "UploadPart" else "Put Object"
            text = f"Content-MD5 OR x-amz-checksum- HTTP header is required for {request} requests with Object Lock parameters"
            raise Refusal(400, "InvalidRequest", text)

    # --- in parts ---------------------------------------------------------------------------------------------------

    def _create(self, call: Call) -> web.Response:
        upload_id = secrets.token_hex(16)
        upload = self.uploads[upload_id] = uploads.begin(call.bucket, call.key, call.headers)
        named = {"x-amz-checksum-algorithm": upload.algorithm, "x-amz-checksum-type": upload.kind} if upload.algorithm else {}
        fields = {"Bucket": call.bucket, "Key": call.key, "UploadId": upload_id}
        return _xml("InitiateMultipartUploadResult", _fields(fields), named)

    def _upload_part(self, call: Call) -> web.Response:
        number = uploads.number_of(call.query["partNumber"])
        self._check_lock(call)
        part = uploads.take(self._upload(call), number, call.payload)
        checksum = part.checksum.headers() if part.checksum else {}
        checksum.pop("x-amz-checksum-type", None)
        return web.Response(headers={"ETag": f'"{part.etag}"', **checksum})

    def _complete(self, call: Call) -> web.Response:
        upload = self._upload(call)
        done = uploads.complete(upload, call.headers, call.payload.data, least_part=self._least_part)
        self._check_condition(call)
        self._keep(call.bucket, call.key, Kept(done.data, upload.headers, done.etag, done.checksum, datetime.now(UTC)))
        del self.uploads[call.query["uploadId"]]
        fields = {
            "Location": f"{self.endpoint}/{call.bucket}/{call.key}",
            "Bucket": call.bucket,
            "Key": call.key,
            "ETag": f'"{done.etag}"',
            f"Checksum{done.checksum.algorithm}": done.checksum.value,
            "ChecksumType": done.checksum.kind,
        }
        return _xml("CompleteMultipartUploadResult", _fields(fields))

    def _upload(self, call: Call) -> Upload:
        upload = self.uploads.get(call.query.get("uploadId", ""))
        if upload is None or (upload.bucket, upload.key) != (call.bucket, call.key):
            raise Refusal(404, "NoSuchUpload", "The specified multipart upload does not exist.")
        return upload


# The operations on a bucket, by method and by the part of the query that names one.
_OF_BUCKET = {
    ("PUT", ""): "CreateBucket",
    ("DELETE", ""): "DeleteBucket",
    ("GET", "list-type"): "ListObjectsV2",
    ("GET", "uploads"): "ListMultipartUploads",
    ("POST", "delete"): "DeleteObjects",
}


def _operation(http: web.Request, bucket: str, key: str) -> str:
    """The operation that a request calls; what nobody here calls has the name of its method."""
    if not key:
        named = next((name for name in ("list-type", "uploads", "delete") if name in http.query), "")
        return _OF_BUCKET.get((http.method, named), http.method) if bucket else "ListBuckets"
    in_parts = "uploadId" in http.query
    match http.method:
        case "PUT":
            return "UploadPart" if in_parts and "partNumber" in http.query else "PutObject"
        case "POST" if "uploads" in http.query:
            return "CreateMultipartUpload"
        case "POST" if in_parts:
            return "CompleteMultipartUpload"
        case "DELETE":
            return "AbortMultipartUpload" if in_parts else "DeleteObject"
        case "HEAD":
            return "HeadObject"
        case "GET":
            return "ListParts" if in_parts else "GetObject"
    return http.method


def _without_checksums(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not name.startswith(checksums.HEADER)}


def _fields(fields: Mapping[str, str]) -> str:
    return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())


def _xml(root: str, inner: str, headers: Mapping[str, str] | None = None) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{root}>'
    return web.Response(text=text, content_type="application/xml", headers=headers)
