"""Texts, hours and instants of every kind, for tests of what names and keys are made of."""

from __future__ import annotations

from datetime import datetime

from hypothesis import strategies as st

from gateway.core.clock import NANOSECONDS

# What a header or a uri can hold: any character, and bytes that were not UTF-8 as surrogate escapes.
escapes = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"])
nasty = st.sampled_from(["/", ".", "..", "~", "%", "\0", "\n", "\x7f", " ", "%2F", "é", "日本", "\\", "jsonl.open", ".body"])


def decoded(text: str) -> str:
    """Give the text as decoding of its bytes gives it: a run of escapes that is UTF-8 would have been a character."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


texts = st.lists(nasty | escapes | st.characters(exclude_categories=["Cs"]), max_size=60).map("".join).map(decoded)
long_texts = st.tuples(texts, st.integers(1, 80)).map(lambda pair: decoded(pair[0] * pair[1]))
hours = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)).map(lambda moment: f"{moment:%Y%m%d%H}")  # noqa: DTZ001 (hypothesis wants naive bounds)
uniques = st.binary(min_size=16, max_size=16)
instants = st.integers(0, 9_000_000_000 * NANOSECONDS)
