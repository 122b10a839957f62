"""Which cores belong to what is measured, and which to what loads it."""

from __future__ import annotations

import os
from collections.abc import Sequence

Cores = tuple[int, ...]


def every_core() -> Cores:
    """The cores that this program may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def server_core() -> Cores:
    """The one core of a server that is pinned."""
    return every_core()[:1]


def load_cores() -> Cores:
    """The cores of the load generator beside a pinned server: all others, or the same where there is only one."""
    return every_core()[1:] or every_core()


def pinned(command: Sequence[str], cores: Cores) -> list[str]:
    """A command that stays on these cores with all that it starts; taskset becomes the program, so the pid is the program's."""
    return ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]


def describe() -> str:
    """One sentence for the description of the machine."""
    server, load = server_core()[0], ", ".join(map(str, load_cores()))
    return f"where a server is pinned to one core it has core {server} and the load generator {load}"
