"""What a process left that died while the others go on is put in order, and nothing of the others is touched."""

from __future__ import annotations

import errno
import gzip
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.core.streams import Stream
from gateway.spool.accounting import Counted
from gateway.spool.names import Batch, KeyNumber
from gateway.spool.recovery import Found, recover_process
from gateway.spool.sidecar import Sidecar
from testkit.spool import HOUR, START_NS, USAGE, Bench, Clock, Crashing, Trace, open_bench, plant, tree

BATCH = str(Batch(HOUR, "host-1", "ab" * 16))
ARCHIVE = gzip.compress(b"1\n", mtime=0)
META = Sidecar("ab" * 16, "u", "a.png", "image/png", START_NS, 3, "cd" * 32).to_json()

Files = Mapping[str, bytes | None]
DEAD, ALIVE = 70, 7
# What the dead process and one that lives have in the same states, and what has to be there once the dead one is recovered.
OF_THE_DEAD: Files = {
    f"tmp/5.{DEAD}": b"half a repo",
    f"usage/1.{DEAD}.jsonl.open": b'1\n{"a": 2}\n{"a":',
    f"usage/2.{DEAD}.jsonl": b"3\n",
    f"usage/3.{DEAD}.u.json": b"4\n",
    f"error/1.{DEAD}.jsonl.open": b"",
    f"specimen/1.{DEAD}.a.meta": META,
    f"specimen/2.{DEAD}.a.meta": META,
    f"specimen/2.{DEAD}.a.body": b"abc",
    # No more than the name is known of it, and that may have been acknowledged.
    f"specimen/3.{DEAD}.a.body": b"lone",
}
RECOVERED: Files = {
    f"usage/1.{DEAD}.jsonl": b'1\n{"a": 2}\n',
    f"quarantine/usage.1.{DEAD}.jsonl.open.rest": b'{"a":',
    f"usage/2.{DEAD}.jsonl": b"3\n",
    f"usage/3.{DEAD}.u.json": b"4\n",
    f"specimen/2.{DEAD}.a.meta": META,
    f"specimen/2.{DEAD}.a.body": b"abc",
    f"specimen/3.{DEAD}.a.body": b"lone",
}
OF_OTHERS: Files = {
    f"tmp/5.{ALIVE}": b"half a repo",
    # Its number ends as that of the dead one.
    f"tmp/5.1{DEAD}": b"half a repo",
    f"usage/1.{ALIVE}.jsonl.open": b'1\n{"a":',
    f"usage/1.1{DEAD}.jsonl.open": b'1\n{"a":',
    f"specimen/1.{ALIVE}.a.meta": META,
    f"usage/aggregation/{BATCH}": None,
    f"usage/uploading/{BATCH}.1.jsonl.gz": ARCHIVE,
    "usage/notes.txt": b"n",
}


def in_time(files: Files) -> Files:
    """The same with names of instants as they are given."""

    def named(name: str) -> str:
        return re.sub(r"(?<=[a-z])([./])(\d)\.", lambda found: f"{found[1]}{START_NS + int(found[2])}.", f"/{name}")[1:]

    return {named(name): data for name, data in files.items()}


def planted(bench: Bench) -> None:
    """Put all of it into a running spool."""
    plant(bench.spool.root, in_time({**OF_THE_DEAD, **OF_OTHERS}))


def test_what_a_dead_process_left_is_put_in_order(tmp_path: Path) -> None:
    """Its segments are cut and its drafts erased; what belongs to others, the running ones among them, is not touched."""
    with open_bench(tmp_path) as bench:
        planted(bench)
        found = recover_process(bench.spool, DEAD)
        assert tree(bench.spool.root) == in_time({**RECOVERED, **OF_OTHERS})
        assert (found.erased, found.segments_cut, found.quarantined) == (2, 1, 1)
        (told,) = bench.told("quarantined")
        assert told["stream"] == "usage"


def test_the_recovery_of_a_process_can_be_repeated(tmp_path: Path) -> None:
    """A second time nothing is found and nothing changes."""
    with open_bench(tmp_path) as bench:
        planted(bench)
        recover_process(bench.spool, DEAD)
        assert recover_process(bench.spool, DEAD) == Found()
        assert tree(bench.spool.root) == in_time({**RECOVERED, **OF_OTHERS})


