"""scripts/build: what it makes is made of the commit and of nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from testkit.deadlines import TIMEOUT_FACTOR

CHECKOUT = Path(__file__).resolve().parents[2]


def test_two_builds_of_one_commit_are_the_same(onefile: Path, onedir: Path, tmp_path: Path) -> None:
    """The same files, built elsewhere with a virtual environment of its own, give the same file and folder to the byte."""
    listed = subprocess.run(
        ["git", "-C", CHECKOUT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=True
    )
    for name in (os.fsdecode(raw) for raw in listed.stdout.split(b"\0") if raw):
        if (CHECKOUT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, tmp_path / name)
    shutil.copytree(CHECKOUT / ".git", tmp_path / ".git")
    subprocess.run(["scripts/build"], cwd=tmp_path, stdin=subprocess.DEVNULL, timeout=600 * TIMEOUT_FACTOR, check=True)
    built = tmp_path / "dist"
    assert _digests(built / "onedir" / onedir.name) == _digests(onedir)
    assert _digest(built / onefile.name) == _digest(onefile)


def _digests(folder: Path) -> dict[str, str]:
    """The digest of each file, and where each symbolic link points."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
