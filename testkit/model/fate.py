"""A disk that dies with the process at a change of the model's choice, or refuses some changes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from gateway.core import disk
from testkit.spool import CHANGES, PowerCut

REFUSALS = (errno.EIO, errno.ENOSPC)


class Loss(Enum):
    """What a crash does to bytes of a segment that were written and not synced."""

    NOTHING = "they stay, as after a kill"
    TAIL = "half of them are gone"
    ZEROES = "all are zeroes, and some more stand behind them"


class Fate:
    """Kills the process at a change of the disk, or has the disk refuse some: which one is told beforehand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.is_dead = False
        self._calls_left: int | None = None
        self._refusals = 0
        self._error = 0
        self._torn = False
        for name in (*CHANGES, "truncate_unsynced"):
            patch.setattr(disk, name, self._fated(getattr(disk, name), name))
        patch.setattr(Path, "unlink", self._unless_dead(Path.unlink))

    def kill_at(self, calls: int, *, torn: bool) -> None:
        """Let so many changes be made, then die; a write at which it dies is torn in the middle or not begun."""
        self._calls_left, self._refusals, self._torn = calls, 0, torn

    def refuse_at(self, calls: int, error: int, times: int) -> None:
        """Let so many changes be made, then refuse so many, each write in its middle."""
        self._calls_left, self._refusals, self._error, self._torn = calls, times, error, True

    def die(self) -> None:
        """Let nothing reach the disk any more."""
        self.is_dead = True

    def reset(self) -> None:
        """The next process has a disk that works."""
        self.is_dead, self._calls_left = False, None

    def _fated(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any) -> Any:
            if self.is_dead:
                raise PowerCut
            if self._calls_left is None:
                return function(*arguments)
            if self._calls_left:
                self._calls_left -= 1
                return function(*arguments)
            if name == "write_all" and self._torn:
                descriptor, buffers = arguments
                data = b"".join(buffers)
                os.write(descriptor, data[: len(data) // 2])
            if not self._refusals:
                self.die()
                raise PowerCut
            self._refusals -= 1
            if not self._refusals:
                self._calls_left = None
            raise OSError(self._error, os.strerror(self._error))

        return call

    def _unless_dead(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            if self.is_dead:
                raise PowerCut
            return function(*arguments, **keywords)

        return call
