"""The sockets that requests come in by."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Any

from gateway.errors import StartError

LISTEN_BACKLOG = 4096


def listening_sockets(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """Listen at every address of the host, with a socket of its own for each of `count` processes.

    The kernel spreads connections evenly over the sockets of one address. They belong to the one who asked here: those of a
    process that died go to the next, with the connections that wait in them.

    Args:
        host: a name or an address.
        port: 0 for a free one, the same for all.
        count: of processes.

    Raises:
        StartError: it cannot be listened there.
    """
    made: list[list[socket.socket]] = [[] for _ in range(count)]
    try:
        for family, address in _addresses(host, port):
            with _bound(family, (address[0], port, *address[2:]), shared=False) as probe:
                # Not to be shared, so that it fails where somebody else listens, another gateway for one.
                port = probe.getsockname()[1]
            for sockets in made:
                sockets.append(_listening(family, (address[0], port, *address[2:]), shared=count > 1))
    except OSError as error:
        for listening in (each for sockets in made for each in sockets):
            listening.close()
        raise StartError(_why_not(host, port, error)) from error
    return made


def listen_again(addresses: Sequence[tuple[int, tuple[Any, ...]]]) -> list[socket.socket]:
    """Listen where other processes of this gateway do; OSError if that cannot be.

    Args:
        addresses: for each socket its family and what `getsockname` gave.
    """
    made: list[socket.socket] = []
    try:
        for family, address in addresses:
            made.append(_listening(family, address, shared=True))
    except OSError:
        for each in made:
            each.close()
        raise
    return made


def _addresses(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _listening(family: int, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    made = _bound(family, address, shared=shared)
    made.listen(LISTEN_BACKLOG)
    return made


def _bound(family: int, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what listens there, or give another with -p"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has: give one above 1023 with -p"
    return f"cannot listen on {host}:{port} ({error.strerror or error}): check listen.host and -p"
