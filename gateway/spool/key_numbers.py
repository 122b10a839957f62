"""The numbers in the keys of batches: each is given once, whatever becomes of the object, of this process, and of the file.

What is in a bucket does not say which keys were used: a reader may remove what it has read. So the last number of each hour
and host is kept here, on the disk:

    NUMBERS          `<bucket>/<prefix> <hour>.<host> <number>` a line, the highest number counts

While a sealed file waits its name holds its number. Before it is removed the number is written to `NUMBERS`, and synced; so at
every moment either of the two knows it. A disk that is full to the last byte is the one exception: what was acknowledged must
be able to leave, and the number is written as soon as there is room, at the latest with the next one.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.core import disk
from gateway.core.errors import is_full
from gateway.core.streams import KeyScheme, Stream
from gateway.core.text import encode
from gateway.spool import names
from gateway.telemetry.log import Log
from gateway.telemetry.repeated_failure import Repeated

NUMBERS = "NUMBERS"
# So many hours and hosts are remembered, the latest: those of more than a hundred days for each of three streams.
KEPT_SERIES = 10_000
# The file is written anew when it has so many lines.
MAX_LINES = 4 * KEPT_SERIES

Series = tuple[str, str, str]
_LINE = re.compile(rb"([!-~]+) (\d{10})\.([0-9A-Za-z%~_-]+) (\d{1,18})\n")


class KeyNumbers:
    """The numbers of all streams. Its methods block, and may be called from any thread.

    Args:
        root: the `cache_dir`.
        streams: each with the directory of its sealed files.
        new_tmp: gives the name of a draft.
        log: where it is said that numbers cannot be kept.
        left: sealed batches, with their numbers, of streams that are not configured: nobody knows of which bucket they are.
    """

    def __init__(
        self,
        root: Path,
        streams: dict[Stream, Path],
        new_tmp: Callable[[], Path],
        log: Log,
        left: Callable[[], Iterable[tuple[names.Batch, names.KeyNumber]]] = tuple,
    ) -> None:
        self._left = left
        # By hour and host.
        self._least: dict[tuple[str, str], int] = {}
        self._path = root / NUMBERS
        self._streams = streams
        self._new_tmp = new_tmp
        self._failing = Repeated(log, "key numbers not kept", "key numbers kept")
        self._lock = threading.Lock()
        # The last number that was given; None as long as nobody has asked.
        self._given: dict[Series, int] | None = None
        # What the file is sure to say, and how many lines it has; one that is torn, or lacks something, is written anew.
        self._kept: dict[Series, int] = {}
        self._lines = 0
        self._is_whole = False
        # Whether a number was given up to a disk that is full.
        self._is_behind = False

    def read(self) -> None:
        """Read them now, before anything is delivered; what cannot be read is as good as lost, and logged."""
        with self._lock:
            self._read()

    def next(self, stream: Stream, batch: names.Batch) -> names.KeyNumber:
        """A number that no key of this bucket, prefix, hour and host has had."""
        with self._lock:
            given = self._read()
            series = _series(stream, batch)
            given[series] = number = max(given.get(series, 0), self._least.get((batch.hour, batch.host), 0)) + 1
            return names.KeyNumber(number)

    def give_back(self, stream: Stream, batch: names.Batch, number: names.KeyNumber) -> None:
        """No file has got this number, which was given to it."""
        with self._lock:
            given = self._read()
            if given.get(_series(stream, batch)) == number:
                given[_series(stream, batch)] = number - 1

    def keep(self, stream: Stream, batch: names.Batch, number: names.KeyNumber) -> None:
        """Write down that a number was given, before the file goes whose name says so.

        Raises:
            OSError: the disk does not keep it, and the file must stay; not where the disk is full.
        """
        with self._lock:
            given = self._read()
            series = _series(stream, batch)
            given[series] = max(number, given.get(series, 0))
            if number > self._kept.get(series, 0):
                self._try(lambda: self._write(series, number))

    def catch_up(self) -> None:
        """Write down what found no room before, now that a file is gone; OSError as `keep`."""
        with self._lock:
            if self._is_behind:
                self._try(self._write_anew)

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self._is_whole = False
            # A directory of that name is somebody else's, and a person's to remove; what waits must not wait for that.
            if not is_full(error) and error.errno != errno.EISDIR:
                raise
            self._is_behind = True
            self._failing.failed(reason=str(error))
        else:
            self._is_behind = False
            self._failing.ended()

    def _read(self) -> dict[Series, int]:
        if self._given is not None:
            return self._given
        text = self._text()
        lines = text.splitlines(keepends=True)
        for line in lines:
            if match := _LINE.fullmatch(line):
                place, hour, host = (part.decode("ascii") for part in match.groups()[:3])
                self._kept[place, hour, host] = max(int(match[4]), self._kept.get((place, hour, host), 0))
        # What a crash has torn must not be continued by the next line.
        self._is_whole, self._lines = text.endswith(b"\n"), len(lines)
        given = self._kept.copy()
        for stream, directory in self._streams.items():
            if stream.keys is not KeyScheme.HOURLY:
                continue
            for name in disk.names(directory):
                if parsed := names.parse_sealed(name):
                    series = _series(stream, parsed[0])
                    given[series] = max(parsed[1], given.get(series, 0))
        for batch, number in self._left():
            self._least[batch.hour, batch.host] = max(number, self._least.get((batch.hour, batch.host), 0))
        self._given = given
        return given

    def _text(self) -> bytes:
        if not os.path.lexists(self._path):
            return b""
        try:
            return b"".join(disk.read_chunks(self._path))
        except OSError as error:
            self._failing.failed(reason=str(error))
            return b""

    def _write(self, series: Series, number: names.KeyNumber) -> None:
        if self._is_whole and self._lines < MAX_LINES:
            try:
                disk.append(self._path, _line(series, number))
            except FileNotFoundError:
                # Somebody has removed it.
                self._write_anew()
            else:
                self._kept[series] = number
                self._lines += 1
            return
        self._write_anew()

    def _write_anew(self) -> None:
        assert self._given is not None  # read before anything is written
        latest = sorted(self._given, key=lambda series: series[1])[-KEPT_SERIES:]
        kept = {series: self._given[series] for series in latest}
        draft = self._new_tmp()
        try:
            disk.write_file(draft, b"".join(_line(series, number) for series, number in kept.items()))
            disk.replace(draft, self._path)
        finally:
            disk.remove(draft)
        disk.sync_directory(self._path.parent)
        self._given, self._kept = kept, kept.copy()
        self._is_whole, self._lines = True, len(kept)


def _series(stream: Stream, batch: names.Batch) -> Series:
    # Two streams may share a bucket.
    return f"{stream.bucket}/{encode(stream.prefix)}", batch.hour, batch.host


def _line(series: Series, number: int) -> bytes:
    place, hour, host = series
    return f"{place} {hour}.{host} {number}\n".encode("ascii")
