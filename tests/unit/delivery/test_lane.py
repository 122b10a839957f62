"""Everything that waits reaches the store once, and one thing that fails holds up no more than it must."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import pytest

from gateway.batching.aggregate import aggregate
from gateway.batching.batcher import Summaries
from gateway.core import disk
from gateway.core.backoff import RetryPolicy
from gateway.core.errors import ObjectRefused, Refused, StoreError, Throttled, Transient
from gateway.core.streams import Stream
from gateway.delivery import key_allocation
from gateway.delivery import lane as lane_module
from gateway.delivery.lane import Lane
from gateway.spool import names
from gateway.spool.ballast import BALLAST
from gateway.spool.key_numbers import KeyNumbers
from gateway.spool.names import KeyNumber
from gateway.spool.sidecar import read_sidecar
from gateway.stores import Object, Outcome
from gateway.stores.local import LocalStore
from testkit.spool import HOST, HOUR, SPECIMEN, USAGE, WAIT_S, Bench, open_bench, stored_lines, tree, until

AS_A_STORE: Literal["as a store"] = "as a store"
STORED, PRESENT, TAKEN = Outcome.STORED, Outcome.PRESENT, Outcome.TAKEN
QUICK = RetryPolicy(0.001, 0.002, 0.003)

Answer = Outcome | BaseException | Callable[[Object], Outcome] | Literal["as a store"]


class ScriptedStore:
    """A store that answers what a test says, one answer for each put, and `STORED` when there is none left."""

    def __init__(self, *answers: Answer, honours: bool | BaseException = True, holds: bool | BaseException = False) -> None:
        self.answers = list(answers)
        self.puts: list[Object] = []
        self.asked: list[str] = []
        self.looked: list[str] = []
        self.taken: set[str] = set()
        self.gate: asyncio.Event | None = None
        self.running = self.most_running = 0
        self._honours, self._holds = honours, holds
        self._changed = asyncio.Event()

    @property
    def keys(self) -> list[str]:
        """Give the last part of every key that was tried."""
        return [one.key.rpartition("/")[2] for one in self.puts]

    async def honours_condition(self, bucket: str, prefix: str) -> bool:
        """Say what the test says."""
        del bucket, prefix
        return _answer(self._honours)

    async def put(self, target: Object) -> Outcome:
        """Answer the next thing of the script."""
        self.puts.append(target)
        answer = self.answers.pop(0) if self.answers else STORED
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self._changed.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.running -= 1
        if answer == AS_A_STORE:
            is_new = target.key not in self.taken
            self.taken.add(target.key)
            return STORED if is_new else TAKEN
        return answer(target) if callable(answer) else _answer(answer)

    async def holds(self, target: Object) -> bool:
        """Say what the test says."""
        self.asked.append(target.key)
        return _answer(self._holds)

    async def is_free(self, target: Object) -> bool:
        """Say what the test says."""
        self.looked.append(target.key)
        return target.key not in self.taken

    async def close(self) -> None:
        """Nothing is open."""

    async def tried(self, count: int) -> None:
        """Wait until so many puts have begun."""
        async with asyncio.timeout(WAIT_S):
            while len(self.puts) < count:
                self._changed.clear()
                await self._changed.wait()


T = TypeVar("T")


def _answer(answer: T | BaseException) -> T:
    if isinstance(answer, BaseException):
        raise answer
    return answer


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a real spool."""
    with open_bench(tmp_path) as made:
        yield made


Start = Callable[..., Lane]


@pytest.fixture
async def start(bench: Bench) -> AsyncIterator[Start]:
    """Give what starts a lane, and end it with the test."""
    tasks: list[asyncio.Task[None]] = []

    def start(
        store: ScriptedStore | LocalStore,
        stream: Stream = USAGE,
        *,
        parallel: int = 4,
        retry: RetryPolicy = QUICK,
        monotonic: Callable[[], float] | None = None,
        run: bool = True,
    ) -> Lane:
        clock = {} if monotonic is None else {"monotonic": monotonic}
        lane = Lane(
            bench.spool,
            replace(stream, retry=retry),
            store,
            summaries=Summaries(),
            parallel=parallel,
            log=bench.log,
            metrics=bench.metrics,
            jitter=lambda: 1.0,
            **clock,
        )
        if run:
            tasks.append(asyncio.create_task(lane.run(), name=f"lane-{id(lane)}"))
        return lane

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def anew(bench: Bench) -> KeyNumbers:
    """The numbers as another process finds them."""
    spool = bench.spool
    return KeyNumbers(spool.root, {USAGE: spool.directories.uploading(USAGE)}, spool.new_tmp, bench.log)


