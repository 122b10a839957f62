from __future__ import annotations

import gzip
import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from reliability.soak.ledger import HashLedger
from reliability.soak.load import SoakLoad
from reliability.soak.log import read_and_shorten
from reliability.soak.outages import KINDS
from reliability.soak.plan import Deed, Pace, Step, calm, killing, pace_of
from reliability.soak.report import Report
from reliability.soak.requests import How, Request, heavy, light
from reliability.soak.samples import FIGURES, MIB, Sample, growths, kind_of, thirds
from reliability.soak.summary import render

from testkit.buckets import Buckets, StoredObject
from testkit.gateway_process import Gateway
from testkit.ledger import Account, Fate

# --- the plan ----------------------------------------------------------------------------------------------------


Plan = Callable[[random.Random, Pace, Sequence[str]], Iterator[Step]]


def steps(plan: Plan, seed: int, count: int = 300) -> list[Step]:
    """The first steps of a plan for two minutes."""
    return list(itertools.islice(plan(random.Random(seed), pace_of(2), KINDS), count))


@pytest.mark.parametrize("plan", [killing, calm])
def test_a_seed_gives_the_same_steps(plan: Plan) -> None:
    """And another seed gives others."""
    assert steps(plan, 1) == steps(plan, 1)
    assert steps(plan, 1) != steps(plan, 2)


@pytest.mark.parametrize("plan", [killing, calm])
def test_there_is_one_outage_at_a_time(plan: Plan) -> None:
    """It ends before the next one and before a quiet point, which would else never come."""
    away = False
    for step in steps(plan, 3):
        if step.deed in (Deed.OUTAGE, Deed.QUIET):
            assert not away
        away = step.deed is Deed.OUTAGE or (away and step.deed is not Deed.RECOVERY)


def test_every_kind_comes() -> None:
    """Every way to die, also while the store is away; every outage in the calm phase too, in which nothing dies."""
    killed = steps(killing, 4)
    deeds = [step.deed for step in killed]
    assert set(deeds) == set(Deed)
    assert (Deed.OUTAGE, Deed.KILL) in itertools.pairwise(deeds)
    for plan in (killing, calm):
        assert {step.outage for step in steps(plan, 4)} == {"", *KINDS}
    assert {step.deed for step in steps(calm, 4)} == {Deed.OUTAGE, Deed.RECOVERY, Deed.QUIET}


def test_a_long_soak_has_few_batches_in_an_hour() -> None:
    """However long it takes; and a short one comes to its quiet points soon."""
    assert pace_of(30).interval_s == 5
    assert pace_of(2).interval_s == 1
    assert (pace_of(2).killing_s, pace_of(2).calm_s) == (30, 60)


# --- what is sent ------------------------------------------------------------------------------------------------


def test_all_that_is_sent_is_unlike_everything_else() -> None:
    """Of every client, whatever it is accounted under."""
    sent = [*itertools.islice(light(0, random.Random(1)), 1500), *itertools.islice(light(1, random.Random(1)), 500)]
    sent += itertools.islice(heavy(2, random.Random(1)), 3)
    contents = [content for request in sent for content in request.contents]
    assert len(set(contents)) == len(contents)
    kinds = {request.kind for request in sent}
    assert {"small report", "NDJSON", "gzip-encoded NDJSON", "specimen in parts", "refused: too large"} <= kinds


def load(ledger: HashLedger) -> SoakLoad:
    """Clients that are not started."""
    return SoakLoad(Gateway(Path("nowhere"), {}), ledger, 1, 1.0)


@pytest.mark.parametrize(
    ("expected", "how", "status", "fate"),
    [
        (204, How.WHOLE, 204, Fate.ACKNOWLEDGED),
        (204, How.WHOLE, 503, Fate.REFUSED),
        (204, How.WHOLE, 0, Fate.UNANSWERED),
        (204, How.ABANDONED, 0, Fate.REFUSED),
        (400, How.WHOLE, 0, Fate.REFUSED),
    ],
)
def test_what_cannot_be_taken_must_not_be_there(expected: int, how: How, status: int, fate: Fate) -> None:
    """Answered or not; what was fit to be taken may be there if it was not answered."""
    ledger = HashLedger()
    clients = load(ledger)
    clients._note(Request("a kind", "usage", b"", (b"a line",), how=how, expected=expected), status)
    assert ledger.requests(fate) == 1
    assert clients.wrong == []


def test_another_answer_than_expected_is_wrong() -> None:
    """A bad request that is taken, and a good one that is not, but for want of time."""
    clients = load(HashLedger())
    for expected, status in ((400, 204), (204, 500), (204, 503)):
        clients._note(Request("a kind", "usage", b"", (b"%d" % status,), expected=expected), status)
    assert clients.wrong == ["a kind was answered with 204", "a kind was answered with 500"]


