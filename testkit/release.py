"""A checkout in a temporary folder, small enough to be released in a moment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from release import make
from release.manifest_file import load
from release.plan import Plan
from testkit import CHECKOUT

EPOCH = 1_800_000_000

LOCK = """\
# a comment
aiohttp==3.14.5 \\
    --hash=sha256:0133c3c3b54a0bf1e71fa5c1ad95c93f07fd54e24ef1fe182f5122e1573d2bf1 \\
    --hash=sha256:0984952aeae1f5dbfe02d46039338513b94009baecd15d8e4098a357c4c4a2a6
flit-core==3.12.0 \\
    --hash=sha256:0133c3c3b54a0bf1e71fa5c1ad95c93f07fd54e24ef1fe182f5122e1573d2bf1
pywin32==311 ; sys_platform == 'win32' \\
    --hash=sha256:0133c3c3b54a0bf1e71fa5c1ad95c93f07fd54e24ef1fe182f5122e1573d2bf1
typing-extensions==4.16.0 ; python_full_version < '3.13' \\
    --hash=sha256:0133c3c3b54a0bf1e71fa5c1ad95c93f07fd54e24ef1fe182f5122e1573d2bf1
uvloop==0.23.0 ; sys_platform != 'win32' \\
    --hash=sha256:0133c3c3b54a0bf1e71fa5c1ad95c93f07fd54e24ef1fe182f5122e1573d2bf1
"""

CHANGELOG = """\
# Changelog

## Unreleased

- Something new.

## 1.0.0 - 2026-01-02

- The first one.
"""


@dataclass(frozen=True)
class Checkout:
    """A checkout with a git history of its own."""

    root: Path

    def git(self, *arguments: str) -> str:
        """Run git in it, as nobody in particular."""
        who = {f"GIT_{role}_{field}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
        alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_COMMITTER_DATE": f"{EPOCH} +0000"}
        done = subprocess.run(
            ["git", "-C", self.root, *arguments], env={**os.environ, **who, **alone}, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, subject: str) -> None:
        """Commit nothing under this subject."""
        self.git("commit", "-q", "--allow-empty", "-m", subject)

    def plan(self, version: str = "1.2.3", owner: str = "Somebody") -> Plan:
        """What it would be released as, if it were of this version."""
        return Plan(root=self.root, manifest=load(self.root), version=version, epoch=EPOCH, owner=owner)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Make a checkout with release.yml of this one, and small files for all that it names."""
    root = tmp_path / "checkout"
    (root / "dist").mkdir(parents=True)
    (root / "release.yml").write_text((CHECKOUT / "release.yml").read_text())
    (root / "requirements.lock").write_text(LOCK)
    (root / "CHANGELOG.md").write_text(CHANGELOG)
    for name in ("LICENSE", "README.md", "config.yml.example"):
        (root / name).write_text(f"the {name}\n")
    (root / "dist" / "lightfile6-insights-gateway").write_bytes(b"the program")
    made = Checkout(root)
    made.git("init", "-q", "-b", "main")
    made.git("add", "release.yml")
    made.git("commit", "-q", "-m", "Begin")
    return made


Tools = Callable[..., Path]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """Put stand-ins for programs first on the PATH; each appends its arguments to the file that is returned."""
    folder, log = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    log.touch()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def make(name: str, script: str = "") -> Path:
        path = folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>{log}\n{script}\n')
        path.chmod(0o755)
        return log

    return make


@pytest.fixture
def stand_ins(checkout: Checkout, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """Put stand-ins in place of all that takes long; what was built asks for glibc 2.17."""
    monkeypatch.setattr(make, "this_platform", lambda: "linux/amd64")
    monkeypatch.setattr(make, "HERE", checkout.root)
    for script in ("scripts/build", "scripts/image", "smoke"):
        path = checkout.root / script
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/bash\nexec called {script} "$@"\n')
        path.chmod(0o755)
    (checkout.root / "dist" / "lightfile6-insights-gateway").write_bytes(b"\x7fELF program")
    tools("called")
    tools("docker", '[ "$1" != save ] || echo image >"$3"')
    tools("objdump", "echo '*UND* (GLIBC_2.17) x'")
    return checkout
