"""A mount namespace: what is mounted in it is seen in it alone, and goes with it, however that ends."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from reliability.row import CannotRun


class Namespace:
    """A mount namespace, which needs root.

    Attributes:
        prefix: a command that runs another one in it.
    """

    def __init__(self) -> None:
        self.prefix: list[str] = []
        self._holder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Namespace:
        try:
            # It ends with its input, and the namespace with it.
            command = ["unshare", "--mount", "sh", "-c", "echo made && exec cat"]
            self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except FileNotFoundError as error:
            raise CannotRun("there is no unshare (Debian: util-linux)") from error
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != b"made\n":
            reason = self._holder.stderr.read().decode(errors="replace").strip()
            self._end()
            raise CannotRun(f"nothing can be mounted in a namespace: {reason}")
        self.prefix = ["nsenter", f"--target={self._holder.pid}", "--mount", "--"]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def seen(self, path: Path) -> Path:
        """A path in it, as it is seen from outside."""
        assert self._holder is not None  # asked within the block
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def run(self, *command: str) -> None:
        """Run a command in it; `CannotRun`, with what it says, where it fails."""
        try:
            done = subprocess.run([*self.prefix, *command], capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise CannotRun(f"there is no {command[0]}") from error
        if done.returncode != 0:
            raise CannotRun(f"{command[0]}: {done.stderr.strip()}")

    def _end(self) -> None:
        if self._holder is not None:
            self._holder.communicate(timeout=10)
            self._holder = None
