"""The connection to agentd: one thread that writes, reads, beats and dials again.

Requests of all threads and event loops meet in one outbox, which is written with one call per wake: what was asked
while the last write ran leaves together. What is not answered is kept, in order, and sent again with the same number
when agentd was replaced; every request counts once however often it is said.

What can go wrong: the socket is gone (dialled again, 50 ms at first and 1 s later, for ever); agentd refuses the worker
itself (every request raises `Refused`); a task is another's (the process ends with exit code 75).
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import sys
import threading
import time
from typing import Any, Callable, Union

EXIT_FENCED = 75
Body = dict[str, Any]
Heard = Union[Callable[[Body], Any], None]
# Made once: `json.dumps` makes another for each call that wants anything but the defaults.
encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Refused(Exception):
    """agentd refused a request. `code` is its error code; nothing of the request counts."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Call:
    """A request that waits for its answer; in a thread, or (with `future`) in an event loop."""

    __slots__ = ("n", "line", "answer", "lock", "future", "heard")

    def __init__(self, n: int, line: bytes, future: asyncio.Future[Body] | None, heard: Heard) -> None:
        self.n, self.line, self.future, self.heard = n, line, future, heard
        self.answer: Body = {}
        if future is None:
            self.lock = threading.Lock()
            self.lock.acquire()


def settle(calls: list[Call]) -> None:
    for call in calls:
        if call.future is not None and not call.future.done():
            call.future.set_result(call.answer)


