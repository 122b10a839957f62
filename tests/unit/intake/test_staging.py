"""Bodies on their way to the disk: what they become, and that nothing of them stays when they fail."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.capacity import BodyReservation, Bounds, Capacity
from gateway.core import disk
from gateway.core.disk import FileSystem
from gateway.core.errors import BadRequest, GatewayError, SpoolBroken, SpoolFull, TooLarge
from gateway.formats.envelope import ENVELOPED_CHUNK_BYTES
from gateway.intake import staging
from gateway.intake.content import Content
from gateway.intake.staging import FileDraft, ReportDraft, Room
from gateway.spool import names
from gateway.spool.sidecar import read_sidecar
from testkit.spool import PID, SPECIMEN, START_NS, USAGE, Bench, Trace, open_bench

MEMORY = 100
LARGE = b'["%b"]' % (b"x" * MEMORY)
ZIPPED = gzip.compress(LARGE)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a real spool."""
    with open_bench(tmp_path) as made:
        yield made


def reservation(bench: Bench, *, quota: int = 0, reserve: int = 0, free: int = 1 << 40) -> BodyReservation:
    """What an admitted body of unknown length may take."""
    bounds = Bounds(quota=quota, reserve=reserve, pending_bytes=1 << 30, held_bytes=MEMORY, streamed_bytes=1000)
    return Capacity(bench.spool, bounds, {}, look=lambda: FileSystem(free)).reserve(SPECIMEN, None)


def report_draft(
    bench: Bench, encoding: str = "", *, many: bool = False, memory: int = MEMORY, room: Room | None = None
) -> ReportDraft:
    """A draft for a document, or for many lines."""
    content = Content(USAGE, "application/x-ndjson" if many else "", encoding)
    return ReportDraft(bench.spool, content, memory, room or reservation(bench))


def file_draft(bench: Bench, encoding: str = "", room: Room | None = None, *, claimed_type: str = "") -> FileDraft:
    """A draft for a specimen."""
    return FileDraft(bench.spool, Content(SPECIMEN, claimed_type, encoding), room or reservation(bench))


def finish_file(draft: FileDraft, rest: Sequence[bytes]) -> None:
    """End the draft of a specimen."""
    draft.finish(rest, SPECIMEN, identity="1" * 32, user="u", uri="a.b")


def tmp_files(bench: Bench) -> list[str]:
    """What is being received."""
    return os.listdir(bench.spool.directories.tmp)


def waiting(bench: Bench, stream: str = "usage") -> list[bytes]:
    """The bytes of what was committed."""
    return [path.read_bytes() for path in sorted((bench.spool.root / stream).iterdir()) if path.is_file()]


# --- reports -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_small_body_stays_in_memory(encoding: str, bench: Bench) -> None:
    """A body of at most the bound, decoded, comes back as it is, and no file was made for it."""
    body = b'"%b"' % (b"x" * (MEMORY - 2))
    sent = gzip.compress(body) if encoding else body
    draft = report_draft(bench, encoding)
    draft.feed([sent[:10], sent[10:]])
    assert draft.finish([], USAGE, "u", envelope=True) == body
    assert (tmp_files(bench), waiting(bench)) == ([], [])


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_large_body_becomes_a_file(encoding: str, bench: Bench) -> None:
    """A body over the bound is committed as a file of its own, under its user, and counted."""
    sent = gzip.compress(LARGE) if encoding else LARGE
    draft = report_draft(bench, encoding)
    draft.feed([sent[:10]])
    assert draft.finish([sent[10:]], USAGE, "us/er", envelope=False) == 1
    (name,) = [name for name in os.listdir(bench.spool.root / "usage") if name.endswith(".json")]
    assert name.endswith(f".{PID}.us%2Fer.json")
    assert waiting(bench) == [LARGE + b"\n"]
    assert tmp_files(bench) == []
    assert bench.spool.accounting.used_bytes() == len(LARGE) + 1
    # There is nothing left to discard, and what was committed stays.
    draft.discard()
    assert waiting(bench) == [LARGE + b"\n"]


def test_without_memory_every_body_becomes_a_file(bench: Bench) -> None:
    """A bound of nothing gives every report a file of its own."""
    assert report_draft(bench, memory=0).finish([b"{}"], USAGE, "u", envelope=False) == 1
    assert waiting(bench) == [b"{}\n"]
    with pytest.raises(BadRequest):
        report_draft(bench, memory=0).finish([b""], USAGE, "u", envelope=False)


