"""One worker process as the process that has started it sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.service.sockets import listen_again
from gateway.service.workers import protocol
from gateway.service.workers.protocol import Setup

COMMAND = "worker"
CUT_PATIENCE_S = 30.0


class WorkerProcess:
    """One worker: a place that one process after the other takes.

    Args:
        column: of the counters, this worker's.
        sockets: that only this worker accepts from.
        shared: that every worker accepts from.
    """

    def __init__(self, column: int, sockets: list[socket.socket], shared: list[socket.socket]) -> None:
        self.column = column
        self.sockets = sockets
        self.shared = shared
        self._addresses = [(each.family, each.getsockname()) for each in sockets]
        self.is_ready = asyncio.Event()
        self.has_stopped = asyncio.Event()
        self.pid = 0
        self._process: Process | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._cuts: list[tuple[str, asyncio.Future[None]]] = []

    async def start(self, setup: Setup, lock: int, taken: set[int]) -> None:
        """Start a process, and send it its setup; OSError if it cannot be made, or has a pid that is `taken`."""
        first = protocol.encoded(setup)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                descriptors = (theirs.fileno(), lock, setup.counters, *setup.sockets)
                process = await asyncio.create_subprocess_exec(
                    *_command(), str(theirs.fileno()), stdin=DEVNULL, pass_fds=descriptors, env=_environment()
                )
            if process.pid in taken:
                # Names with this pid are still to be put in order, and must not be taken for those of a living process.
                process.kill()
                raise OSError(f"it got the pid {process.pid} of one that is not recovered yet")
            self.is_ready.clear()
            self.has_stopped.clear()
            self._reader, self._writer = await protocol.open_channel(ours)
        except BaseException:
            # A process that was made goes when it finds that the channel has ended.
            ours.close()
            raise
        self._writer.write(first)
        # Only now is there one that messages can be sent to.
        self._process, self.pid = process, process.pid

    async def ended(self) -> int:
        """Wait until the process is gone, and return its exit code."""
        assert self._process is not None  # nobody waits for what was not started
        code = await self._process.wait()
        self._writer.close()
        for _, cut in self._cuts:
            if not cut.done():
                cut.set_result(None)
        self._cuts.clear()
        self.has_stopped.set()
        return code

    async def ends_within(self, seconds: float) -> None:
        """Wait until the process is gone, for so long at the most."""
        assert self._process is not None  # as above
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()

    def kill(self) -> None:
        """End the process, if there is one."""
        if self._process is not None and self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    def close_sockets(self) -> None:
        """Listen no more at its own sockets here; the process, if there is one, has descriptors of its own.

        Where there is none the kernel must not give it connections that nobody accepts; from the shared ones others accept.
        """
        for each in self.sockets:
            each.close()
        self.sockets = []

    def open_sockets(self) -> None:
        """Listen again, if the sockets were closed; OSError if that cannot be."""
        self.sockets = self.sockets or listen_again(self._addresses)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the process accepts from; nothing once the gateway stops."""
        return tuple(each.fileno() for each in (*self.sockets, *self.shared) if each.fileno() >= 0)

    def send(self, message: protocol.ToWorker) -> None:
        """Send the process a message, if there is one."""
        # Its end of the channel may be gone some time before the process is.
        if self.is_running and not self._writer.is_closing():
            protocol.send(self._writer, message)

    def messages(self) -> AsyncIterator[protocol.FromWorker]:
        """What the process sends, until it is gone."""
        return protocol.from_worker(self._reader)

    async def cut(self, stream: str) -> None:
        """Have the process cut its segment; returns when that is done, or the process is gone, or takes too long for it."""
        if not self.is_running:
            return
        cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cuts.append((stream, cut))
        self.send(protocol.Cut(stream))
        await asyncio.wait([cut], timeout=CUT_PATIENCE_S)

    def was_cut(self, stream: str) -> None:
        """The process has cut; it answers in the order in which it was asked."""
        for at, (name, cut) in enumerate(self._cuts):
            if name == stream:
                del self._cuts[at]
                if not cut.done():
                    cut.set_result(None)
                return


def program() -> tuple[int, ...]:
    """Which file this program is: a worker of another version would not understand this process."""
    found = os.stat(sys.executable)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _command() -> list[str]:
    """How this program is started as a worker."""
    if getattr(sys, "frozen", False):
        return [sys.executable, COMMAND]
    return [sys.executable, "-P", "-m", "gateway", COMMAND]


def _environment() -> dict[str, str]:
    """The environment of a worker, which has to find this very package, whatever lies in the working directory."""
    if getattr(sys, "frozen", False):
        return dict(os.environ)
    paths = [str(Path(__file__).resolve().parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
