"""The Unix socket of `listen.unix`, and its file."""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from gateway.core import disk
from gateway.core.errors import StartError

# The owner and the group may connect: a proxy on the same machine gets the group of the gateway.
MODE = 0o660


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The name of a socket in the file system.

    Attributes:
        path: its name.
        identity: device and inode, so that the file of another gateway is left alone.
    """

    path: Path
    identity: tuple[int, int]

    def remove(self) -> None:
        """Remove the file, if it is still this one."""
        try:
            is_ours = _identity(self.path) == self.identity
        except FileNotFoundError:
            return
        if is_ours:
            disk.remove(self.path)


def listen_at(path: Path, backlog: int) -> tuple[socket.socket, SocketFile]:
    """Listen at a path, in place of a socket that nobody listens at any more.

    Raises:
        StartError: something else is there, another gateway listens there, or the file cannot be made.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        _make_way(path)
        made.bind(os.fspath(path))
        # Before it listens, so that nobody else connects in between; the umask of the process lets its user alone.
        os.chmod(path, MODE)
        made.listen(backlog)
        return made, SocketFile(path, _identity(path))
    except OSError as error:
        made.close()
        raise StartError(_why_not(path, error)) from error
    except BaseException:
        made.close()
        raise


def _make_way(path: Path) -> None:
    """Remove the socket of a gateway that was killed; StartError if what is there is something else, or alive."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise StartError(f"listen.unix: {path} is there and is no socket: remove it, or set another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        # One whose queue is full is alive, and does not hold this up.
        asking.setblocking(False)
        error = asking.connect_ex(os.fspath(path))
    if error == errno.ECONNREFUSED:
        disk.remove(path)
    elif error != errno.ENOENT:
        raise StartError(f"listen.unix: {path} is in use: stop what listens there, or set another path")


def _identity(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _why_not(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"listen.unix: there is no directory {path.parent}: make it, or set another path"
    return f"listen.unix: cannot listen on {path} ({error.strerror or error}): give this user its directory, or set another path"
