"""What a bad network, or a bad day of the store, does with an exchange: a fault is a coroutine that is given one.

The Host header stays what the client sent, since the signature covers it and the store knows itself by no name.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from reliability.proxy.exchange import END, Exchange, Request

_DATE = "%Y%m%dT%H%M%SZ"

Fault = Callable[[Exchange], Awaitable[None]]


async def passed(exchange: Exchange) -> None:
    """Nothing goes wrong."""
    await exchange.answer(await exchange.forward())


def answered(status: int, code: str, *, done: bool = False, early: bool = False) -> Fault:
    """An error of S3: in place of the request or, if `done`, of its answer; `early` before the body is taken, as S3 does."""

    async def fault(exchange: Exchange) -> None:
        if done:
            await exchange.forward()
        elif not early:
            await exchange.body()
        await exchange.answer(_error(status, code, has_body=exchange.request.operation != "HeadObject"))

    return fault


def broken(*, done: bool = False) -> Fault:
    """The connection is reset, before the store sees the request or, if `done`, in place of the answer."""

    async def fault(exchange: Exchange) -> None:
        await (exchange.forward() if done else exchange.body())
        exchange.reset()

    return fault


def stalled(*, done: bool = False) -> Fault:
    """No answer comes, whether or not the store has seen the request."""

    async def fault(exchange: Exchange) -> None:
        await (exchange.forward() if done else exchange.body())
        await exchange.wait_until_gone()

    return fault


async def silent(exchange: Exchange) -> None:
    """Nothing is said, not even that the body may be sent, as by a store that hangs."""
    await exchange.wait_until_gone()


async def deaf(exchange: Exchange) -> None:
    """The store begins to take the body, and then takes no more."""
    await exchange.take_some()


async def spilled(exchange: Exchange) -> None:
    """The connections break in the middle of the body."""
    await exchange.spill()


async def torn(exchange: Exchange) -> None:
    """The store does it, and the connection breaks in the middle of the head of its answer."""
    answer = await exchange.forward()
    await exchange.answer(answer[: len(answer.partition(END)[0]) // 2])
    # Half of a head tells nothing.
    exchange.record.told = 0
    exchange.reset()


def late(tell: Fault, *, conflicts: int = 0, after: bool = False) -> Fault:
    """The client is told of a failure, and the store does it all the same, when the next request for that key has begun.

    Args:
        tell: how the client learns of the failure.
        conflicts: so many requests for the key are answered with 409 before, as S3 does while the first one still runs.
        after: do it when that next request has been answered.
    """

    async def fault(exchange: Exchange) -> None:
        await exchange.body()
        exchange.proxy.hold(exchange, conflicts=conflicts, after=after)
        await tell(exchange)

    return fault


def unconditional(*, lost: bool = False) -> Fault:
    """The store does not know `If-None-Match` and replaces what it has; its answer may be lost besides."""

    async def fault(exchange: Exchange) -> None:
        head = re.sub(rb"(?i)\r\nif-none-match:[^\r]*", b"", exchange.request.head)
        answer = await exchange.forward(resigned(head, exchange.proxy.secret_key))
        if lost:
            exchange.reset()
        else:
            await exchange.answer(answer)

    return fault


def skewed(by: timedelta) -> Fault:
    """The clock of the client is wrong by so much; the store itself says what it thinks of that."""

    async def fault(exchange: Exchange) -> None:
        then = datetime.strptime(exchange.request.headers["x-amz-date"], _DATE) + by  # noqa: DTZ007 (both ends are UTC)
        head = re.sub(rb"(?i)(\r\nx-amz-date: *)[^\r]*", rb"\g<1>" + then.strftime(_DATE).encode(), exchange.request.head)
        await exchange.answer(await exchange.forward(resigned(head, exchange.proxy.secret_key)))

    return fault


async def forgotten(exchange: Exchange) -> None:
    """The store gives no metadata back."""
    await exchange.answer(re.sub(rb"(?i)\r\nx-amz-meta-[^\r]*", b"", await exchange.forward()))


def pretended(*fields: str) -> Fault:
    """Something before the store says 200 with these fields, and the store never sees the request."""
    page = b"<html><body>We are back soon.</body></html>"

    async def fault(exchange: Exchange) -> None:
        await exchange.body()
        has_body = exchange.request.operation != "HeadObject"
        head = "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: text/html", *fields, f"Content-Length: {len(page)}"])
        await exchange.answer(head.encode() + END + page * has_body)

    return fault


def at_random(source: random.Random, chance: float, choice: Callable[[Request], Sequence[Fault]]) -> Fault:
    """One of the faults that the request may meet, with this probability."""

    async def fault(exchange: Exchange) -> None:
        unlucky = source.random() < chance
        await (source.choice(choice(exchange.request)) if unlucky else passed)(exchange)

    return fault


def _error(status: int, code: str, *, has_body: bool) -> bytes:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>on purpose</Message></Error>'
    # S3 ends the connection of a request that it has not read.
    head = f"HTTP/1.1 {status} on purpose\r\nContent-Type: application/xml\r\nContent-Length: {len(body) * has_body}"
    return head.encode() + END + body.encode() * has_body


def resigned(head: bytes, secret_key: str) -> bytes:
    """The head with a signature that fits what it says now; signed are the headers that were, where they are still there."""
    request = Request.parse(head)
    scope, signed = re.findall(r"(?:Credential=[^/]+/|SignedHeaders=)([^,]+)", request.headers["authorization"])
    names = [name for name in signed.split(";") if name in request.headers]
    date = request.headers["x-amz-date"]
    new_scope = "/".join([date[:8], *scope.split("/")[1:]])
    method, target = head.decode("latin-1").split(" ", 2)[:2]
    path, _, query = target.partition("?")
    parameters = sorted(item if "=" in item else f"{item}=" for item in query.split("&") if item)
    headers = [f"{name}:{request.headers[name]}" for name in names]
    canonical = [method, path, "&".join(parameters), *headers, "", ";".join(names), request.headers["x-amz-content-sha256"]]
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    key = f"AWS4{secret_key}".encode()
    for part in new_scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, f"AWS4-HMAC-SHA256\n{date}\n{new_scope}\n{digest}".encode(), "sha256").hex()
    head = head.replace(scope.encode(), new_scope.encode()).replace(signed.encode(), ";".join(names).encode())
    return re.sub(rb"Signature=[0-9a-f]+", b"Signature=" + signature.encode(), head)
