"""What waits of a stream that is gone from the configuration is kept, counted and reported, and never set aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core import disk
from gateway.core.errors import StartError
from gateway.core.streams import FILES, LINES, Stream
from gateway.spool import accounting, names
from gateway.spool.directories import Directories
from gateway.spool.left_streams import LeftStream, check_forms, left_batches, left_streams
from gateway.spool.recovery import recover
from testkit.spool import ERROR, SPECIMEN, START_NS, STREAMS, USAGE, Bench, Clock, claim, open_bench, tree


def fill(bench: Bench) -> None:
    """Put something in every state."""
    bench.seal(b"1", b"2")
    bench.report(b"3")
    claim(bench)
    bench.report(b"4")
    bench.file(b"a specimen")


def without(root: Path, *gone: Stream) -> Directories:
    """The layout of a gateway that does not know some streams."""
    return Directories(root, tuple(stream for stream in STREAMS if stream not in gone))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a spool with something in every state, which nobody holds."""
    with open_bench(tmp_path) as bench:
        fill(bench)
    return tmp_path / "spool"


def test_what_is_left_is_found(root: Path) -> None:
    """Files of every state are found, with their bytes; a stream with nothing that waits is none."""
    found = {left.name: left for left in left_streams(without(root, USAGE, ERROR, SPECIMEN))}
    assert set(found) == {"usage", "specimen"}
    assert found["usage"].files == 3
    assert found["specimen"] == LeftStream("specimen", 1, len(b"a specimen"), found["specimen"].oldest, found["specimen"].newest)
    assert left_streams(Directories(root, STREAMS)) == []
    assert "streams.usage" in str(found["usage"])


def test_directories_of_others_are_none(root: Path) -> None:
    """What the gateway keeps for itself, and what is no name of a stream, is not taken for one."""
    for name in ("lost+found", "tmp", "quarantine", "Trash", "empty"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "note").write_text("x")
    assert left_streams(Directories(root, STREAMS)) == []


@pytest.mark.parametrize("folder", ["uploading", "aggregation"])
def test_a_file_with_the_name_of_a_folder_is_no_fault(root: Path, tmp_path: Path, folder: str) -> None:
    """A stranger's directory does not keep the gateway from its start."""
    (root / "backup").mkdir()
    (root / "backup" / folder).write_text("x")
    with open_bench(tmp_path, recovered=False) as later:
        assert recover(later.spool).waiting_files == 4


def test_a_directory_that_cannot_be_read_is_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a stranger's: the others are found, its batches are passed over, and nothing is raised."""
    (root / "backup").mkdir()
    read = disk.names

    def names_or_refused(directory: Path) -> Iterator[str]:
        if directory.name == "backup" or directory.parent.name == "backup":
            raise PermissionError(13, "Permission denied", str(directory))
        return read(directory)

    monkeypatch.setattr(disk, "names", names_or_refused)
    monkeypatch.setattr(disk, "is_directory", lambda _: True)
    unreadable: list[Path] = []
    found = left_streams(without(root, USAGE), lambda path, _: unreadable.append(path))
    assert [left.name for left in found] == ["usage"]
    assert unreadable == [root / "backup"]
    assert len(list(left_batches(without(root, USAGE)))) == 1


