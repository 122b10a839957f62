"""Debian's packages that the benchmarks need: installed where that may be done, else named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

# What is looked for, and the packages that bring it.
PACKAGES = {
    "wrk": ("wrk",),
    "nginx": ("nginx-extras",),
    "cc": ("gcc", "libc6-dev"),
    "taskset": ("util-linux",),
    "gzip": ("gzip",),
}
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
TIMEOUT_S = 600.0


def missing() -> list[str]:
    """The packages that are not here."""
    return [package for program, packages in PACKAGES.items() if shutil.which(program, path=PATH) is None for package in packages]


def install_missing() -> None:
    """Install what is missing, or say how; rows that lack something say so again and do not run."""
    wanted = missing()
    if not wanted:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        _say(f"these packages are missing, and only root can install them: apt-get install {' '.join(wanted)}")
        return
    _say(f"installing {' '.join(wanted)} with apt-get")
    # An index that cannot be read is no reason to stop: the package may come from another one.
    _apt(["update"])
    if (failed := _apt(["install", "-y", "--no-install-recommends", *wanted])) is not None:
        _say(f"apt-get could not install them:\n{failed}")
    elif "nginx-extras" in wanted:
        _stop_nginx()


def _apt(arguments: Sequence[str]) -> str | None:
    """What it printed if it failed, else None."""
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *arguments]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S
    )
    return done.stdout + done.stderr if done.returncode else None


def _stop_nginx() -> None:
    """Debian starts a server when it is installed, which would listen on every interface and take a part of the machine."""
    _say("stopping the nginx that came up with its package")
    for command in (["service", "nginx", "stop"], ["update-rc.d", "nginx", "disable"]):
        if shutil.which(command[0], path=PATH):
            subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S)


def _say(text: str) -> None:
    print(f"benchmark: {text}", file=sys.stderr, flush=True)
