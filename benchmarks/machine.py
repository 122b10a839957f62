"""The machine and the versions of everything that was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from gateway.core.build_info import current

PACKAGES = ("aiohttp", "uvloop", "orjson", "msgspec", "isal", "aiobotocore")


def describe(directory: Path) -> list[str]:
    """One line for each subject; `directory` is on the disk that is measured."""
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load before the run {os.getloadavg()[0]:.1f}",
        f"{_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB, {platform.system()} {platform.release()}",
        f"file system {_file_system(directory)}",
        f"gateway {current()}, CPython {platform.python_version()}",
        ", ".join(f"{package} {version(package)}" for package in PACKAGES),
        ", ".join(
            _first_line(command) for command in (["nginx", "-v"], ["wrk", "-v"], ["dd", "--version"], ["gzip", "--version"])
        ),
    ]


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8", errors="replace"), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def _file_system(directory: Path) -> str:
    """The type of the mount that holds a directory."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text("utf-8", errors="replace").splitlines()]
    holding = [(place, kind) for place, kind in mounts if directory.resolve().is_relative_to(place)]
    return max(holding, key=lambda mount: len(mount[0]))[1] if holding else "unknown"


def _first_line(command: Sequence[str]) -> str:
    return _said(command) or f"no {command[0]}"


def _said(command: Sequence[str]) -> str:
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    except FileNotFoundError:
        return ""
    return next(iter((done.stdout + done.stderr).splitlines()), "").strip()
