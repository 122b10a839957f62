"""Whatever bytes a client sends as token, uri and type, its file gets a key that any store takes, and always the same one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import quote_from_bytes

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gateway.access.identify import user_of
from gateway.core import disk, media_type
from gateway.core.clock import Timestamps
from gateway.core.errors import BadRequest
from gateway.delivery import object_keys
from gateway.delivery.items import ReceivedFile
from gateway.spool import names
from gateway.spool.names import KeyNumber
from gateway.spool.sidecar import Sidecar
from gateway.stores.local import LocalStore
from gateway.web.request import uri_of
from testkit.spool import SPECIMEN, START_NS, batch_and_deliver, folder_in_memory, open_bench

marks = st.sampled_from([b"/", b"//", b".", b"..", b"\\", b"%2F", b"%00", b"~", b"?", b"#", b"http://", b"a.png", b"\xc3", b"\0"])
anything = st.lists(marks | st.binary(max_size=8), max_size=12).map(b"".join)
anything_long = st.tuples(anything, st.integers(1, 200)).map(lambda pair: pair[0] * pair[1])
numbers = st.integers(0, 100)


def sidecar(user: bytes, uri: bytes, claimed: bytes, first_bytes: bytes, identity: str = "ab" * 16) -> Sidecar:
    """Give what is noted of a file that came in a request with these bytes in its head."""
    token = user.decode("utf-8", "surrogateescape")
    assume(token)
    try:
        asked = uri_of(f"uri={quote_from_bytes(uri)}")
    except BadRequest:
        # Nothing was named.
        asked = "x"
    kind = media_type.content_type(claimed.decode("utf-8", "surrogateescape"), first_bytes)
    return Sidecar(identity, user_of([token], []), asked, kind, START_NS, 3, "cd" * 32)


def keys(note: Sidecar, number: int) -> list[str]:
    """Give the key of the file under a number, and that of what stands beside it."""
    item = ReceivedFile(replace(SPECIMEN, prefix="p/"), Path(names.spool_name(START_NS, START_NS, 7, names.BODY, "a")), note)
    item.renumber(KeyNumber(number))
    companion = item.companion()
    return [item.object().key, *([companion.key] if companion else [])]


@given(anything_long, anything_long, anything, anything, numbers)
@example(b"..", b"..", b"..", b"", 1)
@example(b".", b"http://a/./.", b"image/..", b"", 1)
@example(b"/", b"//", b"a/" + b"b" * 300, b"", 2)
@example(b"\xff" * 5000, b"\xff" * 5000, b"", b"\xff\xd8\xff", 0)
def test_any_bytes_give_a_key_that_a_store_takes(user: bytes, uri: bytes, claimed: bytes, first: bytes, number: int) -> None:
    """A key is UTF-8 of at most 1,024 bytes, and none of its parts is empty or leads to another directory."""
    for key in keys(sidecar(user, uri, claimed, first), number):
        assert len(key.encode()) <= object_keys.MAX_KEY_BYTES
        assert key.isprintable()
        parts = key.split("/")
        assert not {"", ".", ".."} & set(parts)
        # <prefix>/<user>/YYYY/MM/DD/<name>: no text of a client makes one part more.
        assert len(parts) == 6


@given(anything_long, anything_long, anything, anything, numbers)
def test_a_key_is_the_same_after_a_restart(user: bytes, uri: bytes, claimed: bytes, first: bytes, number: int) -> None:
    """What is read back from the sidecar, in another process, gives the key again."""
    note = sidecar(user, uri, claimed, first)
    assert keys(Sidecar.from_json(note.to_json()), number) == keys(note, number)


@given(anything_long, anything_long, anything, st.sets(numbers, min_size=2))
def test_no_two_numbers_share_a_key(user: bytes, uri: bytes, claimed: bytes, tried: set[int]) -> None:
    """Every number of a file, and number 0 with its id, is a key of its own, apart from what stands beside another."""
    made = [key for number in tried for key in keys(sidecar(user, uri, claimed, b""), number)]
    assert len(set(made)) == len(made)


@settings(max_examples=25)
@given(anything, anything, anything)
def test_two_files_of_one_key_are_both_kept(user: bytes, uri: bytes, claimed: bytes) -> None:
    """A second file at the same instant, from the same user and of the same name, stands under number 2."""
    notes = [sidecar(user, uri, claimed, b"", identity=digit * 32) for digit in "ab"]
    with folder_in_memory() as folder:
        with open_bench(folder, level="error") as bench:
            for pid, note in enumerate(notes, start=7):
                bench.spool.pid = pid
                # Another process, at the same tick.
                bench.spool.timestamps = Timestamps(bench.clock)
                draft = bench.spool.new_tmp()
                disk.write_file(draft, b"%d  " % pid)
                spooled = names.parse_spool_name(bench.spool.commit_file(SPECIMEN, draft, note).name)
                assert spooled is not None
                order = spooled.order
            batch_and_deliver(bench.spool, LocalStore(folder / "objects"))
        stored = {str(path.relative_to(folder / "objects" / SPECIMEN.bucket)) for path in _files(folder / "objects")}
    expected = {
        object_keys.file_key(
            "", user=note.user, uri=note.uri, media_type=note.type, received_ns=START_NS, order=order, again=again
        )
        for note, again in zip(notes, ("", "2"), strict=True)
    }
    assert stored == expected


def _files(objects: Path) -> list[Path]:
    return [path for path in (objects / SPECIMEN.bucket).rglob("*") if path.is_file() and not path.name.endswith(".meta.json")]