# --- the account -------------------------------------------------------------------------------------------------


class FakeBuckets(Buckets):
    """Buckets with a batch of usage reports and some specimens."""

    def __init__(self, lines: list[bytes], files: list[bytes]) -> None:
        self.usage, self.error, self.specimen = "usage", "error", "specimen"
        batch = gzip.compress(b"".join(line + b"\n" for line in lines))
        self._held = {"usage": {"batch": batch}, "specimen": {str(number): body for number, body in enumerate(files)}}

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        return list(self._held.get(bucket, {}))

    def get(self, bucket: str, key: str) -> StoredObject:
        return StoredObject(key, self._held[bucket][key], {}, {})


def test_the_account_is_by_content() -> None:
    """What is lost, doubled, there though it was refused, or was never sent is counted, and what is right is not."""
    ledger = HashLedger()
    ledger.note("usage", [b"there", b"lost", b"twice"], Fate.ACKNOWLEDGED)
    ledger.note("usage", [b"refused"], Fate.REFUSED)
    ledger.note("usage", [b"perhaps"], Fate.UNANSWERED)
    ledger.note("specimen", [b"file"], Fate.ACKNOWLEDGED)
    account = ledger.account(FakeBuckets([b"there", b"twice", b"twice", b"refused", b"perhaps", b"strange"], [b"file"]))
    examples, account.examples = account.examples, []
    assert account == Account(4, 3, lost=1, doubled=1, there_though_refused=1, never_sent=1)
    assert len(examples) == 4
    assert ledger.account(FakeBuckets([b"there", b"twice", b"lost"], [b"file"])).is_right


# --- what the gateway takes --------------------------------------------------------------------------------------


def sample(memory: float, descriptors: int = 20, threads: int = 12) -> Sample:
    """A sample of a gateway at rest."""
    return Sample(0, int(memory * MIB), int(memory * MIB), threads, {"socket": descriptors}, 0, 0)


def test_what_comes_to_its_size_is_flat() -> None:
    """What grows in the first third alone, and a single outlier later on, are no growth."""
    flat = [sample(60, 15, 8), sample(65), sample(70), *[sample(71)] * 5, sample(90)]
    assert growths(flat) == []
    assert thirds(flat, FIGURES[0]) == (65 * MIB, 71 * MIB, 71 * MIB)


@pytest.mark.parametrize(
    ("grows", "told"),
    [
        (lambda number: sample(60 + 2 * number), "resident memory grew .* 68.0 MiB to 74.0 MiB"),
        (lambda number: sample(60, 20 + number), "open descriptors grew .* 24 to 27, .*'socket': 23"),
        (lambda number: sample(60, 20, 12 + number), "threads grew .* 16 to 19"),
    ],
)
def test_what_grows_is_told(grows: Callable[[int], Sample], told: str) -> None:
    """By name, with the figures."""
    [fault] = growths([grows(number) for number in range(9)])
    assert re.search(told, fault)


def test_too_few_samples_tell_nothing() -> None:
    """And that is a fault of the soak."""
    assert "too few" in growths([sample(60)] * 5)[0]


def test_descriptors_have_kinds() -> None:
    """As their links in /proc say."""
    assert kind_of("socket:[123]") == "socket"
    assert kind_of("anon_inode:[eventpoll]") == "eventpoll"
    assert kind_of("/srv/spool/.lock") == "file"


def test_a_log_is_read_and_shortened(tmp_path: Path) -> None:
    """What should never be said is found; a torn segment is counted; lines of requests are taken out."""
    log = tmp_path / "gateway.1.log"
    torn = '{"event":"quarantined","file":"/spool/quarantine/usage.1.jsonl.open.rest"}'
    odd = '{"event":"quarantined","file":"/spool/quarantine/usage.x"}'
    defect = '{"event":"defect","where":"delivery"}'
    log.write_text(f'{{"event":"request done"}}\n{torn}\n{odd}\n{defect}\n{{"event":"object delivered"}}\n')
    assert read_and_shorten(log) == ([odd, defect], 1)
    assert log.read_text().splitlines() == [torn, odd, defect, '{"event":"object delivered"}']


def test_the_summary_has_all_figures() -> None:
    """And says whether it has held."""
    report = Report(seed=7, minutes=2, seconds=120, calm=[sample(60)] * 9, account=Account(acknowledged=1234, delivered=1234))
    report.sent = Counter({("small report", 204): 1000, ("small report", 0): 3})
    text = render(report, "0123abc")
    for part in ("Commit 0123abc, seed 7, 2.0 minutes.\nIt has held.", "1,234", "204: 1,000", "60.0 MiB"):
        assert part in text
    report.faults.append("a fault")
    assert "**It has not held**" in render(report, "0123abc")
