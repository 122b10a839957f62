"""Whatever an earlier run left behind is put in order, and every sound line is kept exactly once."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.formats import json_lines
from gateway.formats.json_lines import SoundPrefix
from gateway.spool import names, recovery
from gateway.spool.directories import FORMAT_VERSION
from gateway.spool.names import Batch
from gateway.spool.recovery import Found, recover
from gateway.spool.sidecar import Sidecar
from gateway.stores.local import LocalStore
from testkit.spool import (
    HOUR,
    PID,
    SPECIMEN,
    START_NS,
    USAGE,
    Clock,
    Crashing,
    PowerCut,
    Trace,
    batch_and_deliver,
    folder_in_memory,
    open_bench,
    plant,
    stored_files,
    stored_lines,
    tree,
)

T1, T2, T3 = (f"{START_NS + number}.7" for number in (1, 2, 3))
BATCH = str(Batch(HOUR, "host-1", "ab" * 16))
ARCHIVE = gzip.compress(b"1\n", mtime=0)
META = Sidecar("ab" * 16, "u", "a.png", "image/png", START_NS, 3, "cd" * 32).to_json()

Files = Mapping[str, bytes | None]
# What is there at the start → what is there after it; a file that is not named after it is gone.
STATES: dict[str, tuple[Files, Files]] = {
    "nothing": ({}, {}),
    "a draft": ({"tmp/5.7": b"half a repo"}, {}),
    "a cut segment": ({f"usage/{T1}.jsonl": b"1\n"}, {f"usage/{T1}.jsonl": b"1\n"}),
    "a whole report": ({f"usage/{T1}.u.json": b"1\n"}, {f"usage/{T1}.u.json": b"1\n"}),
    "an open segment": ({f"usage/{T1}.jsonl.open": b'1\n{"a": [2]}\n'}, {f"usage/{T1}.jsonl": b'1\n{"a": [2]}\n'}),
    "an open segment without a line": ({f"usage/{T1}.jsonl.open": b""}, {}),
    "a torn last line": (
        {f"usage/{T1}.jsonl.open": b'1\n{"a": 2}\n{"a":'},
        {f"usage/{T1}.jsonl": b'1\n{"a": 2}\n', f"quarantine/usage.{T1}.jsonl.open.rest": b'{"a":'},
    ),
    "a whole last line without its newline": (
        {f"usage/{T1}.jsonl.open": b"1\n22"},
        {f"usage/{T1}.jsonl": b"1\n", f"quarantine/usage.{T1}.jsonl.open.rest": b"22"},
    ),
    "a torn only line": (
        {f"usage/{T1}.jsonl.open": b'{"a":'},
        {f"quarantine/usage.{T1}.jsonl.open.rest": b'{"a":'},
    ),
    "a zeroed tail": (
        {f"usage/{T1}.jsonl.open": b"1\n" + bytes(4000)},
        {f"usage/{T1}.jsonl": b"1\n", f"quarantine/usage.{T1}.jsonl.open.rest": bytes(4000)},
    ),
    "nothing but zeroes": (
        {f"usage/{T1}.jsonl.open": bytes(4096)},
        {f"quarantine/usage.{T1}.jsonl.open.rest": bytes(4096)},
    ),
    "zeroes within a line": (
        {f"usage/{T1}.jsonl.open": b'1\n{"a":\0\0\0}\n3\n'},
        {f"usage/{T1}.jsonl": b"1\n", f"quarantine/usage.{T1}.jsonl.open.rest": b'{"a":\0\0\0}\n3\n'},
    ),
    "garbage in the middle": (
        {f"usage/{T1}.jsonl.open": b"1\n2\ngarbage\n4\n"},
        {f"usage/{T1}.jsonl": b"1\n2\n", f"quarantine/usage.{T1}.jsonl.open.rest": b"garbage\n4\n"},
    ),
    "a line longer than a chunk of reading": (
        {f"usage/{T1}.jsonl.open": b'"' + b"x" * (3 << 20) + b'"\n2\n{'},
        {f"usage/{T1}.jsonl": b'"' + b"x" * (3 << 20) + b'"\n2\n', f"quarantine/usage.{T1}.jsonl.open.rest": b"{"},
    ),
    "several open segments of several streams": (
        {f"usage/{T1}.jsonl.open": b"1\n", f"usage/{T2}.jsonl.open": b"2\n", f"error/{T1}.jsonl.open": b"3\n"},
        {f"usage/{T1}.jsonl": b"1\n", f"usage/{T2}.jsonl": b"2\n", f"error/{T1}.jsonl": b"3\n"},
    ),
    "an empty batch": ({f"usage/aggregation/{BATCH}": None}, {}),
    "a claimed batch": (
        {f"usage/aggregation/{BATCH}/{T1}.jsonl": b"1\n"},
        {f"usage/aggregation/{BATCH}": None, f"usage/aggregation/{BATCH}/{T1}.jsonl": b"1\n"},
    ),
    "a sealed batch with its sources": (
        {f"usage/aggregation/{BATCH}/{T1}.jsonl": b"1\n", f"usage/uploading/{BATCH}.1.jsonl.gz": ARCHIVE},
        {f"usage/uploading/{BATCH}.1.jsonl.gz": ARCHIVE},
    ),
    "a renumbered batch with its sources": (
        {f"usage/aggregation/{BATCH}/{T1}.jsonl": b"1\n", f"usage/uploading/{BATCH}.4.jsonl.gz": ARCHIVE},
        {f"usage/uploading/{BATCH}.4.jsonl.gz": ARCHIVE},
    ),
    "a sealed batch": (
        {f"usage/uploading/{BATCH}.1.jsonl.gz": ARCHIVE},
        {f"usage/uploading/{BATCH}.1.jsonl.gz": ARCHIVE},
    ),
    "an upload in parts": (
        {f"usage/uploading/{BATCH}.1.jsonl.gz": ARCHIVE, f"usage/uploading/{BATCH}.1.jsonl.gz.upload": b"id"},
        {f"usage/uploading/{BATCH}.1.jsonl.gz": ARCHIVE, f"usage/uploading/{BATCH}.1.jsonl.gz.upload": b"id"},
    ),
    "a note of an upload of nothing": (
        {f"usage/uploading/{BATCH}.1.jsonl.gz.upload": b"id", f"specimen/{T1}.a.body.upload": b"id"},
        {},
    ),
    "a file": (
        {f"specimen/{T1}.a.meta": META, f"specimen/{T1}.a.body": b"abc"},
        {f"specimen/{T1}.a.meta": META, f"specimen/{T1}.a.body": b"abc"},
    ),
    "a file that is uploaded in parts": (
        {f"specimen/{T1}.a.meta": META, f"specimen/{T1}.a.body": b"abc", f"specimen/{T1}.a.body.upload": b"id"},
        {f"specimen/{T1}.a.meta": META, f"specimen/{T1}.a.body": b"abc", f"specimen/{T1}.a.body.upload": b"id"},
    ),
    "a sidecar without a body": ({f"specimen/{T1}.a.meta": META}, {}),
    "a body without a sidecar": ({f"specimen/{T1}.a.body": b"abc"}, {f"quarantine/specimen.{T1}.a.body": b"abc"}),
    "names of others": (
        {"usage/notes.txt": b"n", f"specimen/{T1}.jsonl": b"1\n", f"usage/{T1}.a.body": b"abc", f"error/{T1}.a.meta": b""},
        {
            "quarantine/usage.notes.txt": b"n",
            f"quarantine/specimen.{T1}.jsonl": b"1\n",
            f"quarantine/usage.{T1}.a.body": b"abc",
            f"quarantine/error.{T1}.a.meta": b"",
        },
    ),
    "an open segment of a stream of files": (
        {f"specimen/{T1}.jsonl.open": b"1\n"},
        {f"quarantine/specimen.{T1}.jsonl.open": b"1\n"},
    ),
    "a name of others among batches": (
        {"usage/aggregation/what": b"w", "usage/uploading/what.gz": b"w", "usage/uploading/dir/f": b"w"},
        {"quarantine/usage.what": b"w", "quarantine/usage.what.gz": b"w", "quarantine/usage.dir/f": b"w"},
    ),
    "a name that the quarantine has already": (
        {"quarantine/usage.notes.txt": b"old"},
        {"quarantine/usage.notes.txt": b"old"},
    ),
}


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_put_in_order(tmp_path: Path, state: str) -> None:
    """After a start exactly the names are there that the table of `spool/recovery.py` promises, with their bytes."""
    before, after = STATES[state]
    plant(tmp_path / "spool", before)
    with open_bench(tmp_path) as bench:
        assert tree(bench.spool.root) == after


@pytest.mark.parametrize("state", STATES)
def test_recovery_can_be_repeated(tmp_path: Path, state: str) -> None:
    """A second start changes nothing, erases nothing and quarantines nothing."""
    plant(tmp_path / "spool", STATES[state][0])
    with open_bench(tmp_path):
        pass
    with open_bench(tmp_path) as bench:
        assert tree(bench.spool.root) == STATES[state][1]
        assert bench.found is not None
        assert (bench.found.erased, bench.found.segments_cut, bench.found.quarantined) == (0, 0, 0)


@pytest.mark.parametrize("state", STATES)
def test_what_waits_is_counted(tmp_path: Path, state: str) -> None:
    """After a start the counts of waiting files and bytes are those of the disk, sidecars and notes aside."""
    plant(tmp_path / "spool", STATES[state][0])
    with open_bench(tmp_path) as bench:
        for stream in bench.spool.streams:
            waiting = [
                data
                for name, data in tree(bench.spool.root).items()
                if name.startswith(f"{stream.name}/") and data is not None and not name.endswith((".meta", ".upload"))
            ]
            tally = bench.spool.accounting.waiting[stream.name]
            assert (tally.files, tally.bytes) == (len(waiting), sum(map(len, waiting)))


def test_what_an_earlier_start_could_not_sync_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that a killed start has made, FORMAT's above all, are durable before anything else is decided."""
    with open_bench(tmp_path):
        pass
    trace = Trace(monkeypatch, tmp_path)
    with open_bench(tmp_path):
        pass
    assert trace.steps.index("sync_directory spool") < trace.steps.index("sync_directory spool/usage")
    assert "sync_directory ." in trace.steps


