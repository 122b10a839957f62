"""Runs the gateway with each of its steps written down, and kills it before or after one of them."""

from __future__ import annotations

import json
import os
import re
import struct
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reliability.calls import OPENS, SENDS, Call, Namer, Step
from reliability.kill.ptrace import Stop, Untraceable, run

# Which arguments of a call are paths; all other calls have a descriptor for their first, but for the one named here.
_PATHS = {
    **dict.fromkeys(("open", "creat", "mkdir", "rmdir", "unlink", "truncate"), (0,)),
    **dict.fromkeys(("openat", "openat2", "mkdirat", "unlinkat", "symlink"), (1,)),
    **dict.fromkeys(("rename", "link"), (0, 1)),
    **dict.fromkeys(("renameat", "renameat2", "linkat"), (1, 3)),
    "symlinkat": (2,),
}
_DESCRIPTOR_ARGUMENT = {"copy_file_range": 2}
_FLAGS_ARGUMENT = {"open": 1, "openat": 2}
_HEAD_BYTES = 512
# The exit code where nothing can be traced; the reason is told on standard error.
UNTRACEABLE = 77


@dataclass(frozen=True)
class Kill:
    """Where the gateway is to be killed.

    Attributes:
        after: whether when the step is done, and the gateway has not seen it; else before it is done.
        step: which one.
        number: instead of a step, the how manieth of all of them, counted from 1.
    """

    after: bool
    step: Step | None = None
    number: int = 0

    def __str__(self) -> str:
        return f"{self.step or f'step {self.number}'}, {'after' if self.after else 'before'}"


@dataclass(frozen=True)
class Order:
    """What the tracing process is told."""

    command: list[str]
    environment: dict[str, str]
    spool: str
    store_port: int
    log: str
    kill: Kill | None

    def to_json(self) -> str:
        """As a file that the process reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Undo `to_json`."""
        fields: dict[str, Any] = json.loads(text)
        kill = fields.pop("kill")
        if kill is not None:
            step = kill.pop("step")
            kill = Kill(**kill, step=Step(**step) if step else None)
        return cls(**fields, kill=kill)


class Tracer:
    """Watches one run: names each call, writes it down, and says where to kill."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._namer = Namer()
        self._log = open(order.log, "a", buffering=1)  # noqa: SIM115 (open as long as the process)
        self._under_way: dict[int, tuple[Step, int]] = {}
        self._peers: dict[str, str] = {}
        self._seen = 0

    def decide(self, stop: Stop) -> bool:
        """See `ptrace.Decide`."""
        if stop.returned is not None:
            return self._left(stop)
        step = self._namer.step(self._call(stop))
        if step is None:
            return False
        self._seen += 1
        if self._is_it(step, self._seen, after=False):
            return True
        self._under_way[stop.thread] = step, self._seen
        return False

    def finish(self) -> None:
        """Write down what was under way when the program ended, of which nobody knows whether it was done."""
        for step, _ in self._under_way.values():
            self._write(step, perhaps=True)

    def _left(self, stop: Stop) -> bool:
        step, number = self._under_way.pop(stop.thread, (None, 0))
        if step is None or stop.returned is None:
            return False
        is_it = self._is_it(step, number, after=True)
        if not is_it:
            self._write(step, done=stop.returned >= 0)
        return is_it

    def _is_it(self, step: Step, number: int, *, after: bool) -> bool:
        kill = self._order.kill
        is_it = kill is not None and kill.after == after and (kill.step == step or kill.number == number)
        if is_it:
            self._write(step, killed="after" if after else "before")
        return is_it

    def _write(self, step: Step, **more: object) -> None:
        self._log.write(json.dumps(asdict(step) | more) + "\n")

    # --- what a call is about -------------------------------------------------------------------------------------

    def _call(self, stop: Stop) -> Call:
        if stop.call in _PATHS:
            paths = tuple(self._in_spool(self._absolute(stop, index)) for index in _PATHS[stop.call])
            flags = stop.arguments[_FLAGS_ARGUMENT[stop.call]] if stop.call in _FLAGS_ARGUMENT else os.O_CREAT
            makes = stop.call in OPENS and bool(flags & os.O_CREAT)
            return Call(stop.thread, stop.call, tuple(path for path in paths if path), makes=makes)
        file = stop.file(stop.arguments[_DESCRIPTOR_ARGUMENT.get(stop.call, 0)])
        if file.startswith("socket:") and stop.call in SENDS:
            peer = self._peer(stop, file)
            return Call(stop.thread, stop.call, peer=peer, connection=file, data=_head(stop) if peer else b"")
        path = self._in_spool(file.removesuffix(" (deleted)"))
        return Call(stop.thread, stop.call, (path,) if path else ())

    def _absolute(self, stop: Stop, index: int) -> str:
        path = stop.text(stop.arguments[index])
        if path.startswith("/"):
            return path
        # Of the calls that take a directory it stands before the path.
        directory = stop.file(stop.arguments[index - 1]) if index else ""
        return os.path.join(directory or os.readlink(f"/proc/{stop.thread}/cwd"), path)

    def _in_spool(self, path: str) -> str:
        if path == self._order.spool:
            return "."
        return path.removeprefix(f"{self._order.spool}/") if path.startswith(f"{self._order.spool}/") else ""

    def _peer(self, stop: Stop, file: str) -> str:
        """Who is at the other end of a socket; nobody of interest where it is none of TCP."""
        if file not in self._peers:
            number = file.removeprefix("socket:[").removesuffix("]")
            found = re.search(
                rf"^ *\d+: \S+ \S+:(\w{{4}}) (?:\S+ +){{6}}{number} ",
                Path(f"/proc/{stop.thread}/net/tcp").read_text(),
                re.MULTILINE,
            )
            self._peers[file] = "" if not found else "store" if int(found[1], 16) == self._order.store_port else "client"
        return self._peers[file]


def _head(stop: Stop) -> bytes:
    """The first bytes that a call sends."""
    address, size = stop.arguments[1], stop.arguments[2]
    if stop.call in ("writev", "sendmsg"):
        if stop.call == "sendmsg":
            (address,) = struct.unpack_from("Q", stop.memory(address, 24), 16)
        address, size = struct.unpack("QQ", stop.memory(address, 16))
    return stop.memory(address, min(size, _HEAD_BYTES)) if size else b""


def main() -> int:
    """Run what the order in the first argument says."""
    order = Order.from_json(Path(sys.argv[1]).read_text())
    tracer = Tracer(order)
    try:
        code = run(order.command, order.environment, tracer.decide)
    except Untraceable as reason:
        print(reason, file=sys.stderr)
        return UNTRACEABLE
    tracer.finish()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
