"""An aiohttp app that takes its listener from LISTEN_FDS. Beside that it knows nothing of agentd."""

import asyncio
import os
import socket

from aiohttp import web


async def who(request: web.Request) -> web.Response:
    return web.Response(text=f"{os.environ.get('VERSION', '-')} {os.environ['AGENTD_WORKER']} {os.getpid()}\n")


async def long(request: web.Request) -> web.Response:
    await asyncio.sleep(float(request.query["s"]))
    return web.Response(text="done\n")


async def sse(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for n in range(int(float(request.query["s"]) / 0.2)):
        await response.write(f"data: {n}\n\n".encode())
        await asyncio.sleep(0.2)
    await response.write(b"data: end\n\n")
    return response


app = web.Application()
app.add_routes([web.get("/", who), web.get("/long", long), web.get("/sse", sse)])
assert os.environ["LISTEN_FDS"] == "1" and os.environ["LISTEN_PID"] == str(os.getpid())
web.run_app(app, sock=socket.socket(fileno=3), print=None, access_log=None)
