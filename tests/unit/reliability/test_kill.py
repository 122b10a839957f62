from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from reliability.calls import Step
from reliability.kill.attempt import Try
from reliability.kill.ptrace import Untraceable, run
from reliability.kill.rows import first_and_last, outcome_of, spread
from reliability.kill.traced import Kill, Order

from testkit import PYTHON_PATH
from testkit.ledger import Account


def kill(text: str, occurrence: int) -> Kill:
    """Before a call."""
    return Kill(after=False, step=Step("cut", text, occurrence))


def test_of_each_kind_the_first_and_the_last_are_chosen() -> None:
    """Whichever of the report streams they are for, and in the order of the run."""
    kills = [kill("fsync usage", 1), kill("fsync error", 1), kill("fsync usage", 2), kill("fsync specimen", 1)]
    assert first_and_last(kills) == [kills[0], kills[2], kills[3]]


def test_many_are_spread() -> None:
    """Evenly, and all of them where there are not too many."""
    kills = [kill("fsync usage", number) for number in range(10)]
    assert spread(kills, 5) == kills[::2]
    assert spread(kills, 100) == kills
    assert spread([], 5) == []


def test_a_try_that_was_not_killed_is_no_try() -> None:
    """It stands in the notes, unless something went wrong in it; a row in which none was killed has not held."""
    right = Try("a", was_killed=True, account=Account(acknowledged=2, delivered=2))
    missed = Try("b", was_killed=False)
    assert outcome_of([right, missed]).tried == 1
    assert outcome_of([right, missed]).faults == []
    assert outcome_of([missed]).faults == ["the gateway came to none of the calls"]
    wrong = Try("c", was_killed=False, faults=["left in the spool: x"])
    assert outcome_of([right, wrong]).faults == ["c: left in the spool: x"]


def test_an_order_is_read_as_it_was_written() -> None:
    """With the step and without."""
    for at in (None, kill("fsync usage", 3), Kill(after=True, number=7)):
        order = Order(["true"], {"A": "b"}, "/spool", 9000, "/log", at)
        assert Order.from_json(order.to_json()) == order
    assert str(kill("fsync usage", 3)) == "fsync usage, 3rd, before"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="programs are stopped at their calls on x86-64 alone")
@pytest.mark.parametrize("after", [False, True])
def test_a_program_is_killed_before_or_after_a_call(tmp_path: Path, after: bool) -> None:
    """Before it the file has its old name, after it the new one, and the program does nothing more."""
    spool = tmp_path / "spool"
    spool.mkdir()
    program = "import os; os.mkdir('usage'); os.rename('usage', 'error'); os.rename('error', 'specimen')"
    at = Kill(after=after, step=Step("start", "rename usage -> error", 1))
    order = Order([sys.executable, "-c", f"import os; os.chdir({str(spool)!r}); {program}"], {}, str(spool), 0, "log", at)
    (tmp_path / "order").write_text(order.to_json())
    done = subprocess.run(
        [sys.executable, "-m", "reliability.kill.traced", "order"],
        cwd=tmp_path,
        env={"PYTHONPATH": PYTHON_PATH},
        timeout=60,
        check=False,
    )
    assert done.returncode == 128 + 9
    assert [path.name for path in spool.iterdir()] == ["error" if after else "usage"]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["text"], line.get("killed")) for line in lines] == [
        ("make usage", None),
        ("rename usage -> error", "after" if after else "before"),
    ]


def test_where_nothing_can_be_traced_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started on a machine whose calls have other numbers."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(Untraceable, match="riscv64"):
        run(["true"], {}, lambda _: False)
