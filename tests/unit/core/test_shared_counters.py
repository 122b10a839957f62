"""Shared counters are seen by every process, outlive the one that wrote them, and never share a cell."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gateway.core.shared_counters import SharedCounters

ELSEWHERE = """\
import os, signal, sys
from gateway.core.shared_counters import SharedCounters
counters = SharedCounters(3, column=int(sys.argv[2]), descriptor=int(sys.argv[1]))
counts, seconds = counters.integers("counts", 2), counters.floats("seconds", 1)
counts.mine[1] += 5
seconds.mine[0] += 0.25
print(counts.total(0), counters.layout, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def elsewhere(counters: SharedCounters, column: int) -> str:
    """What another process says that adds to its column and is killed."""
    assert counters.descriptor is not None
    command = [sys.executable, "-c", ELSEWHERE, str(counters.descriptor), str(column)]
    done = subprocess.run(command, pass_fds=[counters.descriptor], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -9
    return done.stdout.strip()


def test_a_board_of_one_is_memory_of_its_own() -> None:
    """Every cell begins as 0, a sum is what was written, and no descriptor is there to be inherited."""
    counters = SharedCounters()
    counts, seconds = counters.integers("counts", 2), counters.floats("seconds", 1)
    assert (counts.total(0), counts.total(1), seconds.total()) == (0, 0, 0)
    counts.mine[1] -= 7
    seconds.mine[0] += 1.5
    assert (counts.total(0), counts.total(1), seconds.total()) == (0, -7, 1.5)
    assert counters.descriptor is None


def test_what_others_count_is_summed_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are over all columns, also those of processes that were killed, and one in the same place counts on."""
    counters = SharedCounters(3)
    counts, seconds = counters.integers("counts", 2), counters.floats("seconds", 1)
    counts.mine[0], counts.mine[1] = 40, 2
    for column in (1, 2, 2):
        assert elsewhere(counters, column) == f"40 {counters.layout}"
    assert [column[1] for column in counts.columns] == [2, 5, 10]
    assert (counts.total(0), counts.total(1), seconds.total()) == (40, 17, 0.75)


def test_the_descriptor_goes_to_nobody_by_itself() -> None:
    """Only a process that it is passed to inherits the counters."""
    counters = SharedCounters(2)
    assert counters.descriptor is not None
    assert not os.get_inheritable(counters.descriptor)


def test_cells_do_not_overlap() -> None:
    """What was taken under one name is touched by no other, whatever the kind."""
    counters = SharedCounters(2)
    first, second, third = counters.integers("a", 3), counters.floats("b", 2), counters.integers("c", 1)
    for at in range(3):
        first.mine[at] = -1
    third.mine[0] = -1
    assert [second.total(at) for at in range(2)] == [0.0, 0.0]
    second.mine[0], second.mine[1] = 1.0, 2.0
    assert [first.total(at) for at in range(3)] + [third.total()] == [-1] * 4


@pytest.mark.parametrize("names", [[("b", 1), ("a", 1)], [("a", 1)], [("a", 1), ("b", 2)], [("a", 2), ("b", 1)]])
def test_another_layout_is_seen(names: list[tuple[str, int]]) -> None:
    """Boards of which other names, numbers or orders of cells were taken do not have the same layout."""
    one, other = SharedCounters(), SharedCounters()
    for name, count in (("a", 1), ("b", 1)):
        one.integers(name, count)
    for name, count in names:
        other.integers(name, count)
    assert one.layout != other.layout


def test_a_full_board_says_so() -> None:
    """More cells than there are is an error, and not the next column's memory."""
    counters = SharedCounters(2)
    counters.integers("many", 1024)
    with pytest.raises(ValueError, match="1024"):
        counters.integers("one more", 1)
