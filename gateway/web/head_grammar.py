"""The narrow grammar of a request's head, after RFC 9112: what may be parsed at all, and how its body ends.

Everything here is a pure function of bytes. `web/framing.py` applies it to each head of a connection before a parser sees it,
and the fast lane, whose own grammar is narrower still, shares `is_host`. What is refused here is refused with a sentence,
and ends the connection: nothing behind it can be read with certainty.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple

from gateway.core.errors import GatewayError, MalformedRequest, NotImplementedHere, UnsupportedVersion

# A uri of 4,000 characters may take 36,000 bytes percent-encoded, a token of as many 16,000.
MAX_LINE_BYTES = 64 * 1024
MAX_FIELD_BYTES = 32 * 1024
MAX_FIELDS = 128
# Of the whole head, its empty line included: it is held in memory until it is complete.
MAX_HEAD_BYTES = 128 * 1024
MAX_TRAILER_BYTES = 8 * 1024

# Those of HTTP itself, with which a path may be asked; not those of WebDAV and others, and not CONNECT, which is for proxies.
METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"QUERY"})

TOKEN = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]++"
_IS_TOKEN = re.compile(TOKEN)
_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]++) HTTP/1\.([0-9])")
_LINE_BEGINNING = re.compile(rb"(?:" + TOKEN + rb"(?: [^\x00-\x1f\x7f]*)?\r?)?\Z")
_VERSION = re.compile(rb"HTTP/([0-9])\.[0-9]")
_TARGET = re.compile(rb"(?:/|\*\Z|[A-Za-z]++://([^/?#:][^/?#]*+))")
# Whatever can stand in no field: control characters, and an end of a line that is not CR LF.
_STRAY = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_FIELDS = re.compile(rb"(?:" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+")
_FRAMING = re.compile(rb"\n((?i:host|content-length|transfer-encoding)):[\t ]*+([^\r]*)\r")
_LENGTH = re.compile(rb"[0-9]{1,18}")
# A host as the scheme `http` has it: a comma, which the grammar of RFC 3986 allows, is a sign of two hosts.
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*+)(?::([0-9]{0,5}))?")
_MAX_PORT = 65535
# The beginning of a request line is looked at whole up to so many bytes: what is no request is answered at its first byte.
_LOOK_BYTES = 1024
_TLS_HELLO = b"\x16\x03"

# The head of most requests: of the fields that decide on the body one Host and at most one Content-Length, and few others.
_OTHERS = rb"(?:(?!(?i:host|content-length|transfer-encoding):)" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n){0,40}+"
_PLAIN_HOST = rb"(?i:host):[\t ]*+([\x21-\x7e]*+)\r\n"
_PLAIN_LENGTH = rb"(?i:content-length):[\t ]*+([0-9]{1,18})\r\n"
_PLAIN = re.compile(
    rb"(?:PUT|POST|GET|HEAD) /[\x21-\x7e]*+ HTTP/1\.1\r\n"
    + _OTHERS
    + rb"(?:"
    + (_PLAIN_HOST + _OTHERS + rb"(?:" + _PLAIN_LENGTH + _OTHERS + rb")?+")
    + rb"|"
    + (_PLAIN_LENGTH + _OTHERS + _PLAIN_HOST + _OTHERS)
    + rb")\r\n"
)
_PLAIN_BYTES = 4096


class Head(NamedTuple):
    """A head that may be parsed.

    Attributes:
        data: as sent, except that a later version 1.x stands as 1.1, which is what it means to a server of 1.1.
        length: bytes of the body; None where it comes in chunks.
    """

    data: bytes
    length: int | None


def plain_head(data: bytes) -> tuple[int, int] | None:
    """Where the head ends that the data begins with, and the length of its body; None if it is not as most are.

    `read_head` takes all that is given here, and costs several times as much.
    """
    found = _PLAIN.match(data)
    if found is None or found.end() > _PLAIN_BYTES:
        return None
    host, length, length_before, host_behind = found.groups()
    return (found.end(), int(length or length_before or 0)) if is_host(host or host_behind or b"") else None


def read_head(head: bytes) -> Head:
    """Read a whole head, its empty line included; raise a GatewayError that says why it must not be parsed."""
    end = head.index(b"\r\n")
    minor = _check_line(head[:end])
    if len(head) > MAX_HEAD_BYTES:
        raise _head_too_long()
    # With the CR LF before the first field, by which `_FRAMING` finds the begin of each.
    block = head[end:-2]
    _check_fields(block)
    length = _length_of(block, minor)
    return Head(head if minor < 2 else head[: end - 1] + b"1" + head[end:], length)


def check_beginning(data: bytes, begin: int) -> None:
    """Raise what is wrong with the part of a head that has come.

    Args:
        data: the head from its first byte, which is not complete.
        begin: how much of it was checked already.
    """
    end = data.find(b"\r\n")
    if end < 0:
        is_fine = _LINE_BEGINNING.match(data) if begin < _LOOK_BYTES else not _STRAY.search(data, begin - 1)
        if len(data) > MAX_LINE_BYTES or not is_fine:
            _check_line(data.partition(b"\n")[0])
            raise _stray()
        return
    if begin < end + 2:
        _check_line(data[:end])
        begin = end + 1
    if _STRAY.search(data, begin - 1):
        raise _stray()
    if len(data) > MAX_HEAD_BYTES:
        raise _head_too_long()


def check_trailer(data: bytes, *, is_whole: bool) -> None:
    """Raise what is wrong with the fields behind a body in chunks; a whole trailer ends in its empty line."""
    if len(data) > MAX_TRAILER_BYTES:
        raise MalformedRequest(f"the trailer behind the last chunk is longer than {MAX_TRAILER_BYTES:,} bytes")
    if _STRAY.search(data):
        raise _stray()
    if is_whole:
        block = b"\r\n" + data[:-2]
        _check_fields(block)
        if found := _FRAMING.search(block):
            raise MalformedRequest(f"{_title(found[1])} must not stand in the trailer behind the last chunk")


# The names by which clients know this gateway are few.
@lru_cache(maxsize=256)
def is_host(value: bytes) -> bool:
    """Whether a text is `host` or `host:port`, as the field Host has it; it may be empty."""
    found = _HOST.fullmatch(value)
    if found is None or (found[2] and int(found[2]) > _MAX_PORT):
        return False
    if found[1] is None:
        return True
    try:
        ipaddress.IPv6Address(found[1].decode("ascii"))
    except ValueError:
        return False
    return True


# --- the request line --------------------------------------------------------------------------------------------


def _check_line(line: bytes) -> int:
    """Give the minor version of a request line in HTTP/1; raise what is wrong with any other."""
    if len(line) > MAX_LINE_BYTES:
        raise MalformedRequest(f"the request line is longer than {MAX_LINE_BYTES:,} bytes")
    found = _LINE.fullmatch(line)
    if found is None:
        raise _line_fault(line)
    if found[1] not in METHODS:
        name = found[1][:40].decode("ascii")
        raise NotImplementedHere(f"the method {name} is not implemented here; reports and files are sent with PUT or POST")
    target = _TARGET.match(found[2])
    if target is None or not (target[1] is None or is_host(target[1])):
        raise MalformedRequest("the request's target is neither a path, such as /usage, nor an absolute http:// address")
    return int(found[3])


def _line_fault(line: bytes) -> GatewayError:
    """What is wrong with a line that is not a method, a target and a version 1.x."""
    if line.startswith(_TLS_HELLO):
        return MalformedRequest("this is TLS, and plain HTTP is spoken here: use http://, or set listen.tls_certificate")
    method, *rest = line.split(b" ")
    if _STRAY.search(line) or not _IS_TOKEN.fullmatch(method):
        return MalformedRequest("the request does not begin with a line such as PUT /usage HTTP/1.1")
    version = _VERSION.fullmatch(rest[-1]) if rest else None
    if len(rest) < 2:
        what = "target" if version or not rest else "version"
        return MalformedRequest(f"the request line has no {what}; it has to be a line such as PUT /usage HTTP/1.1")
    if version is not None and version[1] != b"1":
        return UnsupportedVersion(f"{rest[-1].decode('ascii')} is not spoken here; use HTTP/1.1")
    if not line.isascii():
        return MalformedRequest("the request's target has bytes that are not ASCII; percent-encode them, such as %E6%97%A5")
    if version is None:
        return MalformedRequest("the request line does not end in a version of HTTP; it has to be HTTP/1.1")
    return MalformedRequest("the request's target has a blank in it; percent-encode it as %20")


# --- fields ------------------------------------------------------------------------------------------------------


def _head_too_long() -> MalformedRequest:
    return MalformedRequest(f"the head of the request is longer than {MAX_HEAD_BYTES:,} bytes")


def _check_fields(block: bytes) -> None:
    """Raise what is wrong with fields, each of which ends in CR LF; one CR LF stands before the first."""
    if block.count(b"\r\n") - 1 > MAX_FIELDS:
        raise MalformedRequest(f"the request has more than {MAX_FIELDS} header fields")
    if len(block) > MAX_FIELD_BYTES and max(map(len, block.split(b"\r\n"))) > MAX_FIELD_BYTES:
        raise MalformedRequest(f"a header field is longer than {MAX_FIELD_BYTES:,} bytes")
    if _FIELDS.fullmatch(block, 2):
        return
    if _STRAY.search(block):
        raise _stray()
    for number, line in enumerate(block[2:].split(b"\r\n"), start=1):
        if not _FIELDS.fullmatch(line + b"\r\n"):
            raise MalformedRequest(f"header field {number} {_field_fault(line)}; it has to be a line such as Host: example.com")


def _field_fault(line: bytes) -> str:
    if line.startswith((b" ", b"\t")):
        return "begins with a blank: fields are not folded over two lines"
    name, colon, _ = line.partition(b":")
    if not colon:
        return "has no colon"
    return "has a blank before its colon" if name.endswith((b" ", b"\t")) else "has no name that a field can have"


def _stray() -> MalformedRequest:
    return MalformedRequest("the head has a control character in it, or a line that does not end in CR LF")


def _length_of(block: bytes, minor: int) -> int | None:
    """The length of the body; None for chunks. Raise what is wrong with the fields that decide on it, or with Host."""
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in _FRAMING.findall(block):
        # Their lengths differ, which is all that differs between them here.
        size = len(name)
        (hosts if size == 4 else lengths if size == 14 else codings).append(value.rstrip())
    _check_host(hosts, minor)
    if codings:
        if lengths:
            raise MalformedRequest("the request has both Content-Length and Transfer-Encoding; send one of them")
        _check_codings(codings, minor)
        return None
    if not lengths:
        return 0
    if len(lengths) > 1:
        raise MalformedRequest("the request has more than one Content-Length; send one")
    if not _LENGTH.fullmatch(lengths[0]):
        raise MalformedRequest("Content-Length is not a number of bytes in digits")
    return int(lengths[0])


def _check_host(hosts: list[bytes], minor: int) -> None:
    if len(hosts) > 1:
        raise MalformedRequest("the request has more than one Host; send one")
    if not hosts:
        if minor:
            raise MalformedRequest("the request has no Host; HTTP/1.1 requires it, such as Host: example.com")
    elif not is_host(hosts[0]):
        raise MalformedRequest("Host is not a name or an address, with or without a port, such as example.com:8080")


def _check_codings(fields: list[bytes], minor: int) -> None:
    """Only `chunked` is taken, after RFC 9112, 6.1 and 6.3: without it as the last coding nobody can say where the body ends."""
    if not minor:
        raise MalformedRequest("Transfer-Encoding is not of HTTP/1.0; use HTTP/1.1, or send Content-Length")
    codings = [coding.strip(b" \t").lower() for coding in b",".join(fields).split(b",")]
    if codings == [b"chunked"]:
        return
    advice = "only chunked is taken there, once; what the body is packed with belongs into Content-Encoding"
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
        raise MalformedRequest(f"Transfer-Encoding does not end in a single chunked: {advice}")
    raise NotImplementedHere(f"Transfer-Encoding names another coding than chunked: {advice}")


def _title(name: bytes) -> str:
    return name.decode("ascii").title()
