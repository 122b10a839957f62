"""A `cache_dir` of the Go edition is taken over whole, wherever a crash interrupts it."""

from __future__ import annotations

import hashlib
import random
import shutil
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.errors import StartError
from gateway.core.streams import Stream
from gateway.spool import names
from gateway.spool.directories import FORMAT_VERSION, Directories
from gateway.spool.go_edition.adopt import check_streams, needs_adoption
from gateway.spool.go_edition.names import Adopted
from gateway.stores.local import LocalStore
from gateway.telemetry.metrics import ADOPTING
from testkit import spool as fixtures_spool
from testkit.go_edition import GO_NS, archive, counted, files, flat, lines, quarantined, starting, waiting, zipped
from testkit.spool import (
    ERROR,
    PID,
    SPECIMEN,
    START_NS,
    STREAMS,
    USAGE,
    Clock,
    Crashing,
    PowerCut,
    Trace,
    batch_and_deliver,
    claim,
    open_bench,
    plant,
    stored_files,
    stored_lines,
    tree,
)

PNG = b"\x89PNG\r\n\x1a\nrest"
# 2026-11-21T12:59:00Z, which is GO_NS.
WHEN = "20261121125900"

ONLY_IN_ARCHIVES = [b'{"gone":1}', b'{"gone":2}', b'{"gone":3}']
SOURCES = [b'{"s":1}', b'{\n "s": 2\n}', b'{"s":1}']
USAGE_LINES = counted(
    [
        b'{"s":1}',
        b'{  "s": 2 }',
        b'{"s":1}',
        *ONLY_IN_ARCHIVES,
        b'{"n":1}',
        b'{"n":2}',
        b'{"same":1}',
        b'{"same":1}',
        b'{"odd":1}',
    ]
)
UNREADABLE_ARCHIVE = zipped(b'{"s":1}')[:-3]
LONE_ARCHIVE = zipped(ONLY_IN_ARCHIVES[2])
CACHE: dict[str, bytes | None] = {
    f"usage/{flat(10)}": b'{"n":1}\n{"n":2}',
    f"usage/{flat(11, 'alice@example.com')}": b'{"same":1}',
    f"usage/aggregation/{flat(11, 'alice@example.com')}": b'{"same":1}',
    "usage/12.3.x.json": b'{"odd":1}',
    f"usage/{flat(13)}": b"plain text",
    f"usage/{flat(14)}": b"",
    **{f"usage/aggregation/{flat(n)}": body for n, body in enumerate(SOURCES)},
    f"usage/aggregation/{flat(5)}": b'{"torn":',
    f"usage/aggregation/{archive(6)}": b"\x1f\x8bunfinished",
    f"usage/uploading/{archive(7)}": zipped(*SOURCES, ONLY_IN_ARCHIVES[0]),
    f"usage/uploading/{archive(8)}": zipped(*SOURCES, *ONLY_IN_ARCHIVES[:2]),
    f"usage/uploading/{archive(9)}": UNREADABLE_ARCHIVE,
    f"usage/uploading/{archive(10)}": LONE_ARCHIVE,
    f"error/{flat(20)}": b'{"e":1}',
    f"specimen/{WHEN}.5.77.file%3A%2F%2Fa.b%2Fc.png": PNG,
    f"specimen/uploading/{WHEN}.5.77.file%3A%2F%2Fa.b%2Fc.png": b"another of the same name",
    f"specimen/uploading/{WHEN}.78.a+b": b"",
    "specimen/20261321125900.9.month-13": b"thirteen",
    "specimen/notes": b"strange",
}
FILES = counted([PNG, b"another of the same name", b"", b"thirteen"])
SET_ASIDE = counted(
    [b"plain text", b"", b'{"torn":', b"\x1f\x8bunfinished", b"strange", UNREADABLE_ARCHIVE]
    + [data for name in (archive(7), archive(8)) if (data := CACHE[f"usage/uploading/{name}"])]
)


def check(root: Path) -> None:
    """Account for everything in `CACHE` by its content: each thing once, and nothing erased."""
    assert lines(root) == USAGE_LINES
    assert lines(root, "error") == counted([b'{"e":1}'])
    found = files(root)
    assert counted(body for _, body in found.values()) == FILES
    assert all(sidecar.size == len(body) for sidecar, body in found.values())
    # An archive that was copied before a crash is found to be covered after it.
    assert Counter(quarantined(root).values()) - SET_ASIDE in (Counter(), counted([LONE_ARCHIVE]))
    assert not SET_ASIDE - Counter(quarantined(root).values())
    assert not (root / ADOPTING).exists()


