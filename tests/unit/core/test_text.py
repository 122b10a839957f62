"""Text of clients is harmless where it is encoded, fits where it is cut, and can be had back."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.core.text import decode, encode, is_readable, readable
from testkit.texts import long_texts, texts

FORBIDDEN = re.compile(r"[/.\x00-\x1f\x7f-\U0010ffff]")


@given(texts)
@example("../../etc/passwd")
@example("\udc80\udcff")
def test_encoded_text_is_harmless_and_whole(text: str) -> None:
    """Encoding leaves no slash, dot, tilde, control byte or byte beyond ASCII, and decoding gives the text again."""
    encoded = encode(text)
    assert not FORBIDDEN.search(encoded)
    assert "~" not in encoded
    assert decode(encoded) == text


@given(long_texts, st.integers(40, 300))
def test_cut_text_fits(text: str, room: int) -> None:
    """A text that is too long is cut to its room, harmless as before, and no escape is left torn."""
    encoded = encode(text, room)
    assert len(encoded) <= room
    assert not FORBIDDEN.search(encoded)
    kept = encoded.partition("~")[0]
    assert re.fullmatch(r"(?:[^%]|%[0-9A-F]{2})*", kept)


@given(long_texts, long_texts)
@example("x" * 300 + "a", "x" * 300 + "b")
@example("日" * 300, "日" * 301)
def test_distinct_texts_stay_distinct(one: str, other: str) -> None:
    """Two texts never share a name, not even where only their last characters differ and both are cut."""
    assume(one != other)
    assert encode(one, 100) != encode(other, 100)


@given(texts)
@example("a\udcffb")
@example("a\udcff%41")
def test_readable_text_can_be_written_anywhere(text: str) -> None:
    """Text stays as it is; with bytes that are not UTF-8 it is percent-encoded, in a way that can be undone."""
    shown = readable(text)
    shown.encode()
    if is_readable(text):
        assert shown == text
    else:
        assert unquote_to_bytes(shown) == text.encode("utf-8", "surrogateescape")


def test_a_surrogate_that_escapes_nothing_is_readable() -> None:
    """A text of a store may hold what no text can: half of a pair, from an escape in its JSON."""
    assert readable("a\ud800b") == "a%ED%A0%80b"
