"""What waits becomes the object it is described as, and what cannot be described is told apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.batching.aggregate import Summary
from gateway.core import clock, disk
from gateway.delivery import object_keys
from gateway.delivery.items import ReceivedFile, SealedBatch, UnreadableItem, open_item
from gateway.spool import names
from gateway.spool.names import KeyNumber
from gateway.spool.sidecar import Sidecar, read_sidecar
from testkit.spool import HOUR, SPECIMEN, START_NS, USAGE, Bench, open_bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a real spool."""
    with open_bench(tmp_path) as made:
        yield made


SIDECAR = Sidecar("ab" * 16, "machine-1", "file:///a/b.png", "image/png", START_NS, 3, "cd" * 32)


def body_in(folder: Path) -> Path:
    """Give where a body may stand."""
    return folder / names.spool_name(START_NS, START_NS, 7, names.BODY, "a")


def received(tmp_path: Path, user: str = "machine-1", uri: str = "a.png") -> ReceivedFile:
    """Give a file that was received from this user under this uri."""
    path = body_in(tmp_path)
    return ReceivedFile(replace(SPECIMEN, prefix="p/"), path, replace(SIDECAR, user=user, uri=uri))


def test_a_batch_says_what_is_in_it(bench: Bench) -> None:
    """The object of a batch has the key of its hour, its size, and in its metadata id, count and hash of its lines."""
    path = bench.seal(b"1", b"2")
    item = open_item(bench.spool, USAGE, path, None)
    made = item.object()
    batch, number = names.parse_sealed(path.name) or (None, 0)
    assert batch is not None
    assert made.key == f"{USAGE.prefix}2026/11/21/13/{HOUR}.host-1.jsonl.gz"
    assert (made.bucket, made.source, made.size, number) == (USAGE.bucket, path, path.stat().st_size, 1)
    assert made.content_type == "application/gzip"
    assert made.metadata == {
        "stream": "usage",
        "batch": batch.unique,
        "lines": "2",
        "sha256": hashlib.sha256(b"1\n2\n").hexdigest(),
    }
    assert made.is_held_as({"batch": batch.unique})
    assert not made.is_held_as({"batch": "another"})
    assert item.companion() is None
    assert item.items == 2


def test_a_known_summary_is_not_found_out_again(bench: Bench) -> None:
    """A batch that this process sealed is described by what is still known of it."""
    path = bench.seal(b"1")
    item = open_item(bench.spool, USAGE, path, Summary(77, "ee" * 32))
    assert item.items == 77
    assert item.object().metadata["sha256"] == "ee" * 32


def test_a_batch_is_renumbered_on_disk(bench: Bench) -> None:
    """Another number is in the sealed file's name before anything is sent under it, so that a restart finds it."""
    item = open_item(bench.spool, USAGE, bench.seal(b"1"), None)
    item.renumber(KeyNumber(3))
    assert item.number == 3
    assert [path.name for path in bench.spool.directories.uploading(USAGE).iterdir()] == [item.path.name]
    assert names.parse_sealed(item.path.name) is not None
    assert item.object().key.endswith(f"{HOUR}.host-1.3.jsonl.gz")
    assert open_item(bench.spool, USAGE, item.path, None).number == 3


def test_number_zero_is_the_key_with_the_id(bench: Bench) -> None:
    """For a store that would replace, the key has the batch's id in the place of the number."""
    item = open_item(bench.spool, USAGE, bench.seal(b"1"), None)
    assert isinstance(item, SealedBatch)
    item.renumber(KeyNumber(0))
    assert item.object().key.endswith(f"{HOUR}.host-1.{item.batch.unique}.jsonl.gz")


def test_a_torn_archive_is_unreadable(bench: Bench) -> None:
    """A sealed file that is not whole is not sent."""
    path = bench.seal(b"1")
    disk.shorten(path, path.stat().st_size - 1)
    with pytest.raises(UnreadableItem):
        open_item(bench.spool, USAGE, path, None)


def test_a_file_says_what_it_is(bench: Bench) -> None:
    """The object of a file has its type, its size and in its metadata all of its sidecar."""
    body = bench.file(b"\x89PNG", uri="file:///a/日.png", user="u/1")
    made = open_item(bench.spool, SPECIMEN, body, None).object()
    spooled = names.parse_spool_name(body.name)
    assert spooled is not None
    assert made.key == f"{SPECIMEN.prefix}u%2F1/2026/11/21/%E6%97%A5.{spooled.order}.png"
    assert (made.bucket, made.source, made.size, made.content_type) == (SPECIMEN.bucket, body, 4, "image/png")
    assert made.metadata["user"] == "u/1"
    assert made.metadata["uri"] == "file:///a/%E6%97%A5.png"
    assert made.metadata["encoded"] == "uri"
    assert made.metadata["received"] == clock.iso(START_NS)
    assert made.is_held_as({"id": read_sidecar(body).id})


def test_a_file_that_fits_has_no_companion(tmp_path: Path) -> None:
    """Where the metadata says everything there is one object."""
    assert received(tmp_path).companion() is None


