"""A log whose lines a test reads."""

from __future__ import annotations

import datetime as dt
import os
import select
import threading

from gateway.telemetry.log import Log

NOON = dt.datetime(2026, 11, 21, 12, 0, 0, 125_000, tzinfo=dt.UTC).timestamp()
WAIT_S = 60.0


class Pipe:
    """A log that writes into a pipe that is read at the end, or earlier by `lines`."""

    def __init__(
        self, level: str = "info", form: str = "text", max_buffered_bytes: int = 8 << 20, *, is_shared: bool = False
    ) -> None:
        self.reader, self.writer = os.pipe()
        made = Log(level, form, self.writer, max_buffered_bytes=max_buffered_bytes, is_shared=is_shared, clock=lambda: NOON)
        self.log = made.start()

    def lines(self, count: int) -> list[bytes]:
        """Wait for so many lines."""
        got = b""
        while got.count(b"\n") < count:
            assert select.select([self.reader], [], [], WAIT_S)[0], f"only {got!r} came"
            got += os.read(self.reader, 1 << 16)
        return got.splitlines()

    def end(self) -> list[bytes]:
        """Close the log and read all of it."""
        got: list[bytes] = []

        def read() -> None:
            while data := os.read(self.reader, 1 << 16):
                got.append(data)

        thread = threading.Thread(target=read)
        thread.start()
        assert self.log.close(WAIT_S)
        os.close(self.writer)
        thread.join(WAIT_S)
        os.close(self.reader)
        text = b"".join(got)
        assert not text or text.endswith(b"\n")
        return text.splitlines()

    def access(self, number: int = 0, status: int = 204) -> None:
        """Log a request with this number of bytes."""
        self.log.access("/usage", status, [(("PUT", "/usage", "machine-1", "192.0.2.7"), 0.00125, number, "a" * 32)])
