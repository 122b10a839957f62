"""What hostile clients send is what it claims to be, and a wrong answer to it is seen."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable

import pytest
from reliability.hostile import bodies as hostile_bodies
from reliability.hostile import wire as hostile_wire
from reliability.hostile.bench import declared_statuses
from reliability.hostile.cases import HEALTH, Case, Sent, bad_json, fates, faults, good, is_described
from reliability.hostile.clients import Heard, answers_in, pieces

from testkit.ledger import Fate

KEPT = b"HTTP/1.1 204 No Content\r\nX-Request-ID: a\r\n\r\n"
BODY = b'{"error":{"code":"bad_request","message":"no"}}'
REFUSED = b"HTTP/1.1 400 Bad Request\r\nX-Request-ID: b\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
TABLES = (
    hostile_wire.half_closed,
    hostile_wire.pipelined,
    hostile_wire.chunked,
    hostile_wire.heads,
    hostile_bodies.documents,
)


def case(*answers: tuple[int, ...], sent: tuple[Sent, ...] = (), stays_open: bool = False) -> Case:
    """A case with these right answers."""
    return Case("it", sent or (good("a"),), answers, stays_open=stays_open)


# --- what comes back -----------------------------------------------------------------------------------------------


def test_answers_are_read_one_after_the_other() -> None:
    """Answers with and without a body are read, and interim ones are left out."""
    heard, rest = answers_in(b"HTTP/1.1 100 Continue\r\n\r\n" + KEPT + REFUSED + KEPT)
    assert [one.status for one in heard] == [204, 400, 204]
    assert heard[1].body == BODY
    assert rest == b""


@pytest.mark.parametrize("cut", [REFUSED[:-1], REFUSED[:20], b"what is this\r\n\r\n"])
def test_what_is_no_whole_answer_is_left(cut: bytes) -> None:
    """What follows the last whole answer is given back."""
    heard, rest = answers_in(KEPT + cut)
    assert ([one.status for one in heard], rest) == ([204], cut)


@pytest.mark.parametrize(
    ("one", "described"),
    [
        (Heard(204, {"x-request-id": "a"}, b""), True),
        (Heard(400, {"x-request-id": "a"}, BODY), True),
        (Heard(204, {}, b""), False),
        (Heard(400, {"x-request-id": "a"}, b"Bad Request"), False),
        (Heard(400, {"x-request-id": "a"}, b'{"error":"no"}'), False),
    ],
)
def test_answers_have_a_form(one: Heard, described: bool) -> None:
    """An answer without its id, and an error that is not as described, are seen."""
    assert is_described(one) is described


# --- how it is judged ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "statuses", "right"),
    [
        (case((204,)), [204], True),
        (case((204,)), [], False),
        (case((204,)), [204, 204], False),
        (case((204,)), [400], False),
        (case((), (400,)), [], True),
        (case((204,), stays_open=True), [204, 200], True),
        (case((204,), stays_open=True), [204], False),
    ],
)
def test_wrong_answers_are_seen(made: Case, statuses: list[int], right: bool) -> None:
    """Only the statuses of a case are right, in their order, and what asks after it has to be answered too."""
    heard = [Heard(status, {"x-request-id": "a"}, BODY if status >= 400 else b"") for status in statuses]
    assert (faults(made, heard, b"") == []) is right
    assert faults(made, heard, b"more") != []


def test_each_request_has_the_answer_of_its_place() -> None:
    """The fate of each request is that of the answer in its place; of what is no request nothing may be there."""
    garbage = Sent(b"GARBAGE", may_be_taken=False)
    made = case(sent=(good("a"), bad_json("b"), garbage, good("c")))
    assert [fate for _, fate in fates(made, [204, 400, 400])] == [
        Fate.ACKNOWLEDGED,
        Fate.REFUSED,
        Fate.REFUSED,
        Fate.UNANSWERED,
    ]


def test_a_defect_is_no_declared_status() -> None:
    """What may be answered comes from the description of the API, without 500."""
    assert {204, 400, 408, 413, 503, 507} <= declared_statuses()
    assert not {500, 502, 504} & declared_statuses()


# --- what is sent --------------------------------------------------------------------------------------------------


def test_pieces_are_the_whole() -> None:
    """However something is cut, it is sent whole and in order, and it is cut in more than one way."""
    ways = set()
    for seed in range(30):
        cut = list(pieces(REFUSED, random.Random(seed)))
        assert b"".join(cut) == REFUSED
        ways.add(len(cut))
    assert {1, len(REFUSED)} < ways
    assert b"".join(pieces(b"x", random.Random(0))) == b"x"


@pytest.mark.parametrize("table", TABLES)
def test_contents_are_unlike_all_others(table: Callable[[str], list[Case]]) -> None:
    """No line or file stands in two requests, within a round and across rounds: else a double would not be one."""
    made = [*table("r0"), *table("r1")]
    found = Counter(content for one in made for sent in one.sent for content in sent.contents)
    assert [content for content, count in found.items() if count > 1] == []
    assert len({one.name for one in made}) >= len(made) // 4


@pytest.mark.parametrize("table", TABLES)
def test_what_is_to_be_kept_is_in_the_request(table: Callable[[str], list[Case]]) -> None:
    """A case that has to be acknowledged says what is to be found for it, and one that stays open asks after it."""
    for one in table("r"):
        assert one.data.endswith(HEALTH) is one.stays_open
        for number, sent in enumerate(one.sent):
            if all(len(row) > number and row[number] == 204 for row in one.answers):
                assert sent.contents
                assert sent.may_be_taken


@pytest.mark.parametrize("coding", hostile_bodies.CODERS)
def test_a_bomb_is_small(coding: str) -> None:
    """A bomb is a fraction of what it decodes to, which is far more than is allowed."""
    assert hostile_bodies.BOMB_BYTES > 10 * hostile_bodies.LIMIT
    assert len(hostile_bodies.bomb(coding)) < hostile_bodies.LIMIT // 10


def test_a_bomb_decodes() -> None:
    """A bomb is a sound body, so that nothing but its size speaks against it."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    size, data = 0, hostile_bodies.bomb("gzip")
    while data:
        size += len(inflater.decompress(data, 1 << 20))
        data = inflater.unconsumed_tail
    assert size + len(inflater.flush()) == hostile_bodies.BOMB_BYTES
