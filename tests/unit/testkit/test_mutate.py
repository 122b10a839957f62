"""Single faults are planted one at a time, the same ones each time, and tests that do not see one are found out."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from testkit import CHECKOUT
from testkit.mutate import faults_of, planted

SOURCE = '''
def pick(numbers, most):
    """The first numbers."""
    found = []
    for number in numbers:
        if number < most and len(found) <= 3:
            found.append(number)
    return found
'''


def test_each_fault_is_one_change() -> None:
    """Every fault gives another source that compiles, and differs from the sound one."""
    sound = ast.unparse(ast.parse(SOURCE)) + "\n"
    made = [planted(SOURCE, number) for number in range(len(list(faults_of(ast.parse(SOURCE)))))]
    assert len({text for _, text in made}) == len(made) == 7
    assert sound not in {text for _, text in made}
    for _, text in made:
        compile(text, "planted", "exec")
    words = " | ".join(what for what, _ in made)
    kinds = ("the comparison is turned", "negated", "and is or", "3 is 4", "append(number): left out", "return found: left out")
    assert [kind for kind in kinds if kind not in words] == []


def mutate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as a contributor does."""
    command = [sys.executable, "-m", "testkit.mutate", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False)


def test_a_test_that_looks_sees_the_faults() -> None:
    """The tests of a small room see what is planted in it."""
    done = mutate("core/bounded", "--seed", "1", "--count", "2", "tests/unit/core/test_bounded.py")
    assert "2 of " in done.stdout, done.stderr
    assert done.stdout.count("seen  ") + done.stdout.count("UNSEEN") == 2
    assert done.stdout.count("seen  ") >= 1


def test_a_test_that_does_not_look_is_found_out(tmp_path: Path) -> None:
    """With a test that asserts nothing no fault is seen, and the exit code says so."""
    blind = tmp_path / "test_blind.py"
    blind.write_text("def test_blind():\n    import gateway.core.bounded\n")
    done = mutate("core/bounded", "--seed", "1", "--count", "1", str(blind))
    assert done.returncode == 1
    assert "1 not seen" in done.stdout


@pytest.mark.parametrize(("room", "says"), [("core/nothing", "there is no gateway/core/nothing.py")])
def test_what_cannot_be_tried_is_said(room: str, says: str) -> None:
    """A room that is not there is an error of one line."""
    done = mutate(room)
    assert (done.returncode, says in done.stderr) == (2, True)
