"""What was committed is on disk, in one state at a time, and leaves only to the store or to a person."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from gateway.batching import aggregate
from gateway.core import clock, disk
from gateway.core.clock import Timestamps
from gateway.core.errors import Transient, Unanswerable
from gateway.spool import directories, names
from gateway.spool.names import KeyNumber
from gateway.spool.sidecar import Sidecar
from gateway.stores.local import LocalStore
from testkit.spool import (
    ERROR,
    HOST,
    HOUR,
    NEXT_HOUR,
    SPECIMEN,
    START_NS,
    USAGE,
    WAIT_S,
    Bench,
    Clock,
    Crashing,
    PowerCut,
    Trace,
    batch_and_deliver,
    claim,
    folder_in_memory,
    open_bench,
    seal_claimed,
    stored_files,
    stored_lines,
    tree,
)

MINUTE_NS = 60 * clock.NANOSECONDS
MANY = 1 << 30


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a real spool."""
    with open_bench(tmp_path) as made:
        yield made


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """Give a folder for very many starts."""
    with folder_in_memory() as folder:
        yield folder


def failing(*_: object) -> None:
    """Fail as a broken disk does."""
    raise OSError(errno.EIO, "Input/output error")


def test_the_spool_is_the_owners_alone(tmp_path: Path) -> None:
    """Through every state, directories are 0700 and files 0600, even where the machine would give them to everybody."""
    before = os.umask(0)
    try:
        with open_bench(tmp_path) as bench:
            bench.seal(b"sealed")
            bench.report(b"claimed")
            claim(bench)
            bench.report(b"waiting")
            bench.file(b"abc")
            stray = bench.file(b"stray")
            bench.spool.set_aside(SPECIMEN, stray, "a test")
            modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in [bench.spool.root, *bench.spool.root.rglob("*")]}
    finally:
        os.umask(before)
    assert modes == {(True, 0o700), (False, 0o600)}


# --- receive, commit ---------------------------------------------------------------------------------------------


def test_a_commit_is_durable(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a commit returns, the bytes are synced and after them the entry that leads to them."""
    trace = Trace(monkeypatch, bench.spool.root)
    bench.report(b"1")
    assert trace.first("sync tmp/") < trace.first("place tmp/") < trace.first("sync_directory usage")


def test_a_files_sidecar_is_durable_before_its_body(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sidecar is synced and in place, its directory synced too, before the body's rename, which is synced last."""
    trace = Trace(monkeypatch, bench.spool.root)
    bench.file(b"abc")
    sidecar, body = [index for index, step in enumerate(trace.steps) if step.startswith("place ")]
    synced = [index for index, step in enumerate(trace.steps) if step == "sync_directory specimen"]
    assert trace.last("sync tmp/") < sidecar < synced[0] < body < synced[1]


def test_a_commit_never_replaces(bench: Bench) -> None:
    """Of two commits that claim one name, at one tick of two clocks, the second fails, and the first keeps its bytes."""
    drafts = [bench.spool.new_tmp() for _ in range(2)]
    for number, draft in enumerate(drafts):
        disk.write_file(draft, b"%d\n" % number)

    def again() -> None:
        bench.spool.timestamps = Timestamps(lambda: START_NS + 1000)

    again()
    bench.spool.commit_report(USAGE, drafts[0], START_NS, "u")
    again()
    with pytest.raises(FileExistsError):
        bench.spool.commit_report(USAGE, drafts[1], START_NS, "u")
    sidecar = Sidecar("ab" * 16, "u", "a", "image/png", START_NS, 2, "cd" * 32)
    disk.write_file(bench.spool.directories.tmp / "first", b"0\n")
    again()
    bench.spool.commit_file(SPECIMEN, bench.spool.directories.tmp / "first", sidecar)
    again()
    with pytest.raises(FileExistsError):
        bench.spool.commit_file(SPECIMEN, drafts[1], sidecar)
    committed = {name: data for name, data in tree(bench.spool.root).items() if name.endswith((".json", ".body"))}
    assert list(committed.values()) == [b"0\n", b"0\n"]
    assert bench.spool.accounting.waiting[USAGE.name].files == 1


def test_a_commit_that_is_not_durable_is_taken_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is answered with an error because its directory cannot be synced does not appear later, also after a power cut."""
    sync = disk.sync_directory
    # Which sync of the directory fails: the one of the sidecar is the first of a file.
    commits: tuple[tuple[int, Callable[[], Path]], ...] = ((1, lambda: bench.report(b"1")), (2, lambda: bench.file(b"abc")))
    for failing_call, commit in commits:
        calls: list[bool] = []

        def one_fails(path: Path, failing_call: int = failing_call, calls: list[bool] = calls) -> None:
            calls.append(len(calls) + 1 == failing_call)
            if calls[-1]:
                failing()
            sync(path)

        monkeypatch.setattr(disk, "sync_directory", one_fails)
        with pytest.raises(OSError, match="Input"):
            commit()
        # The removal is made durable.
        assert calls[-2:] == [True, False]
    monkeypatch.setattr(disk, "sync_directory", sync)
    assert bench.spool.claim(USAGE, MANY, HOST) is None
    assert bench.spool.deliverable(SPECIMEN, set()) == []
    assert bench.spool.accounting.used_bytes() == 0


def test_a_commit_that_cannot_be_taken_back_is_not_answered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an entry can neither be synced nor removed, the client must not be told that its report was refused."""
    monkeypatch.setattr(disk, "sync_directory", failing)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "remove", failing)
        with pytest.raises(Unanswerable, match="neither synced nor removed"):
            bench.report(b"1")
    assert bench.spool.accounting.claimable[USAGE.name].files == 1


