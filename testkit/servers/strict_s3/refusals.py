"""What the strict stand-in answers a request with that S3 documents as refused.

The codes and statuses are those of "Error responses" in the Amazon S3 API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape


class Refusal(Exception):
    """A request is refused.

    Attributes:
        status: of the answer.
        code: S3's name of the error.
        details: further elements of the error's XML, such as `Region`.
        headers: of the answer.
    """

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, **details: object
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details
        self.headers = dict(headers or {})

    def xml(self, request_id: str) -> str:
        """The body of the answer."""
        elements = {"Code": self.code, "Message": str(self), **self.details, "RequestId": request_id, "HostId": "strict"}
        inner = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in elements.items())
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'
