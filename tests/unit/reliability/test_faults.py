from __future__ import annotations

from collections.abc import Iterable

import pytest
from reliability.disk import mistrust, owed, strace
from reliability.disk.strace import Fault, Traced
from reliability.names import keys
from reliability.opened import Delivered, opened

from testkit.ledger import Fate

SPOOL = "/srv/spool"
OPEN = f"{SPOOL}/usage/1795283245030874250.42.jsonl.open"
DRAFT = f"{SPOOL}/tmp/1795283245030874251.42"
HOST = "host"
HOUR = "2026/11/21/14/2026112114.host"


def calls(*lines: str) -> list[Traced]:
    """Calls of one thread, or of as many as are named."""
    return list(strace.parse(line if line[0].isdigit() else f"7 {line}" for line in lines))


# --- what strace writes ------------------------------------------------------------------------------------------


def test_a_call_is_read() -> None:
    """A call is read with its file, its descriptor and whether it was made to fail."""
    [call] = calls(f"fdatasync(17<{OPEN}>) = -1 EIO (Input/output error) (INJECTED)")
    assert call == Traced(7, "fdatasync", (OPEN,), 17, error="EIO", injected=True)


def test_an_open_is_read() -> None:
    """An open is read with its path, its flags and the descriptor that it gave."""
    [call] = calls(f'openat(AT_FDCWD</srv>, "{OPEN}", O_WRONLY|O_CREAT|O_EXCL, 0600) = 17<{OPEN}>')
    assert call == Traced(7, "openat", (OPEN,), 17, flags="O_WRONLY|O_CREAT|O_EXCL")


def test_a_removed_file_is_read() -> None:
    """A file that has no name any more is read as the one that it was."""
    [call] = calls(f"ftruncate(17<{OPEN}>(deleted), 8) = 0")
    assert call.paths == (OPEN,)


def test_calls_of_threads_are_put_together() -> None:
    """A call that others came in between is read when it comes back, and a close when it begins."""
    read = calls(
        f'7 rename("{OPEN}", "{OPEN[:-5]}" <unfinished ...>',
        f"8 close(17<{DRAFT}> <unfinished ...>",
        f"9 writev(17<{DRAFT}>, [...], 1) = 8",
        "7 <... rename resumed>) = 0",
        "8 <... close resumed>) = 0",
    )
    assert [(call.thread, call.name) for call in read] == [(8, "close"), (9, "writev"), (7, "rename")]
    assert read[2].paths == (OPEN, OPEN[:-5])


def test_steps_are_named_as_in_the_rows_of_kills() -> None:
    """Calls on the spool get the names of steps; all others none."""
    read = calls(f'rename("{OPEN}", "{OPEN[:-5]}") = 0', 'unlink("/elsewhere") = 0')
    assert [str(step) for _, step in strace.steps(read, SPOOL)] == ["rename usage/….jsonl.open -> usage/….jsonl, 1st"]


def test_a_fault_is_told_to_strace_with_every_spelling() -> None:
    """A kind of call has the names of every machine, of which strace takes those that there are."""
    fault = Fault(("unlink", "fsync"), "EIO", "2+")
    assert fault.expression() == "inject=?unlink,?unlinkat,?fsync:error=EIO:when=2+"
    assert str(fault) == "EIO of unlink and fsync 2+"


# --- what must not be done ---------------------------------------------------------------------------------------

FAILED = f"fdatasync(17<{OPEN}>) = -1 EIO (Input/output error) (INJECTED)"


@pytest.mark.parametrize(
    "after",
    [
        [f"writev(17<{OPEN}>, [...], 1) = 8"],
        [f"fdatasync(17<{OPEN}>) = 0"],
        [f'rename("{OPEN}", "{OPEN[:-5]}") = 0'],
        [f"close(17<{OPEN}>) = 0", f'openat(AT_FDCWD</>, "{OPEN}", O_WRONLY|O_APPEND) = 18<{OPEN}>'],
        [f"close(17<{OPEN}>) = 0", f'rename("{OPEN}", "{OPEN[:-5]}") = 0'],
    ],
)
def test_use_after_a_failed_sync_is_found(after: list[str]) -> None:
    """Whoever goes on with a file whose sync has failed is found out."""
    assert mistrust.trusted_again(calls(FAILED, *after))


