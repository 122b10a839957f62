"""Heads that come again are known, and no client can make the memory for them grow."""

from __future__ import annotations

from gateway.web.fastlane.head import KEPT_HEADS, Heads
from testkit.spool import USAGE


def head(user: str) -> bytes:
    """The head of a plain report."""
    return f"PUT /usage HTTP/1.1\r\nHost: a\r\nUSER_TOKEN: {user}\r\nContent-Length: 1\r\n\r\n".encode()


def test_the_heads_that_are_kept_are_bounded() -> None:
    """However many different heads come, so many are kept at most, and each is read right."""
    heads = Heads({"/usage": USAGE}, 1 << 20)
    for number in range(3 * KEPT_HEADS):
        found = heads.head_of(head(f"machine-{number}"))
        assert found is not None
        assert found.user == f"machine-{number}"
        assert len(heads._known) <= KEPT_HEADS


def test_a_head_that_comes_again_is_the_same() -> None:
    """A head that was read is not read again."""
    heads = Heads({"/usage": USAGE}, 1 << 20)
    assert heads.head_of(head("a")) is heads.head_of(head("a") + b"1")
