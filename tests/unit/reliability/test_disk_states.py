from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from reliability.power.disk_states import Digests, Disk, Do, Fate, State, Step
from reliability.power.recording import steps, transitions

MAKE = Step(Do.MAKE_FILE, "file")
WRITE = Step(Do.WRITE, "file", data=b"0123456789")
SEED = 1


def synced(path: str = ".") -> Iterator[Step]:
    """A sync that nothing else runs beside."""
    yield Step(Do.BEGIN_SYNC, path)
    yield Step(Do.END_SYNC, path)


def disk_after(*done: Step) -> Disk:
    """A disk that was empty before these steps."""
    disk = Disk()
    for step in done:
        disk.apply(step)
    return disk


def states_after(*done: Step) -> list[State]:
    """Every state that a power cut may leave after these steps, each once."""
    disk = disk_after(*done)
    states = [disk.state(fates) for fates in disk.fates(random.Random(SEED))]
    return [state for number, state in enumerate(states) if state not in states[:number]]


# --- what a power cut leaves -------------------------------------------------------------------------------------


def test_nothing_unsynced_need_be_there() -> None:
    """A file that was made and written may be there, empty, whole or spoiled, or not be there."""
    states = states_after(MAKE, WRITE)
    contents = [state.get("file", "none") for state in states]
    assert set(contents) == {"none", b"", b"01234", b"012345678", b"0123456789", bytes(10), b"01234" + bytes(5)}


def test_the_sync_of_a_file_says_nothing_of_its_name() -> None:
    """What a file holds is there after its sync if its name is, and the name need not be."""
    assert states_after(MAKE, WRITE, *synced("file")) == [{}, {"file": b"0123456789"}]


def test_the_sync_of_a_directory_says_nothing_of_its_files() -> None:
    """A name is there after the sync of its directory, whatever became of the bytes."""
    states = states_after(MAKE, WRITE, *synced())
    assert {"file": b""} in states
    assert {"file": bytes(10)} in states
    assert all("file" in state for state in states)


def test_what_both_syncs_cover_is_there() -> None:
    """A file that was synced, and whose directory was, has but one state."""
    assert states_after(MAKE, WRITE, *synced("file"), *synced()) == [{"file": b"0123456789"}]


def test_a_sync_covers_only_what_was_done_before_it_began() -> None:
    """A write while a sync runs is not covered by it."""
    begin, end = synced("file")
    states = states_after(MAKE, *synced(), begin, WRITE, end)
    assert {"file": b""} in states


def test_syncs_may_overlap() -> None:
    """Of two syncs of a file that run at the same time each covers what was done before its own begin."""
    first = [Step(done.do, "file", number=1) for done in synced()]
    second = [Step(done.do, "file", number=2) for done in synced()]
    disk = disk_after(MAKE, *synced(), first[0], WRITE, second[0], first[1])
    assert len(disk.pending) == 1
    disk.apply(second[1])
    assert disk.pending == []


def test_a_rename_is_one_thing() -> None:
    """A renamed file has its old name or the new one, and never both or none."""
    done = (MAKE, *synced("file"), *synced(), Step(Do.RENAME, "file", "other"))
    assert states_after(*done) == [{"file": b""}, {"other": b""}]


@pytest.mark.parametrize("directory", ["a", "b"])
def test_a_rename_is_durable_once_either_directory_is_synced(directory: str) -> None:
    """A file that was moved between directories stays where it is once one of the two was synced."""
    make = [Step(Do.MAKE_DIRECTORY, "a"), Step(Do.MAKE_DIRECTORY, "b"), *synced(), Step(Do.MAKE_FILE, "a/file"), *synced("a")]
    move = Step(Do.RENAME, "a/file", "b/file")
    assert len(states_after(*make, move)) == 2
    assert states_after(*make, move, *synced(directory)) == [{"a": None, "b": None, "b/file": b""}]


def test_a_later_rename_makes_an_earlier_one_meaningless() -> None:
    """A file that was moved twice is at its last place if the second move is durable, whatever became of the first."""
    make = [Step(Do.MAKE_DIRECTORY, "a"), Step(Do.MAKE_DIRECTORY, "b"), *synced(), Step(Do.MAKE_FILE, "file"), *synced()]
    moves = [Step(Do.RENAME, "file", "a/file"), Step(Do.RENAME, "a/file", "b/file")]
    assert states_after(*make, *moves, *synced("b")) == [{"a": None, "b": None, "b/file": b""}]


