"""The envelope names the sender and the instant, in ASCII, and says so where a name is encoded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import TooLarge
from gateway.formats.envelope import ENVELOPED_CHUNK_BYTES, Envelope
from testkit.spool import START_NS

JSON_LINES = st.lists(st.sampled_from([b"1\n", b'{"a":[1,2]}\n', b'"' + b"y" * 60 + b'"\n']), min_size=1, max_size=8)


def test_an_envelope_is_ascii() -> None:
    """It names the user and the instant, in ASCII whatever the user is called."""
    around = Envelope('"\\日\n', START_NS + 5)
    expected = b'{"user":"\\"\\\\\\u65e5\\n","received_at":"2026-11-21T13:59:00.000000005Z","report":1}\n'
    assert around.around([b"1\n"]) == [expected]
    assert around.added_bytes == len(expected) - len(b"1\n")


def test_an_envelope_says_that_its_user_is_encoded() -> None:
    """A user who is not UTF-8 is percent-encoded, which the envelope says: a literal escape is another user."""
    (of_bytes,), (of_text,) = (Envelope(user, START_NS).around([b"1\n"]) for user in ("a\udc80%", "a%80%25"))
    assert of_bytes.startswith(b'{"user":"a%80%25","encoded":"user","received_at":')
    assert of_text.startswith(b'{"user":"a%80%25","received_at":')


@given(lines=JSON_LINES, chunk=st.integers(1, 100))
def test_lines_in_chunks_get_the_same(lines: list[bytes], chunk: int) -> None:
    """Wherever chunks are cut, each line has its envelope."""
    around, text = Envelope("u", START_NS), b"".join(lines)[:-1]
    chunks = [text[at : at + chunk] for at in range(0, len(text), chunk)]
    assert b"".join(around.around_all(chunks)) == b"".join(around.around(lines))
    assert [json.loads(line)["user"] for line in around.around(lines)] == ["u"] * len(lines)


def test_what_grows_past_the_limit_is_refused() -> None:
    """The limit is of what is kept, with the envelopes."""
    around = Envelope("u", START_NS)
    around.check(10, 2, 10 + 2 * around.added_bytes)
    with pytest.raises(TooLarge, match="with an envelope around each report"):
        around.check(10, 2, 9 + 2 * around.added_bytes)


@pytest.mark.parametrize(
    ("user", "expected"), [("u", 64), ("u" * (ENVELOPED_CHUNK_BYTES // 4), 7), ("u" * (3 * ENVELOPED_CHUNK_BYTES), 1)]
)
def test_chunks_are_as_small_as_their_envelopes_are_large(user: str, expected: int) -> None:
    """Of lines of one byte a chunk is half lines: what comes out of it is bounded."""
    assert Envelope(user, START_NS).chunk_bytes(64) == expected