def test_a_commit_that_may_come_back_is_not_answered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where a power cut may undo the removal: what is gone now is not counted, and a body that comes back has a sidecar."""
    sync, calls = disk.sync_directory, [0]

    def first_succeeds(path: Path) -> None:
        calls[0] += 1
        if calls[0] > 1:
            failing()
        sync(path)

    monkeypatch.setattr(disk, "sync_directory", first_succeeds)
    with pytest.raises(Unanswerable, match="may come back"):
        bench.file(b"abc")
    with pytest.raises(Unanswerable, match="may come back"):
        bench.report(b"1")
    assert (bench.spool.accounting.waiting_files(), bench.spool.accounting.claimable[USAGE.name].files) == (0, 0)
    assert [path.suffix for path in bench.spool.directories.of(SPECIMEN).iterdir()] == [".meta"]
    assert bench.spool.accounting.oldest_instant(SPECIMEN) is None


def test_a_commit_is_not_claimed_before_it_is_durable(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its directory is synced a commit may have to be taken back: nobody claims or delivers it meanwhile."""
    seen: list[bool] = []
    sync = disk.sync_directory

    def look(path: Path) -> None:
        seen.append(bench.spool.claim(USAGE, MANY, HOST) is None and bench.spool.deliverable(SPECIMEN, set()) == [])
        sync(path)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_directory", look)
        bench.report(b"1")
    assert seen == [True]
    assert claim(bench).sources()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_directory", look)
        bench.file(b"abc")
    assert seen == [True] * 3
    assert len(bench.spool.deliverable(SPECIMEN, set())) == 1


