"""Runs other programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from release.commands import answer, run, succeeds
from release.errors import ReleaseError


def test_answer(tmp_path: Path) -> None:
    """The answer is what a program prints, without the white space around it."""
    assert answer("pwd", cwd=tmp_path) == str(tmp_path)


def test_a_failure_is_one_line(tmp_path: Path) -> None:
    """A program that fails is an error that names it, its exit code and what it said."""
    with pytest.raises(ReleaseError, match=r"^`bash -c echo a >&2; echo b >&2; exit 3` ended with 3: a b\.$"):
        answer("bash", "-c", "echo a >&2; echo b >&2; exit 3", cwd=tmp_path)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """A program that is not there is an error that names it, and does not succeed."""
    with pytest.raises(ReleaseError, match=r"^no-such-program could not be run \(No such file or directory\)\.$"):
        run("no-such-program", cwd=tmp_path)
    assert not succeeds("no-such-program", cwd=tmp_path)
    assert succeeds("true", cwd=tmp_path)


def test_stdin_and_environment(tmp_path: Path) -> None:
    """A program gets the text and the variables that it is given, and without a text an end of file."""
    run("bash", "-c", 'cat >out; echo "$GIVEN" >>out', cwd=tmp_path, environment={"GIVEN": "variable"}, stdin="text\n")
    assert (tmp_path / "out").read_text() == "text\nvariable\n"
    run("bash", "-c", "cat >out", cwd=tmp_path)
    assert (tmp_path / "out").read_text() == ""
