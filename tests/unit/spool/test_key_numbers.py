"""A number in a key is given once: over deliveries, removals in the bucket, crashes at any line, and damage to the file."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core import disk
from gateway.spool import key_numbers, names
from gateway.spool.key_numbers import NUMBERS, KeyNumbers
from gateway.spool.names import KeyNumber
from gateway.stores.local import LocalStore
from testkit.spool import (
    ERROR,
    HOST,
    HOUR,
    NEXT_HOUR,
    STREAMS,
    USAGE,
    Bench,
    Crashing,
    PowerCut,
    Trace,
    batch_and_deliver,
    folder_in_memory,
    open_bench,
)

BATCH = names.new_batch(HOUR, HOST, bytes(16))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a real spool."""
    with open_bench(tmp_path) as made:
        yield made


def numbers_of(bench: Bench) -> KeyNumbers:
    """The numbers as another process finds them."""
    spool = bench.spool
    return KeyNumbers(spool.root, {stream: spool.directories.uploading(stream) for stream in STREAMS}, spool.new_tmp, bench.log)


def number_in(sealed: Path) -> int:
    """The number in the name of a sealed file."""
    parsed = names.parse_sealed(sealed.name)
    assert parsed is not None
    return parsed[1]


def test_each_stream_hour_and_host_counts_by_itself(bench: Bench) -> None:
    """Numbers begin at 1 and rise by one, in each of them."""
    numbers = bench.spool.numbers
    others = [
        (ERROR, BATCH),
        (USAGE, names.new_batch(NEXT_HOUR, HOST, bytes(16))),
        (USAGE, names.new_batch(HOUR, "another", bytes(16))),
    ]
    assert [numbers.next(USAGE, BATCH) for _ in range(3)] == [1, 2, 3]
    assert [numbers.next(stream, batch) for stream, batch in others] == [1, 1, 1]


def test_a_number_that_no_file_got_is_given_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are not passed over because a disk failed; but a number behind which others were given stays used."""
    bench.report(b"1")
    claimed = bench.spool.claim(USAGE, 1 << 30, HOST)
    assert claimed is not None
    draft = bench.spool.new_tmp()
    disk.write_file(draft, b"an archive")
    with monkeypatch.context() as patch:
        patch.setattr(disk, "place", _failing(errno.EIO))
        for _ in range(3):
            with pytest.raises(OSError, match="Input"):
                bench.spool.seal(claimed, draft)
    numbers = bench.spool.numbers
    first, second = numbers.next(USAGE, BATCH), numbers.next(USAGE, BATCH)
    numbers.give_back(USAGE, BATCH, first)
    assert (first, second, numbers.next(USAGE, BATCH)) == (1, 2, 3)


@pytest.mark.parametrize("lives", [1, 3])
def test_what_was_delivered_and_removed_keeps_its_number(tmp_path: Path, lives: int) -> None:
    """A reader that removes what it has read, and starts in between, find each number once."""
    seen = []
    for life in range(6 // lives):
        with open_bench(tmp_path) as bench:
            seen += [number_in(bench.seal(b"%d" % (life * lives + one))) for one in range(lives)]
            batch_and_deliver(bench.spool, LocalStore(tmp_path / "objects"))
        shutil.rmtree(tmp_path / "objects")
    assert seen == list(range(1, 7))


def test_a_waiting_file_holds_its_number(tmp_path: Path) -> None:
    """What waits for the store is not in the file yet, and its name says which number it has, packed or not."""
    with open_bench(tmp_path) as bench:
        bench.spool.renumber(bench.seal(b"1"), KeyNumber(7))
        path = bench.report(b"2")
        bench.spool.seal_unpacked(USAGE, path, bench.spool.batch_of(path, HOST))
    with open_bench(tmp_path) as bench:
        assert not (bench.spool.root / NUMBERS).exists()
        assert bench.spool.numbers.next(USAGE, BATCH) == 8


def test_the_number_is_durable_before_the_file_goes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the number, synced; then the removal."""
    for number in range(2):
        sealed = bench.seal(b"%d" % number)
        trace = Trace(monkeypatch, bench.spool.root)
        bench.spool.retire(USAGE, sealed)
        written = "append NUMBERS" if number else "replace tmp/"
        assert trace.first(written) < trace.first("remove usage/uploading/")
        if not number:
            assert trace.first("write_file tmp/") < trace.first(written) < trace.first("sync_directory .")
            assert trace.first("sync_directory .") < trace.first("remove usage/uploading/")
    assert (bench.spool.root / NUMBERS).read_text() == f"usage/ {HOUR}.{HOST} 1\nusage/ {HOUR}.{HOST} 2\n"