def test_many_lines_become_one_file(bench: Bench) -> None:
    """A large body of many lines is one file of as many reports."""
    body = b"\n\r\n".join(b'{"n":%d}' % number for number in range(50))
    assert report_draft(bench, many=True).finish([body], USAGE, "u", envelope=False) == 50
    assert waiting(bench) == [b"".join(b'{"n":%d}\n' % number for number in range(50))]


@pytest.mark.parametrize("chunk", [7, 64, 1 << 16])
def test_each_line_gets_its_envelope(chunk: int, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line of a large body is put into its envelope, wherever the copy is cut, and only the copy stays."""
    monkeypatch.setattr(staging, "ENVELOPE_CHUNK_BYTES", chunk)
    body = b"".join(b'{"n":%d}\n' % number for number in range(50))
    assert report_draft(bench, many=True).finish([body], USAGE, 'a"b\n名', envelope=True) == 50
    (stored,) = waiting(bench)
    lines = [json.loads(line) for line in stored.splitlines()]
    assert lines == [{"user": 'a"b\n名', "received_at": lines[0]["received_at"], "report": {"n": number}} for number in range(50)]
    assert tmp_files(bench) == []
    assert bench.spool.accounting.used_bytes() == len(stored)


def test_envelopes_count_towards_the_limit(bench: Bench) -> None:
    """Many tiny reports of a long token are refused where their envelopes would make them pass the limit of a body."""
    stream = replace(USAGE, max_body_bytes=100_000)
    body = b"1\n" * 1000
    draft = report_draft(bench, many=True, memory=0)
    with pytest.raises(TooLarge, match="with an envelope"):
        draft.finish([body], stream, "x" * 100, envelope=True)
    draft.discard()
    assert (waiting(bench), tmp_files(bench)) == ([], [])
    assert report_draft(bench, many=True, memory=0).finish([body], stream, "x", envelope=True) == 1000


@settings(max_examples=40)
@given(
    lines=st.lists(st.sampled_from([b"", b"1", b'{"a":[1,2]}', b'"%b"' % (b"y" * 60), b"  [ ]\r", b"no json"]), max_size=8),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    memory=st.sampled_from([0, 1, 50, 1000]),
)
def test_however_a_body_is_cut(
    lines: list[bytes], cuts: list[int], memory: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The chunks in which a body comes, and where memory ends, change nothing about what becomes of it."""
    body = b"\n".join(lines)
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    chunks = [body[start:end] for start, end in pairwise(edges)]

    def outcome(pieces: list[bytes]) -> object:
        with open_bench(tmp_path_factory.mktemp("spool")) as bench:
            draft = report_draft(bench, many=True, memory=memory)
            try:
                for piece in pieces:
                    draft.feed([piece])
                result = draft.finish([], USAGE, "u", envelope=False)
            except GatewayError as error:
                draft.discard()
                assert (tmp_files(bench), waiting(bench)) == ([], [])
                return str(error)
            return result, waiting(bench)

    assert outcome(chunks) == outcome([body])


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_file_is_kept_with_its_sidecar(encoding: str, size: int, bench: Bench) -> None:
    """A file is kept as decoded, with the hash, the size and the type of that, in pieces of any size."""
    body = b"\x89PNG\r\n\x1a\n" + b"0123456789" * 30
    sent = gzip.compress(body) if encoding else body
    draft = file_draft(bench, encoding)
    for at in range(0, len(sent), size):
        draft.feed([sent[at : at + size]])
    finish_file(draft, [])
    (path,) = (bench.spool.root / "specimen").glob("*.body")
    sidecar = read_sidecar(path)
    assert path.read_bytes() == body
    assert (sidecar.size, sidecar.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert (sidecar.type, sidecar.user, sidecar.uri, sidecar.id) == ("image/png", "u", "a.b", "1" * 32)
    assert names.parse_spool_name(path.name) == names.SpoolName(START_NS + 1, PID, "a%2Eb", "body", sidecar.received)
    assert tmp_files(bench) == []
    assert bench.spool.accounting.used_bytes() == len(body)


def test_the_claimed_type_counts(bench: Bench) -> None:
    """A type that the sender claims is kept, whatever the first bytes look like."""
    finish_file(file_draft(bench, claimed_type="Text/Plain; charset=utf-8"), [b"%PDF-1.7"])
    (path,) = (bench.spool.root / "specimen").glob("*.body")
    assert read_sidecar(path).type == "text/plain; charset=utf-8"


def test_an_empty_file_is_a_file(bench: Bench) -> None:
    """Nothing at all is a specimen of no bytes."""
    finish_file(file_draft(bench), [])
    (path,) = (bench.spool.root / "specimen").glob("*.body")
    assert (path.read_bytes(), read_sidecar(path).size) == (b"", 0)


# --- room ---------------------------------------------------------------------------------------------------------

MIB = 1 << 20


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate", "gzip, gzip"])
@pytest.mark.parametrize("kept", ["report", "lines", "file"])
@pytest.mark.parametrize("bound", ["quota", "reserve"])
def test_room_is_asked_for_by_what_is_written(bound: str, kept: str, encoding: str, bench: Bench) -> None:
    """A few bytes that decode to more than there is room for are refused within the one piece that they are."""
    room = reservation(bench, quota=2 * MIB) if bound == "quota" else reservation(bench, reserve=1000, free=2 * MIB + 1000)
    data = b'"%b"\n' % (b"x" * (MIB - 3)) if kept == "lines" else b" " * MIB
    sent = encoded(data * 20, encoding)
    assert len(sent) < MIB // 4
    draft = (
        file_draft(bench, encoding, room) if kept == "file" else report_draft(bench, encoding, many=kept == "lines", room=room)
    )
    with pytest.raises(SpoolFull):
        draft.feed([sent])
    (name,) = tmp_files(bench)
    assert MIB < (bench.spool.directories.tmp / name).stat().st_size <= 2 * MIB
    draft.discard()
    assert bench.spool.accounting.used_bytes() == 0


def encoded(data: bytes, encoding: str) -> bytes:
    """Apply the codings of a Content-Encoding."""
    coders: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}
    for name in encoding.split(", "):
        data = coders[name](data)
    return data


def test_an_uncoded_body_is_charged_alike(bench: Bench) -> None:
    """What is sent as it is written is refused at the same byte."""
    draft = file_draft(bench, room=reservation(bench, quota=1000))
    draft.feed([b"x" * 999])
    with pytest.raises(SpoolFull):
        draft.feed([b"x" * 2])


def test_envelopes_ask_for_room_as_they_are_written(bench: Bench) -> None:
    """Where the lines fit and their envelopes do not, the body is refused, and nothing of it stays."""
    body = b"1\n" * 1000
    draft = report_draft(bench, many=True, memory=0, room=reservation(bench, quota=20_000))
    with pytest.raises(SpoolFull):
        draft.finish([body], USAGE, "u", envelope=True)
    draft.discard()
    assert (waiting(bench), tmp_files(bench), bench.spool.accounting.used_bytes()) == ([], [], 0)


def test_long_envelopes_of_tiny_lines_take_little_memory(bench: Bench) -> None:
    """A chunk of many tiny lines, each in an envelope of a long token, is not put together in memory at once."""
    largest = 0
    with pytest.MonkeyPatch.context() as patch:
        write_all = disk.write_all

        def measured(descriptor: int, buffers: Sequence[bytes]) -> int:
            nonlocal largest
            largest = max(largest, sum(map(len, buffers)))
            return write_all(descriptor, buffers)

        patch.setattr(disk, "write_all", measured)
        assert report_draft(bench, many=True, memory=0).finish([b"1\n" * 1500], USAGE, "u" * 32_000, envelope=True) == 1500
    assert largest <= 2 * ENVELOPED_CHUNK_BYTES
    assert bench.spool.accounting.used_bytes() > 1500 * 32_000


def test_a_sidecar_asks_for_room(bench: Bench) -> None:
    """An empty file with a long name is refused where its sidecar has no room."""
    draft = file_draft(bench, room=reservation(bench, quota=1000))
    with pytest.raises(SpoolFull):
        draft.finish([], SPECIMEN, identity="1" * 32, user="u", uri="x" * 4000)
    draft.discard()
    assert (waiting(bench, "specimen"), bench.spool.accounting.used_bytes()) == ([], 0)


def test_a_failed_write_gives_back_what_it_charged(bench: Bench) -> None:
    """What was charged for a write that failed counts until the draft is gone, and no longer."""
    draft = file_draft(bench)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "write_all", _refuse)
        with pytest.raises(SpoolBroken):
            draft.feed([b"x" * 100])
    draft.discard()
    assert bench.spool.accounting.used_bytes() == 0
    begun, landed = bench.spool.accounting.written.mine
    assert begun == landed == 100