async def turns() -> None:
    """Give everything that could go on a chance to do so, in the loop and in threads."""
    for _ in range(20):
        await asyncio.to_thread(int)
        await asyncio.sleep(0)


def empty(bench: Bench) -> bool:
    """Tell whether nothing waits any more."""
    return tree(bench.spool.root) == {}


async def drained(bench: Bench, lane: Lane) -> None:
    """Have a lane that is not running yet deliver all there is, and end."""
    del bench
    lane.drain()
    async with asyncio.timeout(WAIT_S):
        await lane.run()


# --- the way of a thing ------------------------------------------------------------------------------------------


async def test_everything_is_delivered_once(start: Start, bench: Bench, tmp_path: Path) -> None:
    """Batches and files reach a real store, each once, are counted and told, and leave nothing behind."""
    for number in range(5):
        bench.seal(b"%d" % number, b"%d more" % number)
    bench.file(b"abc")
    store = LocalStore(tmp_path / "objects")
    for stream in (USAGE, SPECIMEN):
        await drained(bench, start(store, stream, run=False))
    assert empty(bench)
    assert stored_lines(tmp_path / "objects") == sorted([*(b"%d" % n for n in range(5)), *(b"%d more" % n for n in range(5))])
    assert bench.metric("delivered_total", stream="usage") == 10
    assert bench.metric("delivered_objects_total", stream="usage") == 5
    assert bench.metric("delivered_total", stream="specimen") == 1
    assert bench.metric("delivery_duration_seconds_count", stream="usage") == 5
    (sent,) = bench.told("object delivered", stream="specimen")
    assert (sent["bytes"], sent["outcome"], sent["key"].endswith(".png")) == (3, "stored", True)


@pytest.mark.parametrize("outcome", [STORED, PRESENT])
async def test_what_the_store_confirms_is_retired(start: Start, bench: Bench, outcome: Outcome) -> None:
    """What the store has, now or since an earlier attempt, is removed from the spool and counted."""
    bench.seal(b"1")
    store = ScriptedStore(outcome)
    await drained(bench, start(store, run=False))
    assert empty(bench)
    assert len(store.puts) == 1
    assert bench.told("object delivered", stream="usage")[0]["outcome"] == outcome.value


async def test_a_store_that_throttles_takes_all_in_the_end(start: Start, bench: Bench) -> None:
    """Nine of ten requests are refused for now: the stream goes on, without the waits of an outage, and says so once."""
    for number in range(20):
        bench.file(b"%d" % number)
    store = ScriptedStore(*([Throttled("slow down")] * 9 + [STORED]) * 20)
    await drained(bench, start(store, SPECIMEN, parallel=4, retry=RetryPolicy(60.0, 60.0, 60.0), run=False))
    assert empty(bench)
    assert len(store.puts) == 200
    assert bench.metric("delivery_failures_total", stream="specimen", kind="throttled") == 180
    assert [line["kind"] for line in bench.told("delivery failed", stream="specimen")] == ["throttled"]
    assert len(bench.told("delivery recovered", stream="specimen")) == 1


async def test_throttling_has_an_end(start: Start, bench: Bench) -> None:
    """Once the store takes nearly everything it has recovered, and nothing is wrong any more."""
    for number in range(80):
        bench.file(b"%d" % number)
    store = ScriptedStore(*[Throttled("slow down")] * 3, *[STORED] * 80)
    lane = start(store, SPECIMEN)
    await until(lambda: len(store.puts) > 3)
    await until(lambda: empty(bench))
    assert lane.trouble is None
    assert len(bench.told("delivery recovered", stream="specimen")) == 1


async def test_a_taken_key_is_left_for_the_next_number(start: Start, bench: Bench) -> None:
    """A number is in the sealed file's name before the store is asked for it, so that a restart goes on there."""
    bench.seal(b"1")
    seen: list[str] = []

    def look(target: Object) -> Outcome:
        seen.extend(path.name for path in bench.spool.directories.uploading(USAGE).iterdir())
        assert isinstance(target.source, Path)
        assert target.source.name == seen[-1]
        return TAKEN if len(seen) < 3 else STORED

    store = ScriptedStore(look, look, look)
    await drained(bench, start(store, run=False))
    assert [name.removesuffix(".jsonl.gz").rpartition(".")[2] for name in seen] == ["1", "2", "3"]
    assert store.keys == [f"{HOUR}.{HOST}{number}.jsonl.gz" for number in ("", ".2", ".3")]
    assert empty(bench)


async def test_a_restart_goes_on_with_its_number(start: Start, bench: Bench) -> None:
    """A batch that was tried under a number is tried under the same number by the next process."""
    bench.spool.renumber(bench.seal(b"1"), KeyNumber(7))
    store = ScriptedStore(PRESENT)
    await drained(bench, start(store, run=False))
    assert store.keys == [f"{HOUR}.{HOST}.7.jsonl.gz"]


