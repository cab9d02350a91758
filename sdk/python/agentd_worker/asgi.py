"""ASGI: each request is a task. `app = AgentdMiddleware(app, worker)`, or `app.add_middleware(AgentdMiddleware, worker=worker)`.

The task is at `scope["agentd.task"]`. It takes its kind from `X-Task-Kind`, its session from `X-Session-Id`, its key from
`Idempotency-Key` and its trace from `traceparent`. Of whoever leaves in the middle of the answer it ends as cancelled. When the application has started, the worker is told to be ready.
"""

from __future__ import annotations

import json
from typing import Any, Awaitable, Callable

from .link import Body
from .task import Cancelled, Drained, Duplicate
from .worker import Worker

Send = Callable[[Body], Awaitable[None]]
Receive = Callable[[], Awaitable[Body]]
App = Callable[[Any, Receive, Send], Awaitable[None]]


LEFT = "whoever asked left in the middle of the answer"
BODIES = {"http.response.body", "http.response.pathsend", "http.response.zerocopysend"}


def said_of(headers: dict[str, str]) -> Body:
    """What a request's headers say of its task."""
    names = {"key": "idempotency-key", "session": "x-session-id", "traceparent": "traceparent"}
    return {"kind": headers.get("x-task-kind", "http"), **{name: headers.get(header) for name, header in names.items()}}


def duplicate(error: Duplicate) -> bytes:
    return json.dumps({"dup": error.state, "outcome": error.outcome, "result": error.result}).encode()


class AgentdMiddleware:
    def __init__(self, app: App, worker: Worker | None = None, kind: Callable[[Any], str] | None = None) -> None:
        self.app, self.worker, self.kind = app, worker or Worker(), kind

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.request(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, self.telling(send))
        else:
            await self.app(scope, receive, send)

    def telling(self, send: Send) -> Send:
        async def told(message: Body) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                await self.worker.link.ask_async({"t": "ready"})

        return told

    async def request(self, scope: Any, receive: Receive, send: Send) -> None:
        status, whole = 0, False

        async def watched(message: Body) -> None:
            nonlocal status, whole
            status = message.get("status", status)
            await send(message)
            whole = whole or (message["type"] in BODIES and not message.get("more_body"))

        said = said_of({name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]})
        said |= {"kind": self.kind(scope)} if self.kind else {}
        try:
            async with self.worker.task(**said) as task:
                try:
                    await self.app({**scope, "agentd.task": task}, receive, watched)
                except OSError:
                    # Servers say so when it is written to whoever left.
                    task.cancelled = LEFT if status and not whole else task.cancelled
                    raise
                if status and not whole:
                    task.cancelled = LEFT
                    await self.worker.drive_async(task.ending(Cancelled(LEFT)))
                elif status >= 500:
                    await self.worker.drive_async(task.ending(RuntimeError(f"status {status}")))
        except Duplicate as error:
            await answer(send, 409, duplicate(error))
        except Drained:
            # It goes on elsewhere; whoever asked may ask for it by its key.
            if status:
                raise
            await answer(send, 202, json.dumps({"task": task.id}).encode())


async def answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
