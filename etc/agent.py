#!/usr/bin/env python3
"""A sample agent: an HTTP server on asyncio, with the standard library only.

  GET /health       "ok": it can serve
  GET /             a short answer: who gave it
  GET /long?s=20    a task: works for so many seconds, then answers
  GET /sse?s=20     a stream: ten events a second for so long, then the event "end"

It does by hand what a server such as uvicorn does for you:

- It takes the listening socket that agentd made (LISTEN_FDS: descriptors from 3 on), instead of binding one.
- On SIGTERM it drains: it accepts nothing more, finishes what it has, and ends.
"""

import asyncio
import json
import os
import signal
import socket
import time
from urllib.parse import parse_qs, urlsplit

# How long a kept-alive connection may stay silent, and how long it gets during the drain to ask once more.
IDLE, LAST_CALL = 75, 1


def listening_socket():
    """The first socket that was passed in, or one of our own when nobody passed any."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and int(os.environ.get("LISTEN_FDS", "0")) >= 1:
        return socket.socket(fileno=3)
    return socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "8080"))))


class Agent:
    """One worker: its open connections, and whether it drains."""

    def __init__(self):
        self.draining = asyncio.Event()
        self.connections = set()

    async def run(self):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.draining.set)
        server = await asyncio.start_server(self.connection, sock=listening_socket(), backlog=4096)
        print(f"{self.name()} serves", flush=True)
        await self.draining.wait()
        server.close()
        print(f"{self.name()} drains: {len(self.connections)} connections", flush=True)
        while self.connections:
            await asyncio.wait(self.connections)
        print(f"{self.name()} is done", flush=True)

    @staticmethod
    def name():
        app, slot = os.environ.get("AGENTD_APP", "agent"), os.environ.get("AGENTD_SLOT", "0")
        return f"{app}.{slot} (pid {os.getpid()})"

    async def connection(self, reader, writer):
        """Answers one request after the other, until either side wants no more."""
        task = asyncio.current_task()
        self.connections.add(task)
        try:
            while request := await self.request(reader):
                if not await self.answer(*request, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # The client went away, or sent what is no HTTP.
        finally:
            self.connections.discard(task)
            writer.close()

    async def request(self, reader):
        """The next request: its target, and whether its client wants to ask again. None when there is none to come."""
        head = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        drain = asyncio.ensure_future(self.draining.wait())
        done, _ = await asyncio.wait({head, drain}, timeout=IDLE, return_when=asyncio.FIRST_COMPLETED)
        if head not in done and drain in done:
            # A request may be on its way; it is answered, and told that it was the last.
            done, _ = await asyncio.wait({head}, timeout=LAST_CALL)
        drain.cancel()
        if head not in done:
            head.cancel()
            return None
        line, *fields = head.result().decode("latin-1").lower().splitlines()
        words = line.split()
        return (words[1], "connection: close" not in fields) if len(words) == 3 else None

    async def answer(self, target, keep, writer):
        """Answers one request; returns whether the connection stays open."""
        url = urlsplit(target)
        seconds = float(parse_qs(url.query).get("s", ["1"])[0])
        if url.path == "/sse":
            await self.stream(seconds, writer)
            return False
        if url.path == "/long":
            await asyncio.sleep(seconds)
        known = url.path in ("/", "/health", "/long")
        body = json.dumps({"worker": self.name(), "path": url.path, "ok": known}) + "\n"
        keep = keep and not self.draining.is_set()
        writer.write(
            f"HTTP/1.1 {'200 OK' if known else '404 Not Found'}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"connection: {'keep-alive' if keep else 'close'}\r\n\r\n{body}".encode()
        )
        await writer.drain()
        return keep

    async def stream(self, seconds, writer):
        """Server-sent events, until the time is up."""
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            writer.write(f"data: {left:.1f} s left\n\n".encode())
            await writer.drain()
            await asyncio.sleep(min(left, 0.1))
        writer.write(b"event: end\ndata: done\n\n")
        await writer.drain()


if __name__ == "__main__":
    asyncio.run(Agent().run())