async def test_a_failed_attempt_is_repeated_under_its_number(start: Start, bench: Bench) -> None:
    """After a failure the same key is tried again: the put may have succeeded unheard."""
    bench.seal(b"1")
    store = ScriptedStore(TAKEN, Transient("away"), Transient("away"), PRESENT)
    await drained(bench, start(store, run=False))
    assert store.keys == [f"{HOUR}.{HOST}{number}.jsonl.gz" for number in ("", ".2", ".2", ".2")]
    assert empty(bench)


async def test_the_sixtieth_batch_does_not_ask_for_sixty_keys(start: Start, bench: Bench) -> None:
    """Each batch has a number of its own from the moment it is sealed, so that several can be sent at a time."""
    store = ScriptedStore(*[AS_A_STORE] * 500)
    for number in range(60):
        bench.seal(b"%d" % number)
    await drained(bench, start(store, run=False))
    assert len(store.puts) == len(store.taken) == 60
    assert empty(bench)


async def test_a_backlog_does_not_climb_number_by_number(start: Start, bench: Bench) -> None:
    """Batches that stand at one number, as format 2 had them, try that key, and then the first that none of them has taken."""
    store = ScriptedStore(*[AS_A_STORE] * 5000)
    for number in range(60):
        sealed = bench.seal(b"%d" % number)
        sealed.rename(sealed.with_name(sealed.name.replace(f".{number + 1}.jsonl", ".1.jsonl")))
    bench.spool.numbers = anew(bench)
    await drained(bench, start(store, parallel=1, run=False))
    assert len(store.puts) < 2 * 60
    assert len(store.looked) < 60
    assert {key.rpartition("/")[2] for key in store.taken} == {
        f"{HOUR}.{HOST}{'' if number == 1 else f'.{number}'}.jsonl.gz" for number in range(1, 61)
    }
    assert empty(bench)


async def test_a_free_number_is_looked_for_without_sending_the_batch(start: Start, bench: Bench) -> None:
    """In an hour that has many objects already, only the first of them and the free number are tried by a put."""
    store = ScriptedStore(*[AS_A_STORE] * 5)
    bench.seal(b"1")
    key = f"2026/11/21/13/{HOUR}.{HOST}"
    store.taken = {f"{key}{'' if number == 1 else f'.{number}'}.jsonl.gz" for number in range(1, 301) if number != 200}
    await drained(bench, start(store, run=False))
    assert store.keys == [f"{HOUR}.{HOST}.jsonl.gz", f"{HOUR}.{HOST}.200.jsonl.gz"]
    assert empty(bench)