def _refuse(*_: Any) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_is_spilled_is_on_the_disk(bench: Bench) -> None:
    """A small body whose memory is wanted goes on in a file, and becomes the same report."""
    draft = report_draft(bench)
    draft.feed([b'["a",'])
    assert tmp_files(bench) == []
    draft.spill()
    assert len(tmp_files(bench)) == 1
    draft.feed([b'"b"'])
    assert draft.finish([b"]"], USAGE, "u", envelope=False) == 1
    assert waiting(bench) == [b'["a","b"]\n']


# --- what fails --------------------------------------------------------------------------------------------------


def test_a_draft_is_counted_until_it_is_gone(bench: Bench) -> None:
    """What is on disk of a body counts as used while it comes, and no more when it is discarded, twice too."""
    draft = file_draft(bench)
    draft.feed([b"x" * 500])
    assert bench.spool.accounting.used_bytes() == 500
    assert len(tmp_files(bench)) == 1
    draft.discard()
    draft.discard()
    assert bench.spool.accounting.used_bytes() == 0
    assert tmp_files(bench) == []


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, SpoolFull), (errno.EDQUOT, SpoolFull), (errno.EIO, SpoolBroken)])
@pytest.mark.parametrize("step", ["create", "write_all", "sync", "place", "sync_directory"])
@pytest.mark.parametrize("kept", ["report", "enveloped report", "file"])
def test_a_disk_that_fails_keeps_nothing(
    kept: str, step: str, code: int, kind: type[GatewayError], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the disk refuses once, the client is told whether it was full, and neither body nor draft stays."""
    real, calls = getattr(disk, step), [0]

    def failing(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    draft: ReportDraft | FileDraft
    finish: Callable[[], object]
    if kept == "file":
        draft = file_draft(bench)
        finish = partial(finish_file, draft, [b"data"])
    else:
        draft = report_draft(bench)
        finish = partial(draft.finish, [LARGE], USAGE, "u", envelope=kept != "report")
    with monkeypatch.context() as patch:
        patch.setattr(disk, step, failing)
        with pytest.raises(kind):
            finish()
    draft.discard()
    assert tmp_files(bench) == []
    assert (waiting(bench), waiting(bench, "specimen")) == ([], [])
    assert bench.spool.accounting.used_bytes() == 0


@pytest.mark.parametrize("sent", [ZIPPED[:-3], b"no gzip at all", ZIPPED + b"more"], ids=["short", "none", "more"])
def test_a_corrupt_body_is_refused(sent: bytes, bench: Bench) -> None:
    """A body that cannot be decoded to its end is refused, and nothing of it stays."""
    for draft in (report_draft(bench, "gzip"), report_draft(bench, "gzip", memory=0)):
        with pytest.raises(BadRequest):
            draft.finish([sent], USAGE, "u", envelope=False)
        draft.discard()
    file = file_draft(bench, "gzip")
    with pytest.raises(BadRequest):
        finish_file(file, [sent])
    file.discard()
    assert (tmp_files(bench), waiting(bench), waiting(bench, "specimen")) == ([], [], [])


def test_a_body_that_decodes_to_too_much_is_refused(bench: Bench) -> None:
    """A body over its limit once decoded is refused, and nothing of it stays."""
    draft = ReportDraft(bench.spool, Content(replace(USAGE, max_body_bytes=1000), "", "gzip"), MEMORY, reservation(bench))
    with pytest.raises(TooLarge):
        draft.feed([gzip.compress(b" " * 1001)])
    draft.discard()
    assert tmp_files(bench) == []


def test_a_body_is_synced_before_it_has_its_name(bench: Bench) -> None:
    """The bytes are synced, then named, then the name is synced, and only then does the draft end."""
    with pytest.MonkeyPatch.context() as patch:
        trace = Trace(patch, bench.spool.root)
        report_draft(bench).finish([LARGE], USAGE, "u", envelope=True)
        order = [trace.last("sync tmp/"), trace.first("place tmp/"), trace.first("sync_directory usage")]
        assert order == sorted(order)
        trace.steps.clear()
        finish_file(file_draft(bench), [b"data"])
        order = [
            trace.first("sync tmp/"),
            trace.first("place tmp/"),
            trace.first("sync_directory specimen"),
            trace.last("place tmp/"),
            trace.last("sync_directory specimen"),
        ]
        assert order == sorted(set(order))
