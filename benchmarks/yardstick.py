"""The yardstick, a program of its own: an aiohttp application that reads the body and answers 204, and keeps nothing.

What it reaches is what the same HTTP server leaves for the rest of the work.
"""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import web


async def _put(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=204)


async def serve() -> None:
    """Listen on a free port, say which on STDOUT, and serve until killed."""
    application = web.Application()
    application.router.add_put("/usage", _put)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
