"""Every report of the Go edition is delivered once, or set aside with a reason."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.core.text import decode
from gateway.spool import names
from gateway.spool.go_edition import reports
from gateway.spool.go_edition.names import Adopted
from testkit.go_edition import (
    GO_NS,
    archive,
    counted,
    flat,
    lines,
    quarantined,
    starting,
    waiting,
    zipped,
)
from testkit.spool import PID, START_NS, Trace, plant

A, B, C = b'{"a":1}', b'{"b":2}', b'{"c":3}'
PRETTY = b'{\n  "p": 1\n}'
FOLDED = b'{   "p": 1 }'
COVERED = "its reports are delivered from the files beside it"


def adopted(folder: Path, files: Mapping[str, bytes | None]) -> tuple[Adopted, dict[str, str]]:
    """Adopt these files, and give what was counted and the reasons of what was quarantined."""
    plant(folder / "spool", files)
    with starting(folder) as start:
        found = start.run()
        assert found is not None
        return found, start.reasons()


# --- flat files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (A, A + b"\n"),
        (A + b"\n", A + b"\n"),
        (PRETTY, FOLDED + b"\n"),
        (b"\r\n" + PRETTY + b"\n\n", FOLDED + b"\n"),
        (A + b"\n" + B, A + b"\n" + B + b"\n"),
        (A + b"\n\n" + B + b"\n", A + b"\n" + B + b"\n"),
        (b'"\\ud800"', b'"\\ud800"\n'),
        (b"1e400", b"1e400\n"),
    ],
)
def test_a_flat_file_becomes_lines(tmp_path: Path, body: bytes, stored: bytes) -> None:
    """One document or many are committed under their own instant, pid and user, and the source is gone."""
    found, reasons = adopted(tmp_path, {f"usage/{flat(1)}": body, f"error/aggregation/{flat(2)}": body})
    assert waiting(tmp_path / "spool") == {f"{GO_NS + 1}.{GO_NS + 1}.1.alice.json": stored}
    assert waiting(tmp_path / "spool", "error") == {f"{GO_NS + 2}.{GO_NS + 2}.1.alice.json": stored}
    assert found == Adopted(reports=2 * stored.count(b"\n"))
    assert reasons == {}
    assert not (tmp_path / "spool" / "adopting").exists()


@pytest.mark.parametrize("body", [b"", b" \n", b"plain text", b'{"torn":', A + b"\0\0\0", A + b"\nnot json\n"])
def test_what_is_not_json_is_set_aside(tmp_path: Path, body: bytes) -> None:
    """An empty, torn or other body is kept byte for byte in quarantine, and the log says why."""
    found, reasons = adopted(tmp_path, {f"usage/{flat(1)}": body})
    assert quarantined(tmp_path / "spool") == {f"usage.{flat(1)}": body}
    assert reasons.keys() == {f"usage.{flat(1)}"}
    assert waiting(tmp_path / "spool") == {}
    assert found == Adopted(quarantined=1)


@pytest.mark.parametrize("user", ["alice@example.com", "x.json", "y.jsonl.open", "日本", "a\nb", "..", "~", "%2F", "", "u" * 200])
def test_a_user_is_only_a_label(tmp_path: Path, user: str) -> None:
    """Whatever a token was, the file is a whole report for this edition, with the token to be read in its name."""
    adopted(tmp_path, {f"usage/{flat(1, user)}": A})
    (name,) = waiting(tmp_path / "spool")
    spooled = names.parse_spool_name(name)
    assert spooled is not None
    assert (spooled.order, spooled.pid, spooled.kind) == (GO_NS + 1, 1, names.WHOLE_REPORT)
    assert decode(spooled.label) == user


@pytest.mark.parametrize(
    "name", ["5.1.alice", "9999999999999999999.1.alice", f"{GO_NS}.007.alice", f"{GO_NS}.99999999999.alice", f"1.2.{'u' * 250}"]
)
def test_an_impossible_instant_or_pid_is_replaced(tmp_path: Path, name: str) -> None:
    """A name of which no safe name can be made gets an instant of now, and the report is delivered."""
    adopted(tmp_path, {f"usage/{name}": A})
    ((stored, data),) = waiting(tmp_path / "spool").items()
    spooled = names.parse_spool_name(stored)
    assert spooled is not None
    assert data == A + b"\n"
    assert (START_NS <= spooled.order < START_NS + 100, spooled.pid) == (True, PID)


def test_one_name_in_two_directories_is_two_reports(tmp_path: Path) -> None:
    """The same name in `usage/` and in `aggregation/` loses neither report, be their bytes the same or not."""
    adopted(
        tmp_path,
        {
            f"{place}{flat(n)}": A if n == 1 else place.encode().join([b'"', b'"'])
            for place in ("usage/", "usage/aggregation/")
            for n in (1, 2)
        },
    )
    assert lines(tmp_path / "spool") == Counter({A: 2, b'"usage/"': 1, b'"usage/aggregation/"': 1})


def test_strange_things_are_set_aside(tmp_path: Path) -> None:
    """Names that the Go edition never gave, directories, links and pipes go to quarantine as they are."""
    root = tmp_path / "spool"
    strange: dict[str, bytes | None] = {
        "usage/README": b"1",
        "usage/1.alice": b"2",
        "usage/aggregation/deeper/file": b"3",
        "usage/uploading/notes.gz": b"4",
        f"usage/uploading/{flat(1)}": b"5",
        f"usage/{archive(1)}": b"6",
        "error": b"7",
        "specimen": b"8",
    }
    plant(root, strange)
    (root / "usage" / flat(2)).symlink_to("/etc/passwd")
    os.mkfifo(root / "usage" / flat(3))
    (root / "usage" / "aggregation" / flat(4)).mkdir()
    found, reasons = adopted(tmp_path, {})
    assert found == Adopted(quarantined=11)
    assert sorted(path.read_bytes() for path in (root / "quarantine").rglob("*") if path.is_file() and not path.is_symlink()) == [
        b"%d" % number for number in range(1, 9)
    ]
    assert len(reasons) == 11
    assert waiting(root) == {}


# --- archives ----------------------------------------------------------------------------------------------------


def test_an_archive_beside_its_sources_is_delivered_once(tmp_path: Path) -> None:
    """After a failed upload the reports come from the sources alone, and the archive is set aside."""
    sources = {f"usage/aggregation/{flat(n)}": body for n, body in enumerate((A, B, PRETTY + b"\n"))}
    found, reasons = adopted(tmp_path, {**sources, f"usage/uploading/{archive(9)}": zipped(*sources.values())})
    assert lines(tmp_path / "spool") == counted([A, B, FOLDED])
    assert reasons == {f"usage.{archive(9)}": COVERED}
    assert found == Adopted(reports=3, quarantined=1)


def test_an_archive_without_sources_is_delivered(tmp_path: Path) -> None:
    """What is found nowhere else goes out under the archive's instant, however it was printed, and the archive goes."""
    found, reasons = adopted(tmp_path, {f"usage/uploading/{archive(9)}": zipped(A, PRETTY, A, b"", B + b"\n")})
    assert waiting(tmp_path / "spool") == {f"{GO_NS + 9}.{GO_NS + 9}.{PID}.unknown.json": b"\n".join([A, FOLDED, A, B, b""])}
    assert found == Adopted(reports=4)
    assert (reasons, quarantined(tmp_path / "spool")) == ({}, {})


