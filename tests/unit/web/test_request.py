"""What a client wrote into the head of its request is read as it was meant, and nothing that it wrote is trusted."""

from __future__ import annotations

import re

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.core.errors import BadRequest
from gateway.web.request import request_id_of, target_of, uri_of


@pytest.mark.parametrize(
    ("query", "uri"),
    [
        ("uri=a", "a"),
        ("x=1&uri=a&uri=b", "a"),
        ("uri=&uri=b", "b"),
        ("uri=a+b%2Bc", "a b+c"),
        ("uri=a=b?c", "a=b?c"),
        ("uri=%E9%95%B7%E3%81%84", "長い"),
        ("uri=%ff%C3", "\udcff\udcc3"),
        ("uri=%zz%", "%zz%"),
        ("uri=a\udcffb", "a\udcffb"),
        ("uri=%00", "\0"),
    ],
)
def test_the_uri_is_read_as_a_form_is(query: str, uri: str) -> None:
    """The first uri that is not empty counts, decoded as forms are; bytes that are not UTF-8 are surrogate escapes."""
    assert uri_of(query) == uri


@pytest.mark.parametrize("query", ["", "uri", "uri=&other=1", "URI=a"])
def test_a_missing_uri_is_said(query: str) -> None:
    """A query without a uri, or with an empty one, is an error that says how it is given."""
    with pytest.raises(BadRequest, match=re.escape("?uri=")):
        uri_of(query)


@pytest.mark.parametrize(
    ("sent", "target"),
    [
        ("/usage", "/usage"),
        ("/specimen?uri=http://a/b", "/specimen?uri=http://a/b"),
        ("http://gateway:8080/usage?a=/b", "/usage?a=/b"),
        ("http://gateway:8080", ""),
        ("gateway:8080", ""),
        ("*", ""),
    ],
)
def test_a_target_is_a_path_and_a_query(sent: str, target: str) -> None:
    """The target is what stands behind the host, if there is one; a target without a path is none."""
    assert target_of(make_mocked_request("PUT", sent)) == target


@pytest.mark.parametrize("given", ["a", "A" * 128, "1.2:3/4+5=6@7_8"])
def test_a_sane_request_id_is_kept(given: str) -> None:
    """The client's own request id is the request's."""
    assert request_id_of(given) == given


@pytest.mark.parametrize("given", [None, "", "a b", "a\n", "A" * 129, "\udcff"])
def test_other_request_ids_are_ours(given: str | None) -> None:
    """Where a client gave no sane id each request gets one of its own."""
    found = {request_id_of(given) for _ in range(3)}
    assert len(found) == 3
    assert all(re.fullmatch("[0-9a-f]{24}", each) for each in found)
