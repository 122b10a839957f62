"""Sockets that are passed by systemd, or by another program that listens for the gateway (`LISTEN_FDS`).

They belong to that program: a restart of the gateway leaves them open, and connections wait in them meanwhile. They are
closed here and never shut down, and the file of a Unix socket stays.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from gateway.core.errors import StartError

_FIRST = 3
# Also those that are of no use here: a process that this one starts must not take them for its own.
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_REMEDY = "in the .socket unit use ListenStream= and Accept=no"


def inherited_sockets(environ: MutableMapping[str, str], pid: int) -> list[socket.socket]:
    """The sockets that were passed to this process, in their order; the variables are taken out of the environment.

    Args:
        environ: variables of the process.
        pid: of the process; variables that were meant for another one are no concern of this one.

    Raises:
        StartError: what was passed cannot be listened at.
    """
    found = {name: environ.pop(name) for name in _VARIABLES if name in environ}
    if found.get("LISTEN_PID") != str(pid) or "LISTEN_FDS" not in found:
        return []
    count = found["LISTEN_FDS"]
    if not (count.isascii() and count.isdigit()):
        raise StartError(f"the variable LISTEN_FDS is {count!r} and no number: {_REMEDY}")
    return [_checked(number) for number in range(_FIRST, _FIRST + int(count))]


def _checked(number: int) -> socket.socket:
    try:
        found = socket.socket(fileno=number)
    except OSError as error:
        raise StartError(f"descriptor {number} of LISTEN_FDS is no socket ({error.strerror or error}): {_REMEDY}") from error
    is_listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if found.type != socket.SOCK_STREAM or found.family not in _FAMILIES or not is_listening:
        found.detach()
        raise StartError(f"descriptor {number} of LISTEN_FDS is no listening stream socket: {_REMEDY}")
    # Of this process; other holders of the socket keep theirs.
    os.set_inheritable(number, False)
    found.setblocking(False)
    return found
