"""Which version this is: the tag of the commit, and how far from it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core import build_info
from gateway.core.build_info import UNKNOWN, Version, current, of_checkout

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """Make a checkout of one commit, and give what runs git in it."""

    def run(*arguments: str) -> str:
        who = {f"GIT_{role}_{field}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
        environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        done = subprocess.run(["git", "-C", tmp_path, *arguments], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    run("init", "-q")
    (tmp_path / "file").write_text("1")
    run("add", "file")
    run("commit", "-q", "-m", "first")
    return run


@pytest.mark.parametrize("number", ["1.2.3", "10.0.0-rc.1"])
def test_a_tagged_commit_has_the_version_of_its_tag(git: Git, tmp_path: Path, number: str) -> None:
    """The version is the tag, and stands in no other place."""
    git("tag", "-a", f"v{number}", "-m", "released")
    assert of_checkout(tmp_path) == Version(number, git("rev-parse", "HEAD"))


def test_a_later_commit_says_how_far_it_is(git: Git, tmp_path: Path) -> None:
    """What is built between two releases cannot be taken for either of them."""
    git("tag", "v1.2.3")
    git("commit", "-q", "--allow-empty", "-m", "second")
    commit = git("rev-parse", "HEAD")
    assert of_checkout(tmp_path) == Version(f"1.2.3+1.g{commit[:7]}", commit)
    (tmp_path / "file").write_text("2")
    assert of_checkout(tmp_path).number == f"1.2.3+1.g{commit[:7]}.dirty"


def test_a_changed_checkout_of_a_tag_is_not_the_release(git: Git, tmp_path: Path) -> None:
    """A tag with changes that nobody committed is told from the tag."""
    git("tag", "v1.2.3")
    (tmp_path / "file").write_text("2")
    assert of_checkout(tmp_path).number == f"1.2.3+0.g{git('rev-parse', 'HEAD')[:7]}.dirty"


def test_before_the_first_tag(git: Git, tmp_path: Path) -> None:
    """A checkout without a tag has version 0.0.0 and the count of its commits; a tag that names no version is none."""
    git("tag", "vacation")
    commit = git("rev-parse", "HEAD")
    assert of_checkout(tmp_path) == Version(f"0.0.0+1.g{commit[:7]}", commit)
    (tmp_path / "file").write_text("2")
    assert of_checkout(tmp_path).number.endswith(".dirty")


def test_the_checkout_is_the_one_that_was_asked_for(git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says of another repository, and who owns this one, changes nothing."""
    commit = git("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    if os.getuid() == 0:
        os.chown(tmp_path, 65534, 65534)
    assert of_checkout(tmp_path).commit == commit


def test_outside_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: Git) -> None:
    """Files without git's folder, though inside another checkout, and a machine without git, have no version."""
    inside = tmp_path / "inside"
    inside.mkdir()
    assert of_checkout(inside) == Version("0.0.0", UNKNOWN)
    monkeypatch.setenv("PATH", str(inside))
    assert of_checkout(tmp_path) == Version("0.0.0+0.gunknown", UNKNOWN)


def test_the_frozen_program_knows_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the build wrote counts, and is told with commit and date."""
    frozen = tmp_path / "build_info.json"
    frozen.write_text('{"number": "1.2.3", "commit": "0123456789abcdef", "built": "2026-11-21T12:00:00Z"}')
    monkeypatch.setattr(build_info, "FROZEN", frozen)
    assert str(current()) == "1.2.3 (commit 0123456789ab, built 2026-11-21T12:00:00Z)"
    frozen.unlink()
    assert str(current()).endswith("from source)")
