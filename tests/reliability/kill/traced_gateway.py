"""A gateway that runs under the tracing process."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from reliability.calls import Step
from reliability.kill.traced import UNTRACEABLE, Kill, Order
from reliability.row import CannotRun
from testkit import PYTHON_PATH
from testkit.gateway_process import Gateway, Settings, clean_environment


class TracedGateway(Gateway):
    """A gateway whose steps are written down, and that is killed at one of them.

    Args:
        folder: see `Gateway`.
        settings: see `Gateway`.
        kill: where; None for nowhere.
    """

    def __init__(self, folder: Path, settings: Settings, kill: Kill | None) -> None:
        super().__init__(folder, settings)
        self.plan = kill
        self.exit_code: int | None = None
        self._steps_path = folder / "none.steps"

    def _command(self, port: int) -> list[str]:
        """The process is the one that traces, and passes signals on."""
        self._steps_path = self._log_path.with_suffix(".steps")
        order = Order(
            command=super()._command(port),
            environment=self._environment,
            spool=str(self.cache),
            store_port=urlsplit(self.settings["aws"]["endpoint"]).port or 0,
            log=str(self._steps_path),
            kill=self.plan,
        )
        written = self._log_path.with_suffix(".order")
        written.write_text(order.to_json())
        return [sys.executable, "-m", "reliability.kill.traced", str(written)]

    def _spawn(self, command: Sequence[str], environment: Mapping[str, str], stdout: IO[bytes] | None = None) -> None:
        # The environment of the gateway is in the order; this one is of the process that traces.
        super()._spawn(command, clean_environment({"PYTHONPATH": PYTHON_PATH}), stdout)

    def end(self) -> None:
        """Kill it if it still runs, and keep how it ended; `CannotRun` where it could not be traced at all."""
        process = self._process
        if process is not None and process.poll() is None:
            self.kill()
        if process is not None:
            self.exit_code, self._process = process.returncode, None
        if self.exit_code == UNTRACEABLE:
            raise CannotRun(self.said().strip())

    def steps(self) -> list[Step]:
        """The steps that were done, in their order."""
        return [_step(line) for line in self._lines() if line.get("done")]

    def killed_at(self) -> str | None:
        """The step at which it was killed; None if it was not."""
        return next((f"{_step(line)}, {line['killed']}" for line in self._lines() if "killed" in line), None)

    def came_to(self, *texts: str, perhaps: bool) -> int:
        """How many steps of these kinds were done; those of which it is not known are counted where `perhaps`."""
        lines = [line for line in self._lines() if line["text"] in texts]
        return sum(1 for line in lines if line.get("done") or line.get("killed") == "after" or (perhaps and line.get("perhaps")))

    def _lines(self) -> list[dict[str, object]]:
        if not self._steps_path.exists():
            return []
        return [json.loads(line) for line in self._steps_path.read_text().splitlines()]


def _step(line: dict[str, object]) -> Step:
    return Step(str(line["transition"]), str(line["text"]), int(str(line["occurrence"])))