def finish(folder: Path) -> None:
    """Start once more, without a fault, up to where something would be received."""
    with starting(folder, Clock(START_NS + 60 * 10**9)) as start:
        start.run()
        assert not needs_adoption(start.spool)
        start.recover()
    check(folder / "spool")


# --- when, and what of it ------------------------------------------------------------------------------------------


def test_an_empty_cache_dir_needs_no_adoption(tmp_path: Path) -> None:
    """A new directory, and one that this edition has laid out, are left as they are."""
    with starting(tmp_path) as start:
        assert not needs_adoption(start.spool)
        start.spool.directories.lay_out()
        assert not needs_adoption(start.spool)


def test_everything_is_taken_over(tmp_path: Path) -> None:
    """Each kind of thing is delivered or set aside, and counted; what is set aside is told."""
    plant(tmp_path / "spool", CACHE)
    with starting(tmp_path) as start:
        assert needs_adoption(start.spool)
        assert start.run() == Adopted(reports=12, files=4, quarantined=8)
        assert start.metrics.registry.get_sample_value("lightfile6_quarantined_total", {"stream": "usage"}) == 7
        found = start.recover()
        assert (found.quarantined, found.erased) == (0, 0)
        assert start.spool.accounting.waiting["specimen"].files == 4
        assert start.spool.accounting.claimable["usage"].files == len(waiting(start.spool.root))
        assert start.spool.timestamps.next() > START_NS
        assert len(start.reasons()) == 8
    check(tmp_path / "spool")


def test_what_was_adopted_is_delivered(tmp_path: Path) -> None:
    """Adopted reports and files go the way of all others, to the store and out of the spool."""
    plant(tmp_path / "spool", CACHE)
    store = LocalStore(tmp_path / "objects")
    with starting(tmp_path) as start:
        start.run()
        start.recover()
        batch_and_deliver(start.spool, store)
        assert all(tally.files == 0 for tally in start.spool.accounting.waiting.values())
    assert counted(stored_lines(tmp_path / "objects")) == USAGE_LINES + counted([b'{"e":1}'])
    assert counted(stored_files(tmp_path / "objects")) == FILES
    assert files(tmp_path / "spool") == {}


def test_empty_directories_are_replaced(tmp_path: Path) -> None:
    """A drained `cache_dir` becomes one of ours, with nothing left of the other layout."""
    root = tmp_path / "spool"
    plant(root, {f"{one}/uploading": None for one in ("usage", "error", "specimen")})
    with starting(tmp_path) as start:
        assert start.run() == Adopted()
        assert start.recover().quarantined == 0
    assert sorted(path.name for path in root.iterdir()) == [
        ".lock", "FORMAT", "error", "quarantine", "specimen", "tmp", "usage",
    ]  # fmt: skip
    assert not (root / "specimen" / "uploading").exists()


def test_another_thing_under_adopting_is_set_aside(tmp_path: Path) -> None:
    """What nobody moved to `adopting/` does not stop the start."""
    plant(tmp_path / "spool", {f"{ADOPTING}/else": b"1", f"{ADOPTING}/usage/{flat(1)}": b"{}"})
    with starting(tmp_path) as start:
        assert start.run() == Adopted(reports=1, quarantined=1)
        assert start.reasons().keys() == {f"{ADOPTING}.else"}


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fraction_ns", "pid", "uri"),
    [
        ("{when}.77.x", 0, 77, "x"),
        ("{when}.1.77.x", 100_000_000, 77, "x"),
        ("{when}.000012.77.x", 12_000, 77, "x"),
        ("{when}.123456.77.file%3A%2F%2F%2Fa.b%2Fc+d%2B.tar.gz", 123_456_000, 77, "file:///a.b/c d+.tar.gz"),
        ("{when}.120.77.x", 0, 120, "77.x"),
        ("{when}.1234567.77.x", 0, 1_234_567, "77.x"),
        ("{when}.12.77", 0, 12, "77"),
        ("{when}.77.%E6%97%A5%FF%00", 0, 77, "日\udcff\0"),
    ],
)
def test_a_file_keeps_what_its_name_says(tmp_path: Path, name: str, fraction_ns: int, pid: int, uri: str) -> None:
    """Instant, pid and uri are read from the name, also where the uri has dots; the user is unknown."""
    plant(tmp_path / "spool", {f"specimen/{name.format(when=WHEN)}": PNG})
    with starting(tmp_path) as start:
        start.run()
    ((body, (sidecar, data)),) = files(tmp_path / "spool").items()
    assert body == names.spool_name(GO_NS + fraction_ns, GO_NS + fraction_ns, pid, names.BODY, uri)
    assert (sidecar.uri, sidecar.user, sidecar.type) == (uri, "unknown", "image/png")
    assert (sidecar.received, sidecar.size, data) == (GO_NS + fraction_ns, len(PNG), PNG)
    assert sidecar.sha256 == hashlib.sha256(PNG).hexdigest()


