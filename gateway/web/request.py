"""What the head of a request says."""

from __future__ import annotations

import itertools
import os
import re
from urllib.parse import unquote_to_bytes

from aiohttp import HttpVersion11, web
from multidict import MultiMapping

from gateway.core.errors import BadRequest, ExpectationFailed

# A process's random part and a number: asking the kernel for randomness each time costs 7% of a small request.
_PROCESS_ID = os.urandom(7).hex()
_NUMBERS = itertools.count(1)
CONTINUE = "100-continue"
_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def target_of(request: web.BaseRequest) -> str:
    """The path and query as sent, also where a client sends the whole address as clients of proxies do; else empty."""
    target = request.raw_path
    if target.startswith("/"):
        return target
    _, slashes, rest = target.partition("://")
    _, slash, path = rest.partition("/")
    return slash + path if slashes else ""


def uri_of(query: str, *, is_required: bool = True) -> str:
    """The parameter `uri` of a query string, decoded as a form is; where it is missing or empty: BadRequest, or nothing.

    Bytes of it that are not UTF-8 are surrogate escapes.
    """
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name == "uri" and value:
            raw = unquote_to_bytes(value.replace("+", " ").encode("utf-8", "surrogateescape"))
            return raw.decode("utf-8", "surrogateescape")
    if not is_required:
        return ""
    raise BadRequest("the query parameter uri is missing or empty; say what the file is: ?uri=https%3A%2F%2F...")


def request_id_of(given: str | None) -> str:
    """The client's request id if it is a sane one, else a new one of 24 hexadecimal digits."""
    if given is not None and _SANE.fullmatch(given):
        return given
    return f"{_PROCESS_ID}{next(_NUMBERS):010x}"


def expects_continue(headers: MultiMapping[str]) -> bool:
    """Whether a client waits to be asked for the body; ExpectationFailed for any expectation but that."""
    expected = {each.strip().lower() for each in ",".join(headers.getall("Expect", ())).split(",")} - {""}
    if expected - {CONTINUE}:
        raise ExpectationFailed(f"the only expectation that is met here is {CONTINUE}; leave out any other from Expect")
    return bool(expected)


def invite_body(request: web.BaseRequest) -> None:
    """Have a client that asked first, now that it was let in, send the body; one of HTTP/1.0 knows no such answer."""
    if request.transport is not None and request.version >= HttpVersion11:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