def test_of_a_partly_covered_archive_the_rest_is_delivered(tmp_path: Path) -> None:
    """Where some sources are gone, exactly their reports come from the archive."""
    beside = {f"usage/aggregation/{flat(1)}": A, f"usage/aggregation/{flat(2)}": PRETTY, f"usage/aggregation/{flat(3)}": C}
    gone = b'{\n  "p": 2\n}'
    _, reasons = adopted(tmp_path, {**beside, f"usage/uploading/{archive(9)}": zipped(A, B, PRETTY, gone, A)})
    # The second A was sent by someone else, in a file that is gone.
    assert lines(tmp_path / "spool") == counted([A, A, B, C, FOLDED, b'{   "p": 2 }'])
    assert reasons == {f"usage.{archive(9)}": COVERED}


def test_two_attempts_of_one_batch_are_delivered_once(tmp_path: Path) -> None:
    """What two archives both hold and no source does is delivered once; what one of them holds too."""
    archives = {archive(5): zipped(A, B, B), archive(6): zipped(A, B, C), archive(7): zipped(A)}
    _, reasons = adopted(tmp_path, {f"usage/uploading/{name}": data for name, data in archives.items()})
    assert lines(tmp_path / "spool") == counted([A, B, B, C])
    assert reasons == {f"usage.{archive(6)}": COVERED, f"usage.{archive(7)}": COVERED}


def test_a_file_that_is_not_a_source_covers_nothing(tmp_path: Path) -> None:
    """A report still waiting in `usage/` was in no archive, so an equal one in an archive is another report."""
    adopted(tmp_path, {f"usage/{flat(1)}": A, f"usage/uploading/{archive(9)}": zipped(A)})
    assert lines(tmp_path / "spool") == counted([A, A])