def test_a_removal_is_durable_before_the_sidecar_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that was removed by a killed run is gone for good before its sidecar is erased."""
    sidecar = f"specimen/{T1}.a.meta"
    plant(tmp_path / "spool", {sidecar: META})
    trace = Trace(monkeypatch, tmp_path)
    with open_bench(tmp_path):
        pass
    assert trace.steps.index("sync_directory spool/specimen") < trace.steps.index(f"remove spool/{sidecar}")


def test_what_was_found_is_told(tmp_path: Path) -> None:
    """The counts of what was found name every kind of thing that an operator would ask for."""
    plant(tmp_path / "spool", LEFT)
    with open_bench(tmp_path) as bench:
        assert bench.found is not None
        # How far the names are ahead of the clock depends on the machine's.
        assert replace(bench.found, ahead_s=0) == Found(
            # The draft, the sidecar without a body, and the note of an upload of nothing.
            erased=3,
            segments_cut=1,
            batches_claimed=1,
            batches_sealed=2,
            # Two cut segments, a whole report, a claimed one, two sealed batches and a file.
            waiting_files=7,
            quarantined=3,
        )
        assert bench.metric("quarantined_total", stream="usage") == 2
        assert bench.metric("quarantined_total", stream="specimen") == 1
        told = bench.told("quarantined")
        assert len(told) == 3
        assert all(line["reason"] and line["file"].startswith(str(bench.spool.directories.quarantine)) for line in told)


def test_a_second_thing_of_a_name_is_quarantined_beside_the_first(tmp_path: Path) -> None:
    """Nothing in the quarantine is replaced by what comes later under the same name."""
    plant(tmp_path / "spool", {"quarantine/usage.notes.txt": b"old", "usage/notes.txt": b"new"})
    with open_bench(tmp_path) as bench:
        found = {path.read_bytes() for path in bench.spool.directories.quarantine.iterdir()}
        assert found == {b"old", b"new"}


def test_the_rest_of_a_second_segment_of_a_name_is_kept_beside_the_first(tmp_path: Path) -> None:
    """A coarse clock may give a segment the name of one whose rest was set aside; a start that was killed copies it once more."""
    name = f"{T1}.jsonl.open"
    for torn in (b'{"first', b'{"second', b'{"second'):
        plant(tmp_path / "spool", {f"usage/{name}": torn})
        with open_bench(tmp_path) as bench:
            found = tree(bench.spool.root)
    rest = f"quarantine/usage.{name}.rest"
    assert found == {rest: b'{"first', f"{rest}.2": b'{"second'}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("x" * 250, id="ascii"),
        pytest.param("日" * 80 + ".txt", id="of three bytes a character"),
        pytest.param("日" * 85, id="as long as a name can be"),
    ],
)
def test_a_stray_file_of_any_name_is_quarantined(tmp_path: Path, name: str) -> None:
    """A name that barely fits a directory keeps no gateway from starting."""
    plant(tmp_path / "spool", {f"usage/{name}": b"x"})
    with open_bench(tmp_path) as bench:
        assert [path.read_bytes() for path in bench.spool.directories.quarantine.iterdir()] == [b"x"]


STRANGE = {
    "tmp": "tmp/@eaDir",
    "tmp, like a draft": "tmp/5.7",
    "a segment": f"usage/{T2}.jsonl",
    "an open segment": f"usage/{T2}.jsonl.open",
    "a whole report": f"usage/{T2}.alice.json",
    "a batch": f"usage/aggregation/{Batch(HOUR, 'host-1', 'ef' * 16)}",
    "within a batch": f"usage/aggregation/{BATCH}/{T2}.jsonl",
    "within a batch, of any name": f"usage/aggregation/{BATCH}/@eaDir",
    "an archive": f"usage/uploading/{Batch(HOUR, 'host-1', 'ef' * 16)}.1.jsonl.gz",
    "a note": f"usage/uploading/{Batch(HOUR, 'host-1', 'ef' * 16)}.1.jsonl.gz.upload",
    "a body": f"specimen/{T2}.uri.body",
    "a sidecar": f"specimen/{T2}.uri.meta",
}


@pytest.mark.parametrize("sources", [0, 1])
def test_what_the_kernel_has_hidden_for_good_keeps_no_gateway_from_its_start(tmp_path: Path, sources: int) -> None:
    """A client of NFS that crashed leaves it in the directory of a batch."""
    plant(tmp_path / "spool", {f"usage/aggregation/{BATCH}/.nfs0001": b"1\n"})
    if sources:
        plant(tmp_path / "spool", {f"usage/aggregation/{BATCH}/{T1}.jsonl": b"1\n"})
    for _ in range(2):
        with open_bench(tmp_path) as bench:
            batch_and_deliver(bench.spool, LocalStore(tmp_path / "objects"))
            assert bench.spool.directories.claimed(USAGE) == []
    assert stored_lines(tmp_path / "objects") == [b"1"] * sources


KINDS = ("directory", "fifo", "socket", "link", "dangling link")


def put_strange(path: Path, kind: str) -> None:
    """Put something there that is no regular file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "directory":
            path.mkdir()
            (path / "within").write_bytes(b"x")
        case "fifo":
            os.mkfifo(path)
        case "socket":
            # Bound by a short name: that of the folder may be too long for one.
            with socket.socket(socket.AF_UNIX) as bound:
                folder = os.open(path.parent, os.O_RDONLY)
                bound.bind(f"/proc/self/fd/{folder}/{path.name}")
                os.close(folder)
        case "link":
            path.symlink_to("/etc/hostname")
        case _:
            path.symlink_to("nowhere")