def test_what_is_set_aside_keeps_its_number(tmp_path: Path) -> None:
    """An attempt may have used it."""
    with open_bench(tmp_path) as bench:
        bench.spool.set_aside(USAGE, bench.seal(b"1"), "on purpose")
    with open_bench(tmp_path) as bench:
        assert bench.spool.numbers.next(USAGE, BATCH) == 2


def test_a_crash_at_any_line_gives_no_number_twice() -> None:
    """Wherever a process dies between a seal and the end of a delivery, the next one gives a number that nothing has had."""
    calls = 0
    while True:
        with folder_in_memory() as folder:
            store = LocalStore(folder / "objects")
            with open_bench(folder) as bench:
                bench.seal(b"0")
                batch_and_deliver(bench.spool, store)
                with pytest.MonkeyPatch.context() as patch:
                    crash = Crashing(calls)
                    crash.install(patch)
                    try:
                        bench.seal(b"1")
                        batch_and_deliver(bench.spool, store)
                    except PowerCut:
                        pass
                used = {path.name for path in (folder / "objects" / USAGE.bucket).rglob("*.gz")}
            with open_bench(folder) as bench:
                number = bench.spool.numbers.next(USAGE, BATCH)
                waits = {number_in(path) for path in bench.spool.directories.uploading(USAGE).iterdir()}
            assert number not in waits, crash.failed
            assert number > len(used), crash.failed
            if not crash.failed:
                break
            calls += 1
    assert calls > 10


@pytest.mark.parametrize(
    "torn",
    [b"usage/", b"usage/ 2026112113.host-1 9", b"\0\0\0", b"\xff usage/ 2026112113.host-1 9\n", b"usage/ 2026112113.\xff 9\n"],
)
def test_a_torn_line_counts_for_nothing(bench: Bench, torn: bytes) -> None:
    """What a crash left of a line is no number, and the next one does not continue it."""
    path = bench.spool.root / NUMBERS
    path.write_bytes(b"usage/ %s.%s 3\n" % (HOUR.encode(), HOST.encode()) + torn)
    numbers = numbers_of(bench)
    assert numbers.next(USAGE, BATCH) == 4
    numbers.keep(USAGE, BATCH, KeyNumber(4))
    assert numbers_of(bench).next(USAGE, BATCH) == 5