def test_a_replaced_file_is_there_as_the_old_or_the_new_one() -> None:
    """A rename over another file leaves one of the two under that name, and never none."""
    done = (MAKE, Step(Do.MAKE_FILE, "new"), Step(Do.WRITE, "new", data=b"!"), *synced("new"), *synced())
    assert states_after(*done, Step(Do.RENAME, "new", "file")) == [{"file": b"", "new": b"!"}, {"file": b"!"}]


def test_a_removed_file_may_come_back() -> None:
    """A removal counts once the directory is synced."""
    done = (MAKE, *synced("file"), *synced(), Step(Do.REMOVE, "file"))
    assert states_after(*done) == [{"file": b""}, {}]
    assert states_after(*done, *synced()) == [{}]


def test_a_directory_that_is_lost_takes_along_what_is_in_it() -> None:
    """What is durable in a directory is not there if the directory's own name is not."""
    done = (Step(Do.MAKE_DIRECTORY, "a"), Step(Do.MAKE_FILE, "a/file"), *synced("a"))
    assert states_after(*done) == [{}, {"a": None, "a/file": b""}]


def test_a_link_is_a_second_name() -> None:
    """A file has both names after a link, or only the first."""
    done = (MAKE, *synced(), Step(Do.LINK, "file", "other"))
    assert states_after(*done) == [{"file": b""}, {"file": b"", "other": b""}]


def test_a_truncation_may_be_undone() -> None:
    """What was cut off may be there again until the file is synced."""
    done = (MAKE, WRITE, *synced("file"), *synced(), Step(Do.TRUNCATE, "file", offset=3))
    assert states_after(*done) == [{"file": b"0123456789"}, {"file": b"012"}]
    assert states_after(*done, *synced("file")) == [{"file": b"012"}]


def test_a_write_may_be_there_without_the_one_before_it() -> None:
    """Of two writes the second alone leaves zeros where the first would be."""
    states = states_after(MAKE, *synced(), WRITE, Step(Do.WRITE, "file", data=b"!"))
    assert {"file": bytes(10) + b"!"} in states


def test_a_copy_does_not_change() -> None:
    """A disk that was copied is as it was then, whatever is done to the other."""
    disk = disk_after(MAKE, *synced())
    copy = disk.copy()
    disk.apply(WRITE)
    disk.apply(Step(Do.REMOVE, "file"))
    assert copy.state(copy.everything()) == {"file": b""}
    assert disk.state(disk.everything()) == {}


def test_many_changes_do_not_make_all_combinations() -> None:
    """The number of states stays near the number of changes."""
    disk = disk_after(*(Step(Do.MAKE_FILE, str(number)) for number in range(50)))
    assert len(list(disk.fates(random.Random(SEED)))) < 50


def test_the_fates_are_the_same_each_time() -> None:
    """With the same seed the same mixes are drawn."""
    disk = disk_after(MAKE, WRITE, WRITE, WRITE)
    assert list(disk.fates(random.Random(SEED))) == list(disk.fates(random.Random(SEED)))


def test_as_the_program_sees_it() -> None:
    """Without a power cut every change is there."""
    disk = disk_after(MAKE, WRITE, Step(Do.RENAME, "file", "other"))
    assert disk.state(disk.everything()) == {"other": b"0123456789"}
    assert disk.state([Fate.KEPT, Fate.HALF, Fate.LOST]) == {"file": b"01234"}


def test_equal_states_have_one_digest() -> None:
    """A digest tells states apart by names, kinds and bytes, large ones too."""
    digests = Digests()
    large, other = bytes(2 << 20), bytes(2 << 20) + b"!"
    states: list[State] = [{}, {"a": None}, {"a": b""}, {"b": b""}, {"a": large}, {"a": other}]
    assert len({digests.of(state) for state in states}) == len(states)
    assert digests.of({"a": b"1", "b": None}) == digests.of({"b": None, "a": b"1"})
    assert digests.of({"a": bytes(2 << 20)}) == digests.of({"a": large})


# --- what strace wrote -------------------------------------------------------------------------------------------


def shown(text: str) -> str:
    """A text as strace shows it with -xx."""
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def of_spool(path: str) -> str:
    """A path in the spool, in quotes."""
    return f'"{shown(f"/spool/{path}")}"'