@pytest.mark.parametrize(
    "after",
    [
        [f"ftruncate(17<{OPEN}>, 8) = 0", f'openat(AT_FDCWD</>, "{OPEN}", O_RDONLY) = 18<{OPEN}>'],
        [f'unlink("{OPEN}") = 0', f"close(17<{OPEN}>) = 0"],
        [f"writev(17<{OPEN}>, [...], 1) = -1 EIO (Input/output error)"],
        # Replaced by a copy, which is another file of that name.
        [
            f'rename("{DRAFT}", "{OPEN}") = 0',
            f'openat(AT_FDCWD</>, "{OPEN}", O_WRONLY) = 18<{OPEN}>',
            f"fdatasync(18<{OPEN}>) = 0",
        ],
        # Closed, and the number given to another file.
        [f"close(17<{OPEN}>) = 0", f"writev(17<{DRAFT}>, [...], 1) = 8"],
    ],
)
def test_what_is_right_after_a_failed_sync_is_not_blamed(after: list[str]) -> None:
    """Cutting back, reading, removing and replacing are what a failed sync asks for."""
    assert mistrust.trusted_again(calls(FAILED, *after)) == []


def test_a_directory_may_be_synced_again() -> None:
    """A failed sync of a directory is no reason not to sync it again."""
    opened_ = f'openat(AT_FDCWD</>, "{SPOOL}/usage", O_RDONLY|O_DIRECTORY) = 5<{SPOOL}/usage>'
    failed = f"fsync(5<{SPOOL}/usage>) = -1 EIO (Input/output error) (INJECTED)"
    assert mistrust.trusted_again(calls(opened_, failed, f"fsync(5<{SPOOL}/usage>) = 0")) == []


def test_a_rename_before_the_sync_is_found() -> None:
    """A file that is given its name with bytes that were not synced is found, and one that was synced is not."""
    write, sync, rename = f"writev(5<{DRAFT}>, [...], 1) = 8", f"fdatasync(5<{DRAFT}>) = 0", f'rename("{DRAFT}", "{OPEN}") = 0'
    assert mistrust.renamed_unsynced(calls(write, rename, sync))
    assert mistrust.renamed_unsynced(calls(write, sync, write, rename))
    assert mistrust.renamed_unsynced(calls(write, sync, rename)) == []
    # The copy that takes the place of a segment is synced, though the segment was not.
    cut = f'rename("{OPEN}", "{OPEN[:-5]}") = 0'
    assert mistrust.renamed_unsynced(calls(f"writev(17<{OPEN}>, [...], 1) = 8", FAILED, write, sync, rename, cut)) == []


# --- names that are not synced yet -------------------------------------------------------------------------------

BATCH = f"{SPOOL}/usage/aggregation/2026112114.host.0"
SOURCE = f"{BATCH}/1795283245030874250.42.jsonl"
ARCHIVE = f"{SPOOL}/usage/uploading/2026112114.host.0.1.jsonl.gz"
CLAIM = [f'rename("{OPEN[:-5]}", "{SOURCE}") = 0', f"fsync(5<{BATCH}>) = 0", f"fsync(5<{SPOOL}/usage>) = 0"]
READ = f'openat(AT_FDCWD</>, "{SOURCE}", O_RDONLY|O_CLOEXEC) = 5<{SOURCE}>'
SEAL = [f'rename("{DRAFT}", "{ARCHIVE}") = 0', f"fsync(5<{SPOOL}/usage/uploading>) = 0"]
REMOVAL = f'unlink("{SOURCE}") = 0'


def failed(call: str) -> str:
    """The call as it is told when it fails."""
    return call.replace(" = 0", " = -1 EIO (Input/output error) (INJECTED)")


