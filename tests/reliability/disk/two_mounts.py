"""A directory that is mounted twice by FUSE, so that a lock that is held through one mount is not seen through the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from reliability.disk.namespace import Namespace
from reliability.row import CannotRun


class TwoMounts:
    """A directory with two mounts, in a mount namespace of its own.

    Args:
        folder: where everything is made.

    Attributes:
        mounts: both, as they are for processes that are started by `prefix`.
        prefix: a command that runs another one where the mounts are.
        below: the directory itself, which is seen from everywhere.
    """

    def __init__(self, folder: Path) -> None:
        self.below = folder / "below"
        self.mounts = (folder / "one", folder / "other")
        self._namespace = Namespace()
        self.prefix: list[str] = []

    def __enter__(self) -> TwoMounts:
        for directory in (self.below, *self.mounts):
            directory.mkdir(parents=True)
        self._namespace.__enter__()
        self.prefix = self._namespace.prefix
        for mount in self.mounts:
            try:
                self._namespace.run("bindfs", str(self.below), str(mount))
            except CannotRun as error:
                self.__exit__(None, None, None)
                raise CannotRun(f"no directory can be mounted twice by bindfs (Debian: bindfs), as root: {error}") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for mount in self.mounts:
            # The daemons of FUSE would outlive the namespace's first process.
            with suppress(CannotRun):
                self._namespace.run("umount", "--lazy", str(mount))
        self._namespace.__exit__(kind, error, trace)


@contextmanager
def unrecorded(spool: Path) -> Iterator[None]:
    """Within this block no gateway finds another's record, as if each had started before the other wrote its own."""
    record = spool / ".owner"
    ends = threading.Event()

    def remove() -> None:
        while not ends.wait(0.002):
            record.unlink(missing_ok=True)

    removing = threading.Thread(target=remove)
    removing.start()
    try:
        yield
    finally:
        ends.set()
        removing.join()
