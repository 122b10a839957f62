"""A subcommand run as the service runs: with its user and its environment, and nothing of the caller's."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.core.errors import StartError

UNIT = "lightfile6-insights-gateway.service"
# What the packaged unit says, for a machine on which systemd cannot be asked.
PACKAGED = {"User": "lightfile6", "Environment": "", "EnvironmentFiles": "/etc/lightfile6/environment (ignore_errors=yes)"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_as_service(arguments: Sequence[str]) -> int:
    """Run this program with these arguments as the service would run, and return its exit code.

    Raises:
        StartError: that cannot be done by this user, or on this machine.
    """
    properties = _properties()
    user = _user(properties.get("User") or "root")
    if os.geteuid() not in (0, user.pw_uid):
        raise StartError(f"--as-service: only root and {user.pw_name} may run as {user.pw_name}: use sudo")
    environment = {"PATH": _PATH, "HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": user.pw_shell}
    environment |= dict(word.partition("=")[::2] for word in shlex.split(properties.get("Environment", "")))
    for file in properties.get("EnvironmentFiles", "").splitlines():
        environment |= _file(file)
    if not os.path.isdir(environment.get("TMPDIR", "/")):
        # systemd makes it at the first start.
        del environment["TMPDIR"]
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": os.getgrouplist(user.pw_name, user.pw_gid)}
    command, needed = _program()
    # This very program, with the arguments that it was given.
    return subprocess.run([*command, *arguments], env=environment | needed, check=False, **identity).returncode  # noqa: S603 (as above)


def _properties() -> Mapping[str, str]:
    """What systemd knows of the unit, drop-ins included; what the package ships where it cannot be asked or knows nothing."""
    command = ["systemctl", "show", UNIT, "--property=LoadState,User,Environment,EnvironmentFiles"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 (of fixed words)
    except (OSError, subprocess.TimeoutExpired):
        return PACKAGED
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        # A list that is long stands in several lines.
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return found if done.returncode == 0 and found.get("LoadState") == "loaded" else PACKAGED


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError as error:
        raise StartError(f"--as-service: there is no user {name}, as whom the service runs: install the service first") from error


def _file(described: str) -> dict[str, str]:
    """The variables of an environment file, as `systemctl show` names it: `/path (ignore_errors=yes)`."""
    match = re.fullmatch(r"(.*?)(?: \(ignore_errors=(yes|no)\))?", described)
    assert match is not None  # the pattern takes every line
    if not match[1]:
        return {}
    try:
        text = Path(match[1]).read_text("utf-8", "surrogateescape")
    except FileNotFoundError as error:
        if match[2] == "yes":
            return {}
        raise StartError(f"--as-service: the environment file {match[1]} of the service is missing") from error
    except OSError as error:
        raise StartError(f"--as-service: {match[1]} cannot be read ({error.strerror}): use sudo") from error
    return variables(text)


def variables(text: str) -> dict[str, str]:
    """Read an environment file by the rules of systemd.EnvironmentFile: comments, quotes, lines that go on after a backslash."""
    found: dict[str, str] = {}
    for line in re.sub(r"\\\n", "", text).splitlines():
        name, sign, value = line.strip().partition("=")
        if sign and name and name[0] not in "#;":
            found[name.strip()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == "'":
        return value[1:-1]
    if len(value) > 1 and value[0] == value[-1] == '"':
        return re.sub(r'\\(["\\$`])', r"\1", value[1:-1])
    return re.sub(r"\\(.)", r"\1", value)


def _program() -> tuple[list[str], dict[str, str]]:
    """How this program is started, and the variables that this takes."""
    if getattr(sys, "frozen", False):
        return [sys.executable], {}
    return [sys.executable, "-P", "-m", "gateway"], {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
