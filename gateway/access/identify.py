"""The user that a request names."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.errors import BadRequest, Unauthorized

BEARER = "bearer "


def user_of(tokens: Sequence[str], authorizations: Sequence[str]) -> str:
    """The user whom a request names, for now the token itself; bytes of it that are not UTF-8 are surrogate escapes.

    A proxy that sets one of the fields vouches for it: another one beside it must not be believed in its place.

    Args:
        tokens: the values of all fields USER_TOKEN.
        authorizations: likewise of Authorization.

    Raises:
        Unauthorized: nobody is named.
        BadRequest: more than one may be meant.
    """
    if len(tokens) > 1:
        raise _too_many("USER_TOKEN", len(tokens))
    if len(authorizations) > 1:
        raise _too_many("Authorization", len(authorizations))
    token = tokens[0] if tokens else ""
    bearer = _bearer(authorizations[0]) if authorizations else ""
    if token and bearer and token != bearer:
        raise BadRequest("USER_TOKEN and Authorization name different users; send one of them, or the same name in both")
    if not (token or bearer):
        raise Unauthorized("name the user in the header USER_TOKEN, or as 'Authorization: Bearer NAME'")
    return token or bearer


def _too_many(field: str, count: int) -> BadRequest:
    return BadRequest(f"the request has {count} fields {field}; name the user once, in USER_TOKEN or Authorization")


def _bearer(authorization: str) -> str:
    return authorization[len(BEARER) :].strip() if authorization[: len(BEARER)].lower() == BEARER else ""
