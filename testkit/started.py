"""A gateway whose process is changed between its making and its program: what it inherits is what a test wants."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from testkit.deadlines import until
from testkit.running import LocalGateway

_WRAPPER = "import fcntl, os, resource, signal, sys\n{before}\nos.execv(sys.argv[1], sys.argv[1:])"


class Started(LocalGateway):
    """A gateway that is started by a process that runs some statements of Python first.

    Args:
        folder: where everything of it is.
        before: the statements; `fcntl`, `os`, `resource`, `signal` and `sys` are imported.
        settings: see `LocalGateway`.
        environment: likewise.
        pass_fds: descriptors that stay open.
        port: to listen on, None for none.
    """

    def __init__(
        self,
        folder: Path,
        before: str,
        settings: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        pass_fds: Sequence[int] = (),
        port: int | None = 0,
    ) -> None:
        super().__init__(folder, settings, environment)
        self._before = before
        self._pass_fds = pass_fds
        self._asked_port = port

    def _command(self, port: int) -> list[str]:
        del port
        command = super()._command(0)
        at = command.index("-p")
        asked = [] if self._asked_port is None else ["-p", str(self._asked_port)]
        wrapper = [sys.executable, "-c", _WRAPPER.format(before=self._before)]
        return [*wrapper, *command[:at], *asked, *command[at + 2 :]]

    def _spawn(self, command: Sequence[str], environment: Mapping[str, str], stdout: IO[bytes] | None = None) -> None:
        del stdout
        with self._log_path.open("xb") as log, self.stdout.open("ab") as own:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=own,
                stderr=log,
                start_new_session=True,
                pass_fds=self._pass_fds,
            )

    def start_unheard(self, port: int) -> None:
        """Start the process and return once it answers; for one that cannot say that it listens."""
        self._asked_port = self.port = port
        self.launch()
        until(lambda: self._answers() or not self.is_running, "the gateway to answer")
        assert self.is_running, "the gateway did not start"

    def _answers(self) -> bool:
        try:
            return self.get("/health").status == 200
        except OSError:
            return False

    @property
    def pid(self) -> int:
        """Its process."""
        return self._running().pid

    def delivered(self, stream: str) -> list[bytes]:
        """Every line of a report stream that was delivered."""
        found = sorted((self.objects / stream).rglob("*.jsonl.gz"))
        return [line for path in found for line in gzip.decompress(path.read_bytes()).splitlines()]

    @property
    def addresses(self) -> list[str]:
        """Where it says that it listens."""
        return [line["address"] for line in self.events("listening")]

    @property
    def hosts(self) -> list[str | None]:
        """The hosts of these addresses."""
        return [urlsplit(each).hostname for each in self.addresses]


def modes(root: Path) -> dict[str, int]:
    """The permissions of everything below a directory, itself included."""
    return {str(path.relative_to(root)): path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")]}


def descriptors(pid: int) -> dict[int, str]:
    """What the standard descriptors of a process are."""
    return {number: os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)}