def test_a_source_that_cannot_be_read_covers_nothing(tmp_path: Path) -> None:
    """A good line in a torn source is not delivered from there, so it is from the archive that has it whole."""
    found, reasons = adopted(
        tmp_path, {f"usage/aggregation/{flat(1)}": A + b'\n{"torn', f"usage/uploading/{archive(9)}": zipped(A)}
    )
    assert lines(tmp_path / "spool") == counted([A])
    assert reasons.keys() == {f"usage.{flat(1)}"}
    assert found == Adopted(reports=1, quarantined=1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (zipped(A, B)[:-4], "not a whole gzip file"),
        (zipped(A, B)[:14], "not a whole gzip file"),
        (zipped(A, B)[:-8] + bytes(8), "not a whole gzip file"),
        (A, "not a whole gzip file"),
        (b"", "it holds no report"),
        (zipped(), "it holds no report"),
        (zipped(A, b"plain text"), "line 2 is not JSON"),
        (zipped(B, b'{"torn":'), "line 2 is torn"),
    ],
)
def test_an_archive_that_cannot_be_read_is_set_aside(tmp_path: Path, data: bytes, reason: str) -> None:
    """A torn archive is kept whole and nothing of it is delivered, while the files beside it are."""
    found, reasons = adopted(tmp_path, {f"usage/aggregation/{flat(1)}": A, f"usage/uploading/{archive(9)}": data})
    assert lines(tmp_path / "spool") == counted([A])
    assert quarantined(tmp_path / "spool") == {f"usage.{archive(9)}": data}
    assert reason in reasons[f"usage.{archive(9)}"]
    assert found == Adopted(reports=1, quarantined=1)


def test_an_unfinished_archive_is_set_aside(tmp_path: Path) -> None:
    """An archive that was being written never stands for its sources."""
    _, reasons = adopted(tmp_path, {f"usage/aggregation/{flat(1)}": A, f"usage/aggregation/{archive(9)}": zipped(A)})
    assert lines(tmp_path / "spool") == counted([A])
    assert "not finished" in reasons[f"usage.{archive(9)}"]


@pytest.mark.parametrize("name", ["aggregate_5.gz", f"aggregate_{'9' * 30}.gz", archive(1)])
def test_an_archive_of_a_strange_time_is_delivered_too(tmp_path: Path, name: str) -> None:
    """Where the archive's instant cannot be a name, or is taken, its reports go out under one of now."""
    adopted(tmp_path, {f"usage/aggregation/{flat(1, 'unknown', PID)}": B, f"usage/uploading/{name}": zipped(A)})
    assert lines(tmp_path / "spool") == counted([A, B])


# --- order on the disk, and memory ---------------------------------------------------------------------------------


def test_a_source_goes_after_its_lines_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are synced, named, the name synced; only then the source is removed, and after the archives at that."""
    root = tmp_path / "spool"
    sources = f"adopting/usage/aggregation/{flat(1)}"
    plant(root, {f"usage/aggregation/{flat(1)}": A, f"usage/uploading/{archive(9)}": zipped(A, B)})
    with starting(tmp_path) as start:
        trace = Trace(monkeypatch, root)
        start.run()
    removed, put_away = trace.first(f"remove {sources}"), trace.first(f"place adopting/usage/uploading/{archive(9)}")
    _, copied, committed, *_ = (index for index, step in enumerate(trace.steps) if step.startswith("place tmp/"))
    for placed in (copied, committed):
        assert trace.steps[placed].replace("place", "sync_files") in trace.steps[:placed]
    assert "sync_directory adopting/usage/aggregation" in trace.steps[copied:put_away]
    assert trace.last("remove_directory adopting/usage/uploading") < committed
    assert "sync_directory usage" in trace.steps[committed:removed]


def test_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither more files nor many more bytes than a group may have are copied before their sources go."""
    monkeypatch.setattr(reports, "GROUP_FILES", 3)
    monkeypatch.setattr(reports, "GROUP_BYTES", 40)
    bodies = [json.dumps({"n": n, "more": "x" * (n % 4 * 8)}).encode() for n in range(10)]
    plant(tmp_path / "spool", {f"usage/{flat(n)}": body for n, body in enumerate(bodies)})
    with starting(tmp_path) as start:
        trace = Trace(monkeypatch, tmp_path / "spool")
        start.run()
    assert lines(tmp_path / "spool") == counted(bodies)
    copies, most = 0, 0
    for step in trace.steps[trace.first("place tmp/") + 1 :]:  # the first is FORMAT
        copies += step.startswith("place tmp/") and step.count(".") == 1
        copies -= step.startswith("remove adopting/")
        most = max(most, copies)
    assert (copies, most) == (0, 2)


def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    """A flat file and an archive of 32 MiB are adopted in a fraction of that."""
    root = tmp_path / "spool"
    plant(root, {"usage/aggregation": None, "usage/uploading": None})
    with (root / "usage" / flat(1)).open("wb") as file, gzip.open(root / "usage" / "uploading" / archive(9), "wb", 1) as packed:
        for writer in (file, packed):
            writer.write(b'["')
            for _ in range(32):
                writer.write(b'y",\n"' * ((1 << 20) // 5))
            writer.write(b'"]\n')
    tracemalloc.start()
    try:
        adopted(tmp_path, {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20
    assert len(waiting(root)) == 2