def test_a_batch_that_waits_for_each_sync_is_not_blamed() -> None:
    """Sources that are read once they are claimed for good, and removed once their archive is there for good, are in order."""
    assert mistrust.hurried(calls(*CLAIM, READ, *SEAL, REMOVAL)) == []
    assert mistrust.hurried(calls(CLAIM[0], failed(CLAIM[1]), *CLAIM[1:], READ, SEAL[0], failed(SEAL[1]), SEAL[1], REMOVAL)) == []


@pytest.mark.parametrize(
    "lines",
    [
        [CLAIM[0], failed(CLAIM[1]), CLAIM[2], READ],
        [*CLAIM[:2], failed(CLAIM[2]), READ],
        [CLAIM[0], READ],
        [*CLAIM, READ, SEAL[0], failed(SEAL[1]), REMOVAL],
        [*CLAIM, READ, SEAL[0], REMOVAL, SEAL[1]],
    ],
)
def test_a_batch_that_does_not_wait_for_a_sync_is_found(lines: list[str]) -> None:
    """Whoever reads or removes sources though a sync before it is missing, or has failed, is found out."""
    assert mistrust.hurried(calls(*lines))


def test_a_segment_whose_name_is_in_doubt_is_not_answered_for() -> None:
    """After a failed sync of its directory a segment is removed, or its directory is synced again before anything is written."""
    made = f'openat(AT_FDCWD</>, "{OPEN}", O_WRONLY|O_CREAT|O_EXCL, 0600) = 17<{OPEN}>'
    sync, synced = f"fsync(5<{SPOOL}/usage>) = 0", f"fdatasync(17<{OPEN}>) = 0"
    assert mistrust.nameless(calls(made, sync, synced)) == []
    assert mistrust.nameless(calls(made, failed(sync), f'unlink("{OPEN}") = 0', sync, made, sync, synced)) == []
    assert mistrust.nameless(calls(made, failed(sync), sync, synced)) == []
    assert mistrust.nameless(calls(made, failed(sync), synced))
    assert mistrust.nameless(calls(f'rename("{DRAFT}", "{OPEN}") = 0', failed(sync), synced))


def test_a_sidecar_goes_after_its_body() -> None:
    """A sidecar may be removed once the removal of its body is durable, or if the body was never there for good."""
    body = f"{SPOOL}/specimen/1795283245030874250.42.file.body"
    sidecar = f"{body.removesuffix('body')}meta"
    sync, gone, nameless = f"fsync(5<{SPOOL}/specimen>) = 0", f'unlink("{body}") = 0', f'unlink("{sidecar}") = 0'
    placed = f'rename("{DRAFT}", "{body}") = 0'
    assert mistrust.abandoned(calls(placed, sync, gone, sync, nameless)) == []
    assert mistrust.abandoned(calls(placed, failed(sync), gone, nameless)) == []
    assert mistrust.abandoned(calls(placed, sync, gone, failed(sync), nameless))
    assert mistrust.abandoned(calls(gone, nameless))


def test_all_that_is_wrong_is_told() -> None:
    """What is wrong is told with what it is called."""
    use, write = f"fdatasync(17<{OPEN}>) = 0", f"writev(5<{DRAFT}>, [...], 1) = 8"
    found = list(mistrust.wrongs(calls(FAILED, use, write, SEAL[0], CLAIM[0], READ)))
    assert [one.partition(":")[0] for one in found] == [
        "used after a failed sync",
        "renamed before it was synced",
        "gone on with before its name was synced",
    ]