def test_a_lost_file_is_written_anew(bench: Bench) -> None:
    """Whoever removes it while the gateway runs takes away nothing."""
    numbers = bench.spool.numbers
    for number in range(1, 4):
        assert numbers.next(USAGE, BATCH) == number
        numbers.keep(USAGE, BATCH, KeyNumber(number))
        (bench.spool.root / NUMBERS).unlink()
    numbers.keep(USAGE, BATCH, numbers.next(USAGE, BATCH))
    assert numbers_of(bench).next(USAGE, BATCH) == 5


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_holds_up_no_delivery(bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """What was acknowledged leaves; the number is written down when there is room, with all that came before it."""
    bench.spool.retire(USAGE, bench.seal(b"1"))
    second, third = bench.seal(b"2"), bench.seal(b"3")
    with monkeypatch.context() as patch:
        for step in ("append", "write_file"):
            patch.setattr(disk, step, _failing(code))
        bench.spool.retire(USAGE, second)
        assert not second.exists()
        assert not (bench.spool.root / NUMBERS).read_text().count(" 2\n")
    bench.spool.retire(USAGE, third)
    assert numbers_of(bench).next(USAGE, BATCH) == 4
    assert [line["event"] for line in bench.told() if "key numbers" in line["event"]] == [
        "key numbers not kept",
        "key numbers kept",
    ]


def test_the_room_of_what_is_removed_is_enough(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last batch that leaves a full disk has its number written down when it is gone, and nothing else need come."""
    sealed = bench.seal(b"1")
    write = disk.write_file

    def full(path: Path, data: bytes) -> None:
        if sealed.exists():
            raise OSError(errno.ENOSPC, "no room")
        write(path, data)

    monkeypatch.setattr(disk, "write_file", full)
    bench.spool.retire(USAGE, sealed)
    assert numbers_of(bench).next(USAGE, BATCH) == 2
    assert [line["event"] for line in bench.told() if "key numbers" in line["event"]] == [
        "key numbers not kept",
        "key numbers kept",
    ]


def test_streams_that_share_a_place_share_its_numbers(bench: Bench) -> None:
    """A key is of a bucket and a prefix, whatever stream it is for."""
    numbers = bench.spool.numbers
    same = replace(ERROR, bucket=USAGE.bucket, prefix=USAGE.prefix)
    other = replace(USAGE, prefix="日 /")
    assert [numbers.next(stream, BATCH) for stream in (USAGE, same, USAGE, other)] == [1, 2, 3, 1]
    numbers.keep(other, BATCH, KeyNumber(1))
    assert numbers_of(bench).next(other, BATCH) == 2


def test_a_batch_that_goes_under_its_id_leaves_its_number_used(bench: Bench) -> None:
    """An attempt may have stored it there; and the note of an upload goes with the file, so that somebody aborts that."""
    sealed = bench.seal(b"1")
    note = sealed.with_name(f"{sealed.name}.upload")
    note.write_bytes(b"{}")
    under_id = bench.spool.renumber(sealed, KeyNumber(0))
    assert not note.exists()
    assert under_id.with_name(f"{under_id.name}.upload").read_bytes() == b"{}"
    assert numbers_of(bench).next(USAGE, BATCH) == 2


@pytest.mark.parametrize("kind", ["directory", "unreadable"])
def test_a_file_that_cannot_be_read_holds_up_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """It is as good as lost, and told."""
    path = bench.spool.root / NUMBERS
    if kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"usage/ 2026112113.host-1 9\n")
        monkeypatch.setattr(disk, "read_chunks", _failing(errno.EIO))
    numbers = numbers_of(bench)
    assert numbers.next(USAGE, BATCH) == 1
    numbers.keep(USAGE, BATCH, KeyNumber(1))
    assert next(line["event"] for line in bench.told() if "key numbers" in line["event"]) == "key numbers not kept"


def test_a_disk_that_fails_keeps_the_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the number cannot be synced the file stays; what the failed write left of the file is not trusted."""
    bench.spool.retire(USAGE, bench.seal(b"1"))
    second = bench.seal(b"2")
    with monkeypatch.context() as patch:
        patch.setattr(disk, "append", _failing(errno.EIO))
        with pytest.raises(OSError, match="Input"):
            bench.spool.retire(USAGE, second)
    assert second.exists()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "append", _failing(errno.EIO))
        bench.spool.retire(USAGE, second)
    assert numbers_of(bench).next(USAGE, BATCH) == 3


def test_the_file_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest hours are kept, and the file is written anew before it grows without an end."""
    monkeypatch.setattr(key_numbers, "KEPT_SERIES", 5)
    monkeypatch.setattr(key_numbers, "MAX_LINES", 20)
    numbers = bench.spool.numbers
    for hour in range(30):
        batch = names.new_batch(f"20261121{hour:02}", HOST, bytes(16))
        numbers.keep(USAGE, batch, numbers.next(USAGE, batch))
        lines = (bench.spool.root / NUMBERS).read_text().splitlines()
        assert len(lines) <= 20
        assert f"usage/ 20261121{hour:02}.{HOST} 1" in lines
    later = numbers_of(bench)
    kept = [later.next(USAGE, names.new_batch(f"20261121{hour:02}", HOST, bytes(16))) for hour in range(30)]
    assert kept[-5:] == [2] * 5


def _failing(code: int) -> object:
    def fail(*_: object) -> None:
        raise OSError(code, "Input/output error")

    return fail
