"""One contract for every store, and what each has of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.aws import session
from gateway.aws.stall import unless_silent
from gateway.config.schema import AwsKeys, Config, S3Keys
from gateway.core import disk
from gateway.core.errors import ObjectRefused, Refused, StoreError, Throttled, Transient
from gateway.delivery import object_keys
from gateway.stores import Object, Outcome, Store
from gateway.stores.local import LocalStore
from gateway.stores.s3.client import _session, has_credentials, s3_store
from gateway.stores.s3.evidence import Body
from gateway.stores.s3.store import PROOF_KEY, S3Store
from gateway.stores.s3.uploads import Uploads
from testkit.buckets import Buckets
from testkit.servers.every import VERSITYGW, on_every_server
from testkit.servers.fake_s3 import (
    CONFLICT,
    DROPPED,
    ERROR_INSIDE,
    FORBIDDEN,
    LOST,
    NO_SUCH_UPLOAD,
    SLOW_DOWN,
    FakeS3,
    Fault,
    Kept,
    Request,
    fake_s3,
)
from testkit.servers.process import free_port
from testkit.servers.strict_s3 import ACCESS_KEY, SECRET_KEY, StrictS3, strict_s3
from testkit.servers.sts import AUTHORITY, https
from testkit.spool import WAIT_S, Crashing, PowerCut, Trace

MINIO_PART = 5 << 20
FAKE_PART = 1000
BUCKET = "bucket"
KEY = "prefix/2026/11/21/13/2026112113.host.jsonl.gz"


@dataclass
class Keeper:
    """A store under test, and a look at what it keeps."""

    store: Store
    bucket: str
    read: Callable[[str], tuple[bytes, dict[str, str], str]]
    unfinished: Callable[[], list[str]]
    part_size: int


def settings(endpoint: str, part_size: int, access: str = "access", secret: str = "secret", **s3: Any) -> Config:
    """A configuration for a store at this endpoint."""
    return Config(
        aws=AwsKeys(region="us-east-1", access_key_id=access, secret_access_key=secret, endpoint=endpoint),
        s3=S3Keys(part_size=part_size, **s3),
    )


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    """Run a small S3Keys."""
    with fake_s3() as running:
        yield running


@pytest.fixture
def strict() -> Iterator[StrictS3]:
    """Run an S3Keys that refuses what S3Keys documents as refused; parts are small, so that the tests are quick."""
    with strict_s3([BUCKET], least_part=FAKE_PART) as running:
        yield running


@pytest.fixture
def strict_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictS3]:
    """Run the same with TLS, where the client sends bodies in chunks with their checksum behind them, as to S3Keys itself."""
    authority = tmp_path / "authority.pem"
    authority.write_text(AUTHORITY)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    with strict_s3([BUCKET], least_part=FAKE_PART, tls=https(tmp_path)) as running:
        yield running


STORES = ["local", "minio", VERSITYGW, "fake", "fake, unsigned checksums", "strict", "strict, unsigned checksums", "strict, TLS"]


@pytest.fixture(params=STORES)
async def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keeper]:
    """Give each store in turn."""
    if request.param == "local":
        made = local_keeper(tmp_path)
    elif request.param in ("minio", "versitygw"):
        made = server_keeper(request.getfixturevalue("buckets_in")(request.param))
    else:
        checksums = "when_required" if "unsigned" in request.param else "when_supported"
        if request.param.startswith("fake"):
            made = fake_keeper(request.getfixturevalue("fake"), checksums=checksums)
        else:
            fixture = "strict_tls" if "TLS" in request.param else "strict"
            made = strict_keeper(request.getfixturevalue(fixture), checksums=checksums)
    yield made
    await made.store.close()


def local_keeper(folder: Path) -> Keeper:
    """Give a store in a directory."""
    root = folder / "objects"

    def read(key: str) -> tuple[bytes, dict[str, str], str]:
        metadata = json.loads((root / ".metadata" / BUCKET / f"{key}.json").read_bytes())
        return (root / BUCKET / key).read_bytes(), metadata, "application/gzip"

    def unfinished() -> list[str]:
        drafts = root / ".drafts"
        return os.listdir(drafts) if drafts.exists() else []

    return Keeper(LocalStore(root), BUCKET, read, unfinished, FAKE_PART)


class _TriedAgain:
    """A store whose puts are tried again where the connection breaks, as the delivery does.

    A server may refuse a body that it has not read to its end, and close: the client sees the answer, or the connection break.
    """

    def __init__(self, store: S3Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put(self, target: Object) -> Outcome:
        """See `S3Store.put`."""
        for _ in range(9):
            try:
                return await self._store.put(target)
            except Transient as error:
                if error.status or "onnect" not in str(error):
                    raise
        return await self._store.put(target)


def server_keeper(buckets: Buckets) -> Keeper:
    """Give a store in a real S3Keys server."""
    minio = buckets.minio

    def read(key: str) -> tuple[bytes, dict[str, str], str]:
        found = buckets.get(buckets.usage, key)
        return found.body, dict(found.metadata), found.headers["content-type"]

    store = s3_store(settings(minio.endpoint, MINIO_PART, minio.access_key, minio.secret_key), 1)
    tried_again: Any = _TriedAgain(store)
    return Keeper(tried_again, buckets.usage, read, lambda: buckets.unfinished_uploads(buckets.usage), MINIO_PART)


def fake_keeper(fake: FakeS3, **s3: Any) -> Keeper:
    """Give a store in the small S3Keys."""

    def read(key: str) -> tuple[bytes, dict[str, str], str]:
        kept = fake.objects[BUCKET, key]
        return kept.body, kept.metadata, kept.headers["content-type"]

    def unfinished() -> list[str]:
        return [upload.key for upload in fake.uploads.values()]

    return Keeper(s3_store(settings(fake.endpoint, FAKE_PART, **s3), 1), BUCKET, read, unfinished, FAKE_PART)


def strict_keeper(strict: StrictS3, **s3: Any) -> Keeper:
    """Give a store in the strict S3Keys."""

    def read(key: str) -> tuple[bytes, dict[str, str], str]:
        kept = strict.objects[BUCKET, key]
        return kept.body, kept.metadata, kept.headers["content-type"]

    def unfinished() -> list[str]:
        return [upload.key for upload in strict.uploads.values()]

    store = s3_store(settings(strict.endpoint, FAKE_PART, ACCESS_KEY, SECRET_KEY, **s3), 1)
    return Keeper(store, BUCKET, read, unfinished, FAKE_PART)


def object_of(keeper: Keeper, source: Path | bytes, *, batch: str = "b1", sha256: str = "s1", key: str = KEY) -> Object:
    """What is to be stored."""
    return Object(
        bucket=keeper.bucket,
        key=key,
        source=source,
        size=len(source) if isinstance(source, bytes) else source.stat().st_size,
        content_type="application/gzip",
        metadata={"batch": batch, "lines": "2", "sha256": sha256},
        identity="batch",
    )


def data_of(size: int) -> bytes:
    """So many bytes, no two parts of them alike."""
    return b"".join(number.to_bytes(8, "big") for number in range(size // 8 + 1))[:size]


def file_of(folder: Path, data: bytes, name: str = "2026112113.host.0.1.jsonl.gz") -> Path:
    """A file to be stored."""
    path = folder / name
    path.write_bytes(data)
    return path


def notes(folder: Path) -> list[str]:
    """The notes of uploads that stand in a folder."""
    return [name for name in os.listdir(folder) if name.endswith(".upload")]


# --- the contract ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [0.0, 0.5, 1.0, 2.25])
@pytest.mark.parametrize("from_file", [True, False])
async def test_an_object_is_stored_whole(parts: float, from_file: bool, keeper: Keeper, tmp_path: Path) -> None:
    """An object is there afterwards, byte for byte, with its metadata, of any size, and its source may go."""
    data = data_of(int(parts * keeper.part_size))
    source = file_of(tmp_path, data)
    target = object_of(keeper, source if from_file else data)
    assert not await keeper.store.holds(target)
    assert await keeper.store.put(target) is Outcome.STORED
    assert source.read_bytes() == data
    source.unlink()
    assert keeper.read(KEY) == (data, dict(target.metadata), "application/gzip")
    assert await keeper.store.holds(target)
    assert keeper.unfinished() == []
    assert notes(tmp_path) == []


@pytest.mark.parametrize("parts", [0.5, 2.25])
async def test_an_object_is_stored_once(parts: float, keeper: Keeper, tmp_path: Path) -> None:
    """The same object put again is found to be there."""
    target = object_of(keeper, file_of(tmp_path, data_of(int(parts * keeper.part_size))))
    assert [await keeper.store.put(target) for _ in range(3)] == [Outcome.STORED, Outcome.PRESENT, Outcome.PRESENT]
    assert keeper.unfinished() == []


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.5), (0.5, 2.25), (2.25, 0.5), (2.25, 2.25)])
async def test_another_object_is_never_replaced(first: float, second: float, keeper: Keeper, tmp_path: Path) -> None:
    """A key that another object has is taken: that stays as it is, whichever of the two is large."""
    theirs = object_of(keeper, file_of(tmp_path, data_of(int(first * keeper.part_size)), "theirs"))
    ours = object_of(keeper, file_of(tmp_path, b"!" + data_of(int(second * keeper.part_size)), "ours"), batch="b2", sha256="s2")
    assert await keeper.store.put(theirs) is Outcome.STORED
    assert await keeper.store.put(ours) is Outcome.TAKEN
    assert not await keeper.store.holds(ours)
    assert keeper.read(KEY)[:2] == ((tmp_path / "theirs").read_bytes(), dict(theirs.metadata))
    assert keeper.unfinished() == []
    assert notes(tmp_path) == []
    assert await keeper.store.put(replace(ours, key=f"{KEY}.2")) is Outcome.STORED


@pytest.mark.parametrize("parts", [0.5, 2.25])
async def test_the_same_object_with_other_content_is_refused(parts: float, keeper: Keeper, tmp_path: Path) -> None:
    """An object that is there under its identity with another content is told, and what is there stays."""
    data = data_of(int(parts * keeper.part_size))
    target = object_of(keeper, file_of(tmp_path, data))
    await keeper.store.put(target)
    changed = object_of(keeper, file_of(tmp_path, b"!" + data, "changed"), sha256="other")
    with pytest.raises(ObjectRefused, match=r"other content.*sha256"):
        await keeper.store.put(changed)
    assert keeper.read(KEY)[0] == data
    assert keeper.unfinished() == []


async def test_of_many_one_is_stored(keeper: Keeper) -> None:
    """Of many objects that want one key at the same time exactly one gets it, and the others know that it is taken."""
    targets = [object_of(keeper, b"%d" % number, batch=f"b{number}") for number in range(8)]

    async def put(target: Object) -> Outcome:
        while True:
            try:
                return await keeper.store.put(target)
            except Transient:
                # A store may say that another put to the key is running.
                continue

    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(*(put(target) for target in targets))
    assert sorted(outcome.name for outcome in outcomes) == ["STORED"] + ["TAKEN"] * 7
    assert keeper.read(KEY)[1]["batch"] == f"b{outcomes.index(Outcome.STORED)}"


async def test_metadata_comes_back(keeper: Keeper) -> None:
    """Metadata up to what S3Keys takes comes back as it was, odd characters too."""
    marks = "".join(chr(code) for code in range(0x21, 0x7F))
    metadata = {"id": "i1", "uri": marks, "user": "a b", "encoded": "user", "filler": "x" * 1700}
    target = replace(object_of(keeper, b"data"), metadata=metadata, identity="id")
    assert await keeper.store.put(target) is Outcome.STORED
    assert keeper.read(KEY)[1] == metadata
    assert await keeper.store.put(target) is Outcome.PRESENT


async def test_any_key_can_be_stored(keeper: Keeper) -> None:
    """Whatever names a user or a uri has, the key that is made of them can be stored and found."""
    for user in ("alice", "../..", "日本" * 500):
        for at, uri in enumerate(("../../etc/passwd", "長い" * 2000, "a b+c&d=e?f#g%2F.png", "u" * 4000, "", "/")):
            received = 1_795_269_540 * 10**9 + at
            key = object_keys.file_key(
                "p/", user=user, uri=uri, media_type="image/png", received_ns=received, order=received, again=""
            )
            target = object_of(keeper, uri.encode(), key=key)
            assert await keeper.store.put(target) is Outcome.STORED
            assert keeper.read(key)[0] == uri.encode()
            beside = replace(target, key=f"{key}.meta.json", source=b"{}", size=2)
            assert await keeper.store.put(beside) is Outcome.STORED
            assert await keeper.store.holds(target)


async def test_whether_a_key_is_free(keeper: Keeper) -> None:
    """A key is free until something is there, whoever's it is."""
    target = object_of(keeper, b"data")
    assert await keeper.store.is_free(target)
    await keeper.store.put(target)
    assert not await keeper.store.is_free(target)
    assert not await keeper.store.is_free(object_of(keeper, b"other"))
    assert await keeper.store.is_free(object_of(keeper, b"data", key="other"))


