"""WSGI: each request is a task, until its answer was read to the end. `app = AgentdMiddleware(app, worker)`.

The task is at `environ["agentd.task"]`; headers and statuses count as for ASGI. Of whoever left in the middle of the answer
it ends as cancelled.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Iterable, Iterator

from .asgi import LEFT, duplicate, said_of
from .task import Cancelled, Duplicate
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
        answer = Answer(scope)

        def watched(status: str, *more: Any) -> Any:
            answer.status = int(status[:3])
            return start_response(status, *more)

        try:
            answer.body = self.app(environ, watched)
        except BaseException:
            scope.__exit__(*sys.exc_info())
            raise
        return answer


class Answer:
    """The application's answer, whose end is the task's."""

    def __init__(self, scope: Scope) -> None:
        self.scope, self.status = scope, 0
        self.body: Iterable[bytes] = ()
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        self.error = Cancelled(LEFT)
        try:
            yield from self.body
            self.error = None
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error
            raise

    def close(self) -> None:
        try:
            getattr(self.body, "close", lambda: None)()
        finally:
            if isinstance(self.error, Cancelled):
                self.scope.open.cancelled = self.scope.open.cancelled or LEFT
            elif self.error is None and self.status >= 500:
                self.error = RuntimeError(f"status {self.status}")
            self.scope.__exit__(type(self.error), self.error, None)
