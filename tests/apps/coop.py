"""A server that cooperates fully, on nothing but the standard library: on SIGTERM it stops accepting, answers what it
has with `Connection: close`, closes connections that stay idle after a second, and ends when the last has.

It says so with X_AGENTD_DRAIN=1, so agentd sends the signal without waiting for connections to end first.
"""

import asyncio
import os
import signal
import socket
from urllib.parse import parse_qs, urlsplit

IDLE_SECONDS = 1.0

draining = asyncio.Event()
connections: set[asyncio.Task] = set()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connections.add(asyncio.current_task())
    try:
        while (head := await next_request(reader)) is not None:
            keep = await answer(head, writer)
            await writer.drain()
            if not keep:
                break
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        connections.discard(asyncio.current_task())
        writer.close()


async def next_request(reader: asyncio.StreamReader) -> list[str] | None:
    """The lines of a request's head; none when the client went away, or asked for nothing while we drain."""
    reading = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
    drained = asyncio.ensure_future(draining.wait())
    await asyncio.wait({reading, drained}, return_when=asyncio.FIRST_COMPLETED)
    drained.cancel()
    try:
        timeout = IDLE_SECONDS if draining.is_set() else None
        return (await asyncio.wait_for(reading, timeout)).decode().split("\r\n")
    except (asyncio.TimeoutError, asyncio.IncompleteReadError):
        return None


async def answer(head: list[str], writer: asyncio.StreamWriter) -> bool:
    """Answers; whether the connection is kept."""
    url = urlsplit(head[0].split()[1])
    seconds = float(parse_qs(url.query).get("s", ["0"])[0])
    wants_close = any(line.lower() == "connection: close" for line in head[1:])
    if url.path == "/sse":
        await stream(seconds, writer)
        return False
    if url.path == "/long":
        await asyncio.sleep(seconds)
        body = "done\n"
    else:
        body = f"{os.environ.get('VERSION', '-')} {os.environ['AGENTD_WORKER']} {os.getpid()}\n"
    # Decided as late as possible: the drain may have begun while the answer was made.
    close = wants_close or draining.is_set()
    ending = "Connection: close\r\n" if close else ""
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{ending}\r\n{body}".encode())
    return not close


async def stream(seconds: float, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    for n in range(int(seconds / 0.2)):
        writer.write(f"data: {n}\n\n".encode())
        await writer.drain()
        await asyncio.sleep(0.2)
    writer.write(b"data: end\n\n")


def tell(words: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(os.environ["NOTIFY_SOCKET"])
        notify.send(words.encode())


async def main() -> None:
    listener = socket.socket(fileno=int(os.environ["AGENTD_FD_HTTP"]))
    server = await asyncio.start_server(serve, sock=listener)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, draining.set)
    tell("READY=1\nX_AGENTD_DRAIN=1\nSTATUS=serving")
    await draining.wait()
    server.close()
    while connections:
        await asyncio.wait(set(connections))


asyncio.run(main())
