"""The limit of open files is raised, and shared out between connections, bodies and what keeps them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gateway.admission.descriptors import KEPT, OpenFiles, in_use
from gateway.core.errors import Overloaded, StartError


def test_the_soft_limit_becomes_the_hard_one() -> None:
    """A process that is started with a low soft limit has the hard one, and so have those that it starts."""
    code = "from gateway.admission import descriptors as d; import os; print(*d.raise_limit(), d.limit()); os.system('ulimit -n')"
    command = ["sh", "-c", 'ulimit -Sn 100; ulimit -Hn 512; exec "$@"', "sh", sys.executable, "-uc", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["100", "512", "512", "512"]


def test_what_is_open_is_counted() -> None:
    """The look itself does not count."""
    before = in_use()
    reading, writing = os.pipe()
    assert in_use() == before + 2
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(("limit", "used", "most"), [(1024, 20, 1024 - 20 - KEPT), (64, 16, 12), (64, 46, 5)])
def test_descriptors_are_kept_for_disk_and_store(limit: int, used: int, most: int) -> None:
    """As many as the disk and the store need at once are kept back, and of a few three quarters."""
    assert OpenFiles(limit, used).most == most


def test_a_limit_that_leaves_no_connection_is_a_fault_of_the_start() -> None:
    """The message says which limit has to be raised."""
    with pytest.raises(StartError, match=r"32 open files \(ulimit -n\)"):
        OpenFiles(32, 20)


def test_a_body_finds_its_file_or_is_told_why() -> None:
    """Bodies may take some of what is kept; then an idle connection is closed for one, and where there is none it is refused."""
    files = OpenFiles(64, 16)
    open_now, idle = 12, [1]
    files.connections = lambda: open_now
    files.close_idle = lambda: bool(idle and idle.pop())
    assert files.are_full
    for _ in range(36 // 2 + 1):
        files.open_body()
    assert idle == []
    with pytest.raises(Overloaded, match="ulimit -n is 64"):
        files.open_body()
    files.close_body()
    files.close_body()
    files.open_body()
