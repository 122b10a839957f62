"""The proxy that makes faults for the crash matrix."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import minio as s3
import pytest
import urllib3
from minio.error import S3Error
from reliability.proxy.exchange import Request
from reliability.proxy.faults import (
    Fault,
    answered,
    at_random,
    broken,
    forgotten,
    late,
    passed,
    skewed,
    spilled,
    stalled,
    torn,
    unconditional,
)
from reliability.proxy.server import FaultProxy, Rule

from testkit.buckets import Buckets
from testkit.deadlines import TIMEOUT_FACTOR
from testkit.servers.minio import Minio

NEW = {"If-None-Match": "*"}
PART = 5 << 20


# --- a proxy before a server that only remembers -------------------------------------------------------------------


class Recorder:
    """A server that takes so many bytes of each connection and gives an answer that it was told."""

    def __init__(self, listener: socket.socket, size: int, answer: bytes) -> None:
        self.received: list[bytes] = []
        self._listener, self._size, self._answer = listener, size, answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.received.append(_read(connection, self._size))
                connection.sendall(self._answer)


def _read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (more := connection.recv(1 << 16)):
        found += more
    return found


@contextmanager
def before_a_recorder(size: int, answer: bytes) -> Iterator[tuple[FaultProxy, Recorder, socket.socket]]:
    """Give a proxy before such a server, and a connection to the proxy."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        recorder = Recorder(listener, size, answer)
        with FaultProxy(Minio(f"http://127.0.0.1:{listener.getsockname()[1]}", "any", "any")) as proxy:
            port = int(proxy.endpoint.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=20 * TIMEOUT_FACTOR) as client:
                yield proxy, recorder, client
        # So that the thread that accepts ends.
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Odd:  two  spaces\r\n\r\n\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nB;x=y\r\n<a>\r\n\xff0\r\n\r\n\r\n1\r\n>\r\n0\r\nX: 1\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=["length", "chunks", "nothing", "interim"],
)
def test_what_passes_is_untouched(answer: bytes) -> None:
    """Requests and answers go through byte for byte, several on a connection, with a body that waits to be asked for."""
    body = random.Random(1).randbytes(70_000)
    head = b"PUT /b/a%%20key?x-id=PutObject HTTP/1.1\r\nHOST: it:1\r\nX-Odd:  s  \r\nContent-Length: %d\r\n" % len(body)
    expect = b"Expect: 100-continue\r\n\r\n"
    final = answer[answer.rindex(b"HTTP/1.1") :]
    with before_a_recorder(len(head) + len(expect) + len(body), answer) as (proxy, recorder, client):
        for _ in range(2):
            client.sendall(head + expect)
            assert _read(client, 25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(body)
            assert _read(client, len(final)) == final
        assert recorder.received == [head + expect + body] * 2
        assert [record.operation for record in proxy.records] == ["PutObject"] * 2
        assert proxy.defects == []


@pytest.mark.parametrize(
    ("first", "operation"),
    [
        ("PUT /b/k?x-id=PutObject", "PutObject"),
        ("PUT /b/k?partNumber=1&uploadId=u", "UploadPart"),
        ("POST /b/k?uploads", "CreateMultipartUpload"),
        ("POST /b/k?uploadId=u", "CompleteMultipartUpload"),
        ("DELETE /b/k?uploadId=u", "AbortMultipartUpload"),
        ("HEAD /b/k", "HeadObject"),
        ("GET /b/k", "GET"),
    ],
)
def test_requests_are_known_by_their_operation(first: str, operation: str) -> None:
    """A rule names requests as S3 does."""
    request = Request.parse(f"{first} HTTP/1.1\r\nHost: it\r\n\r\n".encode())
    assert (request.operation, request.bucket, request.key) == (operation, "b", "k")


def test_which_requests_meet_a_rule() -> None:
    """A rule takes the first requests for each key, of its operations, for its object, and no more than so many."""

    def put(key: str, bucket: str = "b") -> Request:
        return Request.parse(f"PUT /{bucket}/{key} HTTP/1.1\r\n\r\n".encode())

    once = Rule(passed, times=1)
    assert [once.takes(put(key)) for key in ("x", "y", "x", "y")] == [True, True, False, False]
    assert [Rule(passed, ("HeadObject",)).takes(put("x")), Rule(passed, ("PutObject",)).takes(put("x"))] == [False, True]
    alone = Rule(passed, only=("b", "x"))
    assert [alone.takes(put("x")), alone.takes(put("y")), alone.takes(put("x", "c"))] == [True, False, False]
    few = Rule(passed, most=2)
    assert [few.takes(put(key)) for key in "xyz"] == [True, True, False]
    assert (once.met, alone.met, few.met) == (2, 1, 2)


# --- a proxy before MinIO --------------------------------------------------------------------------------------------


class Client:
    """Sends to a bucket through a proxy, once, and tells the status or how the connection ended."""

    def __init__(self, proxy: FaultProxy, buckets: Buckets) -> None:
        self.bucket = buckets.specimen
        self.pool = urllib3.PoolManager(timeout=urllib3.Timeout(2 * TIMEOUT_FACTOR), retries=False)
        self.s3 = s3.Minio(
            proxy.endpoint.removeprefix("http://"),
            access_key=buckets.minio.access_key,
            secret_key=buckets.minio.secret_key,
            secure=False,
            region="us-east-1",
            http_client=self.pool,
        )

    def put(self, body: bytes = b"a body", key: str = "a/key é") -> str:
        """Put an object where none is."""
        return self.tried(lambda: self.s3._execute("PUT", self.bucket, key, body, {**NEW, "x-amz-meta-id": "7"}))

    def tried(self, call: Callable[[], object]) -> str:
        """What came of a call."""
        try:
            call()
        except S3Error as error:
            return str(error.code)
        except urllib3.exceptions.NewConnectionError:
            return "refused"
        except urllib3.exceptions.TimeoutError:
            return "timeout"
        except urllib3.exceptions.HTTPError:
            return "broken"
        return "ok"


@pytest.fixture
def proxy(minio: Minio) -> Iterator[FaultProxy]:
    """Run a proxy before the MinIO of all tests; it must do nothing wrong by itself."""
    with FaultProxy(minio) as running:
        yield running
    assert running.defects == []


@pytest.fixture
def client(proxy: FaultProxy, buckets: Buckets) -> Iterator[Client]:
    """Give a client of that proxy."""
    made = Client(proxy, buckets)
    yield made
    made.pool.clear()


@pytest.mark.parametrize(
    ("fault", "told", "is_there"),
    [
        (passed, "ok", True),
        (answered(503, "SlowDown"), "SlowDown", False),
        (answered(503, "SlowDown", done=True), "SlowDown", True),
        (answered(409, "ConditionalRequestConflict"), "ConditionalRequestConflict", False),
        (broken(), "broken", False),
        (broken(done=True), "broken", True),
        (spilled, "broken", False),
        (torn, "broken", True),
        (stalled(), "timeout", False),
        (stalled(done=True), "timeout", True),
        (skewed(timedelta(minutes=-20)), "RequestTimeTooSkewed", False),
        (skewed(timedelta(minutes=20)), "RequestTimeTooSkewed", False),
        (skewed(timedelta(minutes=-1)), "ok", True),
        (unconditional(), "ok", True),
        (unconditional(lost=True), "broken", True),
        (late(answered(503, "SlowDown")), "SlowDown", False),
        (late(stalled()), "timeout", False),
    ],
)
def test_what_a_fault_does(proxy: FaultProxy, client: Client, buckets: Buckets, fault: Fault, told: str, is_there: bool) -> None:
    """The client is told what the fault says, and the store has done it or not; the next request passes."""
    rule = Rule(fault, ("PutObject",), 1)
    proxy.add(rule)
    assert client.put() == told
    assert buckets.keys(client.bucket) == ["a/key é"] * is_there
    assert rule.met == 1
    assert proxy.unheard("PutObject") == int(is_there and told != "ok")
    proxy.clear()
    assert client.put(key="other") == "ok"


def test_an_early_error_does_not_wait_for_the_body(proxy: FaultProxy) -> None:
    """It comes before the client may send its body, and ends the connection."""
    proxy.add(Rule(answered(503, "SlowDown", early=True)))
    with socket.create_connection(("127.0.0.1", int(proxy.endpoint.rpartition(":")[2])), timeout=20 * TIMEOUT_FACTOR) as client:
        client.sendall(b"PUT /b/k HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        said = _read(client, 1 << 20)
    assert said.startswith(b"HTTP/1.1 503 ")
    assert said.endswith(b"</Error>")


def test_refused_connections(proxy: FaultProxy, client: Client) -> None:
    """While it refuses nobody gets in, not on an old connection either; afterwards it listens at the same address."""
    assert client.put() == "ok"
    proxy.refuse()
    # On the old connection, and on a new one.
    assert {client.put(key="other"), client.put(key="other")} <= {"broken", "refused"}
    proxy.accept()
    assert client.put(key="other") == "ok"


def test_a_late_put_while_the_retry_runs(proxy: FaultProxy, client: Client, buckets: Buckets) -> None:
    """Both reach the store, and one of them finds the key taken."""
    proxy.add(Rule(late(answered(503, "SlowDown")), times=1))
    assert client.put() == "SlowDown"
    assert client.put() in ("ok", "PreconditionFailed")
    proxy.release()
    assert sorted(record.stored for record in proxy.records) == [200, 412]
    assert buckets.keys(client.bucket) == ["a/key é"]


def test_a_late_put_after_the_retry(proxy: FaultProxy, client: Client) -> None:
    """The retry is done first, and the first request then finds the key taken."""
    proxy.add(Rule(late(broken(), after=True), times=1))
    assert [client.put(), client.put()] == ["broken", "ok"]
    # The next exchange of the connection begins when the late one is over.
    assert client.put() == "PreconditionFailed"
    assert [record.stored for record in proxy.records] == [412, 200, 412]


def test_a_late_put_that_is_in_the_way(proxy: FaultProxy, client: Client) -> None:
    """Retries get 409 while the first request runs, and then find that it has succeeded or win."""
    proxy.add(Rule(late(answered(503, "SlowDown"), conflicts=2), times=1))
    assert [client.put() for _ in range(3)] == ["SlowDown", "ConditionalRequestConflict", "ConditionalRequestConflict"]
    assert client.put() in ("ok", "PreconditionFailed")


def test_what_is_held_back_is_done_at_the_end(proxy: FaultProxy, client: Client, buckets: Buckets) -> None:
    """A late request that nobody repeats reaches the store when it is released, and only once."""
    proxy.add(Rule(late(broken()), times=1))
    assert client.put() == "broken"
    proxy.release()
    proxy.release()
    assert buckets.keys(client.bucket) == ["a/key é"]
    assert [record.stored for record in proxy.records] == [200]


def test_a_store_that_replaces(proxy: FaultProxy, client: Client, buckets: Buckets) -> None:
    """Without the condition the store takes the key again, which it otherwise refuses."""
    assert [client.put(), client.put()] == ["ok", "PreconditionFailed"]
    proxy.add(Rule(unconditional()))
    assert client.put(b"other") == "ok"
    assert buckets.get(client.bucket, "a/key é").body == b"other"


def test_a_store_that_forgets(proxy: FaultProxy, client: Client) -> None:
    """HEAD gives no metadata, and everything else as it was."""
    client.put()
    before = client.s3.stat_object(client.bucket, "a/key é")
    proxy.add(Rule(forgotten, ("HeadObject",)))
    after = client.s3.stat_object(client.bucket, "a/key é")
    assert before.metadata is not None
    assert after.metadata is not None
    assert set(before.metadata) - set(after.metadata) == {"x-amz-meta-id"}
    assert after.size == before.size == len(b"a body")


def test_an_upload_in_parts(proxy: FaultProxy, client: Client, buckets: Buckets) -> None:
    """Each of its requests is known; an error in a 200, and a 403 without a body, come as S3 gives them."""
    create = client.s3._create_multipart_upload
    upload = create(client.bucket, "k", {})
    parts = [client.s3._upload_part(client.bucket, "k", b"p" * PART, {}, upload, number) for number in (1, 2)]
    assert len(parts) == 2
    assert buckets.unfinished_uploads(client.bucket) == ["k"]
    proxy.add(Rule(answered(200, "InternalError"), ("CompleteMultipartUpload",), 1))
    answer = client.s3._execute("POST", client.bucket, "k", b"<x/>", query_params={"uploadId": upload})
    assert (answer.status, b"<Code>InternalError</Code>" in answer.data) == (200, True)
    proxy.add(Rule(answered(403, "AccessDenied"), ("HeadObject",)))
    assert client.tried(lambda: client.s3.stat_object(client.bucket, "k")) == "AccessDenied"
    client.s3._abort_multipart_upload(client.bucket, "k", upload)
    assert buckets.unfinished_uploads(client.bucket) == []
    proxy.add(Rule(broken(done=True), ("CreateMultipartUpload",)))
    assert client.tried(lambda: create(client.bucket, "k", {})) == "broken"
    assert (proxy.unheard("CreateMultipartUpload"), buckets.unfinished_uploads(client.bucket)) == (1, ["k"])
    assert {record.operation for record in proxy.records} == {
        "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "HeadObject", "AbortMultipartUpload",
    }  # fmt: skip


def test_chance(proxy: FaultProxy, client: Client) -> None:
    """With a chance each request meets one of the faults that it may meet, or none."""
    proxy.add(Rule(at_random(random.Random(1), 0.5, lambda _: [answered(503, "SlowDown")])))
    told = [client.put(key=str(number)) for number in range(20)]
    assert {"ok", "SlowDown"} == set(told)