def test_what_a_dead_process_left_is_durable_before_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that it may not have synced are, and so are the bytes of its segment, before that gets the name of a cut one."""
    with open_bench(tmp_path) as bench:
        planted(bench)
        trace = Trace(monkeypatch, bench.spool.root)
        recover_process(bench.spool, DEAD)
        segment = f"usage/{START_NS + 1}.{DEAD}.jsonl.open"
        assert trace.first(f"sync_files {segment}") < trace.first(f"place {segment}") < trace.last("sync_directory usage")
        assert trace.first("sync_directory specimen") < trace.first("remove specimen")


def test_a_failed_recovery_of_a_process_is_tried_again(tmp_path: Path) -> None:
    """Whichever call the disk refuses, the next attempt puts all in order, and no sound line is lost."""
    done, number = False, 0
    while not done:
        folder = tmp_path / f"{number}"
        with open_bench(folder) as bench:
            planted(bench)
            with pytest.MonkeyPatch.context() as patch:
                crashing = Crashing(number, error=lambda: OSError(errno.EIO, "Input/output error"), for_ever=False)
                crashing.install(patch)
                try:
                    recover_process(bench.spool, DEAD)
                except OSError:
                    recover_process(bench.spool, DEAD)
                done = not crashing.failed
            left = {name: data for name, data in tree(bench.spool.root).items() if not name.startswith("tmp/")}
            wanted = {name: data for name, data in in_time({**RECOVERED, **OF_OTHERS}).items() if not name.startswith("tmp/")}
            assert left == wanted, f"after a failure of call {number}"
        number += 1
    assert number > 10


def test_the_next_process_names_after_the_dead_one(tmp_path: Path) -> None:
    """Instants that are given from now on are later than all that the dead process has given, whatever the clock says."""
    with open_bench(tmp_path, clock=Clock(START_NS - 1000)) as bench:
        planted(bench)
        recover_process(bench.spool, DEAD)
        assert bench.spool.timestamps.next() > START_NS + 3


def test_counts_are_right_after_a_death(tmp_path: Path) -> None:
    """After a count anew what waits, and what a claim finds, is what is on the disk, open segments of others aside."""
    with open_bench(tmp_path) as bench:
        planted(bench)
        recover_process(bench.spool, DEAD)
        # A death between a change and its count.
        bench.spool.accounting.waiting["usage"].add(-3, 1000)
        assert bench.spool.accounting.recount()
        usage, claimable = bench.spool.accounting.waiting["usage"], bench.spool.accounting.claimable["usage"]
        segments = len(b'1\n{"a": 2}\n') + len(b"3\n") + len(b"4\n")
        assert (usage.files, usage.bytes) == (4, segments + len(ARCHIVE))
        assert (claimable.files, claimable.bytes) == (3, segments)
        specimens = bench.spool.accounting.waiting["specimen"]
        assert (specimens.files, specimens.bytes) == (2, len(b"abc") + len(b"lone"))


def test_nothing_is_counted_anew_while_something_changes(tmp_path: Path) -> None:
    """While a change is under way, or was done meanwhile, the counts stay as they are and it is to be tried again."""
    with open_bench(tmp_path) as bench, pytest.MonkeyPatch.context() as patch:
        with bench.spool.accounting.change():
            assert not bench.spool.accounting.recount()
        counted = bench.spool.accounting._count_all

        def count_and_commit(stream: Stream) -> tuple[Counted, Counted]:
            found = counted(stream)
            if stream is USAGE:
                bench.report(b"1")
            return found

        patch.setattr(bench.spool.accounting, "_count_all", count_and_commit)
        assert not bench.spool.accounting.recount()
        assert bench.spool.accounting.waiting["usage"].files == 1
        patch.undo()
        assert bench.spool.accounting.recount()
        assert bench.spool.accounting.waiting["usage"].files == 1


@pytest.mark.parametrize("moment", ["claim", "renumber"])
def test_what_is_moved_meanwhile_is_not_counted_twice(tmp_path: Path, moment: str) -> None:
    """A claim, or another number for a sealed file, between two looks at directories has the count tried again."""
    with open_bench(tmp_path) as bench, pytest.MonkeyPatch.context() as patch:
        sealed = bench.seal(b"1")
        bench.report(b"2")
        counted = bench.spool.accounting._count

        def count_and_move(stream: Stream, kinds: tuple[str, ...]) -> Counted:
            found = counted(stream, kinds)
            if stream is USAGE:
                if moment == "claim":
                    bench.spool.claim(USAGE, 1 << 30, "host-1")
                else:
                    bench.spool.renumber(sealed, KeyNumber(2))
            return found

        patch.setattr(bench.spool.accounting, "_count", count_and_move)
        assert not bench.spool.accounting.recount()
        patch.undo()
        assert bench.spool.accounting.recount()
        assert bench.spool.accounting.waiting["usage"].files == 2
