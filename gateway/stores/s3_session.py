"""What the client library does by itself, held back: redirects.

aiohttp would follow one without the signature, which its new address has to refuse: the operator would be sent to look for
a missing permission. botocore signs again where S3's answer names another region, and that stays; where none is named it asks
for the bucket with a HEAD that may be redirected as well, and again, without end. Any other redirect is an error that names its
address.
"""

from __future__ import annotations

from typing import Any

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession


class SessionWithoutRedirects(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
    """aiobotocore's session, but for redirects."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        return _WithoutRedirects(await super()._get_session(proxy_url))


class _WithoutRedirects:
    """A client session of aiohttp's, of which aiobotocore calls `request` alone."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def request(self, method: str, **arguments: Any) -> Any:
        return self._session.request(method, **{**arguments, "allow_redirects": False})


class _Answered:
    """As much of an HTTP response as botocore reads where a handler answers instead of a server."""

    status_code = 200


def no_region(**_: Any) -> tuple[_Answered, dict[str, Any]]:
    """The answer to the HEAD by which botocore would look for a bucket's region, without a request: none is known."""
    return _Answered(), {"ResponseMetadata": {"HTTPHeaders": {}}}