@pytest.mark.parametrize("digits", ["20261321125900", "99991231235959", "19691231235959"])
def test_an_impossible_instant_becomes_now(tmp_path: Path, digits: str) -> None:
    """A file whose name says no instant that can be is delivered under one of now."""
    plant(tmp_path / "spool", {f"specimen/{digits}.9.x": PNG})
    with starting(tmp_path) as start:
        start.run()
    ((sidecar, _),) = files(tmp_path / "spool").values()
    assert START_NS <= sidecar.received < START_NS + 1000


def test_files_of_one_instant_stay_apart(tmp_path: Path) -> None:
    """Names that read the same are files of their own, with ids of their own, in one directory or in two."""
    same = {f"specimen/{WHEN}.9.a%2fb": b"1", f"specimen/{WHEN}.9.a%2Fb": b"2", f"specimen/uploading/{WHEN}.9.a%2Fb": b"3"}
    plant(tmp_path / "spool", same)
    with starting(tmp_path) as start:
        start.run()
    found = files(tmp_path / "spool").values()
    assert sorted(body for _, body in found) == [b"1", b"2", b"3"]
    assert len({sidecar.id for sidecar, _ in found}) == 3
    assert {sidecar.uri for sidecar, _ in found} == {"a/b"}


def test_the_id_of_a_file_is_the_same_at_each_attempt(tmp_path: Path) -> None:
    """The id comes from name and content, so that one and the same file is known again, and another is another."""
    ids = []
    for number, (name, data) in enumerate([("a", b"1"), ("a", b"1"), ("b", b"1"), ("a", b"2")]):
        folder = tmp_path / str(number)
        plant(folder / "spool", {f"specimen/{WHEN}.9.{name}": data})
        with starting(folder) as start:
            start.run()
        ids += [sidecar.id for sidecar, _ in files(folder / "spool").values()]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert all(len(one) == 32 for one in ids)


def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    """A specimen of 64 MiB is hashed and moved in a few MiB."""
    plant(tmp_path / "spool", {f"specimen/{WHEN}.9.x": b"x" * (64 << 20)})
    tracemalloc.start()
    try:
        with starting(tmp_path) as start:
            start.run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20


# --- a spool of this edition without its FORMAT ---------------------------------------------------------------------

OURS = [b'{"open":1}', b'{"open":2}', b'{"cut":1}', b'{"whole":1}', b'{"claimed":1}', b'{"sealed":1}']


def without_format(folder: Path) -> None:
    """Leave a spool of ours with something in every state, and without its FORMAT."""
    with open_bench(folder) as bench:
        spool = bench.spool
        bench.seal(OURS[5])
        bench.report(OURS[4])
        claim(bench)
        bench.report(OURS[3])
        for kind, content in ((names.CUT_SEGMENT, OURS[2:3]), (names.OPEN_SEGMENT, OURS[:2])):
            order = spool.timestamps.next()
            path = spool.directories.of(USAGE) / names.spool_name(order, order, PID, kind)
            path.write_bytes(b"".join(line + b"\n" for line in content))
        body = bench.file(PNG)
        body.with_name(f"{body.name}.upload").write_bytes(b"{}")
        bench.file(b"another")
        (spool.root / "FORMAT").unlink()


def deliver_ours(folder: Path) -> None:
    """Start, and demand that all of it is delivered once, with nothing set aside."""
    with starting(folder) as start:
        start.run()
        found = start.recover()
        assert found.quarantined == 0
        batch_and_deliver(start.spool, LocalStore(folder / "objects"))
    assert counted(stored_lines(folder / "objects")) == counted(OURS)
    assert counted(stored_files(folder / "objects")) == counted([PNG, b"another"])
    assert quarantined(folder / "spool") == {}
    assert (folder / "spool" / "FORMAT").read_text() == f"{FORMAT_VERSION}\n"


