"""Whether the disk keeps the files that bodies are written to, and a trial write for as long as it does not."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Executor

from gateway.core import disk
from gateway.core.errors import GatewayError, refusal
from gateway.core.streams import Stream
from gateway.spool.spool import Spool
from gateway.telemetry.background import watched
from gateway.telemetry.log import Log
from gateway.telemetry.repeated_failure import Repeated

TRIAL_PAUSE_S = 1.0
# So much is written: enough that a file system has to find room for it.
TRIAL_BYTES = 4096


class WriteFault:
    """The last failure to write such a file, until a write succeeds again: one of a body, or one that is made to try.

    For the event loop's thread.

    Args:
        spool: whose disk it is.
        executor: the threads that write.
        log: where it is reported.
        pause_s: between two trials.
    """

    def __init__(self, spool: Spool, executor: Executor, log: Log, pause_s: float = TRIAL_PAUSE_S) -> None:
        self._spool = spool
        self._log = log
        self._executor = executor
        self._pause_s = pause_s
        self._current: GatewayError | None = None
        self._stream = ""
        self._trying: asyncio.Task[None] | None = None
        self._failures = Repeated(log, "spool failed", "spool recovered", level="error")

    def current(self) -> GatewayError | None:
        """What keeps such files out at the moment, None if nothing does."""
        return self._current

    def failed(self, stream: Stream, error: GatewayError) -> None:
        """The file of a body could not be written."""
        self._stream = stream.name
        self._note(error)
        if self._trying is None:
            self._trying = watched(self._try_again(), self._log, "trial writes")

    def succeeded(self) -> None:
        """The file of a body was written."""
        if self._current is not None:
            self._current = None
            self._failures.ended(stream=self._stream)

    async def close(self) -> None:
        """Try no more."""
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.wait([self._trying])

    def _note(self, error: GatewayError) -> None:
        self._current = error
        self._failures.failed(stream=self._stream, reason=str(error.__cause__ or error))

    async def _try_again(self) -> None:
        while self._current is not None:
            await asyncio.sleep(self._pause_s)
            try:
                await asyncio.get_running_loop().run_in_executor(self._executor, self._try_to_write)
            except OSError as cause:
                error = refusal(cause)
                error.__cause__ = cause
                self._note(error)
            else:
                self.succeeded()
        self._trying = None

    def _try_to_write(self) -> None:
        path = self._spool.new_tmp()
        try:
            disk.write_file(path, bytes(TRIAL_BYTES))
        finally:
            with contextlib.suppress(OSError):
                # What cannot be removed is erased at the next start.
                disk.remove(path)
