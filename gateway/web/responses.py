"""Which error is which answer."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from gateway.core.errors import (
    BadRequest,
    BodyTimeout,
    ClientGone,
    ExpectationFailed,
    GatewayError,
    MalformedRequest,
    NotImplementedHere,
    Overloaded,
    SpoolBroken,
    SpoolFull,
    Stopping,
    TooLarge,
    Unauthorized,
    UnsupportedEncoding,
    UnsupportedVersion,
)
from gateway.core.text import readable
from gateway.intake.decoding import ACCEPT_ENCODING

STATUSES: tuple[tuple[type[GatewayError], int, str], ...] = (
    (Unauthorized, 401, "unauthorized"),
    (MalformedRequest, 400, "malformed_request"),
    (BadRequest, 400, "bad_request"),
    (BodyTimeout, 408, "body_timeout"),
    (TooLarge, 413, "too_large"),
    (UnsupportedEncoding, 415, "unsupported_encoding"),
    (ExpectationFailed, 417, "expectation_failed"),
    (NotImplementedHere, 501, "not_implemented"),
    (UnsupportedVersion, 505, "unsupported_version"),
    (Overloaded, 503, "overloaded"),
    (Stopping, 503, "stopping"),
    (SpoolBroken, 503, "spool_broken"),
    (SpoolFull, 507, "spool_full"),
    (ClientGone, 400, "client_gone"),
)
RETRY_AFTER_S = 5
# After these the rest of the body may still be on its way, or the client is to go elsewhere.
CLOSING_STATUSES = frozenset({408, 413, 503, 507})


def json_response(status: int, body: dict[str, Any]) -> web.Response:
    """An answer in JSON."""
    return web.Response(status=status, body=orjson.dumps(body) + b"\n", content_type="application/json")


class ErrorResponse(web.Response):
    """`{"error": {"code", "message"}}`, with the fields that its status wants."""

    def __init__(self, status: int, code: str, message: str) -> None:
        message = readable(message)
        # For the log: what is wrong here, too, and not what is wrong with a request, which may show what that holds.
        self.fault = {"code": code, "reason": message} if status >= 500 else {"code": code}
        body = orjson.dumps({"error": {"code": code, "message": message}}) + b"\n"
        super().__init__(status=status, body=body, content_type="application/json")
        if status == 503:
            self.headers["Retry-After"] = str(RETRY_AFTER_S)
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"


def response_for(error: GatewayError) -> ErrorResponse:
    """The answer that the table has for an error."""
    for kind, status, code in STATUSES:
        if isinstance(error, kind):
            response = ErrorResponse(status, code, str(error))
            if status == 415:
                response.headers["Accept-Encoding"] = ACCEPT_ENCODING
            return response
    raise error