async def test_who_may_not_list_finds_every_key_free(fake: FakeS3, s3: Keeper) -> None:
    """Without s3:ListBucket S3Keys says 403 of a missing object, so that only a put can tell; it must not be refused for that."""
    fake.fail_always("HeadObject", FORBIDDEN)
    assert await s3.store.is_free(object_of(s3, b"data"))


async def test_a_proof_that_goes_is_looked_for_again(fake: FakeS3, s3: Keeper) -> None:
    """A proof that somebody removes between the put and the look is put once more by the next call."""
    fake.fail_always("HeadObject", Fault(404, "NoSuchKey"))
    with pytest.raises(Transient):
        await s3.store.honours_condition(BUCKET, "")
    fake.fail_always("HeadObject", None)
    assert await s3.store.honours_condition(BUCKET, "")


async def test_the_condition_is_honoured(keeper: Keeper) -> None:
    """A store that refuses to replace is known to, however often it is asked, and under any prefix."""
    assert await keeper.store.honours_condition(keeper.bucket, "")
    assert await keeper.store.honours_condition(keeper.bucket, "prefix/")
    target = object_of(keeper, b"data")
    assert [await keeper.store.put(target) for _ in range(2)] == [Outcome.STORED, Outcome.PRESENT]


async def test_a_store_can_be_closed_unused(tmp_path: Path, fake: FakeS3) -> None:
    """Closing a store that was never used is nothing."""
    await LocalStore(tmp_path).close()
    await fake_keeper(fake).store.close()
    assert fake.requests == []


async def test_a_local_store_clears_what_a_killed_gateway_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was being written an hour before the first put is removed; what another gateway writes now stays."""
    drafts = tmp_path / "objects" / ".drafts"
    drafts.mkdir(parents=True)
    (drafts / "1.old").write_bytes(b"left")
    # The time of the content says nothing: a link has that of the spool's file.
    os.utime(drafts / "1.old", (0, 0))
    keeper = local_keeper(tmp_path)
    assert await keeper.store.put(object_of(keeper, b"data")) is Outcome.STORED
    assert [path.name for path in drafts.iterdir()] == ["1.old"]
    later = (drafts / "1.old").stat().st_ctime + 3601
    monkeypatch.setattr(time, "time", lambda: later)
    keeper = local_keeper(tmp_path)
    assert await keeper.store.put(object_of(keeper, b"data")) is Outcome.PRESENT
    assert list(drafts.iterdir()) == []


# --- the local store ---------------------------------------------------------------------------------------------


async def test_a_crash_is_finished_by_the_next_put(tmp_path: Path) -> None:
    """Wherever a crash comes, the same put finishes what was begun, and another's put never gets between."""
    calls = 0
    while True:
        folder = tmp_path / str(calls)
        folder.mkdir()
        keeper = local_keeper(folder)
        source = file_of(folder, b"data")
        target, other = object_of(keeper, source), object_of(keeper, b"other", batch="b2")
        crash = Crashing(calls)
        with pytest.MonkeyPatch.context() as patch:
            crash.install(patch)
            with contextlib.suppress(PowerCut):
                keeper.store._put(target)  # type: ignore[attr-defined]
        begun = (folder / "objects" / ".metadata" / BUCKET / f"{KEY}.json").exists()
        if begun:
            assert await keeper.store.put(other) is Outcome.TAKEN
        assert await keeper.store.put(target) in (Outcome.STORED, Outcome.PRESENT)
        assert keeper.read(KEY)[:2] == (b"data", dict(target.metadata))
        assert await keeper.store.put(other) is Outcome.TAKEN
        if not crash.failed:
            break
        calls += 1
    assert calls > 5


