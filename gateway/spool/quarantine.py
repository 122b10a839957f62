"""What cannot be read, set aside for a person, logged and counted; nothing is erased."""

from __future__ import annotations

import filecmp
import itertools
import os
from pathlib import Path

from gateway.core import disk
from gateway.core.clock import Timestamps
from gateway.core.text import cut_bytes
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics


class Quarantine:
    """A directory of things that only a person can judge; blocks, and raises OSError.

    Args:
        directory: where they are kept.
        timestamps: make a name that is taken another one.
        log, metrics: where each is reported.
    """

    def __init__(self, directory: Path, timestamps: Timestamps, log: Log, metrics: Metrics) -> None:
        self._directory = directory
        self._timestamps = timestamps
        self._log = log
        self._metrics = metrics

    def take(self, stream_name: str, path: Path, reason: str) -> None:
        """Set a file, or a directory, aside, and say so."""
        target = self._free_name(stream_name, path.name)
        disk.place(path, target)
        disk.sync_directory(self._directory)
        disk.sync_directory(path.parent)
        self._report(stream_name, target, reason)

    def take_rest(self, stream_name: str, path: Path, draft: Path, reason: str) -> None:
        """Set a copy of the end of a file aside, durably; the end itself is then the caller's to cut off.

        Args:
            stream_name: whose it is.
            path: of the file.
            draft: the copy, synced, on the same file system.
            reason: what is wrong with it.
        """
        target = self._name_of_rest(draft, f"{stream_name}.{path.name}")
        disk.replace(draft, target)
        disk.sync_directory(self._directory)
        self._report(stream_name, target, reason)

    def _free_name(self, stream_name: str, name: str) -> Path:
        """A name that still says what it was."""
        whole = f"{stream_name}.{name}"
        longest = disk.longest_name(self._directory)
        target = self._directory / cut_bytes(whole, longest)
        if not os.path.lexists(target):
            return target
        suffix = f".{self._timestamps.next()}"
        return self._directory / (cut_bytes(whole, longest - len(suffix)) + suffix)

    def _name_of_rest(self, draft: Path, name: str) -> Path:
        """A name that is free, or has this very rest from a start that was killed here.

        A coarse clock and a pid that is always 1 can have given the segment the name of one that was set aside before.
        """
        longest = disk.longest_name(self._directory)
        for number in itertools.count(1):
            suffix = ".rest" if number == 1 else f".rest.{number}"
            target = self._directory / (cut_bytes(name, longest - len(suffix)) + suffix)
            if not os.path.lexists(target) or filecmp.cmp(draft, target, shallow=False):
                break
        return target

    def _report(self, stream_name: str, target: Path, reason: str) -> None:
        self._metrics.quarantined.labels(stream_name).inc()
        self._log.warning("quarantined", stream=stream_name, file=target, reason=reason)