@pytest.mark.parametrize("text", [None, b"", b"\0\0", b"two\n"])
def test_a_spool_without_its_format_is_known_by_its_names(tmp_path: Path, text: bytes | None) -> None:
    """Whatever state it is in, it goes on from there; it is not taken for the Go edition's."""
    without_format(tmp_path)
    if text is not None:
        (tmp_path / "spool" / "FORMAT").write_bytes(text)
    with starting(tmp_path) as start:
        assert needs_adoption(start.spool)
        assert start.run() == Adopted(kept=10)
    deliver_ours(tmp_path)


def test_what_the_go_edition_left_beside_ours_is_adopted(tmp_path: Path) -> None:
    """Each edition's files are known by their names."""
    without_format(tmp_path)
    plant(tmp_path / "spool", {f"usage/{flat(10)}": b'{"n":1}', f"specimen/{WHEN}.9.x": b"thirteen"})
    with starting(tmp_path) as start:
        assert start.run() == Adopted(reports=1, files=1, kept=10)
        start.recover()
        batch_and_deliver(start.spool, LocalStore(tmp_path / "objects"))
    assert counted(stored_lines(tmp_path / "objects")) == counted([*OURS, b'{"n":1}'])
    assert counted(stored_files(tmp_path / "objects")) == counted([PNG, b"another", b"thirteen"])


@pytest.mark.parametrize("user", ["body", "alice.meta", "x.body", "x.body.upload", "jsonl", "x.json"])
def test_a_user_of_the_go_edition_may_be_called_anything(tmp_path: Path, user: str) -> None:
    """What looks a little like a name of ours is still a report of its edition."""
    plant(tmp_path / "spool", {f"usage/{flat(10, user)}": b'{"n":1}', "tmp/@eaDir/x": b""})
    with starting(tmp_path) as start:
        assert start.run() == Adopted(reports=1)
        start.recover()
    assert lines(tmp_path / "spool") == counted([b'{"n":1}'])


@pytest.mark.usefixtures("quick_disk")
def test_a_crash_while_it_is_known_again_is_mended(tmp_path: Path) -> None:
    """Whichever change of the disk is the last one, the next start ends with everything there once."""
    calls = 0
    while True:
        folder = tmp_path / str(calls)
        without_format(folder)
        fault = crash(folder, calls)
        deliver_ours(folder)
        if not fault.failed:
            break
        calls += 1
    assert calls > 20


# --- crashes -----------------------------------------------------------------------------------------------------


def crash(folder: Path, calls: int, second: int = 0) -> Crashing:
    """Start at a second, and die after so many changes of the disk, or reach the end."""
    fault = Crashing(calls)
    with starting(folder, Clock(START_NS + second * 10**9)) as start, pytest.MonkeyPatch.context() as patch:
        fault.install(patch)
        try:
            start.run()
            start.recover()
        except PowerCut:
            pass
    return fault


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let syncs cost nothing, nor be the last call, where a process dies and the machine does not."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr("os.fdatasync", lambda _: None)
    monkeypatch.setattr(fixtures_spool, "CHANGES", [name for name in fixtures_spool.CHANGES if "sync" not in name])


@pytest.mark.usefixtures("quick_disk")
def test_a_crash_anywhere_is_mended_by_the_next_start(tmp_path: Path) -> None:
    """Whichever change of the disk is the last one, the next start ends with everything there once."""
    calls = 0
    plant(tmp_path / "left", CACHE)
    while True:
        folder = tmp_path / str(calls)
        shutil.copytree(tmp_path / "left", folder / "spool")
        fault = crash(folder, calls)
        finish(folder)
        if not fault.failed:
            break
        calls += 1
    assert calls > 100


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize("seed", range(40))
def test_many_crashes_are_mended(tmp_path: Path, seed: int) -> None:
    """A start that is interrupted again and again, anywhere, gets to the same end."""
    chance = random.Random(seed)
    plant(tmp_path / "spool", CACHE)
    for second in range(chance.randrange(2, 12)):
        crash(tmp_path, chance.randrange(60), second)
    finish(tmp_path)


