"""Every row of the table of requests and answers, on real sockets."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from backports import zstd
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from testkit.deadlines import until
from testkit.gateway_process import Answer
from testkit.limited import REPORT_LIMIT, SEGMENT_LIMIT, SPECIMEN_LIMIT, Gained, delivered, limited, refused
from testkit.running import LocalGateway, Wire, chunked, head, put, running

PNG = b"\x89PNG\r\n\x1a\n and the rest"
A_URI = "file%3A%2F%2F%2Fa%2Fb.png"
LANES = [True, False]

Encode = Callable[[bytes], bytes]
ENCODINGS: dict[str, Encode] = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}


@pytest.fixture(scope="module", params=LANES, ids=["fast lane", "ordinary lane"])
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    """Run one gateway for many tests, once for each way a small report can take."""
    with running(tmp_path_factory.mktemp("gateway"), limited(fast_lane=request.param)) as started:
        yield started
        # What no test may leave behind, whatever it sent.
        assert started.events("defect") == []
        assert started.drafts() == []


@pytest.fixture
def client(gateway: LocalGateway) -> Iterator[Wire]:
    """Connect to the gateway of the module."""
    with gateway.wire() as connection:
        yield connection


@pytest.fixture
def gained(gateway: LocalGateway) -> Gained:
    """Remember what the gateway of the module has kept so far."""
    return Gained(gateway)


def report_of(size: int) -> bytes:
    """A document of so many bytes."""
    return b'"%b"' % (b"0123456789abcdef" * (size // 16 + 1))[: size - 2]


# --- reports -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("stream", ["usage", "error"])
def test_a_report_is_kept(method: str, stream: str, client: Wire, gained: Gained) -> None:
    """A report is on disk when its 204 comes, in its own stream, by POST as by PUT."""
    report = b'{"method":"%b"}' % method.encode()
    answer = client.ask(put(f"/{stream}", report, method=method))
    assert (answer.status, answer.body) == (204, b"")
    assert "content-length" not in answer.headers
    assert gained.lines(stream) == [report]
    assert gained.lines("error" if stream == "usage" else "usage") == []


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/mixed", "???", "APPLICATION/JSON"],
)
def test_a_report_may_claim_any_type(content_type: str, client: Wire, gained: Gained) -> None:
    """One document is taken whatever its Content-Type claims."""
    assert client.ask(put("/usage", b'{"typed":1}', f"Content-Type: {content_type}")).status == 204
    assert gained.lines() == [b'{"typed":1}']


# What the grammar allows and some parser refuses, or would write otherwise.
KEPT = {
    "lone surrogate": rb'"\ud800"',
    "surrogates the wrong way": rb'{"a":"\udc00\ud800"}',
    "beyond doubles": b"1e400",
    "below doubles": b"-1e-400",
    "40 digits": b"1234567890123456789012345678901234567890",
    "many decimals": b"0.10000000000000000000000000000000000001",
    "minus zero": b"-0",
    "capital exponent": b"1E+05",
    "duplicate names": b'{"a":1,"a":2}',
    "escapes": rb'{"\u0061":"\/\b\f\n\r\t"}',
    "scalar": b"null",
    "empty string": b'""',
    "Japanese": '{"名前":"長い"}'.encode(),
    "beyond the BMP": '"😀"'.encode(),
    "DEL": b'"\x7f"',
    "nesting of 1000": b"[" * 1000 + b"]" * 1000,
}


@pytest.mark.parametrize("document", KEPT.values(), ids=KEPT.keys())
def test_what_the_grammar_allows_is_kept_byte_for_byte(document: bytes, client: Wire, gained: Gained) -> None:
    """A document is kept byte for byte even where parsers refuse it or would print it otherwise, small or large."""
    # Beside it, at the level below, so that the whole is no deeper.
    padding = b' "%b"' % (b"x" * SEGMENT_LIMIT * 3)
    large = b"[%b,%b]" % (document, padding) if not document.startswith(b"[") else b"%b,%b]" % (document[:-1], padding)
    assert client.ask(put("/usage", document)).status == 204
    assert client.ask(put("/usage", large)).status == 204
    assert client.ask(chunked("/usage", large[:100], large[100:])).status == 204
    assert Counter(gained.lines()) == Counter([document, large, large])


BAD = {
    "NaN": (b'{"a":NaN}', 5),
    "Infinity": (b"[-Infinity]", 2),
    "trailing comma in an object": (b'{"a":1,}', 7),
    "trailing comma in an array": (b"[1,]", 3),
    "not UTF-8": (b'{"a":"\xff"}', 6),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', 1),
    "overlong UTF-8": (b'"\xc0\xaf"', 1),
    "nesting of 1001": (b"[" * 1001 + b"]" * 1001, 1000),
    "nothing": (b"", 0),
    "blanks": (b" \r\n\t ", 5),
    "two documents": (b"{}{}", 2),
    "torn": (b'{"a":', 5),
    "single quotes": (b"{'a':1}", 1),
    "byte order mark": (b"\xef\xbb\xbf{}", 0),
    "leading zero": (b"01", 1),
    "NUL": (b'"\x00"', 1),
    "newline in a string": (b'"a\nb"', 2),
    "no JSON at all": (b"hello", 0),
}


@pytest.mark.parametrize(("document", "position"), BAD.values(), ids=BAD.keys())
def test_what_the_grammar_forbids_is_refused(document: bytes, position: int, client: Wire, gained: Gained) -> None:
    """A body that is not one JSON document gets 400 with the position of the fault, small or in chunks, and is not kept."""
    for request in (
        put("/usage", document),
        chunked("/usage", *[document[at : at + 1] for at in range(min(40, len(document)))], document[40:]),
    ):
        message = refused(client.ask(request), 400, "bad_request")
        assert f"byte {position}:" in message
    assert gained.lines() == []


def test_a_fault_in_a_large_document_has_its_position(client: Wire, gained: Gained) -> None:
    """In a document too large for memory the position of a fault counts from the first byte of the body."""
    document = b'["%b",NaN]' % (b"x" * 700_000)
    message = refused(client.ask(put("/usage", document)), 400, "bad_request")
    assert f"byte {document.index(b'NaN')}:" in message
    assert gained.lines() == []


@pytest.mark.parametrize("size", [10, SEGMENT_LIMIT, 300_000])
def test_a_pretty_printed_report_is_one_line(size: int, client: Wire, gained: Gained) -> None:
    """Newlines between tokens become spaces, and nothing else of a document is touched."""
    text = b"x" * size
    printed = b'{\r\n\t"a" : 1,\n  "b": "%b\\n",\r  "c": [ ]\n}\r\n' % text
    assert client.ask(put("/usage", printed)).status == 204
    assert gained.lines() == [b'{  \t"a" : 1,   "b": "%b\\n",   "c": [ ] }  ' % text]


# --- NDJSON ------------------------------------------------------------------------------------------------------

NDJSON = "Content-Type: application/x-ndjson"


@pytest.mark.parametrize(
    "content_type",
    [
        NDJSON,
        "content-type: Application/X-NDJSON; charset=utf-8",
        "Content-Type: application/jsonl",
        "Content-Type: application/ndjson ; a=b",
        "Content-Type: application/JSONLines",
        "Content-Type: application/x-jsonlines",
        "Content-Type: application/x-jsonl",
    ],
)
@pytest.mark.parametrize(
    "body",
    [b'{"n":1}\n\r\n[2]\r\n \t\n3', b'\n\n{"n":1}\n[2]\n3\n', b'{"n":1}\r\n[2]\r\n3\r\n'],
    ids=["last without newline", "blank lines first", "CRLF"],
)
def test_many_reports_in_one_request(content_type: str, body: bytes, client: Wire, gained: Gained) -> None:
    """Each line of NDJSON is a report: blank ones are skipped, a CR before the LF is dropped, the last LF may be missing."""
    assert client.ask(put("/usage", body, content_type)).status == 204
    assert client.ask(chunked("/usage", *[body[at : at + 1] for at in range(len(body))], fields=(content_type,))).status == 204
    assert Counter(gained.lines()) == Counter([b'{"n":1}', b"[2]", b"3"] * 2)


@pytest.mark.parametrize("padding", [0, 300_000])
@pytest.mark.parametrize(
    ("form", "is_many"),
    [
        (b'["%b"]\n{"n":2}\n', True),
        (b'{"a":"%b"}{"n":2}', True),
        (b'"%b"\r\n\r\n2\r\n', True),
        (b'["%b"]]', False),
        (b'["%b"] x', False),
    ],
)
def test_many_reports_of_another_type_are_told_the_right_one(
    form: bytes, is_many: bool, padding: int, client: Wire, gained: Gained
) -> None:
    """Where a second document follows the first, the 400 names the type for many, however large the body is."""
    body = form % (b"x" * padding)
    for request in (put("/usage", body, "Content-Type: application/json"), chunked("/usage", body[:-3], body[-3:])):
        message = refused(client.ask(request), 400, "bad_request")
        assert "nothing more was expected" in message
        assert ("application/x-ndjson" in message) is is_many
    assert gained.lines() == []


def test_many_reports_beyond_the_segment_limit(client: Wire, gained: Gained) -> None:
    """A body of NDJSON over the segment limit is kept line by line as a small one is."""
    lines = [b'{"row":%d}' % number for number in range(50_000)]
    assert client.ask(put("/usage", b"\r\n".join(lines) + b"\n\n", NDJSON)).status == 204
    assert gained.lines() == lines


@pytest.mark.parametrize("padding", [0, 300_000])
def test_a_bad_line_is_named(padding: int, client: Wire, gained: Gained) -> None:
    """A bad line of NDJSON is named by its number in the body, blank ones counted, and no line of the body is kept."""
    body = b'["%b"]\n\n{"n":2}\n{"n":}\n{"n":5}\n' % (b"x" * padding)
    message = refused(client.ask(put("/usage", body, NDJSON)), 400, "bad_request")
    assert message.startswith("line 4: ")
    assert "byte 5:" in message
    assert gained.lines() == []


@pytest.mark.parametrize("body", [b"", b"\n", b"\r\n \r\n\n", b"\n" * 5000], ids=["empty", "LF", "blanks", "large"])
def test_no_line_at_all_is_refused(body: bytes, client: Wire, gained: Gained) -> None:
    """NDJSON without a single report gets 400."""
    assert "no report" in refused(client.ask(put("/usage", body, NDJSON)), 400, "bad_request")
    assert "no report" in refused(client.ask(chunked("/usage", body, fields=(NDJSON,))), 400, "bad_request")
    assert gained.lines() == []


# --- clients that say they send no more --------------------------------------------------------------------------


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("size", [30, 3 * SEGMENT_LIMIT])
def test_a_client_that_has_said_its_last_is_answered(size: int, in_chunks: bool, client: Wire, gained: Gained) -> None:
    """Who sends whole requests and then ends its side of the connection gets all its answers, and then the end."""
    reports = [report_of(size), report_of(size + 1)]
    client.send(b"".join(chunked("/usage", report) if in_chunks else put("/usage", report) for report in reports))
    client.socket.shutdown(socket.SHUT_WR)
    assert [client.answer().status for _ in reports] == [204, 204]
    assert client.closed()
    assert sorted(gained.lines()) == sorted(reports)


@pytest.mark.parametrize("rest", [b"\r\n", b"PUT /usage HT", put("/usage", report_of(30))[:-5]])
def test_a_piece_behind_the_last_request_keeps_nothing_open(rest: bytes, client: Wire, gained: Gained) -> None:
    """Who ends its side in the middle of a second request gets the answer to the first, and the end at once."""
    client.send(put("/usage", report_of(31)) + rest)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.answer().status == 204
    assert client.closed()
    assert gained.lines() == [report_of(31)]


@pytest.mark.parametrize("size", [30, 3 * SEGMENT_LIMIT])
def test_half_a_body_is_no_report(size: int, client: Wire, gained: Gained) -> None:
    """Who ends its side in the middle of a body gets no 204, and nothing of it is kept."""
    client.send(put("/usage", report_of(size))[:-5])
    client.socket.shutdown(socket.SHUT_WR)
    assert client.closed()
    assert gained.lines() == []


# --- sizes and encodings -----------------------------------------------------------------------------------------


def report_files(gateway: LocalGateway) -> int:
    """How many reports have a file of their own."""
    return len(list((gateway.cache / "usage").glob("*.json")))


@pytest.mark.parametrize("encoding", [None, *ENCODINGS])
@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("size", [SEGMENT_LIMIT - 1, SEGMENT_LIMIT, SEGMENT_LIMIT + 1, 600_000, REPORT_LIMIT])
def test_a_report_of_any_size_and_coding(
    size: int, in_chunks: bool, encoding: str | None, gateway: LocalGateway, client: Wire, gained: Gained
) -> None:
    """Up to the segment limit a report shares a file, above it has its own; the decoded size decides, and it is whole."""
    report, own_files = report_of(size), report_files(gateway)
    fields = () if encoding is None else (f"Content-Encoding: {encoding}",)
    body = report if encoding is None else ENCODINGS[encoding](report)
    middle = len(body) // 2
    request = chunked("/usage", body[:middle], body[middle:], fields=fields) if in_chunks else put("/usage", body, *fields)
    assert client.ask(request).status == 204
    assert gained.lines() == [report]
    assert report_files(gateway) - own_files == (size > SEGMENT_LIMIT)


def test_codings_may_be_combined(client: Wire, gained: Gained) -> None:
    """Two codings are undone in the order in which they were applied; `identity` is none, and `x-gzip` is gzip."""
    body = zstd.compress(gzip.compress(b'{"twice":1}'))
    assert client.ask(put("/usage", body, "Content-Encoding: X-GZIP, identity, zstd")).status == 204
    assert gained.lines() == [b'{"twice":1}']


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, br", "aes128gcm", "gzip;q=1"])
def test_an_unknown_coding_is_refused(coding: str, client: Wire, gained: Gained) -> None:
    """A Content-Encoding that is not understood gets 415 with those that are, before the body is read."""
    message = refused(
        client.ask(head("PUT /usage", "Content-Length: 100", f"Content-Encoding: {coding}")), 415, "unsupported_encoding"
    )
    assert "gzip, deflate, zstd" in message
    assert gained.lines() == []


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("path", ["/usage", f"/specimen?uri={A_URI}"])
def test_a_corrupt_coding_is_refused(path: str, encoding: str, client: Wire, gained: Gained) -> None:
    """A body that is not in the coding it claims, is cut short, or goes on behind its end gets 400."""
    sound = ENCODINGS[encoding](b'{"n":1}')
    for body in (b'{"n":1}', sound[:-1], sound + b"!", b""):
        refused(client.ask(put(path, body, f"Content-Encoding: {encoding}")), 400, "bad_request")
    assert gained.lines() == []


@pytest.mark.parametrize(("path", "limit"), [("/usage", REPORT_LIMIT), (f"/specimen?uri={A_URI}", SPECIMEN_LIMIT)])
def test_a_length_over_the_limit_is_refused_at_once(path: str, limit: int, client: Wire) -> None:
    """A Content-Length over the limit gets 413 without a byte of the body being read, and the connection ends."""
    answer = client.ask(head(f"PUT {path}", f"Content-Length: {limit + 1}"))
    assert str(limit) in refused(answer, 413, "too_large")
    assert answer.headers["connection"] == "close"
    client.socket.shutdown(socket.SHUT_WR)
    assert client.closed()


@pytest.mark.parametrize(("path", "limit"), [("/usage", REPORT_LIMIT), (f"/specimen?uri={A_URI}", SPECIMEN_LIMIT)])
@pytest.mark.parametrize("encoding", [None, *ENCODINGS])
def test_a_body_over_the_limit_is_refused_late(
    encoding: str | None, path: str, limit: int, gateway: LocalGateway, gained: Gained
) -> None:
    """A body that turns out to be over its limit, as sent in chunks or once decoded, gets 413 and nothing of it is kept."""
    body, specimens = report_of(limit + 1), list((gateway.cache / "specimen").iterdir())
    with gateway.wire() as client:
        if encoding is None:
            request = chunked(path, body[:-1], body[-1:])
        else:
            request = put(path, ENCODINGS[encoding](body), f"Content-Encoding: {encoding}")
        answer = client.ask(request)
        refused(answer, 413, "too_large")
        assert answer.headers["connection"] == "close"
    assert gained.lines() == []
    assert gateway.drafts() == []
    assert list((gateway.cache / "specimen").iterdir()) == specimens


def test_a_bomb_is_refused(gateway: LocalGateway) -> None:
    """A few bytes that decode to a gigabyte get 413 and take no more than the limit of memory and disk."""
    bomb = gzip.compress(b" " * (100 << 20))
    twice = gzip.compress(bomb)
    for path in ("/usage", f"/specimen?uri={A_URI}"):
        with gateway.wire() as client:
            refused(client.ask(put(path, twice, "Content-Encoding: gzip, gzip")), 413, "too_large")
    assert gateway.drafts() == []


# --- specimens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("size", [0, 10, 700_000, SPECIMEN_LIMIT])
def test_any_bytes_are_a_specimen(method: str, in_chunks: bool, size: int, gateway: LocalGateway, client: Wire) -> None:
    """Any bytes, none at all too, become a file of their own, the same by PUT and POST, by length and in chunks."""
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    name = f"{method}-{in_chunks}-{size}"
    request = chunked(f"/specimen?uri={name}", body) if in_chunks else put(f"/specimen?uri={name}", body, method=method)
    assert client.ask(request).status == 204
    folder = gateway.objects / "specimen"
    (stored,) = until(lambda: list(folder.rglob(f"{name}.*")), "the specimen to be delivered")
    assert stored.read_bytes() == body


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_specimen_is_stored_decoded(encoding: str, gateway: LocalGateway, client: Wire) -> None:
    """A specimen that came with a Content-Encoding is stored as what it decodes to, under the type of that."""
    body = PNG + encoding.encode()
    request = put(f"/specimen?uri={A_URI}", ENCODINGS[encoding](body), f"Content-Encoding: {encoding}")
    assert client.ask(request).status == 204
    assert delivered(gateway, body)[0].endswith(".png")


@pytest.mark.parametrize("query", ["", "?", "?uri", "?uri=", "?uri=&other=1", "?URI=a", "?other=uri", "?uri%3Da", "?&&"])
def test_a_specimen_needs_a_uri(query: str, gateway: LocalGateway, client: Wire) -> None:
    """A specimen without a uri, or with an empty one, gets 400 before its body is read."""
    assert "uri" in refused(client.ask(head(f"PUT /specimen{query}", "Content-Length: 10")), 400, "bad_request")


# Tokens and uris that have broken other programs. A token is given as the bytes in the header, a uri as text.
STRANGE = {
    "path upwards": "../../etc/passwd",
    "absolute path": "/etc/passwd",
    "Windows": "C:\\Users\\a\\..\\b.png",
    "dots": "..",
    "slashes": "////",
    "dot files": ".metadata/.lock",
    "4,000 characters": "u" * 4000,
    "4,000 Japanese characters": "長い" * 2000,
    "Japanese": "日本語 の 名前",
    "emoji": "😀.png",
    "spaces and quotes": "a  b\t'\"`$(x);|&<>",
    "percent": "%00%2F%ff%25",
    "our own suffix": "1795269540000000000.7.jsonl.open",
    "a tilde": "a~0123456789abcdef0123456789abcdef",
    "right to left": "\u202egnp.a",
    "brackets": "http://[",
    "a query": "https://example.com/a b/c.png?x=1&y=ü#top",
}


def recovered(gateway: LocalGateway, body: bytes, field: str) -> str:
    """The whole of a token or a uri as it is found again: in the metadata, or in the object beside the specimen."""
    key, metadata = delivered(gateway, body)
    assert (gateway.objects / "specimen" / key).resolve().is_relative_to(gateway.objects / "specimen")
    beside = gateway.objects / "specimen" / f"{key}.meta.json"
    if beside.exists():
        whole: str = json.loads(beside.read_bytes())[field]
        return whole
    value = metadata[field]
    return unquote(value) if field in metadata.get("encoded", "").split() else value


@pytest.mark.parametrize("value", STRANGE.values(), ids=STRANGE.keys())
def test_strange_uris_are_found_again(value: str, gateway: LocalGateway, client: Wire) -> None:
    """A uri may hold anything: no path escapes, and all of it is found again with the specimen."""
    body = b"uri " + value.encode()
    assert client.ask(put(f"/specimen?uri={quote(value, safe='')}", body)).status == 204
    assert recovered(gateway, body, "uri") == value


@pytest.mark.parametrize("value", [value for value in STRANGE.values() if "\t" not in value], ids=lambda value: value[:10])
def test_strange_tokens_are_found_again(value: str, gateway: LocalGateway, client: Wire) -> None:
    """A token may hold anything that a header may, raw UTF-8 too: all of it is found again with the specimen."""
    body = b"token " + value.encode()
    assert client.ask(put("/specimen?uri=token", body, user=value)).status == 204
    assert recovered(gateway, body, "user") == value


@pytest.mark.parametrize("value", STRANGE.values(), ids=STRANGE.keys())
def test_strange_tokens_may_be_percent_encoded(value: str, gateway: LocalGateway, client: Wire, gained: Gained) -> None:
    """A token that is itself percent-encoded is kept as it was sent, with a specimen and with a large report."""
    token = quote(value, safe="")[:30_000]
    body = b"percent " + value.encode()
    assert client.ask(put("/specimen?uri=token", body, user=token)).status == 204
    assert recovered(gateway, body, "user") == token
    assert client.ask(put("/usage", report_of(SEGMENT_LIMIT + 1), user=token)).status == 204
    assert gained.lines() == [report_of(SEGMENT_LIMIT + 1)]


def test_bytes_that_are_not_utf8_are_percent_encoded(gateway: LocalGateway, client: Wire) -> None:
    """Bytes of a token and of a uri that are not UTF-8 are kept percent-encoded, and told from a text that looks so."""
    keys = []
    for body, uri, user in (
        (b"not UTF-8", b"a%FF%25b", b"t\xff%"),
        (b"a text", b"a%25FF%2525b", b"t%FF%25"),
    ):
        length = f"Content-Length: {len(body)}"
        request = head("PUT /specimen?uri=" + uri.decode(), length, b"USER_TOKEN: " + user, user=None)
        assert client.ask(request + body).status == 204
        key, metadata = delivered(gateway, body)
        keys.append(key.partition("/")[0])
        assert (metadata["uri"], metadata["user"]) == ("a%FF%25b", "t%FF%25")
        assert metadata.get("encoded") == ("user uri" if b"not" in body else None)
    assert keys == ["t%FF%25", "t%25FF%2525"]


def test_a_raw_uri_is_no_defect(gateway: LocalGateway) -> None:
    """A request line with raw UTF-8 or other bytes in it is either taken, or refused as malformed; it is no 500."""
    for raw in ("日本".encode(), b"\xff\xfe", b"\x80"):
        with gateway.wire() as client:
            answer = client.ask(
                b"PUT /specimen?uri=" + raw + b" HTTP/1.1\r\nHost: g\r\nUSER_TOKEN: a\r\nContent-Length: 1\r\n\r\n."
            )
            assert answer.status in (204, 400)


# --- who may enter -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/usage", "/error", f"/specimen?uri={A_URI}"])
@pytest.mark.parametrize("field", [(), ("USER_TOKEN:",), ("Authorization: Basic YTpi",), ("Authorization: Bearer ",)])
def test_without_a_token_there_is_no_entry(path: str, field: tuple[str, ...], client: Wire, gained: Gained) -> None:
    """A request that names no user gets 401 before a byte of its body is read."""
    answer = client.ask(head(f"PUT {path}", "Content-Length: 2", *field, user=None))
    assert "USER_TOKEN" in refused(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    # The body that comes nevertheless is not taken for a request, and the connection is still good.
    client.send(b"{}")
    assert client.ask(put("/usage", b'{"after":401}')).status == 204
    assert gained.lines() == [b'{"after":401}']


def test_401_comes_before_every_other_reason(client: Wire) -> None:
    """Who names no user learns nothing but that: not that the uri is missing, the coding unknown or the body too large."""
    fields = ("Content-Length: 99999999", "Content-Encoding: br", "Expect: 100-continue")
    refused(client.ask(head("PUT /specimen", *fields, user=None)), 401, "unauthorized")


def test_a_bearer_is_a_user(gateway: LocalGateway, client: Wire) -> None:
    """`Authorization: Bearer NAME` names the user as USER_TOKEN does."""
    answer = client.ask(put("/usage", b"{}", "authorization: bearer bob", user=None))
    assert answer.status == 204
    assert gateway.request_line(answer.headers["x-request-id"])["user"] == "bob"


def test_100_continue_is_said_after_the_guard(client: Wire, gained: Gained) -> None:
    """A client that asks first is told to go on only once it was let in, and exactly once."""
    client.send(head("PUT /usage", "Content-Length: 2", "Expect: 100-continue"))
    interim = client.answer()
    assert (interim.status, interim.headers) == (100, {})
    assert client.silent()
    assert client.ask(b"{}").status == 204
    assert gained.lines() == [b"{}"]


@pytest.mark.parametrize(
    ("path", "length", "user", "fields", "status"),
    [
        ("/usage", 2, None, (), 401),
        ("/usage", REPORT_LIMIT + 1, "alice", (), 413),
        ("/usage", 2, "alice", ("Content-Encoding: br",), 415),
        ("/specimen", 2, "alice", (), 400),
        ("/elsewhere", 2, "alice", (), 404),
        ("/health", 2, "alice", (), 405),
    ],
)
def test_100_continue_is_not_said_to_the_refused(
    path: str, length: int, user: str | None, fields: tuple[str, ...], status: int, client: Wire
) -> None:
    """Who is refused from the head alone is answered at once and never told to send the body."""
    answer = client.ask(head(f"PUT {path}", f"Content-Length: {length}", "Expect: 100-continue", *fields, user=user))
    assert answer.status == status


def test_http_1_0_is_never_told_to_continue(client: Wire) -> None:
    """A client of HTTP/1.0 knows no interim answers and gets none."""
    client.send(b"PUT /usage HTTP/1.0\r\nUSER_TOKEN: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}")
    first = client._until(b" ") + client._until(b"\r\n\r\n")
    assert b" 100 " not in first
    assert b" 204 " in first


# --- the answer itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["abc-123", "a", "A" * 128, "1.2:3/4+5=6@7_8", "00-4bf92f3577b34da6a3ce929d0e0e4736-00"])
@pytest.mark.parametrize("path", ["/usage", "/health", "/nowhere"])
def test_a_sane_request_id_comes_back(given: str, path: str, client: Wire) -> None:
    """The client's own request id is in the answer, whatever that says."""
    assert client.ask(put(path, b"{}", f"X-Request-ID: {given}")).headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"a b", b'"a"', b"a\tb", b"A" * 129, "日本".encode(), b"a\xff", b"<script>", b"a,b"])
