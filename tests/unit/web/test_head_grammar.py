"""A head that is not surely HTTP/1.1 is refused with a sentence, and never parsed."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import GatewayError, MalformedRequest, NotImplementedHere, UnsupportedVersion
from gateway.web.fastlane.head import parse_head
from gateway.web.head_grammar import (
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_LINE_BYTES,
    check_beginning,
    check_trailer,
    is_host,
    plain_head,
    read_head,
)
from testkit import spool

USAGE = replace(spool.USAGE, max_body_bytes=1 << 20)


def head(line: str | bytes = "PUT /usage HTTP/1.1", *fields: str | bytes, host: str | None = "Host: x") -> bytes:
    """A head of this line and these fields."""
    texts = [line, *([host] if host is not None else []), *fields, "", ""]
    return b"\r\n".join(text.encode() if isinstance(text, str) else text for text in texts)


def fault(data: bytes) -> GatewayError:
    """What is wrong with a whole head."""
    with pytest.raises(GatewayError) as raised:
        read_head(data)
    return raised.value


# --- request lines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/", "/usage", "/a?b=c#d", "*", "http://gateway/usage", "https://[::1]:1/a", '/%75{|}"<>'])
def test_a_target_is_a_path_or_an_address(target: str) -> None:
    """Paths, absolute addresses and `*` are parsed as they were sent."""
    sent = head(f"PUT {target} HTTP/1.1")
    assert read_head(sent).data is sent


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        ("PUT /usage", MalformedRequest, "has no version"),
        ("GARBAGE", MalformedRequest, "has no target"),
        ("PUT HTTP/1.1", MalformedRequest, "has no target"),
        ("", MalformedRequest, "does not begin with a line such as PUT /usage"),
        ("\0\1", MalformedRequest, "does not begin with a line such as PUT /usage"),
        ("(PUT) /usage HTTP/1.1", MalformedRequest, "does not begin with a line such as PUT /usage"),
        (" PUT /usage HTTP/1.1", MalformedRequest, "does not begin with a line such as PUT /usage"),
        ("PUT /usage HTTP/2.0", UnsupportedVersion, "HTTP/2.0 is not spoken here; use HTTP/1.1"),
        ("PRI * HTTP/2.0", UnsupportedVersion, "HTTP/2.0 is not spoken here; use HTTP/1.1"),
        ("PUT /usage HTTP/0.9", UnsupportedVersion, "HTTP/0.9 is not spoken here; use HTTP/1.1"),
        ("PUT /usage HTTP/3.0", UnsupportedVersion, "HTTP/3.0 is not spoken here; use HTTP/1.1"),
        ("PUT /usage RTSP/1.0", MalformedRequest, "does not end in a version of HTTP"),
        ("PUT /usage http/1.1", MalformedRequest, "does not end in a version of HTTP"),
        ("PUT /usage HTTP/1.10", MalformedRequest, "does not end in a version of HTTP"),
        ("PUT /usage HTTP/1", MalformedRequest, "does not end in a version of HTTP"),
        ("PUT /usage HTTP/1.1 ", MalformedRequest, "does not end in a version of HTTP"),
        ("PUT /a b HTTP/1.1", MalformedRequest, "%20"),
        ("PUT  /usage HTTP/1.1", MalformedRequest, "%20"),
        ("PUT /specimen?uri=日本 HTTP/1.1", MalformedRequest, "percent-encode them, such as %E6%97%A5"),
        (b"PUT /specimen?uri=\xff HTTP/1.1", MalformedRequest, "percent-encode them"),
        ("PUT usage HTTP/1.1", MalformedRequest, "neither a path"),
        ("PUT gateway:80 HTTP/1.1", MalformedRequest, "neither a path"),
        ("PUT http:///usage HTTP/1.1", MalformedRequest, "neither a path"),
        ("PUT http://:80/usage HTTP/1.1", MalformedRequest, "neither a path"),
        ("PUT http://u@a/usage HTTP/1.1", MalformedRequest, "neither a path"),
        ("PUT http://a:99999/usage HTTP/1.1", MalformedRequest, "neither a path"),
        ("PUT *x HTTP/1.1", MalformedRequest, "neither a path"),
        ("put /usage HTTP/1.1", NotImplementedHere, "the method put is not implemented here"),
        ("CONNECT gateway:80 HTTP/1.1", NotImplementedHere, "the method CONNECT is not implemented here"),
        ("PROPFIND /usage HTTP/1.1", NotImplementedHere, "the method PROPFIND is not implemented here"),
        (f"{'P' * 1000} /usage HTTP/1.1", NotImplementedHere, f"the method {'P' * 40} is not"),
        (f"PUT /{'x' * MAX_LINE_BYTES} HTTP/1.1", MalformedRequest, "the request line is longer than 65,536 bytes"),
        (b"\x16\x03\x01\x02", MalformedRequest, "this is TLS"),
    ],
)
def test_a_line_that_is_no_request_of_http_1_1(line: str | bytes, kind: type[GatewayError], says: str) -> None:
    """A request line that is not METHOD TARGET HTTP/1.x is refused, and the sentence says what is wrong with it."""
    found = fault(head(line))
    assert type(found) is kind
    assert says in str(found)


@pytest.mark.parametrize("minor", range(2, 10))
def test_a_later_version_is_taken_as_1_1(minor: int) -> None:
    """HTTP/1.2 to HTTP/1.9 mean 1.1 to a server of 1.1; all else of the head stays."""
    sent = head(f"PUT /HTTP/1.{minor}?HTTP/1.{minor} HTTP/1.{minor}", f"X: HTTP/1.{minor}")
    assert read_head(sent).data == sent.replace(f" HTTP/1.{minor}\r\nHost".encode(), b" HTTP/1.1\r\nHost")


# --- fields ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("no colon", "header field 2 has no colon"),
        ("USER_TOKEN : a", "header field 2 has a blank before its colon"),
        (": a", "header field 2 has no name"),
        ("a b: c", "header field 2 has no name"),
        (" folded", "header field 2 begins with a blank"),
        ("\tfolded: a", "header field 2 begins with a blank"),
        ("X: a\nY: b", "a line that does not end in CR LF"),
        ("X: a\rY: b", "a line that does not end in CR LF"),
        ("X: a\0b", "a control character"),
        ("X: a\x7fb", "a control character"),
        ("X\0: a", "a control character"),
        (f"X: {'x' * MAX_FIELD_BYTES}", "a header field is longer than 32,768 bytes"),
    ],
)
def test_a_field_that_is_none(field: str, says: str) -> None:
    """A field that is not `name: value` is refused with what is wrong with it, and never repeated."""
    found = fault(head("PUT /usage HTTP/1.1", field, "Y: z"))
    assert type(found) is MalformedRequest
    assert says in str(found)


def test_fields_have_bounds() -> None:
    """So many fields, and so many bytes of a head, are read; more are refused with the bound."""
    many = [f"X-{number}: y" for number in range(MAX_FIELDS - 1)]
    assert read_head(head("PUT /usage HTTP/1.1", *many)).length == 0
    assert str(fault(head("PUT /usage HTTP/1.1", *many, "X: y"))) == "the request has more than 128 header fields"
    large = [f"X: {'x' * (MAX_FIELD_BYTES - 3)}"] * 3
    rest = MAX_HEAD_BYTES - len(head("PUT /usage HTTP/1.1", *large, "Y: "))
    assert len(head("PUT /usage HTTP/1.1", *large, f"Y: {'y' * rest}")) == MAX_HEAD_BYTES
    assert read_head(head("PUT /usage HTTP/1.1", *large, f"Y: {'y' * rest}")).length == 0
    found = fault(head("PUT /usage HTTP/1.1", *large, f"Y: {'y' * rest}y"))
    assert str(found) == "the head of the request is longer than 131,072 bytes"


def test_fields_may_hold_what_tokens_hold() -> None:
    """Tabs, blanks around a value, empty values and bytes beyond ASCII are fine."""
    sent = head("PUT /usage HTTP/1.1", "X:\ta \t b\t", "Y:", b"USER_TOKEN: \xe6\x97\xff", "Content-Length:  7\t")
    assert (read_head(sent).data, read_head(sent).length) == (sent, 7)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a",
        "a:80",
        "a:",
        "a.b-c_d.example:65535",
        "127.0.0.1:8080",
        "[::1]",
        "[2001:db8::7]:443",
        "xn--r8jz45g.example",
        "%41",
    ],
)
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    """Names, addresses and ports are hosts, and so is nothing."""
    assert is_host(host.encode())
    assert read_head(head("PUT /usage HTTP/1.1", host=f"Host: {host}")).length == 0


@pytest.mark.parametrize(
    "host",
    [
        *("a,b", "u@a", "a:99999999", "a:65536", "a:b", "a b", "a/b", "http://a", "::1", "[::1", "[::1]x", "[g::]", "[1::2::3]"),
        *("a?b", "a#b", "a\\b", "%4", "日本", "a:1:2", "[]", "a<b>"),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_host_that_is_none(host: str, version: str) -> None:
    """Any other Host is refused in every version."""
    assert not is_host(host.encode())
    assert "Host is not a name or an address" in str(fault(head(f"GET /health HTTP/{version}", host=f"Host: {host}")))


def test_a_host_is_required_once() -> None:
    """HTTP/1.1 requires one Host, HTTP/1.0 none, and two are refused in both."""
    assert "has no Host" in str(fault(head("GET /health HTTP/1.1", host=None)))
    assert read_head(head("GET /health HTTP/1.0", host=None)).length == 0
    for version in ("1.0", "1.1"):
        assert "more than one Host" in str(fault(head(f"GET /health HTTP/{version}", "hOST: x")))


# --- bodies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fields", "length"), [([], 0), (["Content-Length: 0"], 0), (["content-length: 0012"], 12)])
def test_a_length_is_read(fields: list[str], length: int) -> None:
    """The length of the body is what Content-Length says, and without one there is no body."""
    assert read_head(head("PUT /usage HTTP/1.1", *fields)).length == length


@pytest.mark.parametrize("coding", ["chunked", "CHUNKED", "\tchunked "])
@pytest.mark.parametrize("before", [[], ["X: y", "Accept: */*"]])
def test_chunks_have_no_length(coding: str, before: list[str]) -> None:
    """A body in chunks has no length, wherever the field stands."""
    assert read_head(head("PUT /usage HTTP/1.1", *before, f"Transfer-Encoding:{coding}", "Y: z")).length is None


@pytest.mark.parametrize(
    ("fields", "kind", "says"),
    [
        (["Transfer-Encoding: gzip, chunked"], NotImplementedHere, "belongs into Content-Encoding"),
        (["Transfer-Encoding: gzip", "Transfer-Encoding: chunked"], NotImplementedHere, "belongs into Content-Encoding"),
        (["Transfer-Encoding: identity, chunked"], NotImplementedHere, "belongs into Content-Encoding"),
        (["Transfer-Encoding: chunked, gzip"], MalformedRequest, "does not end in a single chunked"),
        (["Transfer-Encoding: chunked, chunked"], MalformedRequest, "does not end in a single chunked"),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], MalformedRequest, "does not end in a single chunked"),
        (["Transfer-Encoding: gzip"], MalformedRequest, "does not end in a single chunked"),
        (["Transfer-Encoding: identity"], MalformedRequest, "does not end in a single chunked"),
        (["Transfer-Encoding:"], MalformedRequest, "does not end in a single chunked"),
        (["Transfer-Encoding: chunked;q=1"], MalformedRequest, "does not end in a single chunked"),
        (["Transfer-Encoding: chunked", "Content-Length: 1"], MalformedRequest, "both Content-Length and Transfer-Encoding"),
        (["Content-Length: 1", "X: y", "transfer-ENCODING: chunked"], MalformedRequest, "both Content-Length and"),
        (["Content-Length: 1", "Content-Length: 1"], MalformedRequest, "more than one Content-Length"),
        (["Content-Length: 1, 1"], MalformedRequest, "not a number of bytes"),
        (["Content-Length: +1"], MalformedRequest, "not a number of bytes"),
        (["Content-Length: 1_0"], MalformedRequest, "not a number of bytes"),
        (["Content-Length:"], MalformedRequest, "not a number of bytes"),
        (["Content-Length: 1844674407370955161"], MalformedRequest, "not a number of bytes"),
    ],
)
def test_a_body_whose_end_is_not_sure(fields: list[str], kind: type[GatewayError], says: str) -> None:
    """Where two servers could see the end of a body at different places the request is refused."""
    found = fault(head("PUT /usage HTTP/1.1", *fields))
    assert type(found) is kind
    assert says in str(found)


def test_old_clients_know_no_chunks() -> None:
    """Transfer-Encoding is refused in HTTP/1.0, and taken in what is read as 1.1."""
    assert "not of HTTP/1.0" in str(fault(head("PUT /usage HTTP/1.0", "Transfer-Encoding: chunked")))
    assert read_head(head("PUT /usage HTTP/1.7", "Transfer-Encoding: chunked")).length is None


# --- parts -------------------------------------------------------------------------------------------------------


@given(st.data())
def test_the_beginning_of_a_fine_head_is_fine(data: st.DataObject) -> None:
    """However a fine head is cut, no part of it is refused."""
    whole = head("PUT /usage?a=b HTTP/1.1", "USER_TOKEN: alice", "X: y", "Content-Length: 3")
    begin = 0
    for cut in sorted(data.draw(st.sets(st.integers(1, len(whole) - 1)))):
        check_beginning(whole[:cut], begin)
        begin = cut


@pytest.mark.parametrize(
    "data",
    [
        b"\x16",
        b"\0",
        b"(",
        b"PUT /usage\n",
        b"PUT /usage\r\n",
        b"PUT /us\0",
        b"PUT /usage HTTP/2.0\r\n",
        b"GARBAGE\r\n",
        b"PUT /usage HTTP/1.1\n",
        b"PUT /usage HTTP/1.1\r\nX: a\n",
        b"PUT /usage HTTP/1.1\r\nX: a\rb",
        b"PUT /usage HTTP/1.1\r\nX\0",
        b"x" * (MAX_LINE_BYTES + 1),
        b"PUT /usage HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES,
        b"PUT /" + b"x" * 5000 + b"\n",
    ],
)
def test_a_beginning_is_refused_at_once(data: bytes) -> None:
    """What cannot become a request is refused as soon as that shows, byte by byte as well, and not at a timeout."""
    with pytest.raises(GatewayError):
        check_beginning(data, 0)
    with pytest.raises(GatewayError):
        _byte_by_byte(data)


def _byte_by_byte(data: bytes) -> None:
    for end in range(max(1, len(data) - 40), len(data) + 1):
        check_beginning(data[:end], end - 1)


def test_a_trailer_is_checked() -> None:
    """A trailer holds fields, within its bound, and none that decides where a body ends."""
    check_trailer(b"X-Sum: 1\r\nX-Other: 2\r\n\r\n", is_whole=True)
    check_trailer(b"X-Su", is_whole=False)
    for bad in (
        b"no colon\r\n\r\n",
        b"X: a\nb\r\n\r\n",
        b"X: 1\r\nContent-Length: 3\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n",
    ):
        with pytest.raises(MalformedRequest):
            check_trailer(bad, is_whole=True)
    with pytest.raises(MalformedRequest, match=re.escape("longer than 8,192 bytes")):
        check_trailer(b"X: " + b"x" * 8192, is_whole=False)


NEAR = st.lists(
    st.sampled_from(
        [
            b"PUT /usage HTTP/1.1",
            b"POST /usage HTTP/1.1",
            b"PUT /usage HTTP/1.2",
            b"Host: x",
            b"host: a,b",
            b"Host:y:80",
            b"Host: [::1]",
            b"USER_TOKEN: a",
            b"Content-Length: 1",
            b"Content-Length: 01",
            b"content-length:2",
            b"Content-Length: 1 ",
            b"Content-Length: +1",
            b"Transfer-Encoding: chunked",
            b"X: y",
            b"Y: \xff",
            b" Z: a",
            *(b"Authorization: Bearer a", b"Authorization: Bearer b", b"Expect: 100-continue", b"a b: c", b"X", b""),
        ]
    ),
    max_size=8,
).map(lambda lines: b"\r\n".join([b"PUT /usage HTTP/1.1", *lines, b"", b""]))


@given(NEAR)
def test_what_the_fast_lane_takes_is_fine(sent: bytes) -> None:
    """Every head that the fast lane reads is one that the check takes, with the same length."""
    plain = parse_head(sent, {"/usage": USAGE}, 1 << 20)
    if plain is not None:
        assert read_head(sent).length == plain.length


@given(NEAR, st.sampled_from([b"", b"abc", b"\r\n\r\n"]))
def test_what_is_plain_is_fine(sent: bytes, behind: bytes) -> None:
    """Every head that is known for plain is one that the check takes as it is, with the same length."""
    plain = plain_head(sent + behind)
    if plain is not None:
        end, length = plain
        assert sent.startswith((sent + behind)[:end])
        assert read_head(sent[:end]) == (sent[:end], length)


LENGTH = "Content-Length: 7"


@pytest.mark.parametrize(
    ("sent", "length"),
    [
        (head("PUT /usage HTTP/1.1", LENGTH), 7),
        (head("POST /usage HTTP/1.1", LENGTH, "USER_TOKEN: a", host="host:a.example:65535"), 7),
        (head("PUT /specimen?uri=a%20b HTTP/1.1", LENGTH, "A:", "Host: [::1]:80", "B: \xff", host=None), 7),
        (head("GET /health HTTP/1.1", "User-Agent: a (b; c)", "Accept: */*"), 0),
        (head("HEAD /ready HTTP/1.1", host="Host:"), 0),
    ],
)
def test_what_most_clients_send_is_plain(sent: bytes, length: int) -> None:
    """It is found with what stands behind it, and not before its empty line has come."""
    assert plain_head(sent + b"{}\r\n\r\n") == (len(sent), length)
    assert read_head(sent) == (sent, length)
    assert plain_head(sent[:-1]) is None


@pytest.mark.parametrize(
    "sent",
    [
        head("PUT /usage HTTP/1.1", LENGTH, LENGTH),
        head("PUT /usage HTTP/1.1", LENGTH, "Host: y"),
        head("PUT /usage HTTP/1.1", LENGTH, "Transfer-Encoding: chunked"),
        head("PUT /usage HTTP/1.1", "transfer-encoding: chunked"),
        head("PUT /usage HTTP/1.1", LENGTH, host=None),
        head("PUT /usage HTTP/1.1", LENGTH, host="Host: a,b"),
        head("PUT /usage HTTP/1.1", LENGTH, host="Host: a:65536"),
        head("PUT /usage HTTP/1.1", "Content-Length: 7, 7"),
        head("PUT /usage HTTP/1.1", "Content-Length: "),
        head("PUT /usage HTTP/1.1", LENGTH, "a b: c"),
        head("PUT /usage HTTP/1.1", LENGTH, " folded: c"),
        head("PUT /usage HTTP/1.1", LENGTH, "X: a\rb"),
        head("PUT /usage HTTP/1.1", LENGTH, "X: a\nContent-Length: 9"),
        head("PUT /usage HTTP/1.0", LENGTH),
        head("PUT /usage HTTP/1.2", LENGTH),
        head("PUT http://a/usage HTTP/1.1", LENGTH),
        head("BREW /usage HTTP/1.1", LENGTH),
        head("PUT /usage HTTP/1.1", LENGTH, *(f"X: {number}" for number in range(MAX_FIELDS))),
        head("PUT /usage HTTP/1.1", LENGTH, f"X: {'x' * MAX_FIELD_BYTES}"),
    ],
)
def test_what_is_not_surely_plain_is_left_to_the_check(sent: bytes) -> None:
    """Whether it is fine or not: one place says what is wrong."""
    assert plain_head(sent) is None
