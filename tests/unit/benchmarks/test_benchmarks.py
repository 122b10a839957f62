"""The pure parts of the benchmarks: figures, what is read from programs, and the document that is made of them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from reliability.table import put_between

from benchmarks import dd, document, packages, rows, wrk
from benchmarks.__main__ import MARK, peer
from benchmarks.backlog import SEGMENT_REPORTS, lay_out, write_reports
from benchmarks.contestants import check_count, warm_and_load
from benchmarks.cores import every_core, pinned
from benchmarks.figures import Result, Series, in_turn, percentile
from benchmarks.lines import body
from benchmarks.load import Load, load_of
from benchmarks.rows import Outcome
from benchmarks.sentlog import Sent
from benchmarks.settings import QUICK_SECONDS, CannotRun, Peer, Settings, Wrong
from testkit import CHECKOUT

PAGE = CHECKOUT / "docs" / "performance.md"
WRK_SAID = 'Running\n{"requests":900,"seconds":3.0,"refused":0,"broken":0,"p50_ms":1.5,"p99_ms":2.5,"p999_ms":3.5}\n'


class Script:
    """A load generator that gives what it was told to, in this order."""

    def __init__(self, loads: list[Load]) -> None:
        self._loads = loads

    def put(self, url: str, seconds: float) -> Load:
        """The next one."""
        return self._loads.pop(0)


def settings(directory: Path) -> Settings:
    """Settings of a run in this directory alone."""
    return Settings(directory=directory, memory_directory=directory)


@pytest.mark.parametrize(("percent", "wanted"), [(0, 1), (50, 50), (99, 99), (99.1, 100), (99.9, 100), (100, 100)])
def test_percentile(percent: float, wanted: float) -> None:
    """A percentile is a value that was measured, the least that so many do not pass."""
    assert percentile(range(1, 101), percent) == wanted


def test_percentile_of_nothing() -> None:
    """Where nothing was measured there is no percentile, and not a 0."""
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


def test_latencies() -> None:
    """Latencies need no order, and microseconds become milliseconds."""
    load = load_of([1000 * number for number in range(1000, 0, -1)], 2.0)
    assert (load.requests, load.per_s, load.p50_ms, load.p99_ms, load.p999_ms) == (1000, 500.0, 500.0, 990.0, 999.0)


def test_a_ratio_is_taken_round_by_round() -> None:
    """Two rounds of a machine that became half as fast have one ratio, whatever the medians say."""
    assert Series((10.0, 5.0)).over(Series((20.0, 10.0))).values == (0.5, 0.5)
    with pytest.raises(ValueError, match="shorter"):
        Series((1.0, 2.0)).over(Series((1.0,)))


def test_a_series_shows_its_spread() -> None:
    """The median stands with the least and the greatest; one round has no spread."""
    assert Series((3000.0, 1000.0, 2000.0)).show() == "2,000 (1,000 to 3,000)"
    assert Series((0.123,)).show(2) == "0.12"


def test_another_one_begins_each_round() -> None:
    """Each contestant is measured once a round, and none is always the first."""
    order: list[str] = []

    def measure(name: str) -> int:
        order.append(name)
        return len(order)

    found = in_turn({name: partial(measure, name) for name in "abc"}, 4)
    assert "".join(order) == "abcbcacababc"
    assert found == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}


def test_a_rate_needs_its_median_and_a_bound_every_round() -> None:
    """One slow round of three misses no rate, and one round above a bound misses it."""
    result = Result("")
    result.at_least("rate", 2.0, Series((1.0, 2.0, 3.0)))
    result.at_most("bound", 2.0, Series((1.0, 2.0, 3.0)))
    result.at_most("kept", 3.0, Series((1.0, 2.0, 3.0)))
    assert [target.met for target in result.targets] == [True, False, True]


def test_wrk_is_read() -> None:
    """What the script prints last counts; requests that wrk hung up on may have come in, one a connection."""
    load = wrk.parse(WRK_SAID, "url", 64)
    assert (load.requests, load.in_flight, load.per_s, load.p999_ms) == (900, 64, 300.0, 3.5)


@pytest.mark.parametrize("name", ["refused", "broken"])
def test_wrk_with_failures_gives_no_figure(name: str) -> None:
    """A rate in which anything was refused or broken is no rate."""
    said = WRK_SAID.replace(f'"{name}":0', f'"{name}":1')
    assert said != WRK_SAID
    with pytest.raises(Wrong, match="did not answer every request"):
        wrk.parse(said, "url", 64)


def test_a_stall_may_be_as_long_as_the_warming() -> None:
    """Where nothing was answered while the server was warmed, the load counts; where the load had no answer, nothing does."""
    stalled, load = (wrk.parse(WRK_SAID.replace("900", number), "url", 64) for number in ("0", "900"))
    assert warm_and_load(Script([stalled, load]), "url", 1.0, None) == (load, 900, 128)
    with pytest.raises(Wrong, match="not one"):
        warm_and_load(Script([load, stalled]), "url", 1.0, None)


@pytest.mark.parametrize(("seconds", "wanted"), [("0.5", 0.5), ("12", 12.0), ("9.3e-05", 9.3e-05)])
def test_dd_is_read(seconds: str, wanted: float) -> None:
    """The seconds of dd are found however it writes them, and their absence is an error."""
    assert dd.seconds_of(f"1+0 records in\n1048576 bytes (1.0 MB, 1.0 MiB) copied, {seconds} s, 2.2 GB/s\n") == wanted
    with pytest.raises(Wrong):
        dd.seconds_of("dd: failed to open\n")


@pytest.mark.parametrize(("found", "right"), [(9, False), (10, True), (14, True), (15, False)])
def test_what_was_kept_is_counted(found: int, right: bool) -> None:
    """A report less than acknowledged is lost, and one more than can have come in is doubled: neither gives a figure."""
    if right:
        check_count(found, 10, 4)
        return
    with pytest.raises(Wrong):
        check_count(found, 10, 4)


def test_a_peer_is_a_name_and_an_address() -> None:
    """Addresses may hold a =; without a name or a scheme, or of another machine, it is refused."""
    assert peer("vector=http://127.0.0.1:80/?a=b") == Peer("vector", "http://127.0.0.1:80/?a=b")
    assert peer("vector=http://[::1]/").name == "vector"
    elsewhere = ("vector=http://192.0.2.1/", "vector=http://localhost.example.com/", "vector=http:///")
    for text in ("http://127.0.0.1/", "=http://127.0.0.1/", "vector=127.0.0.1", *elsewhere):
        with pytest.raises(argparse.ArgumentTypeError):
            peer(text)


def test_a_quick_run_is_short_unless_asked() -> None:
    """One short round, and what the command line says goes before that."""
    quick = Settings(directory=Path(), memory_directory=Path(), quick=True)
    assert (quick.rounds(5), quick.seconds(3.0), quick.either(1, 2)) == (1, QUICK_SECONDS, 2)
    asked = Settings(directory=Path(), memory_directory=Path(), quick=True, asked_rounds=3, asked_seconds=0.5)
    assert (asked.rounds(5), asked.seconds(3.0)) == (3, 0.5)


@pytest.mark.parametrize("size", [1 << 10, 64 << 10])
def test_a_report_has_its_size(size: int) -> None:
    """A report of 1 KiB or 64 KiB is exactly that."""
    assert len(body(size)) == size


def test_a_pinned_program_stays_on_its_core() -> None:
    """What is pinned sees one core, and so does what it starts."""
    command = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"]
    core = every_core()[-1]
    said = subprocess.run(pinned(command, (core,)), check=True, capture_output=True, text=True).stdout
    assert said.strip() == str({core})


def test_half_a_line_of_the_log_waits(tmp_path: Path) -> None:
    """A line that is still being written counts once it is whole, and only once."""
    log = tmp_path / "log"
    log.write_bytes(b"12:00 info object delivered stream=usage items=10\n12:00 info object delivered stream=specimen ite")
    sent = Sent(log)
    assert sent.look() == 10
    with log.open("ab") as file:
        file.write(b"ms=1\n12:00 info delivery failed items=7\n")
    assert (sent.look(), sent.look()) == (11, 11)


def test_a_backlog_of_reports_has_so_many(tmp_path: Path) -> None:
    """As many lines wait as were asked for, in names that differ."""
    lay_out(tmp_path)
    write_reports(tmp_path, 3 * SEGMENT_REPORTS)
    segments = list((tmp_path / "usage").glob("*.jsonl"))
    assert [path.read_bytes().count(b"\n") for path in segments] == [SEGMENT_REPORTS] * 3


def outcomes() -> list[Outcome]:
    """One row that met a target and missed another, and one that could not be run."""
    result = Result("fast: a row", tables=["| table |"], notes=["a note"])
    result.at_least("speed", 2.0, Series((3.0,)))
    result.at_least("more speed", 4.0, Series((3.0,)))
    return [Outcome("fast", 1.0, result), Outcome("absent", 0.0, fault="no such thing\nhere")]


def test_the_targets_come_first_and_hide_nothing() -> None:
    """What was missed says so, and what could not be measured stands there with its reason."""
    text = document.render(["a machine"], outcomes())
    assert "| speed | ≥ 2 | 3.00 | met |" in text
    assert "| more speed | ≥ 4 | 3.00 | **falls short** |" in text
    assert "| row `absent` |  |  | **not measured** |" in text
    assert "### absent: not measured\n\n    no such thing\n    here\n" in text
    assert text.index("a machine") < text.index("speed") < text.index("### fast: a row") < text.index("| table |")


def errors(place: Path) -> list[Exception]:
    """What may end a row, each with a path in its text."""
    command = subprocess.CalledProcessError(1, "x", b"", f"why: {place}/body".encode())
    return [CannotRun(f"why: {place}/body"), Wrong(f"why: {place}/body"), OSError(f"why: {place}/body"), command]


@pytest.mark.parametrize("number", range(4))
def test_a_row_that_fails_is_told(number: int, tmp_path: Path) -> None:
    """Whatever ends a row, its reason is kept without where that was; the next row can run, and no directory stays behind."""

    def row(given: Settings) -> Result:
        (given.directory / "left").touch()
        raise errors(tmp_path)[number]

    outcome = rows.run("row", row, settings(tmp_path))
    assert outcome.result is None
    assert "why: body" in outcome.fault
    assert "not measured" in document.summary(outcome)
    assert not list(tmp_path.iterdir())


def test_the_page_has_a_place_for_the_tables(tmp_path: Path) -> None:
    """`--write` replaces what stands between the marks of the page, and nothing else of it."""
    copy = tmp_path / "page.md"
    copy.write_text(PAGE.read_text("utf-8"), "utf-8")
    put_between(copy, MARK, "| new |")
    before, _, rest = PAGE.read_text("utf-8").partition(f"<!-- {MARK} begins -->")
    after = rest.partition(f"<!-- {MARK} ends -->")[2]
    assert copy.read_text("utf-8") == f"{before}<!-- {MARK} begins -->\n\n| new |\n\n<!-- {MARK} ends -->{after}"


def test_missing_packages_are_installed_by_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root has apt-get install them, after saying so; anyone else is told what to install."""
    apt = tmp_path / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n', "ascii")
    apt.chmod(0o755)
    for program in set(packages.PACKAGES) - {"wrk"}:
        (tmp_path / program).write_text("", "ascii")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(packages, "PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    packages.install_missing()
    assert "apt-get install wrk" in capsys.readouterr().err
    assert not (tmp_path / "asked").exists()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    packages.install_missing()
    assert "installing wrk" in capsys.readouterr().err
    assert (tmp_path / "asked").read_text().splitlines()[-1].endswith("install -y --no-install-recommends wrk")