# --- who must be told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "streams"),
    [
        # What goes into a segment is tried once more, and a copy is made for it.
        ([FAILED, failed(f"fdatasync(5<{DRAFT}>) = 0")], set()),
        ([f"writev(5<{DRAFT}>, [...], 1) = 8"], set()),
        ([f"writev(5<{DRAFT}>, [...], 1) = -1 ENOSPC (No space left on device)"], {owed.SOMEBODY}),
        ([failed(f'rename("{DRAFT}", "{SPOOL}/error/1795283245030874251.42.alice.json") = 0')], {"error"}),
        ([failed(f"fdatasync(5<{DRAFT}>) = 0")], {owed.SOMEBODY}),
        # That a directory was not synced concerns whoever has just put something into it, and nobody where a segment was cut.
        (
            [
                f'rename("{DRAFT}", "{SPOOL}/specimen/1795283245030874251.42.file.body") = 0',
                failed(f"fsync(5<{SPOOL}/specimen>) = 0"),
            ],
            {"specimen"},
        ),
        ([f'rename("{OPEN}", "{OPEN[:-5]}") = 0', failed(f"fsync(5<{SPOOL}/usage>) = 0")], set()),
        ([failed(REMOVAL), failed(CLAIM[0]), failed(SEAL[0])], set()),
    ],
)
def test_who_must_be_told_of_a_failed_call(lines: list[str], streams: set[str]) -> None:
    """Whoever waits for an answer that stands on a failed call must be told, and nobody else."""
    assert owed.owed(strace.steps(calls(*lines), SPOOL)) == streams


def test_whoever_was_not_told_is_known() -> None:
    """A stream whose requests were all acknowledged since then has not been told."""
    ledger = owed.ToldLedger()
    ledger.note("usage", [b"1"], Fate.REFUSED)
    before = ledger.refusals()
    ledger.note("usage", [b"2"], Fate.ACKNOWLEDGED)
    assert ledger.untold({"usage", owed.SOMEBODY}, before) == [owed.SOMEBODY, "usage"]
    ledger.note("error", [b"3"], Fate.UNANSWERED)
    assert ledger.untold({"usage", "error", owed.SOMEBODY}, before) == ["usage"]


# --- keys --------------------------------------------------------------------------------------------------------


def test_an_envelope_is_opened() -> None:
    """A report is read out of its envelope as it was sent, and one without any stays as it is."""
    report = b'{"report":{"user":"\\"}"}}'
    line = b'{"user":"al\\"ice","received_at":"2026-11-21T14:20:00.000000001Z","report":' + report + b"}"
    assert opened(line) == ("2026-11-21T14:20:00.000000001Z", report)
    assert opened(report) == ("", report)


def reports(*entries: tuple[str, str]) -> Iterable[Delivered]:
    """Reports of client 3 at these instants, in the order in which they were sent."""
    return [Delivered(key, received, b'{"id":"3-%d"}' % number) for number, (key, received) in enumerate(entries)]


def test_a_report_in_the_wrong_hour_is_found() -> None:
    """A report belongs into an object of the hour in which it was received."""
    assert list(keys.misplaced(reports((f"{HOUR}.2.jsonl.gz", "2026-11-21T14:59:59.999999999Z")))) == []
    assert list(keys.misplaced(reports((f"{HOUR}.2.jsonl.gz", "2026-11-21T15:00:00.000000000Z"))))
    assert list(keys.misplaced(reports(("2026/11/21/15/2026112114.host.jsonl.gz", "2026-11-21T14:00:00.000000000Z"))))


def test_numbers_that_were_passed_over_are_found() -> None:
    """Each number is taken by a batch or by a stranger before the next one is."""
    first, second, third = f"{HOUR}.jsonl.gz", f"{HOUR}.2.jsonl.gz", f"{HOUR}.3.jsonl.gz"
    assert list(keys.gaps([first, third], [second, f"{HOUR}.9.jsonl.gz"], HOST)) == []
    assert list(keys.gaps([first, third], [], HOST))
    assert list(keys.gaps(["2026/11/21/14/2026112114.other.jsonl.gz"], [], HOST))


def test_a_file_whose_name_was_taken_is_known() -> None:
    """A number before the extension says that the name was taken."""
    key = "alice/2026/11/21/same.1795270800000000007"
    assert keys.has_number(f"{key}.2.bin")
    assert not keys.has_number(f"{key}.bin")
