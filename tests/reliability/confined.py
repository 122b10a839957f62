"""A gateway that runs inside something: on a small disk, in a namespace, under strace."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from testkit.deadlines import until
from testkit.gateway_process import Gateway, Settings


class Confined(Gateway):
    """A gateway that another command starts.

    Args:
        folder: see `Gateway`.
        settings: see `Gateway`; may name a `cache_dir` of its own.
        prefix: the command, to which the gateway's own is appended.
        environment: see `Gateway`.
        cache: where the spool is seen from outside, if that is not where the gateway sees it.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        prefix: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        cache: Path | None = None,
    ) -> None:
        super().__init__(folder, settings, environment)
        self.prefix = list(prefix)
        self.cache = cache or self.cache

    def _command(self, port: int) -> list[str]:
        return [*self.prefix, *super()._command(port)]

    @property
    def pid(self) -> int:
        """The process of the gateway itself, as it is seen from outside."""
        process = psutil.Process(self._running().pid)
        while children := process.children():
            process = children[0]
        return process.pid

    def signal(self, number: signal.Signals) -> None:
        """See `Gateway.signal`: what it runs in would keep the signal to itself."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """See `Gateway.kill`: what it runs in may be gone before it, and it holds its spool until it is gone itself."""
        inner: psutil.Process | None = None
        with suppress(psutil.NoSuchProcess):
            inner = psutil.Process(self.pid) if self.is_running else None
        super().kill()
        if inner is not None:
            until(lambda: _is_gone(inner), "the gateway to be gone")


def _is_gone(process: psutil.Process) -> bool:
    try:
        # Whoever has to take note of its end may never do so.
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
