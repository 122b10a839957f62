"""What the gateway uses of aiohttp's private names is there, and stands in two files."""

from __future__ import annotations

import ast
import asyncio
import inspect
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web, web_protocol

import gateway

PACKAGE = Path(gateway.__file__).parent
# Where they are used: connections of clients, and calls to a store.
FENCE = ("web/connection.py", "aws/session.py")
OF_A_CONNECTION = (
    *("_cache", "_close", "_current_request", "_force_close", "_keepalive_timeout", "_lingering_time", "_loop"),
    *("_max_msg_queue_size", "_messages", "_next_keepalive_close_time", "_paused", "_process_keepalive", "_read_bufsize"),
    *("_request_count", "_request_in_progress", "_task_handler", "_waiter"),
)
OF_A_SERVER = ("_connections", "_make_request")
OF_A_SESSION = ("_request_class", "_retry_connection")
OF_A_REQUEST = ("_continue",)
# Set by a method of its own, not by the constructor.
SET_LATER = {"_parser"}


def remedy(owner: str, name: str) -> str:
    """What to do where a name is gone."""
    return (
        f"aiohttp {aiohttp.__version__} has no {owner}.{name} any more: read what took its place, mend {' or '.join(FENCE)}, "
        "try the tests of web and stores, then raise the bound in pyproject.toml"
    )


async def test_connections_have_the_names() -> None:
    """A connection and a server of aiohttp have every private name that is used of them."""

    async def handler(_: web.BaseRequest) -> web.Response:
        return web.Response()

    server = web.Server(handler)
    connection = web_protocol.RequestHandler(server, loop=asyncio.get_running_loop())
    for name in OF_A_CONNECTION:
        assert hasattr(connection, name), remedy("RequestHandler", name)
    for name in OF_A_SERVER:
        assert hasattr(server, name), remedy("Server", name)
    assert hasattr(web_protocol, "_ErrInfo"), remedy("web_protocol", "_ErrInfo")
    assert list(inspect.signature(server._make_request).parameters) == ["message", "payload", "protocol", "writer", "task"]


async def test_sessions_have_the_names() -> None:
    """A session of aiohttp and a request that it makes have every private name that is used of them."""
    async with aiohttp.ClientSession() as session:
        for name in OF_A_SESSION:
            assert hasattr(session, name), remedy("ClientSession", name)
    for name in OF_A_REQUEST:
        assert hasattr(aiohttp.ClientRequest, name), remedy("ClientRequest", name)


def private_names(path: Path, made_in: tuple[str, ...] = ()) -> set[str]:
    """The attributes with a leading underscore that a file uses and does not make.

    Args:
        path: of the file.
        made_in: the functions in which a class makes attributes of its own; all of them if none is named.
    """
    tree = ast.parse(path.read_text("utf-8"))
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    defined |= {
        target.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (not made_in or node.name in made_in)
        for target in ast.walk(node)
        if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store)
    }
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in used - defined if name.startswith("_") and not name.startswith("__")}


def test_every_name_is_listed() -> None:
    """What the two files take of aiohttp is what the lists above say, and what they say is used."""
    used = {name for file in FENCE for name in private_names(PACKAGE / file, ("__init__",))}
    listed = {*OF_A_CONNECTION, *OF_A_SERVER, *OF_A_SESSION, *OF_A_REQUEST, *SET_LATER}
    # Overridden, or called by way of super().
    overridden = {"_make_request", "_process_keepalive"}
    assert used - {"_replace", "_get_session"} - overridden == listed - overridden


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_file_uses_them(path: Path) -> None:
    """Elsewhere a private name is one that the file itself, or another of the gateway, has made."""
    if str(path.relative_to(PACKAGE)) in FENCE:
        return
    of_aiohttp = {*OF_A_CONNECTION, *OF_A_SERVER, *OF_A_SESSION, *OF_A_REQUEST}
    assert private_names(path) & of_aiohttp == set()