@pytest.mark.parametrize("path", ["/usage", "/nowhere"])
def test_any_other_request_id_is_replaced(given: bytes, path: str, client: Wire) -> None:
    """A request id that is no plain word of at most 128 characters is replaced by a new one."""
    found = client.ask(put(path, b"{}", b"X-Request-ID: " + given)).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{24}", found)


def test_request_ids_differ(gateway: LocalGateway, client: Wire) -> None:
    """Each request without an id of its own gets another one, by which its log line is found."""
    answers = [client.ask(put(path, b"{}")) for path in ["/usage", "/nowhere"] * 20]
    found = {answer.headers["x-request-id"] for answer in answers}
    assert len(found) == 40
    line = gateway.request_line(answers[-1].headers["x-request-id"])
    assert (line["path"], line["status"], line["user"]) == ("/nowhere", 404, None)


@pytest.mark.parametrize(
    ("request_line", "allow"),
    [
        ("GET /usage", "PUT, POST"),
        ("HEAD /usage", "PUT, POST"),
        ("DELETE /error", "PUT, POST"),
        ("PATCH /specimen", "PUT, POST"),
        ("OPTIONS /usage", "PUT, POST"),
        ("PUT /health", "GET, HEAD"),
        ("POST /metrics", "GET, HEAD"),
        ("DELETE /ready", "GET, HEAD"),
        ("TRACE /usage", "PUT, POST"),
        ("QUERY /health", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(request_line: str, allow: str, client: Wire) -> None:
    """A method that a path does not take gets 405 with those that it takes."""
    is_head = request_line.startswith("HEAD")
    answer = client.ask(head(request_line, user=None), head=is_head)
    assert answer.headers["allow"] == allow
    if is_head:
        assert answer.status == 405
    else:
        refused(answer, 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/", "/usage/", "/Usage", "/usage/x", "//usage", "/%75sage", "/../etc/passwd", "*", "/健"])
def test_a_path_that_is_none_is_not_found(path: str, gateway: LocalGateway) -> None:
    """Every other path gets 404, or 400 where it is not HTTP at all."""
    with gateway.wire() as client:
        answer = client.ask(put(path, b"{}"))
        refused(answer, *((404, "not_found") if answer.status == 404 else (400, "malformed_request")))


def test_an_absolute_target_is_understood(gateway: LocalGateway, client: Wire, gained: Gained) -> None:
    """A request line with a whole URL, as proxies are sent, means its path."""
    assert client.ask(put(f"{gateway.base_url}/usage", b'{"proxied":1}')).status == 204
    assert gained.lines() == [b'{"proxied":1}']


# --- health, readiness, metrics ----------------------------------------------------------------------------------


def test_health_says_healthy(client: Wire) -> None:
    """`GET /health` is 200 and says so in JSON, without a token; HEAD gives its head alone."""
    answer = client.ask(head("GET /health", user=None))
    assert (answer.status, answer.json()) == (200, {"status": "healthy"})
    assert answer.headers["content-type"] == "application/json"
    again = client.ask(head("HEAD /health", user=None), head=True)
    assert (again.status, again.headers["content-length"]) == (200, answer.headers["content-length"])
    assert client.ask(head("GET /health?why=not", user=None)).status == 200


def test_ready_when_all_is_well(client: Wire) -> None:
    """`GET /ready` is 200 and has nothing to complain of, without a token; HEAD gives its head alone."""
    answer = client.ask(head("GET /ready", user=None))
    assert (answer.status, answer.json()) == (200, {"status": "ready", "degraded": []})
    assert client.ask(head("HEAD /ready", user=None), head=True).status == 200


def families(page: bytes) -> dict[str, Metric]:
    """What Prometheus reads in a page of metrics, by name."""
    return {family.name: family for family in text_string_to_metric_families(page.decode())}


EVERY_STREAM = {"usage", "error", "specimen"}
REPORT_STREAMS = {"usage", "error"}
# What an operator is promised for every stream, and as what kind.
PER_STREAM = {
    "received": ("counter", EVERY_STREAM),
    "received_bytes": ("counter", EVERY_STREAM),
    "delivered": ("counter", EVERY_STREAM),
    "waiting_files": ("gauge", EVERY_STREAM),
    "waiting_bytes": ("gauge", EVERY_STREAM),
    "waiting_oldest_age_seconds": ("gauge", EVERY_STREAM),
    "delivery_failures": ("counter", EVERY_STREAM),
    "quarantined": ("counter", EVERY_STREAM),
    "sync_duration_seconds": ("histogram", REPORT_STREAMS),
    "delivery_duration_seconds": ("histogram", EVERY_STREAM),
}


def test_metrics_can_be_read(client: Wire) -> None:
    """Prometheus can read `/metrics`, each with help, and finds what it was promised for every stream from the start."""
    answer = client.ask(head("GET /metrics", user=None))
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = families(answer.body)
    assert all(family.documentation for family in found.values())
    for name, (kind, streams) in PER_STREAM.items():
        family = found[f"lightfile6_{name}"]
        assert family.type == kind, name
        assert {sample.labels["stream"] for sample in family.samples} >= streams, name
    assert found["lightfile6_request_duration_seconds"].type == "histogram"
    assert client.ask(head("HEAD /metrics", user=None), head=True).status == 200


def test_metrics_count(gateway: LocalGateway, client: Wire) -> None:
    """What was received, refused and waits is counted, in bytes as sent, and every request is timed."""
    names = ["received_total", "received_bytes_total", "waiting_bytes"]

    def counts() -> list[float]:
        values = [gateway.metric(name, stream="error") for name in names]
        return [
            *values,
            gateway.metric("requests_rejected_total", status="400"),
            gateway.metric("request_duration_seconds_count", route="/error"),
        ]

    before = counts()
    assert client.ask(put("/error", b'{"counted":1}')).status == 204
    assert client.ask(put("/error", b"1\n2\n", NDJSON)).status == 204
    assert client.ask(put("/error", b"nonsense")).status == 400
    assert [after - was for after, was in zip(counts(), before, strict=True)] == [3, 17, 18, 1, 3]


# --- connections -------------------------------------------------------------------------------------------------


def test_a_connection_is_kept(client: Wire, gained: Gained) -> None:
    """One connection serves many requests, of every way a request can take."""
    for number in range(10):
        assert client.ask(put("/usage", b"%d" % number)).status == 204
        assert client.ask(chunked("/usage", b"[%d]" % number)).status == 204
        assert client.ask(head("GET /health", user=None)).status == 200
        assert client.ask(put("/usage", report_of(SEGMENT_LIMIT * 2))).status == 204
    assert len(gained.lines()) == 30


def test_pipelined_requests_are_answered_in_order(client: Wire, gained: Gained) -> None:
    """Requests that are sent without waiting are answered each, in their order, whatever way each of them takes."""
    requests = [
        put("/usage", b"1", "X-Request-ID: r0"),
        put("/usage", b"2", "X-Request-ID: r1"),
        head("GET /health", "X-Request-ID: r2"),
        put("/usage", b"[3", "X-Request-ID: r3"),
        chunked("/usage", b"4", fields=("X-Request-ID: r4",)),
        put("/usage", report_of(SEGMENT_LIMIT + 1), "X-Request-ID: r5"),
        put("/usage", b"6", "X-Request-ID: r6"),
    ]
    client.send(b"".join(requests))
    answers = [client.answer() for _ in requests]
    assert [answer.headers["x-request-id"] for answer in answers] == [f"r{number}" for number in range(7)]
    assert [answer.status for answer in answers] == [204, 204, 200, 400, 204, 204, 204]
    assert Counter(gained.lines()) == Counter([b"1", b"2", b"4", report_of(SEGMENT_LIMIT + 1), b"6"])


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_request_may_come_in_pieces(size: int, client: Wire, gained: Gained) -> None:
    """However the network cuts a request into packets, it is the same request, and so are those behind it."""
    request = put("/usage", b'{"pieces":true}', f"X-Pad: {'x' * 50}") * 2
    for at in range(0, len(request), size):
        client.send(request[at : at + size])
    assert [client.answer().status for _ in range(2)] == [204, 204]
    assert gained.lines() == [b'{"pieces":true}'] * 2


@pytest.mark.parametrize("body", [b"{}", b"["])
def test_connection_close_is_obeyed(body: bytes, client: Wire) -> None:
    """A client that says it will close is answered, and the connection ends."""
    answer = client.ask(put("/usage", body, "Connection: close"))
    assert answer.status == (204 if body == b"{}" else 400)
    assert client.closed()


def test_http_1_0_is_answered_and_closed(client: Wire, gained: Gained) -> None:
    """A client of HTTP/1.0 is answered, and the connection ends."""
    client.send(b'PUT /usage HTTP/1.0\r\nUSER_TOKEN: a\r\nContent-Length: 9\r\n\r\n{"old":1}')
    assert b" 204 " in client._until(b"\r\n\r\n")
    assert client.closed()
    assert gained.lines() == [b'{"old":1}']


# --- what is not HTTP --------------------------------------------------------------------------------------------

MALFORMED = {
    "garbage": b"GARBAGE\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60) + b"\r\n\r\n",
    "a field without a colon": b"PUT /usage HTTP/1.1\r\nHost: g\r\nUSER_TOKEN a\r\n\r\n",
    "a space before the colon": b"PUT /usage HTTP/1.1\r\nHost: g\r\nUSER_TOKEN : a\r\nContent-Length: 2\r\n\r\n{}",
    "a length that is none": b"PUT /usage HTTP/1.1\r\nHost: g\r\nUSER_TOKEN: a\r\nContent-Length: two\r\n\r\n{}",
    "a negative length": b"PUT /usage HTTP/1.1\r\nHost: g\r\nUSER_TOKEN: a\r\nContent-Length: -2\r\n\r\n{}",
    "two lengths": b"PUT /usage HTTP/1.1\r\nHost: g\r\nUSER_TOKEN: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": head("PUT /usage", "Content-Length: 2", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n",
    "a NUL in a field": head("PUT /usage", b"X: a\0b", "Content-Length: 2") + b"{}",
    "a field too long": head("PUT /usage", "X: " + "x" * 100_000, "Content-Length: 2") + b"{}",
    "a request line too long": head("PUT /specimen?uri=" + "x" * 100_000, "Content-Length: 2") + b"{}",
    "a version of another protocol": b"PUT /usage RTSP/1.0\r\nHost: g\r\n\r\n",
    "no version": b"PUT /usage\r\n\r\n",
    "no version and a bare LF": b"PUT /usage\n",
    "no version behind an answered request": put("/health", b"", method="GET")[:-2] + b"\r\nPUT /usage\r\n\r\n",
    "two hosts in one": b"PUT /usage HTTP/1.1\r\nHost: a,b\r\nUSER_TOKEN: a\r\nContent-Length: 2\r\n\r\n{}",
    "a user in the host": b"PUT /usage HTTP/1.1\r\nHost: u@a\r\nUSER_TOKEN: a\r\nContent-Length: 2\r\n\r\n{}",
    "a port that is none": b"PUT /usage HTTP/1.1\r\nHost: a:99999999\r\nUSER_TOKEN: a\r\nContent-Length: 2\r\n\r\n{}",
    "no host": b"PUT /usage HTTP/1.1\r\nUSER_TOKEN: a\r\nContent-Length: 2\r\n\r\n{}",
    "chunks of an old client": b"PUT /usage HTTP/1.0\r\nUSER_TOKEN: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a blank in the target": put("/specimen?uri=a b", b"{}"),
    "too many fields": put("/usage", b"{}", *(f"X-{number}: y" for number in range(126))),
    "a head too long": put("/usage", b"{}", *[f"X: {'x' * 30_000}"] * 5),
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_http_is_refused(request_bytes: bytes, client: Wire, gained: Gained) -> None:
    """A request that is not HTTP gets 400 in the form of every error, a sentence, and the connection ends."""
    is_second = request_bytes.startswith(b"GET")
    if is_second:
        assert client.ask(request_bytes).status == 200
    message = refused(client.answer() if is_second else client.ask(request_bytes), 400, "malformed_request")
    assert " " in message
    assert not message.endswith(":")
    assert client.closed()
    assert gained.lines() == []


@pytest.mark.parametrize("before", [b"", put("/usage", b'{"before":1}'), chunked("/usage", b'{"before":', b"1}")])
@pytest.mark.parametrize(
    ("line", "fields", "status", "code"),
    [
        ("PUT /usage HTTP/2.0", (), 505, "unsupported_version"),
        ("PUT /usage HTTP/0.9", (), 505, "unsupported_version"),
        ("PUT /usage HTTP/9.9", (), 505, "unsupported_version"),
        ("PRI * HTTP/2.0", (), 505, "unsupported_version"),
        ("put /usage HTTP/1.1", (), 501, "not_implemented"),
        ("PROPFIND /usage HTTP/1.1", (), 501, "not_implemented"),
        ("CONNECT g:80 HTTP/1.1", (), 501, "not_implemented"),
        ("PUT /usage HTTP/1.1", ("Transfer-Encoding: gzip, chunked",), 501, "not_implemented"),
        ("PUT /usage HTTP/1.1", ("Transfer-Encoding: gzip", "Transfer-Encoding: chunked"), 501, "not_implemented"),
        ("PUT /usage HTTP/1.1", ("Transfer-Encoding: gzip",), 400, "malformed_request"),
        ("PUT /usage RTSP/1.0", (), 400, "malformed_request"),
        ("PUT /usage", (), 400, "malformed_request"),
    ],
)
def test_what_is_not_spoken_is_refused(
    before: bytes, line: str, fields: tuple[str, ...], status: int, code: str, client: Wire, gained: Gained
) -> None:
    """A version, a method or a coding that is not spoken here is refused in HTTP/1.1, after the requests before it."""
    lines = [line, "Host: g", "USER_TOKEN: a", *fields, "", ""]
    client.send(before + "\r\n".join(lines).encode() + b"2\r\n{}\r\n0\r\n\r\n")
    if before:
        assert client.answer().status == 204
    start = client._until(b" ")
    assert start == b"HTTP/1.1 "
    client._read = start + client._read
    refused(client.answer(), status, code)
    assert client.closed()
    assert gained.lines() == ([b'{"before":1}'] if before else [])


def test_a_later_version_means_1_1(client: Wire, gained: Gained) -> None:
    """A request in HTTP/1.2 is answered in HTTP/1.1, and the connection stays open."""
    for body in (b'{"n":1}', b'{"n":2}'):
        request = put("/usage", body).replace(b"HTTP/1.1", b"HTTP/1.2")
        client.send(request)
        start = client._until(b" ")
        assert start == b"HTTP/1.1 "
        client._read = start + client._read
        assert client.answer().status == 204
    assert gained.lines() == [b'{"n":1}', b'{"n":2}']


def test_a_request_is_not_waited_for_in_vain(client: Wire) -> None:
    """What cannot become a request is refused at its first bytes, and not when the connection has been idle for long."""
    client.send(b"PUT /us")
    assert client.silent()
    refused(client.ask(b"age\n"), 400, "malformed_request")


def test_extensions_of_chunks_are_bounded(client: Wire, gained: Gained) -> None:
    """An extension of a chunk without an end is refused at its bound, and its body is not kept."""
    start = head("PUT /usage", "Transfer-Encoding: chunked", "Expect: 100-continue")
    assert client.ask(start).status == 100
    client.send(b"2;" + b"x" * 1000 + b"\r\n{}\r\n")
    message = refused(client.ask(b"0;" + b"x" * 2000), 400, "bad_request")
    assert "extensions of chunks take more than 1,024 bytes" in message
    assert client.closed()
    assert gained.lines() == []


def test_raw_text_in_a_query_is_refused(client: Wire) -> None:
    """Raw UTF-8 in a query gets a 400 that says what to do."""
    answer = client.ask(put("/specimen?uri=日本.png", b"."))
    assert "percent-encode" in refused(answer, 400, "malformed_request")


@pytest.mark.parametrize(
    "fields",
    [
        ("USER_TOKEN: bob",),
        ("user_token: alice",),
        ("Authorization: Bearer bob",),
        ("Authorization: Bearer alice", "Authorization: Bearer alice"),
    ],
)
@pytest.mark.parametrize("path", ["/usage", f"/specimen?uri={A_URI}"])
def test_two_identities_are_refused(path: str, fields: tuple[str, ...], client: Wire, gained: Gained) -> None:
    """A request that names its user twice, or two users, gets 400: none of them is believed."""
    message = refused(client.ask(put(path, b"{}", *fields)), 400, "bad_request")
    assert "USER_TOKEN" in message
    assert "Authorization" in message
    assert client.ask(put("/usage", b'{"same":1}', "Authorization: Bearer alice")).status == 204
    assert gained.lines() == [b'{"same":1}']


@pytest.mark.parametrize("line", ["GET /health", "PUT /usage", "POST /specimen", "DELETE /usage", "GET /nowhere", "OPTIONS *"])
@pytest.mark.parametrize("expectation", ["miracles", "100-continue, miracles", "100-continue\r\nExpect: more"])
def test_another_expectation_is_refused(line: str, expectation: str, client: Wire) -> None:
    """An expectation that the gateway cannot meet gets 417 whatever is asked for, and its body is not waited for."""
    answer = client.ask(head(line, "Content-Length: 2", f"Expect: {expectation}"))
    assert "100-continue" in refused(answer, 417, "expectation_failed")


def test_no_answer_tells_versions(gateway: LocalGateway) -> None:
    """Every answer is from this program, whichever wrote it, and tells no version of what it stands on."""
    for request in (put("/usage", b"{}"), put("/usage", b"!"), head("GET /health"), b"GARBAGE\r\n\r\n"):
        with gateway.wire() as client:
            assert client.ask(request).headers["server"] == "lightfile6-insights-gateway"


BROKEN_CHUNKS = {
    "no size": b"xyz\r\n{}\r\n0\r\n\r\n",
    "longer than its size": b"2\r\n{}}\r\n0\r\n\r\n",
    "negative size": b"-1\r\n{}\r\n0\r\n\r\n",
    "bad second size": b"2\r\n{}\r\n!\r\n",
}


@pytest.mark.parametrize("body", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS.keys())
@pytest.mark.parametrize("path", ["/usage", f"/specimen?uri={A_URI}"])
def test_broken_chunks_are_refused(path: str, body: bytes, client: Wire, gained: Gained) -> None:
    """A body whose chunks cannot be read gets 400 in the form of every error, and nothing of it is kept."""
    refused(client.ask(head(f"PUT {path}", "Transfer-Encoding: chunked") + body), 400, "malformed_request")
    assert client.closed()
    assert gained.lines() == []


@pytest.mark.parametrize("path", ["/usage", f"/specimen?uri={A_URI}"])
def test_chunks_that_break_later_are_refused(path: str, client: Wire, gained: Gained) -> None:
    """Chunks that break after the head was taken get their 400 at once too, not a timeout, and only that."""
    assert client.ask(head(f"PUT {path}", "Transfer-Encoding: chunked", "Expect: 100-continue")).status == 100
    client.send(b"2\r\n{}\r\n")
    answer = client.ask(b"!\r\n")
    assert (answer.status, list(answer.json())) == (400, ["error"])
    assert client.closed()
    assert gained.lines() == []


# --- clients that stop, and clients that go ----------------------------------------------------------------------


@pytest.mark.parametrize("fast_lane", LANES)
def test_a_client_that_stops_sending_is_let_go(fast_lane: bool, tmp_path: Path) -> None:
    """A body that stops gets 408 after the timeout, nothing of it is kept, and the connection ends."""
    settings = limited(fast_lane=fast_lane, limits={"body_timeout": "200ms"})
    with running(tmp_path, settings) as gateway:
        for start in (
            head("PUT /usage", "Content-Length: 10"),
            head("PUT /usage", "Content-Length: 10") + b'{"a":',
            head("PUT /usage", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n",
            head("PUT /usage", f"Content-Length: {REPORT_LIMIT}") + report_of(REPORT_LIMIT)[:600_000],
            head(f"PUT /specimen?uri={A_URI}", "Content-Length: 10") + b"123456789",
            head(f"PUT /specimen?uri={A_URI}", f"Content-Length: {SPECIMEN_LIMIT}") + bytes(900_000),
        ):
            with gateway.wire() as client:
                began = time.monotonic()
                answer = client.ask(start)
                refused(answer, 408, "body_timeout")
                # Half of it: the timers of the loop count from a clock that may be some milliseconds behind.
                assert time.monotonic() - began >= 0.1
                assert answer.headers["connection"] == "close"
                client.socket.shutdown(socket.SHUT_WR)
                assert client.closed()
            assert gateway.left() == []
        assert gateway.kept("usage") == []
        assert gateway.metric("requests_rejected_total", status="408") == 6
        assert gateway.stop() == 0


@pytest.mark.parametrize("politely", [True, False])
@pytest.mark.parametrize(
    ("start", "sent"),
    [
        (head("PUT /usage", "Content-Length: 10", "X-Request-ID: gone"), b'{"a":'),
        (head("PUT /usage", f"Content-Length: {REPORT_LIMIT}", "X-Request-ID: gone"), report_of(REPORT_LIMIT)[:600_000]),
        (head("PUT /usage", "Transfer-Encoding: chunked", "X-Request-ID: gone"), b"2\r\n{}\r\n"),
        (head(f"PUT /specimen?uri={A_URI}", f"Content-Length: {SPECIMEN_LIMIT}", "X-Request-ID: gone"), bytes(900_000)),
    ],
    ids=["small report", "large report", "chunks", "specimen"],
)
def test_a_client_that_goes_leaves_nothing(
    start: bytes, sent: bytes, politely: bool, gateway: LocalGateway, gained: Gained
) -> None:
    """Of a body whose client went away in the middle nothing is kept, and the gateway goes on."""
    before = gateway.left()
    bodies = gateway.metric("request_duration_seconds_count", route="/usage")
    with gateway.wire() as client:
        client.send(start)
        client.send(sent)
        if len(sent) > 500_000:
            until(gateway.drafts, "the body to reach the disk")
        if not politely:
            client.reset()
    until(lambda: not gateway.drafts(), "the draft to be removed")
    assert gateway.left() == before
    assert gained.lines() == []
    assert gateway.metric("request_duration_seconds_count", route="/usage") >= bodies
    assert gateway.get("/ready").json() == {"status": "ready", "degraded": []}


# --- what the gateway cannot do now ------------------------------------------------------------------------------


@pytest.mark.parametrize("fast_lane", LANES)
def test_a_full_spool_is_said(fast_lane: bool, tmp_path: Path) -> None:
    """Past the quota a body gets 507 and is not kept, a smaller one that fits is, and `/ready` tells of a full spool."""
    # Segments stay where they are, so nothing leaves the spool.
    with running(tmp_path, limited(fast_lane=fast_lane, spool={"quota": 1000})) as gateway, gateway.wire() as client:
        assert client.ask(put("/usage", report_of(899))).status == 204
        answer = client.ask(put("/usage", report_of(200)))
        assert "quota" in refused(answer, 507, "spool_full")
        assert answer.headers["connection"] == "close"
        with gateway.wire() as another:
            refused(another.ask(head(f"PUT /specimen?uri={A_URI}", "Content-Length: 101")), 507, "spool_full")
        assert gateway.get("/ready").status == 200
        assert gateway.put("/usage", report_of(99)) == 204
        ready = gateway.get("/ready")
        assert (ready.status, ready.json()["reasons"]) == (503, ["the spool has reached its quota"])
        assert int(ready.headers["retry-after"]) > 0
        assert gateway.get("/health").status == 200
        assert sorted(len(line) for line in gateway.kept("usage")) == [99, 899]
        assert gateway.stop() == 0


@pytest.mark.parametrize("path", ["/usage", f"/specimen?uri={A_URI}"], ids=["usage", "specimen"])
def test_what_is_written_is_held_to_the_quota(path: str, tmp_path: Path) -> None:
    """A few bytes that decode to more than there is room for get 507, and nothing of them stays."""
    limits = {"report_bytes": "500MiB", "specimen_bytes": "500MiB"}
    bomb = gzip.compress(b" " * (60 << 20), 9)
    with running(tmp_path, limited(spool={"quota": "20MiB"}, limits=limits)) as gateway:
        with gateway.wire() as client:
            answer = client.ask(put(path, bomb, "Content-Encoding: gzip"))
        refused(answer, 507, "spool_full")
        assert list((gateway.cache / "tmp").iterdir()) == []
        assert not [name for name in gateway.left() if name.endswith((".body", ".json"))]


def test_an_unknown_length_is_held_to_the_quota(tmp_path: Path) -> None:
    """A body of unknown length that passes the quota as it comes gets 507, and nothing of it stays."""
    settings = limited(spool={"quota": 1 << 20}, limits={"specimen_bytes": 64 << 20})
    with running(tmp_path, settings) as gateway, gateway.wire() as client:
        chunk = bytes(1 << 16)
        client.send(head(f"PUT /specimen?uri={A_URI}", "Transfer-Encoding: chunked"))
        try:
            for _ in range(200):
                client.send(b"10000\r\n" + chunk + b"\r\n")
            client.send(b"0\r\n\r\n")
        except OSError:
            # It closed the connection rather than read on.
            pass
        refused(client.answer(), 507, "spool_full")
        assert gateway.drafts() == []


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """A disk with no more than its reserve free gets 507 for every body, and `/ready` tells of it."""
    with running(tmp_path, limited(spool={"reserve": "8TiB"})) as gateway:
        assert gateway.put("/usage", b"{}") == 507
        assert gateway.put(f"/specimen?uri={A_URI}", b"{}") == 507
        ready = gateway.get("/ready")
        assert (ready.status, ready.json()["reasons"]) == (503, ["the disk has no room"])
        assert gateway.left() == []


def test_the_log_says_why(tmp_path: Path) -> None:
    """A refusal has its code in the log; one that is not the client's fault has the reason, too, and no line has a body in it."""
    with running(tmp_path / "sound", limited()) as gateway, gateway.wire() as client:
        refused(client.ask(put("/usage", b'["hidden",]', "X-Request-ID: bad")), 400, "bad_request")
        line = gateway.request_line("bad")
        assert (line["status"], line["code"]) == (400, "bad_request")
        assert "reason" not in line
        assert "hidden" not in gateway.said()
    with running(tmp_path / "full", limited(spool={"reserve": "8TiB"})) as gateway, gateway.wire() as client:
        message = refused(client.ask(put("/usage", b'"hidden"', "X-Request-ID: full")), 507, "spool_full")
        line = gateway.request_line("full")
        assert (line["status"], line["code"], line["reason"]) == (507, "spool_full", message)
        assert "hidden" not in gateway.said()


def test_too_many_bodies_are_told_to_come_again(tmp_path: Path) -> None:
    """Past the bound on what is pending a body gets 503 with Retry-After before it is read; later it is let in."""
    settings = limited(limits={"pending_bytes": SEGMENT_LIMIT})
    with running(tmp_path, settings) as gateway:
        with gateway.wire() as slow:
            slow.send(put("/usage", report_of(SEGMENT_LIMIT))[:-1])

            def ask() -> Answer:
                with gateway.wire() as client:
                    return client.ask(head("PUT /usage", "Content-Length: 2", "Expect: 100-continue"))

            # What has come of the slow one takes the memory as soon as it is read.
            until(lambda: ask().status == 503, "a body to be refused")
            answer = ask()
            refused(answer, 503, "overloaded")
            assert int(answer.headers["retry-after"]) > 0
            assert answer.headers["connection"] == "close"
            assert slow.ask(report_of(SEGMENT_LIMIT)[-1:]).status == 204
        assert gateway.put("/usage", b"{}") == 204
        assert gateway.kept("usage") == [report_of(SEGMENT_LIMIT), b"{}"]


@pytest.mark.parametrize("fast_lane", [True, False])
def test_who_does_not_read_its_answers_is_idle(tmp_path: Path, *, fast_lane: bool) -> None:
    """A client that asks and never reads is let go after the time that an idle one has, and takes nothing with it."""
    settings = limited(fast_lane=fast_lane, limits={"keepalive_timeout": "1s"})
    with running(tmp_path, settings) as gateway, gateway.wire() as client:
        client.socket.setblocking(False)

        def is_let_go() -> bool:
            try:
                # More answers than the kernel holds for somebody.
                return client.socket.send(head("GET /metrics", user=None) * 100) < 0
            except BlockingIOError:
                return False
            except (ConnectionResetError, BrokenPipeError):
                return True

        until(is_let_go, "the connection to be ended")
        assert gateway.put("/usage", b"1") == 204
        assert gateway.stop() == 0
        assert gateway.events("defect") == []


def test_ready_tells_what_is_degraded(tmp_path: Path) -> None:
    """While a store is away `/ready` stays 200 and says which stream waits, since the spool has room; later it forgets."""
    gateway = LocalGateway(tmp_path, limited(delivery={"retry_min": "10ms", "retry_max": "50ms"}))
    tmp_path.mkdir(exist_ok=True)
    gateway.objects.write_text("no directory")
    with running(tmp_path, gateway.settings) as started:
        assert started.put(f"/specimen?uri={A_URI}", b"held") == 204
        until(lambda: started.get("/ready").json()["status"] == "degraded", "the trouble to be seen")
        ready = started.get("/ready")
        assert ready.status == 200
        (reason,) = ready.json()["degraded"]
        assert reason.startswith("specimen: ")
        assert started.metric("delivery_failures_total", stream="specimen", kind="transient") >= 1
        gateway.objects.unlink()
        until(lambda: started.get("/ready").json() == {"status": "ready", "degraded": []}, "the trouble to end")
        delivered(started, b"held")
        assert started.stop() == 0


def test_an_answer_can_be_delayed(tmp_path: Path) -> None:
    """With LIGHTFILE6_RESPONSE_DELAY_MS every answer comes so much later, though the report is on disk before."""
    with running(tmp_path, {}, {"LIGHTFILE6_RESPONSE_DELAY_MS": "400"}) as gateway, gateway.wire() as client:
        began = time.monotonic()
        client.send(put("/usage", b'{"delayed":1}'))
        until(lambda: gateway.kept("usage"), "the report to be kept")
        assert client.silent()
        assert client.answer().status == 204
        assert time.monotonic() - began >= 0.2


# --- envelopes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast_lane", LANES)
def test_a_report_in_its_envelope(fast_lane: bool, tmp_path: Path) -> None:
    """With envelopes each report, small, of many or large, stands byte for byte behind its user and its instant."""
    # Six hundred envelopes of the longest user count towards the limit of a body.
    settings = limited(fast_lane=fast_lane, aggregation={"envelope": True}, limits={"report_bytes": "16MiB"})
    large = report_of(SEGMENT_LIMIT * 100)
    many = [b'{"n":%d}' % number for number in range(600)]
    with running(tmp_path, settings) as gateway:
        sent: list[tuple[str, bytes]] = []
        for user in [*(value for value in STRANGE.values() if "\t" not in value)]:
            for body, fields in ((b"1e400", ()), (large, ()), (b"2\n\n3", (NDJSON,)), (b"\n".join(many), (NDJSON,))):
                with gateway.wire() as client:
                    assert client.ask(put("/usage", body, *fields, user=user)).status == 204
                sent += [(user, line) for line in ([b"2", b"3"] if b"\n\n" in body else body.split(b"\n"))]
        found = []
        for line in gateway.kept("usage"):
            match = re.fullmatch(rb'\{"user":(".*?"),"received_at":"(.*?)","report":(.*)\}', line)
            assert match is not None, line[:200]
            assert re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", match[2])
            found.append((json.loads(match[1]), match[3]))
        assert Counter(found) == Counter(sent)
