"""Accepts connections as long as there are descriptors for them; further clients wait in the queue of the kernel.

A library's server accepts until the limit of open files is reached, and then neither a report nor an object finds a
descriptor. Here the oldest idle connections are closed for those that wait, and where none is idle they wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
from collections.abc import Callable

from gateway.admission.descriptors import OpenFiles
from gateway.telemetry.log import Log
from gateway.telemetry.repeated_failure import Repeated
from gateway.web.connection import Server

# In one turn of the loop, so that requests are not held up by many that connect.
AT_ONCE = 64
# How often it is looked whether there is room again, and how long a connection is idle at least that is closed for others.
LOOK_S = 0.05
IDLE_S = 0.1
# After so long without a client that had to wait the shortage is over.
QUIET_S = 5.0
COUNT_S = 1.0


class Acceptor:
    """Accepts at some sockets.

    Args:
        server: makes connections of them.
        files: says how many there may be.
        tls: for HTTPS, None for HTTP; a Unix socket does without, since what goes through it does not leave this machine.
        handshake_s: how long a TLS handshake may take.
        log: gets a line when clients have to wait.
        on_count: called every second with the number of connections.
    """

    def __init__(
        self,
        server: Server,
        files: OpenFiles,
        log: Log,
        *,
        tls: ssl.SSLContext | None,
        handshake_s: float,
        on_count: Callable[[int], object],
    ) -> None:
        self._server = server
        self._files = files
        self._tls = tls
        self._handshake_s = handshake_s
        self._on_count = on_count
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        # Accepted, and not a connection of the server yet.
        self._opening: set[asyncio.Task[None]] = set()
        self._look: asyncio.TimerHandle | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._shortage = Repeated(log, "connections wait", "connections accepted again")
        self.is_blocked = False
        files.connections = self.count
        files.close_idle = self._close_idle
        self._counting = self._loop.call_later(COUNT_S, self._count_again)

    def count(self) -> int:
        """How many connections are open."""
        return len(self._opening) + self._server.open_count

    @property
    def is_opening(self) -> bool:
        """Whether connections are accepted, or in their handshakes, that nobody knows of yet."""
        return bool(self._opening)

    def listen(self, listening: socket.socket) -> None:
        """Accept at this socket, too, from now on."""
        listening.setblocking(False)
        self._sockets.append(listening)
        self._loop.add_reader(listening, self._accept, listening)

    def close(self) -> None:
        """Accept no more."""
        for timer in (self._look, self._quiet, self._counting):
            if timer is not None:
                timer.cancel()
        for each in self._sockets:
            self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()

    def _count_again(self) -> None:
        self._on_count(self.count())
        self._counting = self._loop.call_later(COUNT_S, self._count_again)

    # --- as connections come ----------------------------------------------------------------------------------------

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            if self._files.are_full:
                self._wait()
                return
            try:
                accepted, _ = listening.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                # No descriptor after all, or no memory of the kernel's; the client waits there.
                self._wait(str(error))
                return
            task = self._loop.create_task(self._open(accepted))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        tls = None
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._tls
        # A client that goes before its connection is made, or does not speak TLS, is nobody's trouble but its own.
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(
                self._server, accepted, ssl=tls, ssl_handshake_timeout=None if tls is None else self._handshake_s
            )

    # --- while there is no room -------------------------------------------------------------------------------------

    def _wait(self, reason: str = "") -> None:
        """Look no more at the sockets, which would be ready for ever."""
        for each in self._sockets:
            self._loop.remove_reader(each)
        if reason or self._are_waited_for():
            self._make_room(reason)
        if self._look is None:
            self._look = self._loop.call_later(LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        if self._files.are_full:
            self._wait()
            return
        self.is_blocked = False
        for each in self._sockets:
            self._loop.add_reader(each, self._accept, each)

    def _are_waited_for(self) -> bool:
        waiting = select.poll()
        for each in self._sockets:
            waiting.register(each, select.POLLIN)
        return bool(waiting.poll(0))

    def _make_room(self, reason: str) -> None:
        self.is_blocked = not self._close_idle(AT_ONCE)
        self._shortage.failed(reason=reason or self._files.shortage())
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = self._loop.call_later(QUIET_S, self._shortage.ended)

    def _close_idle(self, count: int = 1) -> bool:
        """Close those that have been idle for longest; whether there was one."""
        return self._server.close_idle(count, self._loop.time() - IDLE_S) > 0