def test_calls_become_steps() -> None:
    """A file that is made, written, synced and renamed is told so, with its bytes and in the order of the calls' ends."""
    open_file = f"17<{shown('/spool/tmp/1')}>"
    flags = "O_WRONLY|O_CREAT|O_EXCL|O_APPEND, 0600"
    vector = f'{{iov_base="{shown("ab")}", iov_len=2}}, {{iov_base="{shown("cd")}", iov_len=2}}'
    lines = [
        f"7 10.000000001 openat(AT_FDCWD</>, {of_spool('tmp/1')}, {flags}) = {open_file} <0.000000002>",
        f"7 10.5 writev({open_file}, [{vector}], 2) = 3 <0.1>",
        f"7 11.0 fdatasync({open_file} <unfinished ...>",
        f"8 11.1 mkdir({of_spool('usage')}, 0700) = 0 <0.1>",
        "7 11.5 <... fdatasync resumed>) = 0 <0.5>",
        f"7 12.0 rename({of_spool('tmp/1')}, {of_spool('usage/1')}) = 0 <0.1>",
        f"7 13.0 unlink({of_spool('tmp/1')}) = -1 ENOENT (No such file or directory) <0.1>",
        f"7 14.0 ftruncate(17<{shown('/elsewhere')}>, 0) = 0 <0.1>",
        "8 14.0 +++ exited with 0 +++",
    ]
    assert list(steps(lines, "/spool")) == [
        Step(Do.MAKE_FILE, "tmp/1", at_ns=10_000_000_003),
        Step(Do.WRITE, "tmp/1", data=b"abc", at_ns=10_600_000_000),
        Step(Do.BEGIN_SYNC, "tmp/1", number=1, at_ns=11_000_000_000),
        Step(Do.MAKE_DIRECTORY, "usage", at_ns=11_200_000_000),
        Step(Do.END_SYNC, "tmp/1", number=1, at_ns=11_500_000_000),
        Step(Do.RENAME, "tmp/1", "usage/1", at_ns=12_100_000_000),
    ]


def test_a_failed_sync_covers_nothing() -> None:
    """A sync that returned an error has begun and never ends."""
    lines = [f"7 1.0 fsync(3<{shown('/spool')}>) = -1 EIO (Input/output error) <0.1>"]
    assert [step.do for step in steps(lines, "/spool")] == [Do.BEGIN_SYNC]


def test_an_answer_counts_from_when_it_is_sent() -> None:
    """A 204 is told with the request's id, from the begin of the call, and nothing else that is sent is."""
    answer = "HTTP/1.1 204 No Content\r\nX-Request-ID: mine\r\nServer: s\r\n\r\n"
    socket = f"9<{shown('socket:[77]')}>"
    lines = [
        f'7 1.0 write({socket}, "{shown(answer)}", 64 <unfinished ...>',
        "7 2.0 <... write resumed>) = 64 <1.0>",
        f'7 3.0 write({socket}, "{shown(answer.replace("204", "503"))}", 64) = 64 <0.1>',
    ]
    assert list(steps(lines, "/spool")) == [Step(Do.ANSWER, "mine", at_ns=1_000_000_000)]


def test_each_step_has_its_transition() -> None:
    """The way of a report, from the start to the end, is told by the names of the spool's transitions."""
    segment, batch, sealed = "usage/1.jsonl", "usage/aggregation/b", "usage/uploading/b.1.jsonl.gz"
    done = [
        (Step(Do.MAKE_DIRECTORY, "usage"), "start"),
        (Step(Do.LISTEN), None),
        (Step(Do.MAKE_FILE, f"{segment}.open"), "receive"),
        (Step(Do.END_SYNC, "usage"), "receive"),
        (Step(Do.WRITE, f"{segment}.open"), "receive"),
        (Step(Do.ANSWER, "id"), "commit"),
        (Step(Do.RENAME, f"{segment}.open", segment), "cut"),
        (Step(Do.MAKE_DIRECTORY, batch), "claim"),
        (Step(Do.RENAME, segment, f"{batch}/1.jsonl"), "claim"),
        (Step(Do.END_SYNC, "usage"), "claim"),
        (Step(Do.WRITE, "tmp/2"), "aggregate"),
        (Step(Do.RENAME, "tmp/2", sealed), "seal"),
        (Step(Do.REMOVE, f"{batch}/1.jsonl"), "seal"),
        (Step(Do.REMOVE_DIRECTORY, batch), "seal"),
        (Step(Do.RENAME, sealed, "usage/uploading/b.2.jsonl.gz"), "deliver"),
        (Step(Do.REMOVE, "usage/uploading/b.2.jsonl.gz"), "retire"),
        (Step(Do.WRITE, "tmp/3"), "receive"),
        (Step(Do.RENAME, "tmp/3", "specimen/3.a.body"), "commit"),
        (Step(Do.MAKE_FILE, "specimen/3.a.body.upload"), "deliver"),
        (Step(Do.REMOVE, "specimen/3.a.body"), "retire"),
    ]
    found = transitions([step for step, _ in done])
    assert [name for name, (_, wanted) in zip(found, done, strict=True) if wanted] == [wanted for _, wanted in done if wanted]
