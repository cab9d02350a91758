"""WSGI: each request is a task, until its answer was read to the end. `app = AgentdMiddleware(app, worker)`.

The task is at `environ["agentd.task"]`; headers count as for ASGI.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Iterable, Iterator

from .asgi import duplicate, said_of
from .task import Duplicate
from .worker import Scope, Worker


class AgentdMiddleware:
    def __init__(self, app: Callable[..., Iterable[bytes]], worker: Worker | None = None) -> None:
        self.app, self.worker = app, worker or Worker()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
        scope = self.worker.task(**said_of(headers))
        try:
            environ["agentd.task"] = scope.__enter__()
        except Duplicate as error:
            start_response("409 Conflict", [("Content-Type", "application/json")])
            return [duplicate(error)]
        try:
            return Answer(self.app(environ, start_response), scope)
        except BaseException:
            scope.__exit__(*sys.exc_info())
            raise


class Answer:
    """The application's answer, whose end is the task's."""

    def __init__(self, body: Iterable[bytes], scope: Scope) -> None:
        self.body, self.scope, self.error = body, scope, (None, None, None)

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self.body
        except BaseException:
            self.error = sys.exc_info()  # type: ignore[assignment]
            raise

    def close(self) -> None:
        try:
            getattr(self.body, "close", lambda: None)()
        finally:
            self.scope.__exit__(*self.error)
