"""TLS handshakes that fail, which nothing else in the gateway ever sees: they are reported, without flooding the log."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

from gateway.telemetry.log import Log
from gateway.telemetry.repeated_failure import Repeated

# After so long without a failure a handshake that succeeds is the end of them.
QUIET_S = 60.0
_PLAIN_HTTP = "HTTP_REQUEST"


class Handshakes:
    """Reports what came of the handshakes of one listener.

    Args:
        log: gets the failures.
        clock: monotonic, in seconds.
    """

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._faults = Repeated(log, "TLS handshake failed", "TLS handshakes recovered", level="info", clock=clock)
        self._clock = clock
        self._failed_s: float | None = None

    def watch(self, context: ssl.SSLContext) -> None:
        """Have every handshake of this context reported here."""
        report = self

        class Watched(ssl.SSLObject):
            def do_handshake(self) -> None:
                try:
                    super().do_handshake()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except ssl.SSLError as error:
                    report.failed(error)
                    raise
                report.succeeded()

        context.sslobject_class = Watched

    def failed(self, error: ssl.SSLError) -> None:
        """A handshake has failed, which ends its connection."""
        self._failed_s = self._clock()
        reason = "plain HTTP came in where HTTPS is spoken; use https://" if error.reason == _PLAIN_HTTP else str(error)
        self._faults.failed(kind=(error.reason or "unknown").lower(), reason=reason)

    def succeeded(self) -> None:
        """A connection has become one in TLS."""
        if self._failed_s is not None and self._clock() - self._failed_s >= QUIET_S:
            self._failed_s = None
            self._faults.ended()