# A directory with the name of a batch is what a batch is.
ODD_KINDS = [(place, kind) for place in STRANGE for kind in KINDS if (place, kind) != ("a batch", "directory")]


@pytest.mark.parametrize(("place", "kind"), ODD_KINDS)
@pytest.mark.parametrize("comes_later", [False, True], ids=["at the start", "later"])
def test_what_is_no_file_holds_up_nothing(tmp_path: Path, place: str, kind: str, comes_later: bool) -> None:
    """Found at the start it is erased or set aside, and nothing is waited for; coming later it is left alone, or set aside."""
    root = tmp_path / "spool"
    sound = {
        f"usage/{T1}.jsonl": b'{"n":1}\n',
        f"usage/aggregation/{BATCH}/{T3}.jsonl": b'{"n":2}\n',
        f"specimen/{T1}.uri.meta": META,
        f"specimen/{T1}.uri.body": b"abc",
    }
    plant(root, sound)
    if not comes_later:
        put_strange(root / STRANGE[place], kind)
    with open_bench(tmp_path) as bench:
        if comes_later:
            put_strange(root / STRANGE[place], kind)
        batch_and_deliver(bench.spool, LocalStore(tmp_path / "objects"))
        for stream in bench.spool.streams:
            assert bench.spool.accounting.waiting[stream.name].files == 0
    assert sorted(stored_lines(tmp_path / "objects")) == [b'{"n":1}', b'{"n":2}']
    assert stored_files(tmp_path / "objects") == [b"abc"]


