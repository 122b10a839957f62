"""An error of the disk becomes what a client can act on."""

from __future__ import annotations

import errno
import os

import pytest

from gateway.core.errors import Refused, SpoolBroken, SpoolFull, Transient, refusal


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, SpoolFull), (errno.EDQUOT, SpoolFull), (errno.EIO, SpoolBroken), (errno.EROFS, SpoolBroken)],
)
def test_a_full_disk_is_told_from_a_broken_one(number: int, expected: type[Exception]) -> None:
    """A client is told whether there was no room, or whether the disk failed."""
    assert type(refusal(OSError(number, os.strerror(number)))) is expected


def test_of_what_a_store_says_only_so_much_is_kept() -> None:
    """A store may answer with a page of HTML: the reason stays one that fits a line of the log."""
    assert str(Transient("short")) == "short"
    assert len(str(Refused("x" * 100_000))) < 1100