def test_nothing_new_is_laid_out_before_the_old_is_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FORMAT, which says that what stands outside is ours, comes after the moves are durable."""
    plant(tmp_path / "spool", CACHE)
    with starting(tmp_path) as start:
        trace = Trace(monkeypatch, tmp_path / "spool")
        start.run()
    moved, laid_out = trace.last("place specimen"), trace.first("make_directory tmp")
    assert trace.last("place usage") < moved < laid_out < trace.first("place tmp/")
    assert {"sync_directory .", f"sync_directory {ADOPTING}"} <= set(trace.steps[moved:laid_out])


def test_a_body_moves_after_its_sidecar_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sidecar's name is synced before the body is beside it, and the body's bytes and name before its directory goes."""
    plant(tmp_path / "spool", {f"specimen/{WHEN}.9.x": PNG})
    with starting(tmp_path) as start:
        trace = Trace(monkeypatch, tmp_path / "spool")
        start.run()
    moved = trace.first(f"place {ADOPTING}/specimen/")
    meta = trace.first("replace tmp/")
    assert "sync_directory specimen" in trace.steps[meta:moved]
    assert trace.first(f"sync_files {ADOPTING}/specimen/") < moved
    assert "sync_directory specimen" in trace.steps[moved : trace.first(f"remove_directory {ADOPTING}/specimen")]


def test_a_go_edition_started_again_in_between_loses_nothing(tmp_path: Path) -> None:
    """What it left after an adoption that never got to FORMAT is moved aside as well."""
    root = tmp_path / "spool"
    plant(root, {f"{ADOPTING}/usage/{flat(1)}": b"1", f"usage/{flat(2)}": b"2", f"usage/{flat(1)}": b"3"})
    with starting(tmp_path) as start:
        start.run()
    assert lines(root) == counted([b"1", b"2", b"3"])


def test_a_disk_that_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk ends the start with an error; with room again the next one goes on."""
    plant(tmp_path / "spool", CACHE)
    with starting(tmp_path) as start, monkeypatch.context() as patch:
        Crashing(40, error=lambda: OSError(28, "No space left on device"), for_ever=False).install(patch)
        with pytest.raises(OSError, match="No space"):
            start.run()
    finish(tmp_path)


@pytest.mark.parametrize(
    ("streams", "path", "message"),
    [
        ((USAGE, ERROR), f"specimen/{WHEN}.12.photo.png", r"^streams.specimen.enabled: must be true until .*/specimen is taken"),
        ((USAGE, ERROR), f"specimen/uploading/{WHEN}.12.photo.png", r"^streams.specimen.enabled: must be true"),
        ((ERROR, SPECIMEN), f"usage/{flat(10)}", r"^streams.usage.enabled: must be true"),
        ((ERROR, SPECIMEN), f"adopting/usage.2/{flat(10)}", r"^streams.usage.enabled: must be true until .*/adopting/usage.2"),
        ((replace(USAGE, form=SPECIMEN.form), ERROR, SPECIMEN), f"usage/{flat(10)}", r"^streams.usage.form: must be reports"),
        ((replace(USAGE, form=SPECIMEN.form), ERROR, SPECIMEN), "usage/1.1.7.jsonl", r"^streams.usage.form: must be reports"),
    ],
)
def test_what_is_of_a_stream_that_is_switched_off_is_not_passed_over(
    tmp_path: Path, streams: tuple[Stream, ...], path: str, message: str
) -> None:
    """The first start would make FORMAT, after which it was a stranger's: it is refused, and changes nothing."""
    plant(tmp_path / "spool", {path: b"1"})
    before = tree(tmp_path / "spool")
    with pytest.raises(StartError, match=message):
        check_streams(Directories(tmp_path / "spool", streams))
    check_streams(Directories(tmp_path / "spool", STREAMS))
    assert tree(tmp_path / "spool") == before


@pytest.mark.parametrize(
    "path", [f"specimen/{START_NS}.{START_NS}.7.x.body", "specimen/uploading/", f"other/{WHEN}.12.x", "FORMAT"]
)
def test_what_is_not_of_the_go_edition_needs_no_stream(tmp_path: Path, path: str) -> None:
    """Our own names wait for their stream, empty directories hold nothing, and beside FORMAT there is no Go edition."""
    root = tmp_path / "spool"
    if path.endswith("/"):
        (root / path).mkdir(parents=True)
    else:
        plant(root, {path: b"3\n"})
    if path == "FORMAT":
        plant(root, {f"specimen/{WHEN}.12.photo.png": b"1"})
    check_streams(Directories(root, (USAGE, ERROR)))
