"""What the HTTP client does by itself, held back or bounded: redirects, second attempts, the wait for `100 Continue`.

*Redirects.* aiohttp would follow one without the signature, which its new address has to refuse: the operator would be sent
to look for a missing permission. botocore signs again where S3's answer names another region, and that stays; where none is
named it asks for the bucket with a HEAD that may be redirected as well, and again, without end. Any other redirect is an error
that names its address.

*Second attempts.* aiohttp sends a request again, once, where a connection that was used before breaks; the first one may have
been obeyed. Every attempt is the delivery's, which logs and counts it.

*100 Continue.* A client need not wait for it for ever (RFC 9110, 10.1.1), and proxies lose it: after a second the body is sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession

CONTINUE_S = 1.0


class OurSession(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """aiobotocore's session, which makes sessions of aiohttp's; see above."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)
        session._retry_connection = False  # noqa: SLF001 (there is no other way to say it)
        session._request_class = _Request  # noqa: SLF001 (aiobotocore makes the session)
        return _Bounded(session)


class _Bounded:
    """A client session of aiohttp's, of which aiobotocore calls `request` alone."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def request(self, method: str, **arguments: Any) -> Any:
        if method == "PUT":
            # The sender of a body bounds the wait for its response, too: see `aws/stall.py`.
            connect_s = self._session.timeout.sock_connect
            arguments["timeout"] = aiohttp.ClientTimeout(sock_connect=connect_s, sock_read=None)
        return self._session.request(method, **{**arguments, "allow_redirects": False})


class _Request(aiohttp.ClientRequest):
    """A request that sends its body after a second, where nobody has asked for it."""

    async def write_bytes(self, *arguments: Any, **keywords: Any) -> None:
        timer = None
        if self._continue is not None:
            timer = self.loop.call_later(CONTINUE_S, _go_on, self._continue)
        try:
            await super().write_bytes(*arguments, **keywords)
        finally:
            if timer is not None:
                timer.cancel()


def _go_on(awaited: asyncio.Future[bool]) -> None:
    if not awaited.done():
        awaited.set_result(False)


class _Answered:
    """As much of an HTTP response as botocore reads where a handler answers instead of a server."""

    status_code = 200


def no_region(**_: Any) -> tuple[_Answered, dict[str, Any]]:
    """The answer to the HEAD by which botocore would look for a bucket's region, without a request: none is known."""
    return _Answered(), {"ResponseMetadata": {"HTTPHeaders": {}}}
