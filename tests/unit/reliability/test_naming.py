from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from reliability.names import clocks, fake_clock, keys
from reliability.names.bench import MIDDLE, newest
from reliability.names.fake_clock import FakeClock
from reliability.row import CannotRun

from testkit.buckets import StoredObject

HEAD = (
    b"PUT /usage/key HTTP/1.1\r\nHost: 127.0.0.1\r\nx-amz-date: 20240101T000000Z\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\n"
    b"Authorization: AWS4-HMAC-SHA256 Credential=me/20240101/us-east-1/s3/aws4_request, "
    b"SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=00\r\n\r\n"
)


# --- clocks ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A libfaketime that is not there is named all the same."""
    monkeypatch.setattr(fake_clock, "library", lambda: Path("/libfaketime.so"))


def test_a_machine_without_the_library_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no libfaketime the row cannot be run, and the reason names the package."""
    monkeypatch.setattr(fake_clock, "_WHERE", ("/nonexistent/libfaketimeMT.so.1",))
    with pytest.raises(CannotRun, match="faketime"):
        fake_clock.library()


@pytest.mark.usefixtures("no_library")
def test_a_clock_is_set_by_its_file(tmp_path: Path) -> None:
    """What the clock shows stands in its file, as the distance from the true time."""
    clock = FakeClock(tmp_path / "clock")
    assert clock.environment["FAKETIME_TIMESTAMP_FILE"] == str(tmp_path / "clock")
    assert (tmp_path / "clock").read_text() == "+0.000000\n"
    clock.shift(timedelta(hours=-1, milliseconds=1))
    assert (tmp_path / "clock").read_text() == "-3599.999000\n"
    clock.show(MIDDLE)
    assert abs(clock.now() - MIDDLE) < timedelta(minutes=1)


@pytest.mark.usefixtures("no_library")
def test_what_a_clock_has_shown_is_known_for_each_time_it_was_set(tmp_path: Path) -> None:
    """From one true instant to another it has shown the time of every setting that stood in between, and of no other one."""
    clock = FakeClock(tmp_path / "clock")
    begun = datetime.now(UTC)
    clock.shift(-timedelta(hours=1))
    between = datetime.now(UTC)
    clock.shift(timedelta(hours=1))
    ended = datetime.now(UTC)
    plain, back, forth = clock.shown(begun, ended)
    assert plain[0] == begun
    assert plain[1] >= begun
    assert back[0] <= between - timedelta(hours=1) <= back[1]
    assert forth[1] == ended + timedelta(hours=1)
    assert clock.shown(ended, ended) == [(ended + timedelta(hours=1), ended + timedelta(hours=1))]


@pytest.mark.usefixtures("no_library")
def test_a_clock_that_stands_is_told_in_local_time() -> None:
    """An instant is told in the zone of the gateway, which is no whole hour from UTC."""
    environment = fake_clock.fixed(datetime(2024, 12, 31, 18, 15, tzinfo=UTC), stands=True)
    assert (environment["FAKETIME"], environment["TZ"]) == ("2025-01-01 00:00:00", "FAKE-5:45")


def test_a_request_is_signed_at_the_true_time() -> None:
    """The head that the store gets bears the time of now, also in the scope of its signature; one without a date stays."""
    headers = {"x-amz-date": "20240101T000000Z"}
    head = fake_clock.on_time(HEAD, headers, "secret")
    assert b"20240101" not in head
    assert f"Credential=me/{datetime.now(UTC):%Y}".encode() in head
    # To the end of the line: a true one may begin so.
    assert b"Signature=00\r\n" not in head
    assert fake_clock.on_time(b"GET / HTTP/1.1\r\n\r\n", {}, "secret") == b"GET / HTTP/1.1\r\n\r\n"


def test_turns_go_forward() -> None:
    """The clock of a row never goes back from one turn to the next, and each is that of an hour."""
    assert all(later - earlier > timedelta(hours=2) for earlier, later in pairwise(clocks.TURNS))
    assert all((turn.minute, turn.second) == (0, 0) for turn in clocks.TURNS)


# --- names -------------------------------------------------------------------------------------------------------


def test_the_newest_name_is_found(tmp_path: Path) -> None:
    """What waits, claimed or not, is named by order; what is being received, sealed or empty is not looked at."""
    for name in (
        "usage/0000000000000000003.0000000000000000007.1.jsonl",
        "usage/aggregation/2024112114.host.00/0000000000000000005.1.alice.json",
        "usage/uploading/2024112114.host.00.1.jsonl.gz",
        "specimen/0000000000000000004.1.uri.body",
        "tmp/0000000000000000009.1",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "usage/0000000000000000008.1.jsonl.open").touch()
    assert newest(tmp_path) == 5
    assert newest(tmp_path / "tmp") == 0


def test_keys_of_batches_are_numbered() -> None:
    """The first batch of an hour has the plain key, and the others a number."""
    assert keys.batch_key(MIDDLE, "host", 1) == "2024/11/21/14/2024112114.host.jsonl.gz"
    assert keys.batch_key(MIDDLE, "host", 12) == "2024/11/21/14/2024112114.host.12.jsonl.gz"


def test_an_instant_is_read_to_the_nanosecond() -> None:
    """Nine digits of a second are read as they stand, before the epoch's first ten digits too."""
    assert keys.nanoseconds("2024-11-21T14:20:00.000000007Z") == int(MIDDLE.timestamp()) * 10**9 + 7
    assert keys.nanoseconds("1970-01-01T00:00:01.900000000Z") == 1_900_000_000


def test_files_that_are_named_below_an_earlier_one_are_found() -> None:
    """The order in the key of a file is above that of every file which the same client had sent before."""

    def file(client: int, number: int, order: int) -> StoredObject:
        return StoredObject(f"u/2024/11/21/x.bin.{order:019d}.bin", b"specimen %d-%d " % (client, number), {}, {})

    assert keys.order_of("u/2024/11/21/x.bin.0000000000000000007.1.bin") == 7
    assert keys.order_of("u/2024/11/21/x.bin") == -1
    assert list(keys.disordered([file(0, 2, 9), file(0, 0, 8), file(1, 0, 9), file(1, 2, 10)])) == []
    assert list(keys.disordered([file(0, 2, 8), file(0, 0, 9)])) == ["client 0, after its file 0: the order 9, then 8"]
    assert list(keys.disordered([file(0, 2, 8), file(0, 0, 8)]))