def test_a_draft_of_a_start_that_crashed_is_in_nobodys_way(tmp_path: Path) -> None:
    """Where the clock stands at every start where it stood at the last one, what that one left does not keep this one out."""
    plant(tmp_path / "spool", {f"tmp/{START_NS}.7": b"1", f"tmp/{START_NS + 1}.7": b"1"})
    with open_bench(tmp_path) as bench:
        assert tree(bench.spool.root) == {}
        assert bench.spool.directories.format_version() == FORMAT_VERSION


def test_new_names_come_after_the_spooled_ones(tmp_path: Path) -> None:
    """With a clock that was set back, the first new instant is above that of every file found, claimed ones included."""
    later = START_NS + 10**15
    plant(
        tmp_path / "spool",
        {
            f"usage/{later}.7.jsonl": b"1\n",
            f"usage/aggregation/{BATCH}/{later + 2}.7.jsonl": b"1\n",
            f"specimen/{later + 1}.7.a.meta": META,
            f"specimen/{later + 1}.7.a.body": b"abc",
        },
    )
    with open_bench(tmp_path) as bench:
        assert bench.spool.timestamps.next() == later + 3


def test_a_sound_segment_is_synced_before_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that were written and not synced when the writer was killed are synced before the name promises that they are whole.

    A cut segment is not checked again: after a power cut its unsynced tail would be zeroes that go into a batch.
    """
    with open_bench(tmp_path, recovered=False) as bench:
        plant(bench.spool.root, {f"usage/{T1}.jsonl.open": b"1\n"})
        trace = Trace(monkeypatch, bench.spool.root)
    with open_bench(tmp_path):
        pass
    synced = [index for index, step in enumerate(trace.steps) if step.startswith(("sync ", "sync_files ", "truncate "))]
    synced = [index for index in synced if f"usage/{T1}.jsonl" in trace.steps[index]]
    assert synced
    assert min(synced) < trace.first("place usage/")


@pytest.mark.parametrize("is_torn", [False, True])
def test_a_segment_that_grows_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_torn: bool) -> None:
    """Another gateway writes to it, whose lock is not seen: the start ends before anything of it is cut off."""
    with open_bench(tmp_path, recovered=False) as bench:
        order = bench.spool.timestamps.next()
        path = bench.spool.directories.of(USAGE) / names.spool_name(order, order, PID, names.OPEN_SEGMENT)
        path.write_bytes(b'{"n":1}\n' + b'{"n"' * is_torn)
        real = json_lines.sound_prefix

        def slow(chunks: Iterable[bytes]) -> SoundPrefix:
            found = real(chunks)
            with path.open("ab") as file:
                file.write(b":2}\n" if is_torn else b'{"n":2}\n')
            return found

        monkeypatch.setattr(recovery, "sound_prefix", slow)
        with pytest.raises(OSError, match="is being written to: another gateway"):
            recover(bench.spool)
        assert path.read_bytes() == b'{"n":1}\n{"n":2}\n'


def test_the_rest_is_safe_before_it_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set aside stands synced in the quarantine, its directory synced too, before it leaves the segment."""
    plant(tmp_path / "spool", {f"usage/{T1}.jsonl.open": b"1\n{"})
    trace = Trace(monkeypatch, tmp_path / "spool")
    with open_bench(tmp_path):
        assert trace.first("sync tmp/") < trace.first("replace tmp/")
        assert trace.first("replace tmp/") < trace.last("sync_directory quarantine") < trace.first("truncate usage/")


