"""Every error that a client may meet has one answer, in one form."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from gateway.core import errors
from gateway.core.errors import BadRequest, GatewayError, Refused, Transient
from gateway.web.responses import STATUSES, response_for


def leaves(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    """The error and everything that is a kind of it."""
    yield kind
    for below in kind.__subclasses__():
        yield from leaves(below)


# What a client is never told: the gateway does not start, a store is what failed, or there is no true answer.
NOT_FOR_CLIENTS = (errors.ConfigError, errors.StartError, errors.StoreError, errors.Unanswerable)


def test_every_error_of_a_request_has_a_status() -> None:
    """Whatever the gateway raises at a client has its status in the table, and no entry hides another behind it."""
    for kind in leaves(GatewayError):
        if kind is not GatewayError and not issubclass(kind, NOT_FOR_CLIENTS):
            assert any(issubclass(kind, listed) for listed, _, _ in STATUSES), kind
    listed = [kind for kind, _, _ in STATUSES]
    assert not any(issubclass(later, earlier) for at, earlier in enumerate(listed) for later in listed[at + 1 :])


@pytest.mark.parametrize("error", [Refused("no"), Transient("away")])
def test_an_error_that_is_not_a_clients_is_no_answer(error: GatewayError) -> None:
    """An error of a store is not turned into an answer."""
    with pytest.raises(type(error)):
        response_for(error)


def test_an_error_says_when_to_come_again() -> None:
    """Every 503 says when to come again, other refusals do not, and text that is not UTF-8 can be told."""
    for kind, status, _ in STATUSES:
        response = response_for(kind("why \udcff"))
        assert ("Retry-After" in response.headers) == (status == 503)
        assert isinstance(response.body, bytes)
        assert json.loads(response.body)["error"]["message"] == "why %FF"
    assert response_for(BadRequest("")).status == 400