async def test_a_store_that_has_everything_is_not_asked_for_ever(
    start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every look finds something, a put tells at last."""
    monkeypatch.setattr(key_allocation, "MAX_LOOKS", 5)
    store = ScriptedStore(TAKEN, STORED)
    monkeypatch.setattr(store, "is_free", lambda _: asyncio.sleep(0, False))
    bench.seal(b"1")
    await drained(bench, start(store, run=False))
    assert store.keys == [f"{HOUR}.{HOST}.jsonl.gz", f"{HOUR}.{HOST}.6.jsonl.gz"]


async def test_a_file_is_known_again_under_a_later_number(start: Start, bench: Bench) -> None:
    """A file whose first key is another's, and that was stored under the second one unheard, is not stored a third time."""
    bench.file(b"abc")
    store = ScriptedStore(TAKEN, Transient("the answer was lost"), TAKEN, PRESENT)
    lane = start(store, SPECIMEN)
    await store.tried(2)
    store.taken = {target.key for target in store.puts}
    lane.drain()
    await until(lambda: empty(bench))
    assert store.keys[2:] == store.keys[:2]
    assert len(store.puts) == 4


async def test_several_are_sent_at_a_time(start: Start, bench: Bench) -> None:
    """While all goes well, as many are under way as may be, and not one more."""
    for number in range(10):
        bench.seal(b"%d" % number)
    store = ScriptedStore()
    store.gate = asyncio.Event()
    lane = start(store, parallel=3)
    await store.tried(3)
    await turns()
    assert (len(store.puts), len(lane._running)) == (3, 3)
    store.gate.set()
    lane.drain()
    await until(lambda: empty(bench))
    assert store.most_running == 3


async def test_something_new_is_delivered_at_once(start: Start, bench: Bench) -> None:
    """A lane that has nothing to do is woken by what comes."""
    store = ScriptedStore()
    lane = start(store, SPECIMEN)
    for count in range(1, 4):
        bench.file(b"%d" % count)
        lane.wake()
        await store.tried(count)
        await until(lambda: empty(bench))


async def test_a_companion_is_stored_first(start: Start, bench: Bench) -> None:
    """Where a file has an object beside it, that one is stored before it; where either key is taken both move on."""
    bench.file(b"abc", uri="日" * 4000)
    store = ScriptedStore(STORED, TAKEN, TAKEN, STORED, STORED)
    await drained(bench, start(store, SPECIMEN, run=False))
    is_companion = [key.endswith(".meta.json") for key in store.keys]
    assert is_companion == [True, False, True, True, False]
    assert len(set(store.keys)) == 5
    assert store.keys[3] == f"{store.keys[4]}.meta.json"
    assert empty(bench)


async def test_what_finds_no_room_is_tried_again_at_once(start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the room of the ballast, before anything else takes that."""
    bench.seal(b"1")
    bench.spool.ballast.lay()
    remove = disk.remove

    def not_granted(path: Path) -> None:
        if path.suffix == ".gz" and (bench.spool.root / BALLAST).exists():
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        remove(path)

    monkeypatch.setattr(disk, "remove", not_granted)
    store = ScriptedStore(STORED, PRESENT)
    await drained(bench, start(store, retry=RetryPolicy(3600.0, 3600.0, 3600.0), run=False))
    assert len(store.puts) == 2
    assert empty(bench)


# --- failures ----------------------------------------------------------------------------------------------------


async def test_a_store_that_is_away_is_waited_for(start: Start, bench: Bench) -> None:
    """After a failure nothing is sent before the wait is over, then one thing, and then all of it again."""
    for number in range(6):
        bench.seal(b"%d" % number)
    now = [1000.0]
    store = ScriptedStore(Transient("away"))
    lane = start(store, parallel=1, retry=RetryPolicy(60.0, 600.0, 900.0), monotonic=lambda: now[0])
    await until(lambda: lane.trouble == "away")
    lane.wake()
    await turns()
    assert len(store.puts) == 1
    now[0] += 59.9
    lane.wake()
    await turns()
    assert len(store.puts) == 1
    now[0] += 0.2
    lane.wake()
    await until(lambda: empty(bench) and not lane._running)
    assert lane.trouble is None
    assert len(store.puts) == 7
    assert bench.metric("delivery_failures_total", stream="usage", kind="transient") == 1


async def test_waits_grow_while_the_store_is_away(start: Start, bench: Bench) -> None:
    """Each failure in a row doubles the wait; the first success starts it anew."""
    bench.seal(b"1")
    now = [0.0]
    store = ScriptedStore(*[Transient("away")] * 3)
    lane = start(store, retry=RetryPolicy(10.0, 1000.0, 1000.0), monotonic=lambda: now[0])
    for failures, wait_s in enumerate((10.0, 20.0, 40.0), start=1):
        await store.tried(failures)
        await until(lambda failures=failures: lane._failures == failures and not lane._running)  # type: ignore[misc]
        now[0] += wait_s - 0.1
        lane.wake()
        await turns()
        assert len(store.puts) == failures
        now[0] += 0.2
        lane.wake()
    await until(lambda: empty(bench) and not lane._running)
    assert lane._failures == 0


async def test_several_that_fail_together_are_one_failure(start: Start, bench: Bench) -> None:
    """When everything under way fails because the store went away, the wait grows by one step only."""
    for number in range(4):
        bench.seal(b"%d" % number)
    now = [0.0]
    store = ScriptedStore(*[Transient("away")] * 4)
    store.gate = asyncio.Event()
    lane = start(store, retry=RetryPolicy(10.0, 1000.0, 1000.0), monotonic=lambda: now[0])
    await store.tried(4)
    now[0] += 1.0
    store.gate.set()
    await until(lambda: not lane._running)
    assert lane._failures == 1
    # What is tried after the wait is one thing.
    store.gate = asyncio.Event()
    now[0] += 11.0
    lane.wake()
    await store.tried(5)
    await turns()
    assert (len(store.puts), len(lane._running)) == (5, 1)
    store.gate.set()
    await until(lambda: empty(bench))


async def test_a_failing_store_holds_up_its_own_stream_only(start: Start, bench: Bench) -> None:
    """While one stream's bucket is away another's things are delivered."""
    bench.seal(b"1")
    bench.file(b"abc")
    away = start(ScriptedStore(Transient("away")), USAGE, retry=RetryPolicy(HOURS_S, HOURS_S, HOURS_S))
    fine = start(ScriptedStore(), SPECIMEN)
    await until(lambda: away.trouble == "away")
    await until(lambda: not any(name.startswith("specimen") for name in tree(bench.spool.root)))
    assert fine.trouble is None
    assert any(name.startswith("usage") for name in tree(bench.spool.root))


HOURS_S = 3600.0


async def test_a_refusal_is_shown(start: Start, bench: Bench) -> None:
    """While a person has to change something, the trouble and the metric say so; then the stream goes on by itself."""
    bench.seal(b"1")
    now = [0.0]
    store = ScriptedStore(Refused("no such bucket: b"), Transient("away"), Refused("no such bucket: b"))
    lane = start(store, retry=RetryPolicy(1.0, 2.0, 300.0), monotonic=lambda: now[0])
    expected = [("no such bucket: b", 1.0), ("away", 0.0), ("no such bucket: b", 1.0)]
    for count, (trouble, refusing) in enumerate(expected, start=1):
        await store.tried(count)
        await until(lambda: not lane._running)
        assert lane.trouble == trouble
        assert bench.metric("store_refusing", stream="usage") == refusing
        now[0] += 300.0
        lane.wake()
    await until(lambda: empty(bench) and not lane._running)
    assert lane.trouble is None
    assert bench.metric("store_refusing", stream="usage") == 0
    assert [(line["event"], line.get("kind")) for line in bench.told() if line.get("stream") == "usage"] == [
        ("delivery failed", "refused"),
        ("delivery failed", "transient"),
        ("delivery recovered", None),
        ("object delivered", None),
    ]


async def test_what_a_store_says_can_be_shown(start: Start, bench: Bench) -> None:
    """However long it is, and whatever bytes are in it, the trouble is a short text that can be encoded."""
    bench.seal(b"1")
    lane = start(ScriptedStore(Refused("\udcff" + "x" * 100_000)), retry=RetryPolicy(1.0, 2.0, 300.0))
    await until(lambda: lane.trouble is not None)
    assert lane.trouble is not None
    assert lane.trouble.startswith("%FFxxx")
    assert len(lane.trouble) < 1100
    lane.trouble.encode()


async def test_a_refused_object_holds_up_nothing_else(start: Start, bench: Bench) -> None:
    """An object that the store refuses by itself waits by itself, is no trouble of its stream, and is tried again."""
    refused = bench.file(b"refused")
    others = [bench.file(b"%d" % number) for number in range(5)]
    times = [0]

    def put(target: Object) -> Outcome:
        if target.source == refused and times[0] < 2:
            times[0] += 1
            raise ObjectRefused("a 400")
        return STORED

    now = [0.0]
    store = ScriptedStore(*[put] * 50)
    lane = start(store, SPECIMEN, parallel=1, retry=RetryPolicy(10.0, 100.0, 100.0), monotonic=lambda: now[0])
    await until(lambda: not any(path.exists() for path in others))
    assert refused.exists()
    assert lane.trouble is None
    assert bench.metric("store_refusing", stream="specimen") == 0
    for attempt, wait_s in ((1, 10.0), (2, 20.0)):
        assert times[0] == attempt
        lane.wake()
        await turns()
        assert times[0] == attempt
        now[0] += wait_s + 0.1
        lane.wake()
        await until(lambda attempt=attempt: times[0] > attempt or empty(bench))  # type: ignore[misc]
        await until(lambda: not lane._running)
    await until(lambda: empty(bench))
    assert bench.metric("delivery_failures_total", stream="specimen", kind="object") == 2


async def test_a_greeting_that_fails_is_trouble_before_there_is_anything_to_send(start: Start, bench: Bench) -> None:
    """An operator sees at the start what would fail later."""
    store = ScriptedStore(honours=Refused("the key is not known"))
    lane = start(store, retry=RetryPolicy(HOURS_S, HOURS_S, HOURS_S))
    await until(lambda: lane.trouble == "the key is not known")
    assert bench.metric("store_refusing", stream="usage") == 1
    assert store.puts == []


async def test_a_defect_does_not_end_the_lane(start: Start, bench: Bench) -> None:
    """After an error that nobody foresaw the thing is tried again, like anything that failed, and the lane lives."""
    bench.seal(b"1")
    bench.seal(b"2")
    store = ScriptedStore(ZeroDivisionError("a defect"), ZeroDivisionError("a defect"))
    start(store)
    await until(lambda: empty(bench))
    assert len(bench.told("defect")) >= 1


async def test_a_spool_that_cannot_be_read_is_waited_for(start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails while the lane looks for work, or removes what was delivered, is asked again."""
    bench.seal(b"1")
    failures = [2]

    def failing(name: str) -> Callable[..., object]:
        real = getattr(disk, name)

        def call(*arguments: object) -> object:
            if failures[0]:
                failures[0] -= 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(disk, "names", failing("names"))
        patch.setattr(disk, "remove", failing("remove"))
        start(ScriptedStore(STORED, PRESENT))
        await until(lambda: failures[0] == 0)
        failures[0] = 1
        await until(lambda: empty(bench))


async def test_what_was_retired_by_another_attempt_is_no_failure(start: Start, bench: Bench) -> None:
    """A thing that is gone when its turn comes is passed over."""
    first, second = bench.file(b"1"), bench.file(b"2")
    store = ScriptedStore()
    store.gate = asyncio.Event()
    lane = start(store, SPECIMEN, parallel=1)
    await store.tried(1)
    assert store.puts[0].source == first
    bench.spool.retire(SPECIMEN, second)
    store.gate.set()
    await until(lambda: empty(bench))
    await until(lambda: not lane._running)
    assert lane.trouble is None
    assert len(store.puts) == 1


async def test_what_is_held_by_itself_is_bounded(start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that refuses one thing after the other by itself refuses the stream, and memory for them is bounded."""
    monkeypatch.setattr(lane_module, "MAX_HELD", 2)
    for number in range(5):
        bench.file(b"%d" % number)
    store = ScriptedStore(*[ObjectRefused("a 400", code=f"Code{number}") for number in range(100)])
    lane = start(store, SPECIMEN, parallel=1, retry=RetryPolicy(HOURS_S, HOURS_S, HOURS_S))
    await until(lambda: lane.trouble == "a 400")
    assert len(lane._held) == 2
    assert len(store.puts) == 3


async def test_what_is_refused_alike_is_refused_for_the_stream(start: Start, bench: Bench) -> None:
    """When three different things are refused with one code and none is taken, the stream is: told once, and tried one by one."""
    for number in range(8):
        bench.file(b"%d" % number)
    store = ScriptedStore(*[ObjectRefused("a 400", status=400, code="InvalidArgument")] * 100)
    now = [0.0]
    lane = start(store, SPECIMEN, parallel=1, retry=RetryPolicy(10.0, 10.0, 10.0), monotonic=lambda: now[0])
    await until(lambda: lane.trouble is not None)
    assert lane.trouble is not None
    assert lane.trouble.startswith("a 400 (so were 3 different ones and none was taken")
    assert bench.metric("store_refusing", stream="specimen") == 1
    for attempts in range(4, 8):
        now[0] += 10.1
        lane.wake()
        await store.tried(attempts)
        await until(lambda: not lane._running)
    told = bench.told("delivery failed", stream="specimen")
    assert [line["kind"] for line in told] == ["object", "object", "refused"]
    assert bench.metric("delivery_failures_total", stream="specimen", kind="refused") == 5


@pytest.mark.parametrize("error", [ObjectRefused("a 400", status=400, code="InvalidArgument"), Transient("a 500", status=500)])
async def test_what_fails_again_and_again_keeps_nothing_new_back(error: StoreError, start: Start, bench: Bench) -> None:
    """While some fail at each attempt, those that come meanwhile are found and tried in turn with them."""
    bad = [bench.file(b"%d" % number) for number in range(3)]

    def put(target: Object) -> Outcome:
        if target.source in bad:
            raise type(error)(str(error), status=error.status, code=error.code)
        return STORED

    now = [0.0]
    store = ScriptedStore(*[put] * 1000)
    lane = start(store, SPECIMEN, parallel=1, retry=RetryPolicy(10.0, 10.0, 10.0), monotonic=lambda: now[0])
    await until(lambda: lane.trouble is not None)
    good = [bench.file(b"good %d" % number) for number in range(5)]

    def are_gone() -> bool:
        now[0] += 10.1
        lane.wake()
        return not any(path.exists() for path in good)

    await until(are_gone)
    assert all(path.exists() for path in bad)


async def test_what_is_taken_between_refusals_keeps_them_apart(start: Start, bench: Bench) -> None:
    """As long as others are taken, what is refused concerns each thing alone."""
    bodies = [bench.file(b"%d" % number) for number in range(8)]

    def put(target: Object) -> Outcome:
        if target.source in bodies[::2]:
            raise ObjectRefused("a 400", status=400, code="InvalidArgument")
        return STORED

    store = ScriptedStore(*[put] * 100)
    lane = start(store, SPECIMEN, parallel=1, retry=RetryPolicy(HOURS_S, HOURS_S, HOURS_S))
    await until(lambda: not any(path.exists() for path in bodies[1::2]))
    await until(lambda: not lane._running)
    assert lane.trouble is None
    assert [path.exists() for path in bodies] == [True, False] * 4


# --- what cannot be read -----------------------------------------------------------------------------------------


async def test_what_cannot_be_read_is_quarantined(start: Start, bench: Bench) -> None:
    """A torn archive, a body without its sidecar and one of another size are set aside, and the others are delivered."""
    torn, whole = bench.seal(b"1"), bench.seal(b"2")
    lone, short, fine = bench.file(b"lone"), bench.file(b"short"), bench.file(b"fine")
    disk.shorten(torn, torn.stat().st_size - 1)
    disk.remove(lone.with_suffix(".meta"))
    disk.shorten(short, 2)
    stores = ScriptedStore(), ScriptedStore()
    for store, stream in zip(stores, (USAGE, SPECIMEN), strict=True):
        await drained(bench, start(store, stream, run=False))
    assert [one.source for store in stores for one in store.puts] == [whole, fine]
    left = tree(bench.spool.root)
    assert sorted(left) == sorted(
        f"quarantine/{name}"
        for name in (f"usage.{torn.name}", f"specimen.{lone.name}", f"specimen.{short.name}", f"specimen.{short.stem}.meta")
    )
    assert [tally.files for tally in bench.spool.accounting.waiting.values()] == [0, 0, 0]
    assert bench.metric("quarantined_total", stream="usage") == 1


async def test_a_quarantine_that_fails_is_waited_for(start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what cannot be read cannot be set aside either, it is tried again after a wait, and not all the time."""
    torn = bench.seal(b"1")
    disk.shorten(torn, torn.stat().st_size - 1)
    asked = [0]

    def refuse(*_: object) -> None:
        asked[0] += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    now = [0.0]
    with monkeypatch.context() as patch:
        patch.setattr(disk, "place", refuse)
        lane = start(ScriptedStore(), retry=RetryPolicy(10.0, 100.0, 100.0), monotonic=lambda: now[0])
        await until(lambda: asked[0] == 1 and not lane._running)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await until(lambda: asked[0] > 1)
    now[0] += 11.0
    lane.wake()
    await until(lambda: any(name.startswith("quarantine/") for name in tree(bench.spool.root)))


# --- a store that would replace ----------------------------------------------------------------------------------


async def test_keys_that_can_collide_are_not_used_where_puts_replace(start: Start, bench: Bench) -> None:
    """Where the store does not honour the condition, every key has the id of what it holds."""
    sealed, identity = bench.seal(b"1"), read_sidecar(bench.file(b"abc")).id
    parsed = names.parse_sealed(sealed.name)
    assert parsed is not None
    stores = ScriptedStore(honours=False), ScriptedStore(honours=False)
    for store, stream in zip(stores, (USAGE, SPECIMEN), strict=True):
        await drained(bench, start(store, stream, run=False))
    assert stores[0].keys == [f"{HOUR}.{HOST}.{parsed[0].unique}.jsonl.gz"]
    assert f".{identity}." in stores[1].keys[0]
    assert empty(bench)


async def test_a_key_of_an_earlier_attempt_is_looked_at_first(start: Start, bench: Bench) -> None:
    """A batch that is at its numbered key already is not stored a second time under its id."""
    bench.spool.renumber(bench.seal(b"1"), KeyNumber(2))
    store = ScriptedStore(honours=False, holds=True)
    await drained(bench, start(store, run=False))
    assert store.puts == []
    assert store.asked[0].endswith(f"{HOUR}.{HOST}.2.jsonl.gz")
    assert empty(bench)


async def test_who_may_not_look_goes_on(start: Start, bench: Bench) -> None:
    """Where the role may not look, the key with the id is used all the same, and stays in the name for a retry."""
    bench.seal(b"1")
    store = ScriptedStore(Transient("away"), honours=False, holds=Refused("may not look"))
    await drained(bench, start(store, run=False))
    assert len(store.asked) == 1
    assert len(set(store.keys)) == 1
    assert len(store.puts) == 2
    assert empty(bench)


async def test_only_a_confirmation_retires(start: Start, bench: Bench) -> None:
    """A key that another object has is no confirmation, whatever key that is: the data stays."""
    bench.seal(b"1")
    store = ScriptedStore(*[TAKEN] * 100, honours=False)
    lane = start(store, retry=RetryPolicy(HOURS_S, HOURS_S, HOURS_S))
    await store.tried(1)
    await until(lambda: not lane._running)
    assert not empty(bench)
    assert bench.metric("delivered_total", stream="usage") == 0


# --- draining ----------------------------------------------------------------------------------------------------


async def test_a_drain_with_nothing_to_do_ends(start: Start, bench: Bench) -> None:
    """A lane that waits for something new ends when it is told that nothing will come."""
    lane = start(ScriptedStore(), run=False)
    running = asyncio.create_task(lane.run())
    await turns()
    lane.drain()
    async with asyncio.timeout(WAIT_S):
        await running


async def test_a_drain_sends_everything(start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that waits is sent, however many looks it takes, before the lane ends."""
    monkeypatch.setattr("gateway.spool.spool.directories.PICKED_FILES", 3)
    for number in range(20):
        bench.file(b"%d" % number)
    store = ScriptedStore(*[Transient("away")] * 3)
    await drained(bench, start(store, SPECIMEN, run=False))
    assert empty(bench)
    assert len(store.puts) == 23


async def test_a_drain_gives_up_on_a_refusal(start: Start, bench: Bench) -> None:
    """Where a person has to change something, the stop tries a few times and does not wait for that; the data stays."""
    for number in range(5):
        bench.seal(b"%d" % number)
    store = ScriptedStore(*[Refused("no")] * 100)
    await drained(bench, start(store, parallel=1, run=False))
    assert len(store.puts) == lane_module.DRAIN_REFUSALS
    assert len(bench.spool.deliverable(USAGE, set())) == 5


async def test_a_drain_goes_on_past_one_refusal(start: Start, bench: Bench) -> None:
    """A single refusal may concern a single thing: the others are sent all the same."""
    for number in range(5):
        bench.seal(b"%d" % number)
    store = ScriptedStore(Refused("no"))
    await drained(bench, start(store, parallel=1, run=False))
    assert empty(bench)


async def test_a_drain_tries_once_what_was_held(start: Start, bench: Bench) -> None:
    """What the store refuses by itself is tried once more and does not keep the lane from ending."""
    body = bench.file(b"abc")
    store = ScriptedStore(ObjectRefused("a 400"), ObjectRefused("a 400"), ObjectRefused("a 400"))
    lane = start(store, SPECIMEN, retry=RetryPolicy(HOURS_S, HOURS_S, HOURS_S), run=False)
    running = asyncio.create_task(lane.run())
    await store.tried(1)
    await until(lambda: not lane._running)
    lane.drain()
    async with asyncio.timeout(WAIT_S):
        await running
    assert len(store.puts) == 2
    assert body.exists()


async def test_a_drain_does_not_wait_out_a_pause(start: Start, bench: Bench) -> None:
    """A store that was away for long is tried at once when the gateway stops."""
    bench.seal(b"1")
    store = ScriptedStore(Transient("away"))
    lane = start(store, retry=RetryPolicy(HOURS_S, HOURS_S, HOURS_S))
    await until(lambda: lane.trouble is not None)
    lane.drain()
    await until(lambda: empty(bench))


async def test_a_cancelled_lane_stops_what_it_is_sending(start: Start, bench: Bench) -> None:
    """When the time for draining is over nothing goes on in the background, and all of it waits for the next start."""
    bench.seal(b"1")
    store = ScriptedStore()
    store.gate = asyncio.Event()
    lane = start(store, run=False)
    running = asyncio.create_task(lane.run())
    await store.tried(1)
    running.cancel()
    async with asyncio.timeout(WAIT_S):
        await asyncio.wait([running])
    assert running.cancelled()
    assert store.running == 0
    assert len(bench.spool.deliverable(USAGE, set())) == 1


async def test_a_claim_that_is_sealed_meanwhile_is_found(start: Start, bench: Bench) -> None:
    """What is sealed while a lane is sending is delivered in its turn."""
    bench.seal(b"1")
    store = ScriptedStore()
    store.gate = asyncio.Event()
    lane = start(store, parallel=1)
    await store.tried(1)
    bench.report(b"2")
    claimed = bench.spool.claim(USAGE, 1 << 30, HOST)
    assert claimed is not None
    archive = bench.spool.new_tmp()
    aggregate(claimed.sources(), archive, 1)
    bench.spool.seal(claimed, archive)
    lane.wake()
    store.gate.set()
    await until(lambda: empty(bench))
    assert store.keys == [f"{HOUR}.{HOST}.jsonl.gz", f"{HOUR}.{HOST}.2.jsonl.gz"]


@pytest.mark.parametrize("step_s", [0.11, 0.17, 0.23, 0.3, 0.45, 0.7])
async def test_a_pause_ends_whenever_the_clock_is_read(start: Start, bench: Bench, step_s: float) -> None:
    """A pause that is over between two looks at the clock is followed by an attempt, and not by sleep for ever."""
    bench.seal(b"1")
    now_s = 0.0

    def running_clock() -> float:
        nonlocal now_s
        now_s += step_s
        return now_s

    start(ScriptedStore(Transient("away")), retry=RetryPolicy(1.0, 1.0, 1.0), monotonic=running_clock)
    await until(lambda: empty(bench))