def test_what_is_left_is_looked_for_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scrapes do not read a backlog of many files again: nothing changes it."""
    with open_bench(tmp_path, recovered=False, streams=(ERROR, SPECIMEN)) as later:
        recover(later.spool)
        first = [(each.stream, each.files) for each in later.spool.accounting.of_each_stream()]
        monkeypatch.setattr(accounting, "left_streams", None)
        assert [(each.stream, each.files) for each in later.spool.accounting.of_each_stream()] == first
    assert ("usage", 3) in first
    assert root.is_dir()


def test_recovery_leaves_it_alone_and_counts_it(root: Path, tmp_path: Path) -> None:
    """A start without the stream changes nothing of it, counts it against the quota, and shows it in the metrics."""
    before = tree(root / "usage")
    with open_bench(tmp_path, recovered=False, streams=(ERROR, SPECIMEN)) as later:
        found = recover(later.spool)
        assert found.quarantined == 0
        assert found.waiting_files == 4
        assert later.spool.accounting.waiting_files() == 4
        assert later.spool.accounting.used_bytes() > len(b"a specimen")
        waiting = {each.stream: each.files for each in later.spool.accounting.of_each_stream()}
        assert waiting == {"error": 0, "specimen": 1, "usage": 3}
    assert tree(root / "usage") == before
    with open_bench(tmp_path, recovered=False) as back:
        assert recover(back.spool).quarantined == 0
        assert back.spool.accounting.waiting["usage"].files == 3
        assert back.spool.accounting.left.files == 0


def test_no_name_comes_before_one_that_is_left(root: Path, tmp_path: Path) -> None:
    """After the clock was set back, too: when the stream is put back its order has to be that of one time."""
    left = max(parsed.order for path in root.rglob("*.*") if (parsed := names.parse_spool_name(path.name)))
    clock = Clock()
    clock.now_ns -= 3600 * 10**9
    with open_bench(tmp_path, clock=clock, recovered=False, streams=(ERROR,)) as later:
        recover(later.spool)
        assert later.spool.timestamps.next() > left


def test_a_number_that_is_left_is_not_given_again(root: Path, tmp_path: Path) -> None:
    """A stream with another name and the same place gives no key that a sealed batch of the one that is gone will have."""
    (batch, number) = next(iter(left_batches(without(root, USAGE))))
    renamed = replace(USAGE, name="reports", path="/reports")
    with open_bench(tmp_path, recovered=False, streams=(renamed, ERROR, SPECIMEN)) as later:
        recover(later.spool)
        assert later.spool.numbers.next(renamed, names.Batch(batch.hour, batch.host, "0" * 32)) > number


@pytest.mark.parametrize(
    ("put", "was"),
    [
        (lambda bench: bench.report(b"1"), USAGE),
        (lambda bench: bench.seal(b"1"), USAGE),
        (lambda bench: bench.file(b"1"), SPECIMEN),
    ],
    ids=["a report", "a sealed batch", "a file"],
)
def test_a_form_is_not_changed_under_what_waits(tmp_path: Path, put: Callable[[Bench], object], was: Stream) -> None:
    """A stream whose directory holds what was received in another form refuses to start, and says what to do."""
    changed = replace(was, form=FILES if was.form is LINES else LINES)
    with open_bench(tmp_path) as bench:
        put(bench)
        before = tree(bench.spool.root)
        with pytest.raises(StartError, match=rf"^streams.{was.name}.form: is {changed.form.name}, and 1 files wait"):
            check_forms(Directories(bench.spool.root, (changed,)))
        check_forms(Directories(bench.spool.root, STREAMS))
        assert tree(bench.spool.root) == before


def test_a_form_is_changed_when_nothing_waits(tmp_path: Path) -> None:
    """The empty directories of the form before are gone, and nothing is set aside."""
    changed = replace(USAGE, form=FILES)
    with open_bench(tmp_path) as bench:
        assert (bench.spool.root / "usage" / "uploading").is_dir()
    with open_bench(tmp_path, streams=(changed, ERROR, SPECIMEN)) as bench:
        check_forms(bench.spool.directories)
        assert list((bench.spool.root / "usage").iterdir()) == []
        assert not any((bench.spool.root / "quarantine").iterdir())


def test_strangers_are_no_form(tmp_path: Path) -> None:
    """A name that does not belong beside others that do is set aside, as any stranger, and stops no start."""
    with open_bench(tmp_path) as bench:
        bench.report(b"1")
        (bench.spool.root / "usage" / names.spool_name(START_NS, START_NS, 1, names.BODY, "x")).write_bytes(b"?")
        check_forms(bench.spool.directories)
