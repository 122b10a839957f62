"""A spool that an earlier version left is taken over as it is, and says from then on which version gives names in it."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import pytest

from gateway.core import disk
from gateway.core.errors import StartError
from gateway.spool import directories, names
from gateway.spool.directories import FORMAT_VERSION
from gateway.stores.local import LocalStore
from testkit.deadlines import until
from testkit.running import LocalGateway
from testkit.spool import START_NS, batch_and_deliver, open_bench, stored_files, stored_lines, tree
from testkit.spool_formats import FIRST_NS, HOST, HOUR, OldSpool, spool_of_format

SOON = {"LIGHTFILE6_AGGREGATION_USAGE_INTERVAL": "1s", "LIGHTFILE6_AGGREGATION_ERROR_INTERVAL": "1s"}


@pytest.fixture(params=range(1, FORMAT_VERSION))
def old(tmp_path: Path, request: pytest.FixtureRequest) -> OldSpool:
    """The spool of an earlier version, in place."""
    old = spool_of_format(request.param)
    old.put(tmp_path / "spool")
    return old


def lines_of(old: OldSpool) -> list[bytes]:
    """Every line that has to be delivered, sorted."""
    return sorted(old.acknowledged["usage"] + old.acknowledged["error"])


def test_what_an_earlier_version_left_is_delivered(tmp_path: Path, old: OldSpool) -> None:
    """Everything is delivered once, what it quarantined stays, nothing is adopted, and FORMAT says the number of today."""
    gateway = LocalGateway(tmp_path, environment=SOON)
    gateway.start()
    kept = [f"quarantine/{path.name}" for path in (gateway.cache / "quarantine").iterdir()]
    try:
        until(lambda: gateway.left() == kept, "everything to be delivered")
        assert gateway.put("/usage", b'{"after":"it"}') == 204
    finally:
        assert gateway.stop(60) == 0
    assert (gateway.cache / "FORMAT").read_text() == f"{FORMAT_VERSION}\n"
    assert [gateway.events(event) for event in ("spool adopted", "quarantined", "defect")] == [[], [], []]
    assert kept == [name for name in old.files if name.startswith("quarantine/")]
    assert stored_lines(gateway.objects) == sorted([*lines_of(old), b'{"after":"it"}'])
    assert digests(stored_files(gateway.objects)) == digests(list(old.acknowledged["specimen"]))


def test_what_it_had_named_keeps_its_key(tmp_path: Path, old: OldSpool) -> None:
    """A batch has the number that it was tried under, a file the instant of its name, reports the hour of theirs."""
    store = LocalStore(tmp_path / "objects")
    with open_bench(tmp_path) as bench:
        batch_and_deliver(bench.spool, store)
    keys = {str(path.relative_to(tmp_path / "objects")) for path in (tmp_path / "objects").rglob("*") if path.is_file()}
    folder = f"usage/{HOUR[:4]}/{HOUR[4:6]}/{HOUR[6:8]}/{HOUR[8:]}/{HOUR}"
    assert f"{folder}.{HOST}.4.jsonl.gz" in keys
    assert f"{folder}.{HOST}.jsonl.gz" in keys
    for number in (20, 22):
        assert f"specimen/machine-1/2026/11/21/a.{FIRST_NS + number}.bin" in keys
    assert stored_lines(tmp_path / "objects") == lines_of(old)


def test_new_names_come_after_the_old_ones(tmp_path: Path, old: OldSpool) -> None:
    """The order of a new name is above that of each old name, also where the clock was set back."""
    with open_bench(tmp_path) as bench:
        bench.clock.now_ns = 5
        found = [names.parse_spool_name(Path(name).name) for name in tree(bench.spool.root)]
        assert bench.spool.timestamps.next() > max(one.order for one in found if one is not None) > START_NS
    assert old.files


def test_the_earlier_version_refuses_what_this_one_has_taken_over(
    tmp_path: Path, old: OldSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once this version has started, one that knows format 1 alone says that a newer one was there, and changes nothing."""
    with open_bench(tmp_path):
        pass
    before = tree(tmp_path / "spool")
    monkeypatch.setattr(directories, "FORMAT_VERSION", 1)
    with pytest.raises(StartError, match=rf"newer gateway \(format {FORMAT_VERSION}, this one knows 1\)"), open_bench(tmp_path):
        pass
    assert tree(tmp_path / "spool") == before
    assert old.files


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT])
def test_it_is_taken_over_on_a_full_disk(tmp_path: Path, old: OldSpool, monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    """Where the draft of FORMAT finds no room the number is written in place, and what waits can leave."""
    write = disk.write_file

    def full(path: Path, data: bytes) -> None:
        if path.name == "FORMAT":
            path.touch()
            raise OSError(fault, "no room")
        write(path, data)

    monkeypatch.setattr(disk, "write_file", full)
    with open_bench(tmp_path) as bench:
        assert bench.spool.directories.format_version() == FORMAT_VERSION
        assert (bench.spool.root / "FORMAT").read_bytes() == b"%d\n" % FORMAT_VERSION
        assert list(bench.spool.directories.tmp.iterdir()) == []
        batch_and_deliver(bench.spool, LocalStore(tmp_path / "objects"))
    assert stored_lines(tmp_path / "objects") == lines_of(old)


def test_a_new_spool_is_not_begun_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a FORMAT to write over, the start fails with the reason."""

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, f"no room for {len(data)} bytes in {path.name}")

    monkeypatch.setattr(disk, "write_file", full)
    with pytest.raises(OSError, match="no room for 2 bytes in FORMAT"), open_bench(tmp_path):
        pass
    assert not (tmp_path / "spool" / "FORMAT").exists()


def test_any_other_fault_leaves_the_old_number(tmp_path: Path, old: OldSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails, and is not full, keeps the start out and FORMAT as it was."""
    write_file = disk.write_file

    def broken(path: Path, data: bytes) -> None:
        if path.name.startswith("FORMAT"):
            raise OSError(errno.EIO, f"cannot write {len(data)} bytes to {path.name}")
        write_file(path, data)

    monkeypatch.setattr(disk, "write_file", broken)
    with pytest.raises(OSError, match="cannot write 2 bytes"), open_bench(tmp_path):
        pass
    assert (tmp_path / "spool" / "FORMAT").read_bytes() == old.files["FORMAT"]


def digests(bodies: list[bytes]) -> list[str]:
    """What tells files apart, so that a failure does not print megabytes."""
    return sorted(hashlib.sha256(body).hexdigest() for body in bodies)


def test_the_sidecars_are_those_of_that_time(old: OldSpool) -> None:
    """What the fixture writes by hand has the fields that format 1 had, and no others."""
    sidecar = next(data for name, data in old.files.items() if name.endswith(".meta"))
    assert sidecar is not None
    assert set(json.loads(sidecar)) == {"id", "user", "uri", "type", "received", "size", "sha256"}
