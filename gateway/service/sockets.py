"""The sockets that requests come in by."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.config.schema import ListenKeys
from gateway.core.errors import StartError
from gateway.service.unix_socket import SocketFile, listen_at

LISTEN_BACKLOG = 4096
# The family, and the address without its port.
Place = tuple[int, tuple[Any, ...]]

_ALL: tuple[Place, ...] = ((socket.AF_INET6, ("::", 0, 0, 0)), (socket.AF_INET, ("0.0.0.0", 0)))
_WILDCARDS = ("::", "0.0.0.0")
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
# A free port of one address may be taken at another one.
_FREE_PORT_TRIES = 20


@dataclass(frozen=True, slots=True)
class Listeners:
    """All sockets of one gateway, listening.

    Attributes:
        own: for each process the sockets that it alone accepts from; the kernel spreads the connections.
        shared: what every process accepts from.
        is_inherited: whether they belong to the one that started the gateway, and stay open when it ends.
        file: of the Unix socket, if the gateway has made one.
    """

    own: list[list[socket.socket]]
    shared: list[socket.socket]
    is_inherited: bool = False
    file: SocketFile | None = None

    def of(self, process: int) -> list[socket.socket]:
        """What one process, counted from 0, accepts from."""
        return [*self.own[process], *self.shared]

    def urls(self, scheme: str) -> list[str]:
        """Where they listen: `http://[::]:8080`, `unix:/run/gateway.sock`."""
        return [_url(each, scheme) for each in self.of(0)]

    def port(self) -> int:
        """The port, 0 where there is none."""
        return next((int(each.getsockname()[1]) for each in self.of(0) if each.family != socket.AF_UNIX), 0)

    def withdraw(self) -> None:
        """Remove the file of the Unix socket, so that no new connection finds it."""
        if self.file is not None:
            self.file.remove()

    def close(self) -> None:
        """Close them all here; the file of the Unix socket goes too."""
        self.withdraw()
        for each in (*(each for sockets in self.own for each in sockets), *self.shared):
            each.close()


def open_listeners(listen: ListenKeys, port: int | None, count: int, inherited: Sequence[socket.socket] = ()) -> Listeners:
    """ListenKeys everywhere that was asked for.

    Args:
        listen: the configuration.
        port: 0 for a free one, None for none, where there is a Unix socket.
        count: of processes.
        inherited: sockets to be used in place of all others.

    Raises:
        StartError: it cannot be listened there.
    """
    nothing: list[list[socket.socket]] = [[] for _ in range(count)]
    if inherited:
        return Listeners(nothing, list(inherited), is_inherited=True)
    own = nothing if port is None else listening_sockets(listen.host, port, count)
    if listen.unix is None:
        return Listeners(own, [])
    try:
        made, file = listen_at(listen.unix, LISTEN_BACKLOG)
    except StartError:
        Listeners(own, []).close()
        raise
    return Listeners(own, [made], file=file)


def listening_sockets(hosts: Sequence[str], port: int, count: int) -> list[list[socket.socket]]:
    """ListenKeys at every address of the hosts, with a socket of its own for each of `count` processes.

    The kernel spreads connections evenly over the sockets of one address. They belong to the caller: those of a
    process that died go to the next, with the connections that wait in them.

    Args:
        hosts: names and addresses; none for all addresses of both families, or of the one that this machine has.
        port: 0 for a free one, the same for all.
        count: of processes.

    Raises:
        StartError: it cannot be listened there.
    """
    places = _places(hosts, port)
    for left in reversed(range(_FREE_PORT_TRIES)):
        try:
            return _at_each(places, port, count, is_any=not hosts)
        except _Taken as taken:
            if port or not left:
                raise StartError(str(taken)) from taken.__cause__
    raise AssertionError("the last try returns or raises")


def listen_again(addresses: Sequence[tuple[int, tuple[Any, ...]]]) -> list[socket.socket]:
    """ListenKeys where other processes of this gateway do; OSError if that cannot be.

    Args:
        addresses: for each socket its family and what `getsockname` gave.
    """
    made: list[socket.socket] = []
    try:
        for family, address in addresses:
            made.append(_listening(family, address, shared=True))
    except OSError:
        _close(made)
        raise
    return made


class _Taken(Exception):
    """Somebody else listens at one of the addresses."""


def _at_each(places: Sequence[Place], port: int, count: int, *, is_any: bool) -> list[list[socket.socket]]:
    made: list[list[socket.socket]] = [[] for _ in range(count)]
    for family, address in places:
        try:
            with _bound(family, (address[0], port, *address[2:]), shared=False) as probe:
                # Not to be shared, so that it fails where somebody else listens, another gateway for one.
                port = probe.getsockname()[1]
            for sockets in made:
                sockets.append(_listening(family, (address[0], port, *address[2:]), shared=count > 1))
        except OSError as error:
            if is_any and error.errno in _NO_SUCH_FAMILY and (made[0] or family != places[-1][0]):
                continue
            _close(each for sockets in made for each in sockets)
            reason = _why_not(address[0], port, error)
            raise (_Taken if error.errno == errno.EADDRINUSE else StartError)(reason) from error
    return made


def _places(hosts: Sequence[str], port: int) -> list[Place]:
    """The addresses of all hosts, each once, without those that an address for all of the family has in it."""
    if not hosts:
        return list(_ALL)
    found: dict[Place, None] = {}
    for host in hosts:
        try:
            given = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise StartError(_why_not(host, port, error)) from error
        found |= dict.fromkeys((int(family), address) for family, _, _, _, address in given)
    all_of = {family for family, address in found if address[0] in _WILDCARDS}
    return [(family, address) for family, address in found if family not in all_of or address[0] in _WILDCARDS]


def _listening(family: int, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    made = _bound(family, address, shared=shared)
    try:
        made.listen(LISTEN_BACKLOG)
    except OSError:
        made.close()
        raise
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


def _close(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _url(listening: socket.socket, scheme: str) -> str:
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{name.decode(errors='backslashreplace') if isinstance(name, bytes) else name}"
    return f"{scheme}://{_bracketed(str(name[0]))}:{name[1]}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _why_not(host: str, port: int, error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return f"port {port} on {_bracketed(host)} is in use: stop what listens there, or give another with -p"
    if number == errno.EACCES:
        return f"port {port} on {_bracketed(host)} needs more rights than this user has: give one above 1023 with -p"
    if number == errno.EADDRNOTAVAIL:
        return f"cannot listen on {_bracketed(host)}:{port}: this machine has no such address; set another in listen.host"
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return f"cannot listen on {_bracketed(host)}:{port} ({reason}): check listen.host and -p"