def test_metadata_is_durable_before_its_object(tmp_path: Path) -> None:
    """The metadata and its name are synced before the object gets its name, and that is synced before the put ends."""
    keeper = local_keeper(tmp_path)
    target = object_of(keeper, file_of(tmp_path, b"data"))
    with pytest.MonkeyPatch.context() as patch:
        trace = Trace(patch, tmp_path / "objects")
        keeper.store._put(target)  # type: ignore[attr-defined]
    folder = Path(KEY).parent
    order = [
        trace.first("write_file .drafts/"),
        trace.first(f"sync_directory .metadata/{BUCKET}/{folder}"),
        trace.last("link "),
        trace.last(f"sync_directory {BUCKET}/{folder}"),
    ]
    assert order == sorted(order)


async def test_a_new_directory_is_durable_before_any_put_below_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two puts below one new directory, the one that finds it made waits until the other has synced its name."""
    keeper = local_keeper(tmp_path)
    bucket = tmp_path / "objects" / BUCKET
    held, may_go_on = threading.Event(), threading.Event()
    sync_directory = disk.sync_directory

    def slowly(path: Path) -> None:
        if path == bucket and (bucket / "new").is_dir() and not held.is_set():
            held.set()
            may_go_on.wait(WAIT_S)
        sync_directory(path)

    monkeypatch.setattr(disk, "sync_directory", slowly)
    first = asyncio.create_task(keeper.store.put(object_of(keeper, b"1", key="new/1")))
    assert await asyncio.to_thread(held.wait, WAIT_S)
    second = asyncio.create_task(keeper.store.put(object_of(keeper, b"2", key="new/2")))
    # Long for a put that waits for nothing.
    await asyncio.wait([second], timeout=0.2)
    is_early = second.done()
    may_go_on.set()
    assert [await first, await second] == [Outcome.STORED, Outcome.STORED]
    assert not is_early


async def test_a_file_without_metadata_is_not_ours(tmp_path: Path) -> None:
    """A file at the key that the store has not put there is a stranger's, and so is one whose metadata cannot be read."""
    keeper = local_keeper(tmp_path)
    path = tmp_path / "objects" / BUCKET / KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(b"stranger")
    assert await keeper.store.put(object_of(keeper, b"data")) is Outcome.TAKEN
    assert path.read_bytes() == b"stranger"
    for torn in (b"", b"{", b"[]"):
        metadata = tmp_path / "objects" / ".metadata" / BUCKET / f"{KEY}.json"
        metadata.parent.mkdir(parents=True, exist_ok=True)
        metadata.write_bytes(torn)
        assert await keeper.store.put(object_of(keeper, b"data")) is Outcome.TAKEN
        assert not await keeper.store.holds(object_of(keeper, b"data"))