def test_a_commit_that_begins_during_a_look_is_not_claimed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at many files takes long; what is committed meanwhile, and taken back, must not have been claimed."""
    placed, go, names, sync = threading.Event(), threading.Event(), disk.names, disk.sync_directory

    def commit() -> None:
        with pytest.raises(OSError, match="on purpose"):
            bench.report(b"1")

    committing = threading.Thread(target=commit)

    def sync_late(path: Path) -> None:
        if threading.current_thread() is committing and not placed.is_set():
            placed.set()
            assert go.wait(WAIT_S)
            raise OSError(errno.EIO, "on purpose")
        sync(path)

    def look_late(directory: Path) -> Iterator[str]:
        if not placed.is_set():
            committing.start()
            assert placed.wait(WAIT_S)
        return names(directory)

    monkeypatch.setattr(disk, "sync_directory", sync_late)
    monkeypatch.setattr(disk, "names", look_late)
    assert bench.spool.claim(USAGE, MANY, HOST) is None
    go.set()
    committing.join(WAIT_S)
    assert (bench.spool.accounting.waiting[USAGE.name].files, bench.spool.accounting.claimable[USAGE.name].files) == (0, 0)


def test_whoever_waits_is_told_of_a_commit(bench: Bench) -> None:
    """After each commit the listener of its stream is called, and no other."""
    called: list[str] = []
    for stream in (USAGE, SPECIMEN):
        bench.listeners[stream.name] = partial(called.append, stream.name)
    bench.report(b"1")
    bench.file(b"abc")
    bench.report(b"1", ERROR)
    assert called == [USAGE.name, SPECIMEN.name]


# --- claim -------------------------------------------------------------------------------------------------------


def test_a_claim_takes_the_oldest_of_one_hour(bench: Bench) -> None:
    """A batch has reports of a single hour, the oldest first, and the next batch has those of the next hour."""
    first = [bench.report(b"1"), bench.report(b"2")]
    bench.clock.now_ns += MINUTE_NS
    second = bench.report(b"3")
    claimed = claim(bench)
    assert [path.name for path in claimed.sources()] == [path.name for path in first]
    assert (claimed.batch.hour, claimed.batch.host) == (HOUR, HOST)
    claimed = claim(bench)
    assert [path.name for path in claimed.sources()] == [second.name]
    assert claimed.batch.hour == NEXT_HOUR
    assert bench.spool.claim(USAGE, MANY, HOST) is None


def test_a_claim_is_bounded_by_bytes(bench: Bench) -> None:
    """A batch takes as many of the oldest as fit its bound, to the byte."""
    for _ in range(5):
        bench.report(b"x" * 99)
    assert len(claim(bench, 300).sources()) == 3
    assert len(claim(bench, 199).sources()) == 1
    assert len(claim(bench, MANY).sources()) == 1


def test_a_claim_takes_at_least_one(bench: Bench) -> None:
    """A report that is larger than a whole batch is a batch of its own, and holds nothing up."""
    bench.report(b"x" * 999)
    bench.report(b"y")
    assert len(claim(bench, 10).sources()) == 1
    assert len(claim(bench, 10).sources()) == 1


def test_a_claim_leaves_what_is_being_written(bench: Bench) -> None:
    """An open segment, and anything that is no report, is not claimed."""
    directory = bench.spool.directories.of(USAGE)
    for name in (f"{START_NS}.7.jsonl.open", "notes.txt", f"{START_NS}.7.a.body"):
        (directory / name).write_bytes(b"1\n")
    assert bench.spool.claim(USAGE, MANY, HOST) is None


def test_two_batches_never_share_a_name(bench: Bench) -> None:
    """Batches of one hour and host are told apart by random bits."""
    bench.report(b"1")
    one = claim(bench)
    bench.report(b"1")
    assert claim(bench).batch != one.batch


def test_a_claim_is_durable_before_it_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both directories are synced after the last rename: else a power cut could have lines claimed a second time."""
    bench.report(b"1")
    bench.report(b"2")
    trace = Trace(monkeypatch, bench.spool.root)
    claimed = claim(bench)
    moved = trace.last("place usage/")
    place = claimed.directory.relative_to(bench.spool.root)
    assert trace.last(f"sync_directory {place}") > moved
    assert trace.last("sync_directory usage") > moved


def test_what_can_be_claimed_is_counted(bench: Bench) -> None:
    """The count of what a claim would find follows commits and claims."""
    claimable = bench.spool.accounting.claimable[USAGE.name]
    bench.report(b"12")
    bench.report(b"345")
    assert (claimable.files, claimable.bytes) == (2, 7)
    claim(bench, 3)
    assert (claimable.files, claimable.bytes) == (1, 4)


