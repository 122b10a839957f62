"""A small S3 that keeps everything in memory and misbehaves when a test tells it to."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from aiohttp import web

META = "x-amz-meta-"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        status: of the error that is answered; 0 answers nothing and drops the connection.
        code: S3's name of the error.
        done: whether the request is carried out before.
        inside: whether the error stands in the body of a 200, as it may when an upload is completed.
    """

    status: int = 0
    code: str = ""
    done: bool = False
    inside: bool = False


LOST = Fault(done=True)
DROPPED = Fault()
SLOW_DOWN = Fault(503, "SlowDown")
CONFLICT = Fault(409, "ConditionalRequestConflict")
FORBIDDEN = Fault(403, "AccessDenied")
NO_SUCH_UPLOAD = Fault(404, "NoSuchUpload")
ERROR_INSIDE = Fault(500, "InternalError", inside=True)


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    operation: str
    bucket: str
    key: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Kept:
    """One object."""

    body: bytes
    headers: dict[str, str]

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata, names without their prefix."""
        return {name.removeprefix(META): value for name, value in self.headers.items() if name.startswith(META)}


@dataclass
class Upload:
    """An upload in parts that was begun."""

    bucket: str
    key: str
    headers: dict[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


class S3Error(Exception):
    """An error to be answered."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class FakeS3:
    """The objects, the uploads, and what is to go wrong.

    Attributes:
        endpoint: where it listens.
        condition: whether `If-None-Match` is honoured, ignored, or answered with 501.
        forgets_metadata: whether it answers as if no object had any.
        missing_buckets: which buckets do not exist; every other one does.
        silent: operations of which it says nothing, not even that their bodies may be sent.
        asking: how often, and after how many seconds each time, it asks for the body of a request that waits for that.
        deaf: operations of which it takes no more of a body than the kernel does.
        pretended: operations that are answered with 200, these fields and this body, and not carried out.
        opaque_etags: whether ETags are no MD5, as of objects that a key of the account encrypts.
        parts_a_page: how many parts one answer to ListParts shows.
        replacing: operations that ignore the condition, whatever `condition` says.
        redirected: an address to which every request is sent with 307, empty for none.
        objects: what is kept, by bucket and key.
        uploads: those begun and neither completed nor aborted, by id.
        requests: every request that came.
        on_request: called for each, before anything is done.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.condition = "honoured"
        self.forgets_metadata = False
        self.missing_buckets: set[str] = set()
        self.silent: set[str] = set()
        self.asking: tuple[float, ...] = (0.0,)
        self.deaf: set[str] = set()
        self.pretended: dict[str, tuple[dict[str, str], str]] = {}
        self.opaque_etags = False
        self.parts_a_page = 1000
        self.replacing: set[str] = set()
        self.redirected = ""
        self.objects: dict[tuple[str, str], Kept] = {}
        self.uploads: dict[str, Upload] = {}
        self.requests: list[Request] = []
        self.on_request: Callable[[Request], None] = lambda _: None
        self._next: dict[str, deque[Fault]] = {}
        self._always: dict[str, Fault] = {}

    def fail(self, operation: str, *faults: Fault) -> None:
        """Let the next requests of an operation go wrong, one after the other."""
        self._next.setdefault(operation, deque()).extend(faults)

    def fail_always(self, operation: str, fault: Fault | None) -> None:
        """Let every request of an operation go wrong; None ends that."""
        if fault is None:
            self._always.pop(operation, None)
        else:
            self._always[operation] = fault

    def operations(self) -> list[str]:
        """The operations asked for so far."""
        return [request.operation for request in self.requests]

    # --- answering ------------------------------------------------------------------------------------------------

    async def go_on(self, http: web.Request) -> None:
        """Tell a client to send its body."""
        if _operation(http) in self.silent:
            await asyncio.Event().wait()
        assert http.transport is not None
        for pause_s in self.asking:
            asyncio.get_running_loop().call_later(pause_s, http.transport.write, b"HTTP/1.1 100 Continue\r\n\r\n")

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if _operation(http) in self.silent | self.deaf:
            await asyncio.Event().wait()
        bucket, _, key = http.path.removeprefix("/").partition("/")
        headers = {name.lower(): value for name, value in http.headers.items()}
        request = Request(_operation(http), bucket, key, headers)
        body = await http.read()
        self.requests.append(request)
        self.on_request(request)
        if self.redirected:
            return web.Response(status=307, headers={"Location": self.redirected + http.path_qs})
        if request.operation in self.pretended:
            fields, text = self.pretended[request.operation]
            return web.Response(headers=fields, text=text, content_type="text/html")
        waiting = self._next.get(request.operation)
        fault = waiting.popleft() if waiting else self._always.get(request.operation)
        try:
            answer = self._done(http, request, body) if fault is None or fault.done else None
        except S3Error as error:
            return _error(error.status, error.code)
        if fault is None:
            assert answer is not None
            answer.headers["x-amz-request-id"] = secrets.token_hex(8)
            return answer
        if fault.status:
            return _error(200 if fault.inside else fault.status, fault.code)
        assert http.transport is not None
        http.transport.abort()
        return web.Response()

    def _done(self, http: web.Request, request: Request, body: bytes) -> web.Response:
        if request.bucket in self.missing_buckets:
            raise S3Error(404, "NoSuchBucket")
        upload_id = http.query.get("uploadId", "")
        match request.operation:
            case "PutObject":
                self._keep(request, Kept(body, request.headers))
                return web.Response(headers={"ETag": self._shown(_etag(body))})
            case "HeadObject":
                return self._head(request)
            case "CreateMultipartUpload":
                upload_id = secrets.token_hex(8)
                self.uploads[upload_id] = Upload(request.bucket, request.key, request.headers)
                return _xml(f"<InitiateMultipartUploadResult><UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>")
            case "UploadPart":
                self._upload(upload_id).parts[int(http.query["partNumber"])] = body
                return web.Response(headers={"ETag": _etag(body)})
            case "ListParts":
                return _xml(self._listed(upload_id, int(http.query.get("part-number-marker", "0"))))
            case "CompleteMultipartUpload":
                return self._complete(request, upload_id, body.decode())
            case "AbortMultipartUpload":
                del self.uploads[self._id(upload_id)]
                return web.Response(status=204)
        raise S3Error(501, "NotImplemented")

    def _keep(self, request: Request, kept: Kept) -> None:
        if "if-none-match" in request.headers:
            if self.condition == "unknown":
                raise S3Error(501, "NotImplemented")
            honoured = self.condition == "honoured" and request.operation not in self.replacing
            if honoured and (request.bucket, request.key) in self.objects:
                raise S3Error(412, "PreconditionFailed")
        self.objects[request.bucket, request.key] = kept

    def _head(self, request: Request) -> web.Response:
        kept = self.objects.get((request.bucket, request.key))
        if kept is None:
            raise S3Error(404, "NoSuchKey")
        given = {} if self.forgets_metadata else kept.headers
        answered = {name: value for name, value in given.items() if name.startswith(META)}
        # Without the body, as everything that answers a HEAD, and with its length.
        return web.Response(body=kept.body, headers=answered | {"Content-Type": kept.headers.get("content-type", "")})

    def _complete(self, request: Request, upload_id: str, listed: str) -> web.Response:
        upload = self._upload(upload_id)
        numbers = [int(number) for number in re.findall(r"<PartNumber>(\d+)</PartNumber>", listed)]
        tags = re.findall(r"<ETag>(?:&quot;|\")?([0-9a-f]+)", listed)
        if tags != [_etag(upload.parts[number]).strip('"') for number in numbers]:
            raise S3Error(400, "InvalidPart")
        self._keep(request, Kept(b"".join(upload.parts[number] for number in numbers), upload.headers))
        del self.uploads[upload_id]
        parts = b"".join(bytes.fromhex(tag) for tag in tags)
        etag = f"{hashlib.md5(parts, usedforsecurity=False).hexdigest()}-{len(tags)}"
        shown = self._shown(f"&quot;{etag}&quot;")
        return _xml(f"<CompleteMultipartUploadResult><ETag>{shown}</ETag></CompleteMultipartUploadResult>")

    def _listed(self, upload_id: str, marker: int) -> str:
        """The parts behind that number, at most `parts_a_page` of them."""
        later = [number for number in sorted(self._upload(upload_id).parts) if number > marker]
        shown = later[: self.parts_a_page]
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{_etag(body)}</ETag><Size>{len(body)}</Size></Part>"
            for number, body in self._upload(upload_id).parts.items()
            if number in shown
        )
        more = f"<NextPartNumberMarker>{shown[-1]}</NextPartNumberMarker>" if shown else ""
        return f"<ListPartsResult>{parts}{more}<IsTruncated>{str(later != shown).lower()}</IsTruncated></ListPartsResult>"

    def _shown(self, etag: str) -> str:
        return '"opaque"' if self.opaque_etags else etag

    def _upload(self, upload_id: str) -> Upload:
        return self.uploads[self._id(upload_id)]

    def _id(self, upload_id: str) -> str:
        if upload_id not in self.uploads:
            raise S3Error(404, "NoSuchUpload")
        return upload_id


def _operation(http: web.Request) -> str:
    match http.method:
        case "PUT":
            return "UploadPart" if "partNumber" in http.query else "PutObject"
        case "POST":
            return "CreateMultipartUpload" if "uploads" in http.query else "CompleteMultipartUpload"
        case "DELETE":
            return "AbortMultipartUpload"
        case "HEAD":
            return "HeadObject"
        case "GET" if "uploadId" in http.query:
            return "ListParts"
    return http.method


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _xml(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=f'<?xml version="1.0" encoding="UTF-8"?>\n{text}', content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    return _xml(f"<Error><Code>{code}</Code><Message>on purpose</Message></Error>", status)


# --- running -----------------------------------------------------------------------------------------------------


@contextmanager
def fake_s3() -> Iterator[FakeS3]:
    """Run one on a free port."""
    with serving(FakeS3()) as fake:
        yield fake


class Served(Protocol):
    """What can be run: it answers requests, and is given the address at which it does."""

    endpoint: str

    async def go_on(self, http: web.Request) -> None:
        """Tell a client to send its body."""
        ...

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Answer one request."""
        ...


Fake = TypeVar("Fake", bound=Served)


@contextmanager
def serving(fake: Fake, *, tls: ssl.SSLContext | None = None) -> Iterator[Fake]:
    """Run this one on a free port, in a thread of its own, so that a test may block or have a loop as it likes."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        # Uploads and their number of bytes are the test's affair.
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", fake.handle, expect_handler=fake.go_on)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, auto_decompress=False)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
            await site.start()
            fake.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
            over = asyncio.Event()
            started.set_result((asyncio.get_running_loop(), over))
            await over.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise
        finally:
            await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="fake-s3", daemon=True)
    thread.start()
    loop, over = started.result(30)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