@pytest.mark.parametrize(("user", "uri"), [("u", "日" * 4000), ("u" * 4000, "a.png"), ("\udcff" * 2000, "é" * 2000)])
def test_what_does_not_fit_stands_whole_beside_it(tmp_path: Path, user: str, uri: str) -> None:
    """A text too long for metadata and key is cut there, and whole in an object beside, which is known as ours too."""
    item = received(tmp_path, user=user, uri=uri)
    made, companion = item.object(), item.companion()
    assert companion is not None
    assert isinstance(companion.source, bytes)
    assert companion.key == f"{made.key}.meta.json"
    assert len(companion.key) <= object_keys.MAX_KEY_BYTES
    assert companion.size == len(companion.source)
    found = json.loads(companion.source)
    assert (found["user"], found["uri"], found["received"]) == (user, uri, "2026-11-21T13:59:00.000000000Z")
    assert companion.is_held_as({"id": SIDECAR.id})
    for one in (made, companion):
        assert sum(len(name) + len(value) for name, value in one.metadata.items()) <= 2048
        assert all(value.isascii() for value in one.metadata.values())


FIELDS = (("prod", "Electron"), ("ver", "31.2 日"), ("prod", "again"))


def test_metadata_has_what_a_form_said(tmp_path: Path) -> None:
    """The filename and the fields of a form stand in the metadata, the fields as one JSON text of pairs."""
    sidecar = replace(SIDECAR, filename="a%20日.dmp", fields=FIELDS, type="text/plain; charset=Shift_JIS")
    item = ReceivedFile(SPECIMEN, body_in(tmp_path), sidecar)
    made = item.object()
    assert item.companion() is None
    assert made.content_type == "text/plain; charset=Shift_JIS"
    assert made.metadata == {
        **ReceivedFile(SPECIMEN, body_in(tmp_path), SIDECAR).object().metadata,
        "filename": "a%2520%E6%97%A5.dmp",
        "fields": '[["prod","Electron"],["ver","31.2 \\u65e5"],["prod","again"]]',
        "encoded": "filename",
    }


@pytest.mark.parametrize("length", [900, 1500, 16_000])
def test_fields_that_do_not_fit_stand_beside(tmp_path: Path, length: int) -> None:
    """Fields that are too long for the metadata are left out of it, and all that is known stands in the companion."""
    fields = (("long", "日" * (length // 3)), *FIELDS)
    item = ReceivedFile(
        SPECIMEN,
        body_in(tmp_path),
        replace(SIDECAR, user="u" * 740, filename="f", fields=fields),
    )
    made, companion = item.object(), item.companion()
    assert companion is not None
    assert isinstance(companion.source, bytes)
    assert made.metadata["filename"] == "f"
    assert "fields" not in made.metadata
    found = json.loads(companion.source)
    assert (found["filename"], found["fields"]) == ("f", [list(field) for field in fields])


@pytest.mark.parametrize("uri", ["a.png", "日" * 4000])
def test_a_plain_file_has_nothing_of_forms(tmp_path: Path, uri: str) -> None:
    """The metadata of a file that came without a form, and what stands beside it, have no fields but its own."""
    item = received(tmp_path, uri=uri)
    assert set(item.object().metadata) - {"encoded"} == {"id", "user", "uri", "received", "sha256"}
    if (companion := item.companion()) is not None:
        assert isinstance(companion.source, bytes)
        assert sorted(json.loads(companion.source)) == ["id", "received", "sha256", "size", "type", "uri", "user"]


def test_metadata_of_a_form_fits_a_store(tmp_path: Path) -> None:
    """With everything a form can say the metadata stays below 2 KB, names included."""
    sidecar = replace(SIDECAR, user="\udcff" * 900, uri="é" * 900, filename="日" * 90, fields=(("a", "\x7f" * 40),))
    metadata = ReceivedFile(SPECIMEN, body_in(tmp_path), sidecar).object().metadata
    assert sum(len(f"x-amz-meta-{name}") + len(value) for name, value in metadata.items()) <= 2048


def test_a_file_under_another_number_has_another_key(tmp_path: Path) -> None:
    """The object and its companion move together."""
    item = received(tmp_path, uri="日" * 4000)
    keys = set()
    for number in (1, 2, 3, 0):
        item.renumber(KeyNumber(number))
        companion = item.companion()
        assert companion is not None
        keys |= {item.object().key, companion.key}
    assert len(keys) == 8
    assert SIDECAR.id in item.object().key


def test_a_file_without_its_sidecar_is_unreadable(bench: Bench) -> None:
    """A body that nobody can name is not sent."""
    body = bench.file(b"abc")
    body.with_suffix(".meta").unlink()
    with pytest.raises(UnreadableItem, match="sidecar"):
        open_item(bench.spool, SPECIMEN, body, None)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b"no json", b'{"id": 1', b"\xff", b"1" * 5000])
def test_a_spoiled_sidecar_is_unreadable(bench: Bench, text: bytes) -> None:
    """A sidecar that is not one is told apart, whatever it holds."""
    body = bench.file(b"abc")
    body.with_suffix(".meta").write_bytes(text)
    with pytest.raises(UnreadableItem, match="sidecar"):
        open_item(bench.spool, SPECIMEN, body, None)


def test_a_file_of_another_size_is_unreadable(bench: Bench) -> None:
    """A body that is shorter than its sidecar says is not sent."""
    body = bench.file(b"abc")
    disk.shorten(body, 2)
    with pytest.raises(UnreadableItem, match="2 bytes"):
        open_item(bench.spool, SPECIMEN, body, None)


def test_what_was_retired_meanwhile_is_gone(bench: Bench) -> None:
    """What another attempt has delivered is no unreadable thing."""
    body, sealed = bench.file(b"abc"), bench.seal(b"1")
    bench.spool.retire(SPECIMEN, body)
    bench.spool.retire(USAGE, sealed)
    for stream, path in ((SPECIMEN, body), (USAGE, sealed)):
        with pytest.raises(FileNotFoundError):
            open_item(bench.spool, stream, path, None)