def test_a_claim_is_bounded_by_files(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch takes no more files than one look picks, and those are the oldest."""
    monkeypatch.setattr(directories, "PICKED_FILES", 3)
    waiting = [bench.report(b"%d" % number).name for number in range(5)]
    assert [path.name for path in claim(bench).sources()] == waiting[:3]
    assert [path.name for path in claim(bench).sources()] == waiting[3:]


# --- seal --------------------------------------------------------------------------------------------------------


def test_a_seal_is_durable_before_the_sources_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive stands under its name, synced, before its sources are removed, and their removal is synced too."""
    bench.report(b"1")
    claimed = claim(bench)
    place = claimed.directory.relative_to(bench.spool.root)
    trace = Trace(monkeypatch, bench.spool.root)
    sealed = seal_claimed(bench, claimed)
    assert trace.last("sync tmp/") < trace.first("place tmp/") < trace.first("sync_directory usage/uploading")
    assert trace.first("sync_directory usage/uploading") < trace.first(f"remove {place}/")
    assert trace.last(f"remove {place}/") < trace.last(f"sync_directory {place}") < trace.last("remove_directory")
    assert trace.last("remove_directory") < trace.last("sync_directory usage/aggregation")
    assert names.parse_sealed(sealed.name) == (claimed.batch, 1)
    assert not claimed.directory.exists()


def test_nothing_is_delivered_while_its_sources_are_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealed batch whose sources could not be removed is not sent before they are gone."""
    bench.report(b"1")
    claimed = claim(bench)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "remove", failing)
        with pytest.raises(OSError, match="Input"):
            seal_claimed(bench, claimed)
    assert bench.spool.directories.sealed_as(USAGE, claimed.batch) is not None
    assert bench.spool.deliverable(USAGE, set()) == []
    bench.spool.remove_sources(claimed)
    assert len(bench.spool.deliverable(USAGE, set())) == 1


@pytest.mark.parametrize("is_claimed", [False, True])
def test_a_file_is_not_delivered_before_its_move_is_durable(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_claimed: bool
) -> None:
    """A file that is sealed as it is could come back after it was delivered, as long as its old directory is not synced."""
    source = bench.report(b"1")
    if is_claimed:
        claimed = claim(bench)
        source = claimed.directory / source.name
    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_directory", _refusing)
        with pytest.raises(OSError, match="not synced"):
            bench.spool.seal_unpacked(USAGE, source, bench.spool.batch_of(source, HOST))
    trace = Trace(monkeypatch, bench.spool.root)
    assert [path.name.partition(".1.")[2] for path in bench.spool.deliverable(USAGE, set())] == ["jsonl"]
    assert [step for step in trace.steps if step.startswith("sync_directory ")] == [
        "sync_directory usage/uploading",
        f"sync_directory {source.parent.relative_to(bench.spool.root)}",
    ]
    # Once is enough.
    trace.steps.clear()
    assert bench.spool.deliverable(USAGE, set())
    assert trace.steps == []


def test_a_move_whose_batch_is_gone_holds_up_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory of a batch is removed, durably, when its last file has left it, also if a sync of it had failed before."""
    source = bench.report(b"1")
    claimed = claim(bench)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_directory", _refusing)
        with pytest.raises(OSError, match="not synced"):
            bench.spool.seal_unpacked(USAGE, claimed.directory / source.name, bench.spool.batch_of(source, HOST))
    bench.spool.remove_sources(claimed)
    assert len(bench.spool.deliverable(USAGE, set())) == 1


def _refusing(path: Path) -> None:
    raise OSError(errno.EIO, f"not synced: {path}")


def test_a_seal_never_replaces(bench: Bench) -> None:
    """A batch that is sealed is not sealed a second time."""
    bench.report(b"1")
    claimed = claim(bench)
    sealed = seal_claimed(bench, claimed)
    before = sealed.read_bytes()
    disk.write_file(bench.spool.directories.tmp / "other", b"other")
    with pytest.raises(FileExistsError):
        bench.spool.seal(claimed, bench.spool.directories.tmp / "other")
    assert sealed.read_bytes() == before


def test_what_another_has_claimed_into_a_batch_is_no_source(bench: Bench) -> None:
    """It was not read for the archive, so it becomes a batch of its own."""
    first = bench.report(b"1")
    claimed = claim(bench)
    archive = bench.spool.new_tmp()
    aggregate.aggregate(sources := claimed.sources(), archive, 1)
    late = bench.report(b"2")
    late.rename(claimed.directory / late.name)
    bench.spool.seal(claimed, archive, sources)
    (other,) = bench.spool.directories.claimed(USAGE)
    assert other.batch != claimed.batch
    assert [path.read_bytes() for path in other.sources()] == [b"2\n"]
    assert not first.exists()
    assert len(bench.spool.deliverable(USAGE, set())) == 1


@pytest.mark.parametrize("name", [".nfs000000000000a7e100000001", ".fuse_hidden0000000300000001"])
def test_what_the_kernel_hides_in_a_batch_is_no_source(bench: Bench, name: str) -> None:
    """A source that somebody has open while it is removed: its lines are in the archive, and must not become another batch."""
    bench.report(b"1")
    claimed = claim(bench)
    (claimed.directory / name).write_bytes(b"1\n")
    seal_claimed(bench, claimed)
    assert bench.spool.directories.claimed(USAGE) == []
    assert len(bench.spool.deliverable(USAGE, set())) == 1


# --- short names -------------------------------------------------------------------------------------------------


def test_names_are_as_long_as_the_file_system_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """143 bytes on eCryptfs and some network storage: users and uris are cut to that, and whole in what is delivered."""
    monkeypatch.setattr(os, "pathconf", lambda _path, name: {"PC_NAME_MAX": 143}[name])
    uri, user = f"file:///{'日' * 100}.png", "x" * 300
    with open_bench(tmp_path) as bench:
        bench.file(b"abc", uri=uri, user=user)
        bench.report(b"1", user=user)
        claim(bench)
        stray = bench.spool.directories.of(USAGE) / ("y" * 200)
        stray.touch()
        bench.spool.quarantine.take("usage", stray, "strange")
        found = [path.name for path in bench.spool.root.rglob("*")]
        assert max(map(len, found)) <= 143
        assert all(len(name) + len(".upload") <= 143 for name in found if name.endswith((".body", ".json")))
        batch_and_deliver(bench.spool, LocalStore(tmp_path / "objects"))
    assert stored_files(tmp_path / "objects") == [b"abc"]


# --- a directory that is no longer there ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["report", "file"])
def test_nobody_is_promised_what_stands_elsewhere(bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the stream leads to another directory by the time that the commit is durable."""
    stream = USAGE if kind == "report" else SPECIMEN
    directory = bench.spool.directories.of(stream)
    bench.spool.ownership.know(bench.spool.directories.all())
    place = disk.place

    def place_and_move(source: Path, target: Path) -> None:
        place(source, target)
        if target.name.endswith((".json", ".body")):
            directory.rename(directory.with_name("away"))
            directory.mkdir()
            target.write_bytes(b"the like of it")

    monkeypatch.setattr(disk, "place", place_and_move)
    with pytest.raises(Unanswerable, match="is not the directory it was started on"):
        bench.report(b"1") if kind == "report" else bench.file(b"1")
    assert bench.spool.accounting.waiting[stream.name].files == 0


def test_nobody_is_promised_what_somebody_has_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another gateway has claimed a report in the moment that it had its name, and delivers it."""
    sync = disk.sync_directory

    def take(path: Path) -> None:
        sync(path)
        for found in path.glob("*.json"):
            found.unlink()

    monkeypatch.setattr(disk, "sync_directory", take)
    with pytest.raises(Unanswerable, match="somebody else has taken it"):
        bench.report(b"1")


@pytest.mark.parametrize("step", ["claim", "settle", "deliverable"])
def test_nothing_is_sent_from_a_directory_that_was_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Neither a claim nor a delivery begins, and the error says why."""
    bench.report(b"1")
    claimed = claim(bench)
    bench.report(b"2")
    monkeypatch.setattr(bench.spool.ownership, "fault", "taken by another gateway")
    calls: dict[str, Callable[[], object]] = {
        "claim": lambda: bench.spool.claim(USAGE, 1 << 20, HOST),
        "settle": lambda: bench.spool.settle(claimed),
        "deliverable": lambda: bench.spool.deliverable(USAGE, set()),
    }
    with pytest.raises(OSError, match="taken by another gateway"):
        calls[step]()


# --- deliver, retire ---------------------------------------------------------------------------------------------


def test_what_is_being_delivered_is_not_found_again(bench: Bench) -> None:
    """What is under way, under whatever number, is left out of the next look."""
    sealed = [bench.seal(b"1"), bench.seal(b"2")]
    bodies = [bench.file(b"1"), bench.file(b"2")]
    renumbered = bench.spool.renumber(sealed[0], KeyNumber(5))
    assert bench.spool.deliverable(USAGE, {names.identity_of(sealed[0].name)}) == [sealed[1]]
    assert set(bench.spool.deliverable(USAGE, set())) == {renumbered, sealed[1]}
    assert bench.spool.deliverable(SPECIMEN, {bodies[0].name}) == [bodies[1]]


def test_a_look_for_work_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look picks a bounded number of the oldest, of batches as of files."""
    monkeypatch.setattr(directories, "PICKED_FILES", 2)
    bodies = [bench.file(b"%d" % number) for number in range(5)]
    for number in range(5):
        bench.seal(b"%d" % number)
    assert bench.spool.deliverable(SPECIMEN, set()) == bodies[:2]
    assert len(bench.spool.deliverable(USAGE, set())) == 2


def test_a_number_is_durable(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new number is in the name and the directory synced before anybody tries it."""
    sealed = bench.seal(b"1")
    trace = Trace(monkeypatch, bench.spool.root)
    bench.spool.renumber(sealed, KeyNumber(2))
    assert [step.split()[0] for step in trace.steps] == ["place", "sync_directory"]


def test_a_body_is_retired_before_its_sidecar(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body's removal is synced before the sidecar goes, so that no crash leaves a body that nobody can name."""
    body = bench.file(b"abc")
    trace = Trace(monkeypatch, bench.spool.root)
    bench.spool.retire(SPECIMEN, body)
    sidecar = f"specimen/{body.stem}.meta"
    assert trace.first(f"remove specimen/{body.name}") < trace.first("sync_directory") < trace.first(f"remove {sidecar}")
    assert tree(bench.spool.root) == {}


# --- quarantine --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["a.png", "日" * 4000])
def test_a_file_is_quarantined_with_its_sidecar(bench: Bench, uri: str) -> None:
    """What a person is to look at stands in the quarantine with all that is known of it, and is counted and told."""
    body = bench.file(b"abc", uri=uri)
    sidecar = body.with_suffix(".meta").read_bytes()
    bench.spool.set_aside(SPECIMEN, body, "a test")
    assert sorted(data or b"" for data in tree(bench.spool.root).values()) == sorted([b"abc", sidecar])
    assert all(name.startswith("quarantine/specimen.") for name in tree(bench.spool.root))
    assert bench.spool.accounting.waiting[SPECIMEN.name].files == 0
    assert bench.metric("quarantined_total", stream="specimen") == 2
    assert bench.told("quarantined")[0]["reason"] == "a test"


# --- crashes and failures ----------------------------------------------------------------------------------------

LINES = [b'"error 0"', b'"usage 0"', b'"usage 1"', b'"usage 2"']


def fill(folder: Path) -> None:
    """Commit reports of two streams and two hours, and a file."""
    with open_bench(folder, level="error") as bench:
        bench.report(b'"usage 0"')
        bench.report(b'"usage 1"')
        bench.report(b'"error 0"', ERROR)
        bench.file(b"abc")
        bench.clock.now_ns += MINUTE_NS
        bench.report(b'"usage 2"')


def go_on(folder: Path, start: int) -> None:
    """Start the gateway once more, and take everything to the store."""
    with open_bench(folder, clock=Clock(START_NS + start * clock.HOUR_NS), level="error") as bench:
        batch_and_deliver(bench.spool, LocalStore(folder / "objects"))


def test_a_crash_at_any_call_doubles_and_drops_nothing(in_memory: Path) -> None:
    """Wherever on the way from claim to retire the process is killed, each line reaches the store exactly once."""
    fill(in_memory / "filled")
    died, number = True, 0
    while died:
        folder = in_memory / f"{number}"
        shutil.copytree(in_memory / "filled", folder)
        died = False
        # The next start is killed too, at an earlier call of its own.
        for start, calls in enumerate((number, number // 3), start=1):
            with pytest.MonkeyPatch.context() as patch:
                Crashing(calls).install(patch)
                try:
                    go_on(folder, start)
                except PowerCut:
                    died = True
        go_on(folder, 3)
        assert stored_lines(folder / "objects") == LINES, f"after a crash at call {number}"
        assert stored_files(folder / "objects") == [b"abc"]
        assert tree(folder / "spool") == {}
        shutil.rmtree(folder)
        number += 1
    assert number > 100


def test_a_failure_at_any_call_keeps_the_counts_true(in_memory: Path) -> None:
    """Whichever call of the disk fails once, trying again delivers everything once, and the counts come back to nothing.

    The counts decide the exit code and the quota: one that drifts has a drained gateway say that data was left.
    """
    fill(in_memory / "filled")
    failed, number = True, 0
    wrong: dict[str, list[tuple[int, int]]] = {}
    while failed:
        folder = in_memory / f"{number}"
        shutil.copytree(in_memory / "filled", folder)
        with open_bench(folder, clock=Clock(START_NS + clock.HOUR_NS), level="error") as bench:
            crashing = Crashing(number, error=lambda: OSError(errno.EIO, "Input/output error"), for_ever=False)
            with pytest.MonkeyPatch.context() as patch:
                crashing.install(patch)
                for _ in range(3):
                    try:
                        batch_and_deliver(bench.spool, LocalStore(folder / "objects"))
                    except (OSError, Transient):
                        continue
            failed = bool(crashing.failed)
            counts = [(tally.files, tally.bytes) for tally in bench.spool.accounting.waiting.values()]
            if counts != [(0, 0)] * 3:
                wrong[f"{crashing.failed} {number}"] = counts
        assert stored_lines(folder / "objects") == LINES, f"after a failure of {crashing.failed} at call {number}"
        shutil.rmtree(folder)
        number += 1
    assert number > 100
    assert wrong == {}