def test_what_left_a_claimed_batch_cannot_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a killed run has sealed as it is was moved out of its batch for good before anything is delivered."""
    sealed = f"usage/uploading/{Batch(HOUR, 'host-1', 'cd' * 16)}.1.jsonl"
    plant(tmp_path / "spool", {f"usage/aggregation/{BATCH}/{T1}.jsonl": b"1\n", sealed: b"2\n"})
    trace = Trace(monkeypatch, tmp_path / "spool")
    with open_bench(tmp_path):
        assert f"sync_directory usage/aggregation/{BATCH}" in trace.steps


def test_sources_go_only_after_the_archives_name_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory of sealed files is synced before the sources of a sealed batch are removed."""
    plant(tmp_path / "spool", STATES["a sealed batch with its sources"][0])
    trace = Trace(monkeypatch, tmp_path / "spool")
    with open_bench(tmp_path):
        assert trace.first("sync_directory usage/uploading") < trace.first(f"remove usage/aggregation/{BATCH}")


# --- crashes -----------------------------------------------------------------------------------------------------

# One of everything at once, each line and each file with content of its own.
LEFT: Files = {
    "tmp/5.7": b"never acknowledged\n",
    f"usage/{T1}.jsonl.open": b'"open"\n"open 2"\n"torn',
    f"usage/{T2}.jsonl.open": b"",
    f"usage/{T3}.jsonl": b'"cut"\n',
    f"usage/{START_NS + 9}.7.u.json": b'"whole"\n',
    f"usage/aggregation/{BATCH}": None,
    f"usage/aggregation/{Batch(HOUR, 'host-1', 'cd' * 16)}/{T1}.jsonl": b'"claimed"\n',
    f"usage/aggregation/{Batch(HOUR, 'host-1', 'ef' * 16)}/{T2}.jsonl": b'"sealed, sources left"\n',
    f"usage/uploading/{Batch(HOUR, 'host-1', 'ef' * 16)}.1.jsonl.gz": gzip.compress(b'"sealed, sources left"\n'),
    f"usage/uploading/{Batch(HOUR, 'host-1', '01' * 16)}.2.jsonl.gz": gzip.compress(b'"sealed"\n'),
    f"usage/uploading/{Batch(HOUR, 'host-1', '02' * 16)}.1.jsonl.gz.upload": b"id",
    f"specimen/{T1}.a.meta": META,
    f"specimen/{T1}.a.body": b"abc",
    f"specimen/{T2}.a.meta": META,
    f"specimen/{T3}.a.body": b"lone",
    "usage/stray.txt": b"stray",
}
SOUND = sorted(b'"open" "open 2" "cut" "whole" "claimed" "sealed, sources left" "sealed"'.replace(b'" ', b'"\n').splitlines())


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """Give a folder for very many starts."""
    with folder_in_memory() as folder:
        yield folder