class Link:
    """What is said to agentd and heard from it. Safe to use from every thread; begins anew in a forked child."""

    def __init__(self, path: str, token: str, hear: Callable[[Body], None], hello: Callable[[], Body]) -> None:
        self.path, self.token, self.hear, self.hello = path, token, hear, hello
        self.reset()
        os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        self.lock = threading.Lock()
        self.n = 0
        self.pending: dict[int, Call] = {}
        self.outbox: list[bytes] = []
        self.beating: dict[str, int] = {}
        self.lease = 30.0
        self.refused: Body | None = None
        self.thread: threading.Thread | None = None
        self.woken = False
        self.again = False
        self.welcome: Body = {}

    def start(self) -> None:
        with self.lock:
            if self.thread is None:
                self.wake_read, self.wake_write = os.pipe()
                os.set_blocking(self.wake_write, False)
                self.thread = threading.Thread(target=self.run, name="agentd-worker", daemon=True)
                self.thread.start()

    def redial(self) -> None:
        """Says hello anew, with what the worker takes by now."""
        if self.thread is not None:
            self.again = True
            self.wake()

    def wake(self) -> None:
        if not self.woken:
            self.woken = True
            try:
                os.write(self.wake_write, b"!")
            except BlockingIOError:
                pass

    def send(self, body: Body, future: asyncio.Future[Body] | None, forget: str | None, heard: Heard) -> Call:
        if self.thread is None:
            self.start()
        with self.lock:
            self.n += 1
            body["n"] = self.n
            line = encode(body).encode() + b"\n"
            call = Call(self.n, line, future, heard)
            if self.refused is not None:
                call.answer = self.refused
                if future is None:
                    call.lock.release()
                else:
                    settle([call])
                return call
            # A beat behind the end of a task would be taken for a zombie's.
            if forget is not None:
                self.beating.pop(forget, None)
            self.pending[self.n] = call
            self.outbox.append(line)
            self.wake()
        return call

    def ask(self, body: Body, forget: str | None = None, heard: Heard = None) -> Body:
        """Waits for the answer. `heard` takes it in the link's thread, before anything that agentd said behind it."""
        call = self.send(body, None, forget, heard)
        call.lock.acquire()
        return checked(call.answer)

    def tell(self, body: Body, forget: str | None = None) -> None:
        """Asks without waiting for the answer; from the link's own thread as well."""
        self.send(body, None, forget, None)

    async def ask_async(self, body: Body, forget: str | None = None, heard: Heard = None) -> Body:
        """`ask` in an event loop. Who is cancelled while it waits goes at once; `heard` takes the answer all the same."""
        call = self.send(body, asyncio.get_running_loop().create_future(), forget, heard)
        assert call.future is not None
        return checked(await call.future)

    def run(self) -> None:
        tries = 0
        while self.refused is None:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                    sock.connect(self.path)
                    if self.talk(sock):
                        tries = 0
            except OSError:
                pass
            tries += 1
            time.sleep(0.05 if tries < 20 else 1.0)

    def talk(self, sock: socket.socket) -> bool:
        """Serves one connection until it is lost; whether agentd said anything on it."""
        sock.setblocking(False)
        hello = {"t": "hello", "n": 0, "proto": "agentd/1", "token": self.token, "pid": os.getpid(), **self.hello()}
        with self.lock:
            self.again = False
            out = bytearray(json.dumps(hello).encode() + b"\n")
            out += b"".join(call.line for call in self.pending.values())
            self.outbox.clear()
        rest, heard = b"", False
        poll = select.poll()
        poll.register(self.wake_read, select.POLLIN)
        beat_at = time.monotonic() + self.lease / 3
        while not self.again:
            poll.register(sock, select.POLLIN | (select.POLLOUT if out else 0))
            ready = dict(poll.poll(max(0.0, beat_at - time.monotonic()) * 1000))
            if self.wake_read in ready:
                os.read(self.wake_read, 64)
            with self.lock:
                self.woken = False
                if self.outbox:
                    out += b"".join(self.outbox)
                    self.outbox.clear()
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + self.lease / 3
                    out += self.beat()
            if out:
                try:
                    del out[: sock.send(memoryview(out)[: 1 << 20])]
                except BlockingIOError:
                    pass
            if sock.fileno() in ready:
                try:
                    data = sock.recv(1 << 18)
                except BlockingIOError:
                    continue
                if not data:
                    return heard
                *lines, rest = (rest + data).split(b"\n")
                heard = heard or bool(lines)
                ping = self.read(json.loads(b"[" + b",".join(lines) + b"]"))
                beat_at = min(beat_at, time.monotonic() + self.lease / 3) if not ping else 0.0
        return heard

    def beat(self) -> bytes:
        tasks = [{"task": task, "fence": fence} for task, fence in list(self.beating.items())]
        return encode({"t": "beat", "tasks": tasks}).encode() + b"\n"

    def read(self, said: list[Body]) -> bool:
        """Takes what agentd said; whether it wants a beat."""
        loops: dict[asyncio.AbstractEventLoop, list[Call]] = {}
        ping = False
        with self.lock:
            calls = [(word, self.pending.pop(word.get("re"), None) if word.get("re") else None) for word in said]
        for word, call in calls:
            if word.get("err") == "fenced" or word.get("t") == "fenced":
                self.end(word)
            if call is not None:
                call.answer = word
                if call.heard is not None:
                    call.heard(word)
                if call.future is None:
                    call.lock.release()
                else:
                    loops.setdefault(call.future.get_loop(), []).append(call)
            elif "t" in word:
                ping = ping or word["t"] == "ping"
                self.hear(word)
            elif word.get("re") == 0 and word.get("ok"):
                self.welcome, self.lease = word, word["lease_ms"] / 1000
            elif word.get("err") in ("version", "token", "gone"):
                self.refuse_all(word)
        for loop, settled in loops.items():
            try:
                loop.call_soon_threadsafe(settle, settled)
            except RuntimeError:  # The loop is closed: nobody waits.
                pass
        return ping

    def refuse_all(self, word: Body) -> None:
        print(f"agentd_worker: agentd refused this worker: {word.get('err')}: {word.get('msg')}", file=sys.stderr)
        with self.lock:
            self.refused = word
            calls, self.pending = list(self.pending.values()), {}
        for call in calls:
            call.answer = word
            if call.future is None:
                call.lock.release()
            else:
                call.future.get_loop().call_soon_threadsafe(settle, [call])

    def end(self, word: Body) -> None:
        print(f"agentd_worker: task {word.get('task', '')} is another worker's by now: exit 75", file=sys.stderr)
        sys.stderr.flush()
        os._exit(EXIT_FENCED)


def checked(answer: Body) -> Body:
    if answer.get("ok"):
        return answer
    raise Refused(answer.get("err", "unknown"), answer.get("msg", ""))