async def test_metadata_alone_is_not_the_object(tmp_path: Path) -> None:
    """As long as only the metadata is there the object is not held."""
    keeper = local_keeper(tmp_path)
    target = object_of(keeper, b"data")
    await keeper.store.put(target)
    (tmp_path / "objects" / BUCKET / KEY).unlink()
    assert not await keeper.store.holds(target)
    assert await keeper.store.put(target) is Outcome.STORED


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP])
async def test_another_disk_gets_a_copy(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the spool's file cannot have a second name under the store, its bytes are copied there."""
    keeper = local_keeper(tmp_path)
    source = file_of(tmp_path, data_of(3 << 20))
    link = disk.link

    def refusing(given: Path, target: Path) -> None:
        if given == source:
            raise OSError(code, os.strerror(code))
        link(given, target)

    monkeypatch.setattr(disk, "link", refusing)
    assert await keeper.store.put(object_of(keeper, source)) is Outcome.STORED
    assert keeper.read(KEY)[0] == source.read_bytes()
    assert (tmp_path / "objects" / BUCKET / KEY).stat().st_ino != source.stat().st_ino
    assert keeper.unfinished() == []


async def test_a_disk_that_fails_is_transient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be written is a store that is away, and the next put succeeds when it can be again."""
    keeper = local_keeper(tmp_path)
    (tmp_path / "objects").write_bytes(b"a file")
    with pytest.raises(Transient, match="objects"):
        await keeper.store.put(object_of(keeper, b"data"))
    (tmp_path / "objects").unlink()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_all", full)
        with pytest.raises(Transient, match="No space left"):
            await keeper.store.put(object_of(keeper, b"data"))
    assert keeper.unfinished() == []
    assert await keeper.store.put(object_of(keeper, b"data")) is Outcome.STORED


# --- S3Keys: whether the condition is honoured -----------------------------------------------------------------------


@pytest.fixture
async def s3(fake: FakeS3) -> AsyncIterator[Keeper]:
    """Give a store in the small S3Keys."""
    made = fake_keeper(fake)
    yield made
    await made.store.close()


@pytest.mark.parametrize(("condition", "honoured"), [("honoured", True), ("ignored", False), ("unknown", False)])
async def test_the_condition_is_proved_once(condition: str, honoured: bool, fake: FakeS3, s3: Keeper) -> None:
    """Whether a store refuses to replace is seen by a put of the gateway's own, once for each bucket."""
    fake.condition = condition
    answers = await asyncio.gather(*(s3.store.honours_condition(BUCKET, "prefix/") for _ in range(5)))
    assert answers == [honoured] * 5
    asked = len(fake.requests)
    assert asked <= 3
    assert {(request.bucket, request.key) for request in fake.requests} == {(BUCKET, f"prefix/{PROOF_KEY}")}
    assert await s3.store.honours_condition("another", "") == honoured
    assert len(fake.requests) == 2 * asked


async def test_numbered_keys_need_metadata(fake: FakeS3, s3: Keeper) -> None:
    """A store that does not give metadata back cannot tell its objects apart, and is not asked for the condition."""
    fake.forgets_metadata = True
    assert not await s3.store.honours_condition(BUCKET, "")
    for expected in (Outcome.STORED, Outcome.STORED):
        assert await s3.store.put(object_of(s3, b"data")) is expected


@pytest.mark.parametrize(
    ("fault", "kind"), [(SLOW_DOWN, Transient), (DROPPED, Transient), (FORBIDDEN, Refused)], ids=["busy", "dropped", "forbidden"]
)
async def test_a_proof_that_cannot_be_looked_at(fault: Fault, kind: type[StoreError], fake: FakeS3, s3: Keeper) -> None:
    """A look that fails is made again by the next call, and what fails for want of a permission says so at the start."""
    fake.fail_always("HeadObject", fault)
    with pytest.raises(kind) as raised:
        await s3.store.honours_condition(BUCKET, "")
    assert type(raised.value) is kind
    assert ("s3:GetObject" in str(raised.value)) == (kind is Refused)
    fake.fail_always("HeadObject", None)
    assert await s3.store.honours_condition(BUCKET, "")


async def test_a_proof_that_stands_already_is_enough(fake: FakeS3) -> None:
    """A later process finds its proof there: one put and a look tell."""
    for expected in (3, 5):
        keeper = fake_keeper(fake)
        assert await keeper.store.honours_condition(BUCKET, "")
        await keeper.store.close()
        assert len(fake.requests) == expected


@pytest.mark.parametrize(("setting", "honoured"), [("on", True), ("off", False)])
async def test_the_setting_decides_what_is_sent(setting: str, honoured: bool, fake: FakeS3) -> None:
    """An operator who says how the store takes the condition is believed; that it keeps what it is given is proved."""
    keeper = fake_keeper(fake, conditional_put=setting)
    assert await keeper.store.honours_condition(BUCKET, "") is honoured
    assert fake.operations() == (["PutObject", "PutObject", "HeadObject"] if honoured else ["PutObject"])
    fake.requests.clear()
    await keeper.store.put(object_of(keeper, b"data"))
    assert [request.headers.get("if-none-match") for request in fake.requests] == ["*" if honoured else None]
    await keeper.store.close()


@pytest.mark.parametrize("condition", ["ignored", "unknown"])
async def test_the_condition_cannot_be_demanded_in_vain(condition: str, fake: FakeS3) -> None:
    """With `conditional_put: on` a store that replaces all the same is refused, and not trusted with keys that collide."""
    fake.condition = condition
    keeper = fake_keeper(fake, conditional_put="on")
    with pytest.raises(Refused, match=r"s3\.conditional_put is on"):
        await keeper.store.honours_condition(BUCKET, "")
    await keeper.store.close()


@pytest.mark.parametrize("condition", ["ignored", "unknown"])
async def test_no_condition_is_sent_where_it_is_not_known(condition: str, fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """A store that does not honour the condition is not asked for it, since some refuse every such put."""
    fake.condition = condition
    assert not await s3.store.honours_condition(BUCKET, "")
    fake.requests.clear()
    assert await s3.store.put(object_of(s3, b"data")) is Outcome.STORED
    assert await s3.store.put(object_of(s3, file_of(tmp_path, data_of(2500)), key="large")) is Outcome.STORED
    assert not any("if-none-match" in request.headers for request in fake.requests)


@pytest.mark.parametrize(
    ("fault", "kind"), [(SLOW_DOWN, Transient), (DROPPED, Transient), (FORBIDDEN, Refused), (CONFLICT, Transient)]
)
async def test_a_proof_that_fails_proves_nothing(fault: Fault, kind: type[StoreError], fake: FakeS3, s3: Keeper) -> None:
    """A proof that gets no clear answer is an error, and is tried again by the next call."""
    fake.fail_always("PutObject", fault)
    with pytest.raises(kind):
        await s3.store.honours_condition(BUCKET, "")
    fake.fail_always("PutObject", None)
    assert await s3.store.honours_condition(BUCKET, "")


# --- S3Keys: answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (SLOW_DOWN, Throttled),
        (CONFLICT, Transient),
        (DROPPED, Transient),
        (Fault(500, "InternalError"), Transient),
        (FORBIDDEN, Refused),
        (Fault(400, "ExpiredToken"), Refused),
        (Fault(400, "EntityTooLarge"), ObjectRefused),
    ],
)
@pytest.mark.parametrize("operation", ["PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
async def test_a_failure_is_told_and_mended(
    operation: str, fault: Fault, kind: type[StoreError], fake: FakeS3, s3: Keeper, tmp_path: Path
) -> None:
    """Whichever request fails, the put says how, leaves nothing in the store but what goes on, and succeeds when put again."""
    size = 500 if operation == "PutObject" else 2500
    goes_on = operation in ("UploadPart", "CompleteMultipartUpload") and issubclass(kind, Transient) and fault is not CONFLICT
    target = object_of(s3, file_of(tmp_path, data_of(size)))
    fake.fail_always(operation, fault)
    with pytest.raises(kind) as raised:
        await s3.store.put(target)
    fake.fail_always(operation, None)
    assert type(raised.value) is kind
    assert (fake.objects, len(s3.unfinished()), len(notes(tmp_path))) == ({}, goes_on, goes_on)
    assert await s3.store.put(target) is Outcome.STORED
    assert (s3.read(KEY)[0], s3.unfinished(), notes(tmp_path)) == (data_of(size), [], [])


async def test_each_failure_is_told_at_once(fake: FakeS3, s3: Keeper) -> None:
    """The client library does not try again by itself: that is decided in one place only."""
    fake.fail_always("PutObject", SLOW_DOWN)
    with pytest.raises(Transient):
        await s3.store.put(object_of(s3, b"data"))
    assert fake.operations() == ["PutObject"]


@pytest.mark.parametrize("size", [500, 2500])
async def test_an_answer_that_is_lost_is_no_second_object(size: int, fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """A put that succeeded unheard is found to be there by the next one."""
    target = object_of(s3, file_of(tmp_path, data_of(size)))
    fake.fail("PutObject" if size < FAKE_PART else "CompleteMultipartUpload", LOST)
    with pytest.raises(Transient):
        await s3.store.put(target)
    assert await s3.store.put(target) is Outcome.PRESENT
    assert (list(fake.objects), s3.unfinished(), notes(tmp_path)) == ([(BUCKET, KEY)], [], [])


async def test_an_error_inside_a_success_is_an_error(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """A 200 that carries an error is the error it carries."""
    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    fake.fail("CompleteMultipartUpload", ERROR_INSIDE)
    with pytest.raises(Transient, match="InternalError"):
        await s3.store.put(target)
    assert fake.objects == {}
    assert await s3.store.put(target) is Outcome.STORED
    assert (s3.read(KEY)[0], s3.unfinished()) == (data_of(2500), [])


@pytest.mark.parametrize("operation", ["PutObject", "CompleteMultipartUpload"])
async def test_taken_and_gone_is_tried_again(operation: str, fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """A key that is refused as taken where nothing is found may be held by an earlier put of ours: the same key, later."""
    target = object_of(s3, file_of(tmp_path, data_of(500 if operation == "PutObject" else 2500)))
    fake.fail(operation, Fault(412, "PreconditionFailed"))
    with pytest.raises(Transient, match="taken and is gone"):
        await s3.store.put(target)
    assert await s3.store.put(target) is Outcome.STORED
    assert s3.unfinished() == []


@pytest.mark.parametrize("size", [500, 2500])
async def test_who_may_not_look_is_told_what_is_missing(size: int, fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """A role that may put but not look is refused with the missing permission, and nothing is put elsewhere."""
    target = object_of(s3, file_of(tmp_path, data_of(size)))
    assert await s3.store.put(target) is Outcome.STORED
    fake.fail_always("HeadObject", FORBIDDEN)
    with pytest.raises(Refused, match="s3:GetObject") as raised:
        await s3.store.put(target)
    assert type(raised.value) is Refused
    assert (list(fake.objects), s3.unfinished(), notes(tmp_path)) == ([(BUCKET, KEY)], [], [])
    fake.fail_always("HeadObject", None)
    assert await s3.store.put(target) is Outcome.PRESENT


async def test_a_head_that_fails_decides_nothing(fake: FakeS3, s3: Keeper) -> None:
    """When the look at a taken key fails for a while, so does the put."""
    target = object_of(s3, b"data")
    await s3.store.put(target)
    fake.fail("HeadObject", SLOW_DOWN, DROPPED)
    for _ in range(2):
        with pytest.raises(Transient):
            await s3.store.put(target)
    assert await s3.store.put(target) is Outcome.PRESENT


# --- S3Keys: a success that proves nothing ---------------------------------------------------------------------------

# What proxies in maintenance, static servers and captive portals say to everything.
PRETENDED = {
    "empty": ({}, ""),
    "a page": ({}, "<html><body>Under maintenance</body></html>"),
    "an ETag": ({"ETag": '"5f3e-60a1"', "Last-Modified": "Mon, 30 Nov 2026 00:00:00 GMT"}, ""),
    "an MD5 of something": ({"ETag": '"0cc175b9c0f1b6a831c399e269772661"'}, ""),
}


@pytest.mark.parametrize("said", PRETENDED.values(), ids=PRETENDED)
@pytest.mark.parametrize("operation", ["PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
async def test_yes_is_no_proof(
    operation: str, said: tuple[dict[str, str], str], fake: FakeS3, s3: Keeper, tmp_path: Path
) -> None:
    """Whichever request is answered with 200 and not carried out, the object is not taken for stored, and is put again."""
    size = 500 if operation == "PutObject" else 2500
    target = object_of(s3, file_of(tmp_path, data_of(size)))
    fake.pretended[operation] = said
    for _ in range(2):
        with pytest.raises(StoreError) as raised:
            await s3.store.put(target)
        assert not isinstance(raised.value, Refused) or isinstance(raised.value, ObjectRefused)
        assert fake.objects == {}
    fake.pretended.clear()
    assert await s3.store.put(target) is Outcome.STORED
    assert (s3.read(KEY)[0], s3.unfinished(), notes(tmp_path)) == (data_of(size), [], [])


@pytest.mark.parametrize("said", PRETENDED.values(), ids=PRETENDED)
async def test_an_abort_that_is_not_done_stays_noted(
    said: tuple[dict[str, str], str], fake: FakeS3, s3: Keeper, tmp_path: Path
) -> None:
    """Parts are not forgotten because something said yes to their removal."""
    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    fake.pretended["AbortMultipartUpload"] = said
    fake.fail("UploadPart", FORBIDDEN)
    with pytest.raises(Refused):
        await s3.store.put(target)
    assert len(notes(tmp_path)) == 1
    fake.pretended.clear()
    assert await s3.store.put(target) is Outcome.STORED
    assert (s3.unfinished(), notes(tmp_path)) == ([], [])


@pytest.mark.parametrize("said", PRETENDED.values(), ids=PRETENDED)
@pytest.mark.parametrize("setting", ["auto", "on", "off"])
async def test_a_host_that_takes_everything_is_no_store(setting: str, said: tuple[dict[str, str], str], fake: FakeS3) -> None:
    """The proof at the start does not hold where every request is answered with 200."""
    keeper = fake_keeper(fake, conditional_put=setting)
    for operation in ("PutObject", "HeadObject", "GET"):
        fake.pretended[operation] = said
    with pytest.raises(Transient, match="something else has given it"):
        await keeper.store.honours_condition(BUCKET, "")
    fake.pretended.clear()
    assert await keeper.store.honours_condition(BUCKET, "") is (setting != "off")
    await keeper.store.close()


@pytest.mark.parametrize("said", PRETENDED.values(), ids=PRETENDED)
async def test_a_look_that_shows_no_store_is_no_strangers_object(
    said: tuple[dict[str, str], str], fake: FakeS3, s3: Keeper
) -> None:
    """A key is another's only where the store says so: else a proxy's 200 would use up number after number."""
    target = object_of(s3, b"data")
    fake.pretended["HeadObject"] = said
    with pytest.raises(Transient, match="something else has given it"):
        await s3.store.is_free(target)
    fake.objects[BUCKET, KEY] = Kept(b"stranger", {})
    with pytest.raises(Transient, match="something else has given it"):
        await s3.store.put(target)
    fake.pretended.clear()
    assert await s3.store.put(target) is Outcome.TAKEN
    assert not await s3.store.is_free(target)


@pytest.mark.parametrize("size", [0, 500, 2500])
async def test_an_opaque_etag_is_looked_behind(size: int, fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """Where the answer proves nothing the object is looked at, and is stored if it is there with its id and size."""
    fake.opaque_etags = True
    target = object_of(s3, file_of(tmp_path, data_of(size)))
    assert await s3.store.put(target) is Outcome.STORED
    assert fake.operations()[-1] == "HeadObject"
    fake.objects.clear()
    fake.fail_always("HeadObject", FORBIDDEN)
    with pytest.raises(Refused, match="s3:GetObject"):
        await s3.store.put(target)


async def test_an_etag_that_is_the_md5_needs_no_look(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """A store that gives no checksum back and an ETag that is the MD5 is not asked twice."""
    assert await s3.store.put(object_of(s3, b"data")) is Outcome.STORED
    assert await s3.store.put(object_of(s3, file_of(tmp_path, data_of(2500)), key="large")) is Outcome.STORED
    assert "HeadObject" not in fake.operations()


async def test_our_object_with_another_size_is_told(fake: FakeS3, s3: Keeper) -> None:
    """An object under our id that is shorter than what was put is neither ours nor free: a person has to look."""
    target = object_of(s3, b"data")
    await s3.store.put(target)
    kept = fake.objects[BUCKET, KEY]
    fake.objects[BUCKET, KEY] = Kept(kept.body[:-1], kept.headers)
    assert not await s3.store.holds(target)
    with pytest.raises(ObjectRefused, match="size 3 for 4"):
        await s3.store.put(target)


@pytest.mark.parametrize(("setting", "algorithm"), [("when_supported", "CRC32"), ("when_required", None)])
async def test_every_step_of_an_upload_agrees_on_its_checksums(
    setting: str, algorithm: str | None, fake: FakeS3, tmp_path: Path
) -> None:
    """Create names the algorithm that the parts use and Complete lists, or none of the three has any."""
    keeper = fake_keeper(fake, checksums=setting)
    await keeper.store.put(object_of(keeper, file_of(tmp_path, data_of(2500))))
    await keeper.store.close()
    created = [request for request in fake.requests if request.operation == "CreateMultipartUpload"]
    parts = [request for request in fake.requests if request.operation == "UploadPart"]
    assert [request.headers.get("x-amz-checksum-algorithm") for request in created] == [algorithm]
    assert [("x-amz-checksum-crc32" in request.headers) for request in parts] == [algorithm is not None] * 3


async def test_a_store_whose_complete_replaces_is_found_out(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """Before the first upload in parts it is tried whether Complete, too, refuses to replace; what was tried is gone again."""
    assert await s3.store.honours_condition(BUCKET, "p/")
    fake.replacing = {"CompleteMultipartUpload"}
    target = object_of(s3, file_of(tmp_path, data_of(2500)), key="p/large")
    with pytest.raises(Transient, match="replaces what it finds"):
        await s3.store.put(target)
    assert not await s3.store.honours_condition(BUCKET, "p/")
    assert await s3.store.put(target) is Outcome.STORED
    assert {key for _, key in fake.objects} == {"p/large", f"p/{PROOF_KEY}"}
    assert (s3.unfinished(), notes(tmp_path)) == ([], [])


async def test_complete_is_tried_out_once(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """Where Complete refuses to replace, the first upload finds that out, and no later one asks again."""
    assert await s3.store.honours_condition(BUCKET, "p/")
    for number in range(2):
        target = object_of(s3, file_of(tmp_path, data_of(2500), f"{number}"), key=f"p/{number}")
        assert await s3.store.put(target) is Outcome.STORED
    assert fake.operations().count("CreateMultipartUpload") == 3
    assert (s3.unfinished(), notes(tmp_path)) == ([], [])


async def test_501_speaks_of_the_condition_only_if_it_helps_to_leave_it_out(fake: FakeS3) -> None:
    """A store that answers 501 to an encryption it has not is refused, and not taken for one that knows no condition."""
    keeper = fake_keeper(fake, server_side_encryption="AES256")
    fake.fail_always("PutObject", Fault(501, "NotImplemented"))
    with pytest.raises(Refused, match="NotImplemented") as raised:
        await keeper.store.honours_condition(BUCKET, "")
    assert type(raised.value) is Refused
    with pytest.raises(Refused, match="NotImplemented"):
        await keeper.store.put(object_of(keeper, b"data"))
    await keeper.store.close()


@pytest.mark.parametrize("code", ["RequestTimeout", "ExpiredToken", "BadDigest"])
@pytest.mark.parametrize("operation", ["PutObject", "CompleteMultipartUpload"])
async def test_what_passes_says_nothing_of_the_condition(
    operation: str, code: str, fake: FakeS3, s3: Keeper, tmp_path: Path
) -> None:
    """A 400 that is about this moment, or about keys, leaves the bucket with its condition."""
    if operation == "PutObject":
        fake.fail(operation, Fault(400, code))
        with pytest.raises(StoreError, match=code):
            await s3.store.honours_condition(BUCKET, "")
    assert await s3.store.honours_condition(BUCKET, "")
    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    if operation != "PutObject":
        fake.fail(operation, Fault(400, code))
        with pytest.raises(StoreError, match=code):
            await s3.store.put(target)
    assert await s3.store.put(target) is Outcome.STORED
    assert await s3.store.honours_condition(BUCKET, "")


async def test_a_redirect_is_not_followed(fake: FakeS3, s3: Keeper) -> None:
    """A redirect is an error that names its address: followed without its signature it would end in a 403 elsewhere."""
    with fake_s3() as other:
        fake.redirected = other.endpoint
        for asked in (s3.store.put, s3.store.holds):
            with pytest.raises(Refused, match=f"307.*redirected to {other.endpoint}"):
                await asked(object_of(s3, b"data"))
        assert other.requests == []


async def test_keys_that_were_renewed_are_found(fake: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a refusal of its keys the client looks for them anew where they come from."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    credentials.write_text("[default]\naws_access_key_id = old\naws_secret_access_key = s\n")
    store = s3_store(settings(fake.endpoint, FAKE_PART, access="", secret=""), 1)
    keeper = Keeper(store, BUCKET, lambda _: (b"", {}, ""), list, FAKE_PART)
    fake.fail("PutObject", Fault(403, "InvalidAccessKeyId"))
    with pytest.raises(Refused, match="InvalidAccessKeyId"):
        await store.put(object_of(keeper, b"data"))
    credentials.write_text("[default]\naws_access_key_id = new\naws_secret_access_key = s\n")
    assert await store.put(object_of(keeper, b"data")) is Outcome.STORED
    used = [request.headers["authorization"].partition("Credential=")[2].partition("/")[0] for request in fake.requests]
    assert used == ["old", "new"]
    await store.close()


# --- S3Keys: uploads in parts ----------------------------------------------------------------------------------------


async def test_an_upload_is_noted_before_its_first_part(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """The id of an upload stands on disk from before the first part until the upload is over."""
    source = file_of(tmp_path, data_of(2500))
    note = source.with_name(f"{source.name}.upload")
    noted: list[tuple[str, bool]] = []

    def look(request: Request) -> None:
        noted.append((request.operation, note.exists() and json.loads(note.read_bytes())["upload_id"] in fake.uploads))

    fake.on_request = look
    with pytest.MonkeyPatch.context() as patch:
        trace = Trace(patch, tmp_path)
        assert await s3.store.put(object_of(s3, source)) is Outcome.STORED
    assert noted == [
        ("CreateMultipartUpload", False),
        *[("UploadPart", True)] * 3,
        ("CompleteMultipartUpload", True),
    ]
    assert not note.exists()
    steps = [step for step in trace.steps if step.startswith(("write_file", "sync_directory", "remove"))]
    assert steps == [f"write_file {note.name}", "sync_directory .", f"remove {note.name}", "sync_directory ."]


@on_every_server
async def test_an_upload_that_a_crash_left_is_aborted(buckets: Buckets, tmp_path: Path) -> None:
    """What a crash left of an upload in a real S3Keys is aborted by the next put, which then stores the object."""
    keeper = server_keeper(buckets)
    source = file_of(tmp_path, data_of(MINIO_PART + 1))
    target = object_of(keeper, source)
    upload_id = buckets.client._create_multipart_upload(keeper.bucket, KEY, {})
    noted = {"bucket": keeper.bucket, "key": KEY, "upload_id": upload_id}
    note = file_of(tmp_path, json.dumps(noted).encode(), f"{source.name}.upload")
    assert keeper.unfinished() == [KEY]
    assert await keeper.store.put(target) is Outcome.STORED
    assert keeper.unfinished() == []
    assert not note.exists()
    await keeper.store.close()


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"bucket":"b"}', b"null"])
async def test_a_torn_note_is_no_obstacle(torn: bytes, s3: Keeper, tmp_path: Path) -> None:
    """A note that a crash tore is removed, and the object stored."""
    source = file_of(tmp_path, data_of(2500))
    note = file_of(tmp_path, torn, f"{source.name}.upload")
    assert await s3.store.put(object_of(s3, source)) is Outcome.STORED
    assert not note.exists()


async def test_a_killed_upload_goes_on(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """An upload that was cut off in the middle leaves its note, by which the next put goes on with what has arrived."""
    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def look(request: Request) -> None:
        if request.operation == "UploadPart":
            loop.call_soon_threadsafe(reached.set)

    fake.on_request = look
    # Parts are taken and never answered.
    fake.fail_always("UploadPart", LOST)
    putting = asyncio.create_task(s3.store.put(target))
    async with asyncio.timeout(30):
        await reached.wait()
    putting.cancel()
    await asyncio.wait([putting])
    fake.fail_always("UploadPart", None)
    assert await s3.store.put(target) is Outcome.STORED
    assert fake.operations().count("CreateMultipartUpload") == 1
    assert (s3.read(KEY)[0], s3.unfinished(), notes(tmp_path)) == (data_of(2500), [], [])


async def _fails_at_its_last_part(fake: FakeS3, keeper: Keeper, target: Object, fault: Fault = DROPPED) -> None:
    """Put an object of three parts, of which the last is not taken."""
    sent = 0

    def look(request: Request) -> None:
        nonlocal sent
        sent += request.operation == "UploadPart"
        if request.operation == "UploadPart" and sent == 3:
            fake.fail("UploadPart", fault)

    fake.on_request = look
    with pytest.raises(Transient):
        await keeper.store.put(target)
    fake.on_request = lambda request: None
    assert sent == 3
    fake.requests.clear()


@pytest.mark.parametrize("fault", [DROPPED, LOST, SLOW_DOWN, Fault(500, "InternalError")])
@pytest.mark.parametrize("parts_a_page", [1, 1000])
async def test_what_has_arrived_is_not_sent_again(
    parts_a_page: int, fault: Fault, fake: FakeS3, s3: Keeper, tmp_path: Path
) -> None:
    """Another process goes on with an upload, and sends only the parts that the store does not have."""
    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    fake.parts_a_page = parts_a_page
    await _fails_at_its_last_part(fake, s3, target, fault)
    later = fake_keeper(fake)
    assert await later.store.put(target) is Outcome.STORED
    assert [it for it in fake.operations() if it != "ListParts"] == [
        "HeadObject",
        *["UploadPart"] * (not fault.done),
        "CompleteMultipartUpload",
    ]
    assert (later.read(KEY)[0], later.unfinished(), notes(tmp_path)) == (data_of(2500), [], [])
    await later.store.close()


async def test_a_part_that_is_another_is_sent_again(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """A part counts as arrived where the store's list proves its content, and not where it is damaged or cut off."""
    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    await _fails_at_its_last_part(fake, s3, target)
    [upload] = fake.uploads.values()
    upload.parts[1] = b"!" * FAKE_PART
    upload.parts[2] = upload.parts[2][:-1]
    assert await s3.store.put(target) is Outcome.STORED
    assert fake.operations().count("UploadPart") == 3
    assert s3.read(KEY)[0] == data_of(2500)


@pytest.mark.parametrize("change", ["key", "batch", "size", "part size"])
async def test_an_upload_of_something_else_is_begun_anew(change: str, fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """Parts of an upload to another key, of another object, or of another size are nobody's any more."""
    await _fails_at_its_last_part(fake, s3, object_of(s3, file_of(tmp_path, data_of(2500))))
    changed = file_of(tmp_path, data_of(2501 if change == "size" else 2500))
    target = object_of(s3, changed, key="another" if change == "key" else KEY, batch="another" if change == "batch" else "b1")
    store = s3_store(settings(fake.endpoint, FAKE_PART + 1), 1) if change == "part size" else s3.store
    assert await store.put(target) is Outcome.STORED
    assert [it for it in fake.operations() if it != "UploadPart"] == [
        "HeadObject",
        "AbortMultipartUpload",
        "CreateMultipartUpload",
        "CompleteMultipartUpload",
    ]
    assert fake.operations().count("UploadPart") == 3
    assert (s3.unfinished(), notes(tmp_path)) == ([], [])
    await store.close()


async def test_an_upload_of_smaller_parts_is_aborted(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """A file that is sent whole since parts are larger leaves no parts of before behind."""
    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    await _fails_at_its_last_part(fake, s3, target)
    store = s3_store(settings(fake.endpoint, 2 * FAKE_PART * 2), 1)
    assert await store.put(target) is Outcome.STORED
    assert fake.operations() == ["HeadObject", "AbortMultipartUpload", "PutObject"]
    assert (s3.unfinished(), notes(tmp_path)) == ([], [])
    await store.close()


async def test_an_upload_that_does_not_get_on_is_begun_anew(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """One of which no further part arrives, whatever the reason, is not tried for ever."""
    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    await _fails_at_its_last_part(fake, s3, target)
    [before] = fake.uploads
    fake.fail_always("UploadPart", DROPPED)
    for _ in range(20):
        with pytest.raises(Transient):
            await s3.store.put(target)
    assert before not in fake.uploads
    assert len(fake.uploads) == 1
    fake.fail_always("UploadPart", None)
    assert await s3.store.put(target) is Outcome.STORED
    assert (s3.unfinished(), notes(tmp_path)) == ([], [])


@pytest.mark.parametrize("fault", [FORBIDDEN, NO_SUCH_UPLOAD, Fault(501, "NotImplemented"), Fault(500, "InternalError")])
async def test_who_cannot_list_begins_anew(fault: Fault, fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """Where the store does not show what has arrived, the upload is aborted and begun anew, as if nothing had."""
    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    await _fails_at_its_last_part(fake, s3, target)
    fake.fail_always("ListParts", fault)
    assert await s3.store.put(target) is Outcome.STORED
    assert fake.operations().count("UploadPart") == 3
    assert (s3.unfinished(), notes(tmp_path)) == ([], [])


async def test_an_upload_that_cannot_be_completed_is_begun_anew(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """An upload whose parts are all there and that the store fails to complete again is not tried for ever."""
    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    broken = Fault(500, "InternalError")
    fake.fail("CompleteMultipartUpload", broken, SLOW_DOWN, DROPPED, broken)
    kept = []
    for _ in range(4):
        with pytest.raises(Transient):
            await s3.store.put(target)
        kept.append(len(s3.unfinished()))
    # While the store is busy or away it says nothing of the upload.
    assert kept == [1, 1, 1, 0]
    assert fake.operations().count("UploadPart") == 3
    assert await s3.store.put(target) is Outcome.STORED
    assert fake.operations().count("UploadPart") == 6


@on_every_server
async def test_a_real_server_shows_what_has_arrived(buckets: Buckets, tmp_path: Path) -> None:
    """An upload that is cut off goes on at a real S3Keys with the parts that it has."""
    keeper = server_keeper(buckets)
    target = object_of(keeper, file_of(tmp_path, data_of(2 * MINIO_PART + 1)))
    sent: list[int] = []
    send = Uploads._send_part

    async def send_once(self: Uploads, of: Object, upload_id: str, number: int, body: Body) -> Any:
        sent.append(number)
        if len(sent) == 3:
            raise Transient("cut off")
        return await send(self, of, upload_id, number, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Uploads, "_send_part", send_once)
        with pytest.raises(Transient, match="cut off"):
            await keeper.store.put(target)
        assert keeper.unfinished() == [KEY]
        assert await keeper.store.put(target) is Outcome.STORED
    assert sent == [1, 2, 3, 3]
    assert keeper.read(KEY)[0] == data_of(2 * MINIO_PART + 1)
    assert (keeper.unfinished(), notes(tmp_path)) == ([], [])
    await keeper.store.close()


async def test_what_cannot_be_aborted_now_is_aborted_later(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """While an upload that is over cannot be aborted it stays noted; the next put aborts it first."""
    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    fake.fail("UploadPart", FORBIDDEN)
    fake.fail("AbortMultipartUpload", SLOW_DOWN, SLOW_DOWN)
    fake.fail_always("ListParts", FORBIDDEN)
    with pytest.raises(Refused):
        await s3.store.put(target)
    assert len(notes(tmp_path)) == 1
    with pytest.raises(Transient, match="aborting"):
        await s3.store.put(target)
    assert len(s3.unfinished()) == 1
    assert await s3.store.put(target) is Outcome.STORED
    assert (s3.unfinished(), notes(tmp_path)) == ([], [])


async def test_an_upload_that_is_gone_was_completed_or_not(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """NoSuchUpload is decided by what stands at the key: this very object, or nothing."""
    source = file_of(tmp_path, data_of(2500))
    target = object_of(s3, source)
    fake.fail("CompleteMultipartUpload", NO_SUCH_UPLOAD)
    with pytest.raises(Transient, match="NoSuchUpload"):
        await s3.store.put(target)
    fake.fail("CompleteMultipartUpload", Fault(404, "NoSuchUpload", done=True))
    assert await s3.store.put(target) is Outcome.PRESENT
    assert (s3.read(KEY)[0], s3.unfinished(), notes(tmp_path)) == (data_of(2500), [], [])


async def test_a_crash_after_the_last_call_is_found_out(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """A crash between Complete and its answer leaves the note; the next put finds the object there and sends nothing."""
    source = file_of(tmp_path, data_of(2500))
    target = object_of(s3, source)
    await s3.store.put(target)
    noted = {"bucket": BUCKET, "key": KEY, "upload_id": "completed"}
    note = file_of(tmp_path, json.dumps(noted).encode(), f"{source.name}.upload")
    fake.requests.clear()
    assert await s3.store.put(target) is Outcome.PRESENT
    assert "UploadPart" not in fake.operations()
    assert not note.exists()


async def test_a_note_is_believed_by_who_may_not_look(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """A role that may not look still gets rid of its noted upload, and stores the object."""
    source = file_of(tmp_path, data_of(2500))
    file_of(tmp_path, b"{}", f"{source.name}.upload")
    fake.fail_always("HeadObject", FORBIDDEN)
    assert await s3.store.put(object_of(s3, source)) is Outcome.STORED


async def test_a_note_that_cannot_be_written_keeps_the_upload_from_staying(
    fake: FakeS3, s3: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that cannot be noted is aborted before a part of it is sent."""

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_file", broken)
        with pytest.raises(Transient, match="noted"):
            await s3.store.put(target)
    assert fake.operations() == ["CreateMultipartUpload", "AbortMultipartUpload"]
    assert s3.unfinished() == []


@pytest.mark.parametrize("fault", [None, SLOW_DOWN])
async def test_on_a_full_disk_an_upload_goes_on_without_its_note(
    fault: Fault | None, fake: FakeS3, s3: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits on a full disk can leave; an upload that fails there is aborted though no note names it."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = object_of(s3, file_of(tmp_path, data_of(2500)))
    monkeypatch.setattr(disk, "write_file", full)
    if fault is not None:
        fake.fail("UploadPart", fault)
        with pytest.raises(Transient):
            await s3.store.put(target)
        assert s3.unfinished() == []
    assert await s3.store.put(target) is Outcome.STORED
    assert (s3.read(KEY)[0], s3.unfinished()) == (data_of(2500), [])


async def test_an_upload_without_a_note_is_aborted_when_the_gateway_stops(
    fake: FakeS3, s3: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no note names is aborted by the one that began it, also when it is cancelled."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "write_file", full)
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()
    fake.on_request = lambda request: request.operation == "UploadPart" and loop.call_soon_threadsafe(reached.set)  # type: ignore[assignment]
    fake.fail_always("UploadPart", LOST)
    putting = asyncio.create_task(s3.store.put(object_of(s3, file_of(tmp_path, data_of(2500)))))
    async with asyncio.timeout(30):
        await reached.wait()
        putting.cancel()
        await asyncio.wait([putting])
    assert s3.unfinished() == []


async def test_a_source_that_cannot_be_read_leaves_no_upload(fake: FakeS3, s3: Keeper, tmp_path: Path) -> None:
    """A file with a bad sector is the disk's error, and its upload does not stay in the store."""
    source = file_of(tmp_path, data_of(2500))
    target = object_of(s3, source)
    fake.on_request = lambda request: request.operation == "CreateMultipartUpload" and source.unlink()  # type: ignore[assignment, func-returns-value]
    with pytest.raises(OSError, match="No such file"):
        await s3.store.put(target)
    assert s3.unfinished() == []
    assert notes(tmp_path) == []


async def test_parts_are_never_too_many(fake: FakeS3, s3: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that would need more parts than S3Keys allows is sent in larger ones."""
    monkeypatch.setattr("gateway.stores.s3.uploads.MAX_PARTS", 4)
    assert await s3.store.put(object_of(s3, file_of(tmp_path, data_of(9999)))) is Outcome.STORED
    assert fake.operations().count("UploadPart") == 4
    assert s3.read(KEY)[0] == data_of(9999)


async def test_storage_class_and_encryption_are_asked_for(fake: FakeS3, tmp_path: Path) -> None:
    """Storage class and encryption go along with every object, small or in parts, and with nothing else."""
    keeper = fake_keeper(fake, storage_class="STANDARD_IA", server_side_encryption="aws:kms", kms_key_id="alias/ours")
    await keeper.store.honours_condition(BUCKET, "")
    await keeper.store.put(object_of(keeper, b"data"))
    await keeper.store.put(object_of(keeper, file_of(tmp_path, data_of(2500)), key="large"))
    await keeper.store.close()
    asked = ("x-amz-storage-class", "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")
    for request in fake.requests:
        expected = ["STANDARD_IA", "aws:kms", "alias/ours"]
        if request.operation not in ("PutObject", "CreateMultipartUpload"):
            expected = [""] * 3
        assert [request.headers.get(name, "") for name in asked] == expected, request.operation


# --- S3Keys: what a person has to mend -------------------------------------------------------------------------------


@on_every_server
@pytest.mark.parametrize("size", [10, MINIO_PART + 1])
async def test_what_a_person_must_mend_is_refused(size: int, buckets: Buckets, tmp_path: Path) -> None:
    """A real S3Keys refuses a wrong key, a wrong secret and a bucket that is not there, and the text says which."""
    minio = buckets.minio
    source = file_of(tmp_path, data_of(size))
    for access, secret, bucket, text in (
        # versitygw has a code of its own for a key that it does not know.
        ("nobody", minio.secret_key, buckets.usage, "InvalidAccessKeyId|XAdminUserNotFound"),
        (minio.access_key, "not-the-secret", buckets.usage, "SignatureDoesNotMatch"),
        (minio.access_key, minio.secret_key, "no-such-bucket", "NoSuchBucket"),
    ):
        store = s3_store(settings(minio.endpoint, MINIO_PART, access, secret), 1)
        target = replace(object_of(server_keeper(buckets), source), bucket=bucket)
        with pytest.raises(Refused, match=text) as raised:
            await store.put(target)
        assert type(raised.value) is Refused
        with pytest.raises(Refused, match=text):
            await store.honours_condition(bucket, "")
        await store.close()


async def test_a_store_that_is_away_is_transient(tmp_path: Path) -> None:
    """A store that does not listen is away, for whatever is asked of it."""
    store = s3_store(settings(f"http://127.0.0.1:{free_port()}", FAKE_PART), 1)
    keeper = Keeper(store, BUCKET, lambda _: (b"", {}, ""), list, FAKE_PART)
    for size in (10, 2500):
        with pytest.raises(Transient):
            await store.put(object_of(keeper, file_of(tmp_path, data_of(size))))
    with pytest.raises(Transient):
        await store.holds(object_of(keeper, b""))
    with pytest.raises(Transient):
        await store.honours_condition(BUCKET, "")
    await store.close()


def test_an_empty_variable_is_no_choice_of_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_CA_BUNDLE without a value leaves whom to trust to the gateway, as if it were not set."""
    monkeypatch.setenv("AWS_CA_BUNDLE", "")
    assert _session("/trusted.pem").get_config_variable("ca_bundle") == "/trusted.pem"


async def test_credentials_are_found_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys come from the configuration or the standard chain; without any a put is refused and says so."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    bare = settings("http://127.0.0.1:1", FAKE_PART, access="", secret="")
    assert not await has_credentials(bare)
    assert await has_credentials(settings("", FAKE_PART))
    store: S3Store = s3_store(bare, 1)
    keeper = Keeper(store, BUCKET, lambda _: (b"", {}, ""), list, FAKE_PART)
    with pytest.raises(Refused, match="credentials"):
        await store.put(object_of(keeper, b"data"))
    await store.close()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert await has_credentials(bare)


# --- a store that falls silent -----------------------------------------------------------------------------------


def connections_to(fake: FakeS3) -> list[Any]:
    """The connections of this process to a small S3Keys, as its client."""
    port = int(fake.endpoint.rpartition(":")[2])
    return [each for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == port]


@pytest.mark.parametrize("how", ["silent", "deaf"])
@pytest.mark.parametrize("operation", ["PutObject", "UploadPart"])
async def test_a_store_that_falls_silent_is_given_up(fake: FakeS3, tmp_path: Path, how: str, operation: str) -> None:
    """Whether it does not ask for the body or takes no more of it, the put ends, and the next one is heard."""
    # More than the kernel takes by itself.
    source = tmp_path / "source"
    source.write_bytes(bytes(32 << 20))
    part_size = 64 << 20 if operation == "PutObject" else 31 << 20
    store = s3_store(settings(fake.endpoint, part_size, read_timeout=1.0), 1)
    keeper = Keeper(store, BUCKET, lambda _: (b"", {}, ""), list, part_size)
    getattr(fake, how).add(operation)
    async with asyncio.timeout(3 * WAIT_S):
        with pytest.raises(Transient, match=r"nothing was taken or answered for 1 seconds or more"):
            await store.put(object_of(keeper, source))
        getattr(fake, how).clear()
        assert await store.put(object_of(keeper, b"small")) is Outcome.STORED
        await store.close()
        # Not even the connection that has bytes to send and a peer that takes none.
        while connections_to(fake):  # noqa: ASYNC110 (the kernel tells nobody)
            await asyncio.sleep(0.01)


async def test_a_store_that_is_silent_from_the_start(fake: FakeS3) -> None:
    """The proof of its condition, and a look at a key, come to an end as well."""
    store = s3_store(settings(fake.endpoint, FAKE_PART, read_timeout=0.3), 1)
    fake.silent = {"PutObject", "HeadObject"}
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(Transient):
            await store.honours_condition(BUCKET, "")
        with pytest.raises(Transient):
            await store.is_free(object_of(Keeper(store, BUCKET, lambda _: (b"", {}, ""), list, FAKE_PART), b"1"))
    await store.close()


@pytest.mark.parametrize("asking", [(), (0.15,), (0.0, 0.0), (0.15, 0.15)], ids=["never", "late", "twice", "twice, late"])
async def test_a_body_that_nobody_asks_for_is_sent(
    fake: FakeS3, monkeypatch: pytest.MonkeyPatch, asking: tuple[float, ...]
) -> None:
    """A proxy may lose `100 Continue`, or pass it on late or several times: whole objects and parts arrive once each."""
    monkeypatch.setattr(session, "CONTINUE_S", 0.1)
    fake.asking = asking
    store = s3_store(settings(fake.endpoint, FAKE_PART), 1)
    keeper = Keeper(store, BUCKET, lambda _: (b"", {}, ""), list, FAKE_PART)
    async with asyncio.timeout(WAIT_S):
        for number in range(3):
            assert await store.put(object_of(keeper, b"small", key=f"small-{number}")) is Outcome.STORED
            await asyncio.sleep(0.1)
    await store.close()
    assert fake.operations().count("PutObject") == 3
    assert {kept.body for kept in fake.objects.values()} == {b"small"}


@contextlib.asynccontextmanager
async def slow_link(endpoint: str, bytes_per_s: float) -> AsyncIterator[str]:
    """The address of a forwarder that takes everything at once, and passes it on slowly; answers come back at once."""
    host, _, port = endpoint.removeprefix("http://").partition(":")
    forwarding: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause_s: float) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(4096):
                await asyncio.sleep(pause_s)
                writer.write(piece)
        writer.close()

    async def forward(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        forwarding.add(task)
        far, out = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(pass_on(near, out, 4096 / bytes_per_s), pass_on(far, back, 0.0))
        finally:
            for writer in (out, back):
                writer.close()

    server = await asyncio.start_server(forward, "127.0.0.1", 0, limit=8 << 20)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in forwarding:
            task.cancel()
        await asyncio.gather(*forwarding, return_exceptions=True)


async def test_a_slow_link_is_waited_for(fake: FakeS3) -> None:
    """Its buffers have the whole body at once and need much longer than the patience: attempts have more and more of it."""
    body = data_of(400_000)
    async with slow_link(fake.endpoint, 200_000) as endpoint, asyncio.timeout(3 * WAIT_S):
        store = s3_store(settings(endpoint, 1 << 20, read_timeout=0.4), 1)
        keeper = Keeper(store, BUCKET, lambda _: (b"", {}, ""), list, FAKE_PART)
        failures = 0
        while failures < 6:
            try:
                outcome = await store.put(object_of(keeper, body))
            except Transient:
                failures += 1
            else:
                break
        assert outcome in (Outcome.STORED, Outcome.PRESENT)
        assert 0 < failures < 5
        assert await store.put(object_of(keeper, b"small", key="small")) is Outcome.STORED
        await store.close()


async def test_every_attempt_is_ours(fake: FakeS3) -> None:
    """Where a connection that was used before breaks, the HTTP client does not try again by itself: nobody would hear of it."""
    store = s3_store(settings(fake.endpoint, FAKE_PART), 1)
    keeper = Keeper(store, BUCKET, lambda _: (b"", {}, ""), list, FAKE_PART)
    assert await store.put(object_of(keeper, b"first", key="first")) is Outcome.STORED
    fake.fail("PutObject", LOST)
    with pytest.raises(Transient):
        await store.put(object_of(keeper, b"second", key="second"))
    assert fake.operations().count("PutObject") == 2
    await store.close()


async def test_slowness_is_no_silence() -> None:
    """A call whose body is taken slowly, for much longer than the patience, is not given up, and its errors are its own."""
    position = [0]

    async def sends_slowly() -> str:
        for position[0] in range(20):
            await asyncio.sleep(0.05)
        if position[0] == 19:
            raise ConnectionResetError("in the end")
        return "sent"

    with pytest.raises(ConnectionResetError, match="in the end"):
        await unless_silent(sends_slowly(), lambda: position[0], lambda _: 0.4)


# --- what S3Keys documents ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["strict", "strict_tls"])
async def documented(request: pytest.FixtureRequest) -> AsyncIterator[tuple[StrictS3, Keeper]]:
    """Give the strict S3Keys, without and with TLS, and a store in it."""
    strict = request.getfixturevalue(request.param)
    keeper = strict_keeper(strict)
    yield strict, keeper
    await keeper.store.close()


@pytest.mark.parametrize("parts", [0.5, 2.25])
async def test_a_conflict_is_told_and_mended(parts: float, documented: tuple[StrictS3, Keeper], tmp_path: Path) -> None:
    """A put that meets another one to its key is tried again, and leaves nothing half done."""
    strict, keeper = documented
    target = object_of(keeper, file_of(tmp_path, data_of(int(parts * keeper.part_size))))
    strict.conflicts = 1
    with pytest.raises(Transient, match="ConditionalRequestConflict"):
        await keeper.store.put(target)
    assert (strict.objects, keeper.unfinished(), notes(tmp_path)) == ({}, [], [])
    assert await keeper.store.put(target) is Outcome.STORED


@pytest.mark.parametrize("parts", [0.0, 0.5, 2.25])
async def test_object_lock_is_served(parts: float, documented: tuple[StrictS3, Keeper], tmp_path: Path) -> None:
    """A bucket with object lock, which takes nothing without a digest, takes every object."""
    strict, keeper = documented
    strict.locked.add(BUCKET)
    target = object_of(keeper, file_of(tmp_path, data_of(int(parts * keeper.part_size))))
    assert await keeper.store.honours_condition(BUCKET, "")
    assert await keeper.store.put(target) is Outcome.STORED
