"""A request names one user, or it is refused: no client speaks for another behind a proxy that vouches for its own."""

from __future__ import annotations

import re

import pytest

from gateway.access.identify import user_of
from gateway.core.errors import BadRequest, Unauthorized


@pytest.mark.parametrize(
    ("tokens", "authorizations", "user"),
    [
        (["machine-1"], [], "machine-1"),
        ([], ["Bearer machine-1"], "machine-1"),
        ([], ["bEARER  machine-1 "], "machine-1"),
        (["one"], ["Bearer one"], "one"),
        (["one"], ["Basic bWFjaGluZQ=="], "one"),
        (["one"], ["Bearer "], "one"),
        ([""], ["Bearer other"], "other"),
        (["../../etc/passwd"], [], "../../etc/passwd"),
        (["日本"], ["Bearer 日本"], "日本"),
        (["a\udcff%"], [], "a\udcff%"),
        ([], ["Bearer \udcc3("], "\udcc3("),
        (["u" * 4000], [], "u" * 4000),
    ],
)
def test_a_token_names_the_user(tokens: list[str], authorizations: list[str], user: str) -> None:
    """The token is the user's name, from either field; bytes that are not UTF-8 stay what they are."""
    assert user_of(tokens, authorizations) == user


@pytest.mark.parametrize(
    ("tokens", "authorizations"),
    [
        ([], []),
        ([""], []),
        ([""], [""]),
        *(([], [value]) for value in ("", "Bearer", "Bearer ", "Bearer    ", "Basic bWFjaGluZQ==", "machine-1")),
    ],
)
def test_no_token_is_refused(tokens: list[str], authorizations: list[str]) -> None:
    """A request that names no user is refused, with the fields that would name one."""
    with pytest.raises(Unauthorized, match="USER_TOKEN"):
        user_of(tokens, authorizations)


@pytest.mark.parametrize(
    ("tokens", "authorizations", "named"),
    [
        (["one", "one"], [], "2 fields USER_TOKEN"),
        (["one", ""], [], "2 fields USER_TOKEN"),
        (["one", "two", "three"], ["Bearer one"], "3 fields USER_TOKEN"),
        ([], ["Bearer one", "Bearer one"], "2 fields Authorization"),
        (["one"], ["Basic bWFjaGluZQ==", "Bearer one"], "2 fields Authorization"),
        (["one"], ["Bearer two"], "USER_TOKEN and Authorization name different users"),
        (["one"], ["bearer ONE"], "USER_TOKEN and Authorization name different users"),
        (["a%80"], ["Bearer a\udc80"], "USER_TOKEN and Authorization name different users"),
    ],
)
def test_two_identities_are_refused(tokens: list[str], authorizations: list[str], named: str) -> None:
    """More than one identity is refused with the fields that disagree, and neither of them is repeated."""
    with pytest.raises(BadRequest, match=re.escape(named)) as refused:
        user_of(tokens, authorizations)
    assert "USER_TOKEN" in str(refused.value)
    assert "Authorization" in str(refused.value)
    assert "one" not in str(refused.value).replace("one of them", "")