def start_and_die(folder: Path, *, calls: int, now_ns: int) -> bool:
    """Start on what is in `folder` with a disk that works for so many calls, and tell whether that was too few."""
    with pytest.MonkeyPatch.context() as patch:
        Crashing(calls).install(patch)
        try:
            with open_bench(folder, clock=Clock(now_ns), level="error"):
                return False
        except PowerCut:
            return True


def recover_and_deliver(folder: Path) -> None:
    """Start on what is in `folder`, and take all of it to a local store."""
    with open_bench(folder, clock=Clock(START_NS + 2000), level="error") as bench:
        batch_and_deliver(bench.spool, LocalStore(folder / "objects"))


def test_all_that_is_sound_is_delivered(tmp_path: Path) -> None:
    """Of one thing in every state each sound line reaches the store once, and the rest the quarantine."""
    plant(tmp_path / "spool", LEFT)
    recover_and_deliver(tmp_path)
    assert stored_lines(tmp_path / "objects") == SOUND
    assert stored_files(tmp_path / "objects", SPECIMEN) == [b"abc"]
    assert stored_files(tmp_path / "objects", USAGE)
    assert sorted(data for data in tree(tmp_path / "spool").values() if data) == [b'"torn', b"lone", b"stray"]


def test_a_crash_at_any_call_of_a_recovery_loses_nothing(in_memory: Path) -> None:
    """However often the process is killed while it recovers, each sound line reaches the store exactly once."""
    plant(in_memory / "left" / "spool", LEFT)
    died, number = True, 0
    while died:
        folder = in_memory / f"{number}"
        shutil.copytree(in_memory / "left", folder)
        died = start_and_die(folder, calls=number, now_ns=START_NS)
        # The next start dies too, at some other call.
        start_and_die(folder, calls=number // 2, now_ns=START_NS + 1000)
        recover_and_deliver(folder)
        assert stored_lines(folder / "objects") == SOUND, f"after a crash at call {number}"
        assert stored_files(folder / "objects", SPECIMEN) == [b"abc"]
        assert {data for data in tree(folder / "spool").values() if data} == {b'"torn', b"lone", b"stray"}
        shutil.rmtree(folder)
        number += 1
    assert number > 30
