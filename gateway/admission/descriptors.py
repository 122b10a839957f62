"""The limit of open files: raised at the start, and shared out between connections, bodies, and what keeps them.

What is kept back for the disk and the store has to last when everything happens at once:

    each of 8 threads that write: a draft, its copy with envelopes, the directory that is synced     16 and more
    each of 2 journals: its segment, what that is copied to after a failed sync, the directory        8
    each of 3 streams with 4 uploads: a connection to the store, the file that is sent               24
    the archive that is made and its sources, the metrics' looks at directories                      16

That is 64 in all. Under a limit so low that this would leave no connections it is three quarters of what there is: then not
everything can happen at once, and what finds none is tried again.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

from gateway.core.errors import Overloaded, StartError

KEPT = 64
LEAST_CONNECTIONS = 4


def raise_limit() -> tuple[int, int]:
    """Raise the soft limit of this process, and of those that it will start, to the hard one; both soft ones, before and now."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        # Where there is no hard one the kernel has one of its own.
        return before, before
    return before, limit()


def limit() -> int:
    """How many files this process may have open (ulimit -n)."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def in_use() -> int:
    """How many this process has open now."""
    # One of them is that of the look itself.
    return len(os.listdir("/proc/self/fd")) - 1


class OpenFiles:
    """Descriptors for connections, and for the files of bodies that are being received.

    Attributes:
        limit: of open files.
        most: connections and such files that may be open together.
        bodies: such files that are open.
        connections: how many connections are open.
        close_idle: closes an idle connection, and says whether there was one.

    Args:
        max_files: the limit.
        used: open already, for what lasts as long as the process.

    Raises:
        StartError: the limit leaves no connections.
    """

    def __init__(self, max_files: int, used: int) -> None:
        left = max_files - used
        kept = min(KEPT, left * 3 // 4)
        self.limit = max_files
        self.most = left - kept
        # A body that is received already is let take half of what is kept: else those that fill all connections with
        # large bodies would have no file for any of them.
        self._most_with_bodies = self.most + kept // 2
        self.bodies = 0
        self.connections: Callable[[], int] = lambda: 0
        self.close_idle: Callable[[], bool] = lambda: False
        if self.most < LEAST_CONNECTIONS:
            raise StartError(
                f"{max_files} open files (ulimit -n) leave no room for connections: allow 1024 of them or more (LimitNOFILE=)"
            )

    @property
    def are_full(self) -> bool:
        """Whether no further connection may be opened."""
        return self.connections() + self.bodies >= self.most

    def open_body(self) -> None:
        """The file of a body stays open while it is received: Overloaded if there is no descriptor for it."""
        if self.connections() + self.bodies >= self._most_with_bodies and not self.close_idle():
            raise Overloaded(f"{self.shortage()}: send it again in a moment")
        self.bodies += 1

    def close_body(self) -> None:
        """It is closed."""
        self.bodies -= 1

    def shortage(self) -> str:
        """What is short, with the limit that was reached."""
        return (
            f"{self.connections()} connections and {self.bodies} files of bodies are open, which is what the limit of open files "
            f"allows (ulimit -n is {self.limit}, LimitNOFILE=)"
        )
