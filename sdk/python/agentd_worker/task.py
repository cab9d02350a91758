"""A task: its checkpoints, its effects and its end.

Each step is a generator of requests and receives their answers, so that threads and event loops share it: `Task` asks and
waits, `AsyncTask` asks and awaits.

    begin ──► running ──► ended        `done()`, the end of the block, or an exception (outcome error or cancelled)
                      ├─► yielded      `save()` while the worker drains: `Drained` is raised
                      └─► parked       an effect of which nobody knows whether it was done: `Indeterminate`
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import os
import threading
import time
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Generator

from .link import Refused

if TYPE_CHECKING:
    from .worker import Worker

Body = dict[str, Any]
Steps = Generator[Body, Body, Any]
# Between the answer to a `begin` and the one who gives up waiting for it.
admitting = threading.Lock()
current: ContextVar[Any] = ContextVar("agentd_task", default=None)


class Drained(BaseException):
    """The task was handed over at a checkpoint, because this worker is replaced. It goes on elsewhere."""


class Cancelled(BaseException):
    """The task was cancelled; its reason is the first argument."""


class Duplicate(Exception):
    """A task with this key runs (`running`) or is over (`done`, with its outcome and result). Nothing was begun."""

    def __init__(self, answer: Body) -> None:
        super().__init__(f"a task with this key is {answer['dup']}")
        self.state, self.outcome, self.result = answer["dup"], answer.get("outcome"), answer.get("result")


class Indeterminate(Exception):
    """An effect was begun by an earlier worker and never ended. The task is parked for a person to look at."""


@dataclass(frozen=True)
class Checkpoint:
    step: int
    state: Any
    state_version: int | None = None


def pack(value: Any) -> Body:
    """Bytes travel as base64, everything else as JSON."""
    return {"data": base64.b64encode(value).decode()} if isinstance(value, (bytes, bytearray)) else {"json": value}


def unpack(body: Body) -> Any:
    return base64.b64decode(body["data"]) if body.get("data") is not None else body.get("json")


def new_id() -> str:
    """A UUIDv7: those of one time are kept beside each other."""
    bits = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    h = f"{bits & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


class Work:
    """What tasks in threads and in event loops have in common."""

    def __init__(self, worker: Worker, said: Body, run: Body | None = None) -> None:
        self.worker = worker
        self.id: str = said.get("task") or new_id()
        self.key, self.kind, self.session = said.get("key"), said.get("kind"), said.get("session")
        self.input, self.traceparent = said.get("input"), said.get("traceparent")
        self.fence, self.attempt = 0, 1
        self.checkpoint: Checkpoint | None = None
        self.figures: Body = {}
        self.result: Any = None
        self.cancelled: str | None = None
        self.checkpoint_wanted = False
        self.state = "new"
        self.abandoned = False
        self.token: Token[Any] | None = None
        self.stop: Callable[[], Any] | None = None
        if run is not None:
            self.took(run)

    def took(self, answer: Body) -> None:
        self.id, self.fence, self.attempt, self.state = answer["task"], answer["fence"], answer.get("attempt", 1), "running"
        if ckpt := answer.get("ckpt"):
            self.checkpoint = Checkpoint(ckpt["step"], unpack(ckpt), ckpt.get("state_version"))
        self.worker.hold(self)

    @property
    def should_yield(self) -> bool:
        """Whether the next `save` hands the task over."""
        return self.worker.draining

    def about(self, t: str, **fields: Any) -> Body:
        return {"t": t, "task": self.id, "fence": self.fence, **{k: v for k, v in fields.items() if v is not None}}

    def begin(self) -> Steps:
        fields = {name: getattr(self, name) for name in ("key", "kind", "session", "input", "traceparent")}
        answer = yield {"t": "task.begin", "task": self.id, **{k: v for k, v in fields.items() if v is not None}}
        if answer.get("dup"):
            raise Duplicate(answer)

    def begun(self, answer: Body) -> None:
        """Takes the answer to `begin` where it is read: a `cancel` may stand right behind it. What nobody waits for any more
        is ended, rather than held for ever."""
        if answer.get("fence") is None or answer.get("dup"):
            return
        with admitting:
            if not self.abandoned:
                self.took(answer)
                return
        end = {"t": "task.end", "task": answer["task"], "fence": answer["fence"], "outcome": "cancelled"}
        self.worker.link.tell(end, forget=answer["task"])

    def saving(self, step: int, state: Any, safe: bool, state_version: int | None) -> Steps:
        self.look()
        yield self.about("ckpt", step=step, safe=safe, state_version=state_version) | pack(state)
        self.checkpoint, self.checkpoint_wanted = Checkpoint(step, state, state_version), False
        if safe and self.worker.draining:
            yield from self.yielding(step, "drain")

    def yielding(self, step: int, reason: str) -> Steps:
        try:
            yield self.about("task.yield", step=step, reason=reason)
        except Refused as refused:
            # Nobody could go on from here (an effect is open): it stays ours, and ends here.
            if refused.code != "conflict":
                raise
            self.worker.hold(self)
            return
        self.leave("yielded")
        raise Drained(reason)

    def effecting(self, kind: str, key: str, desc: str | None, compensate: Any) -> Steps:
        """Returns `(True, idempotency key)` when it is to be run, else `(False, result)`."""
        self.look()
        answer = yield self.about("effect.begin", key=key, kind=kind, desc=desc, compensate=compensate)
        if answer["state"] == "new" or answer.get("policy") == "retry":
            return True, answer["key"]
        if answer["state"] == "done":
            return False, answer.get("result")
        if answer.get("policy") == "skip":
            return False, None
        self.leave("parked")
        raise Indeterminate(f"effect {key} of task {self.id} was begun and never ended; see agentctl effects")

    def ended(self, key: str, result: Any, error: BaseException | None) -> Steps:
        wrong = repr(error) if error is not None else None
        yield self.about("effect.end", key=key, ok=error is None, result=result, error=wrong)

    def ending(self, error: BaseException | None) -> Steps:
        if self.state != "running":
            return
        outcome = "ok" if error is None else "cancelled" if self.cancelled is not None else "error"
        figures = self.figures if error is None else {"error": f"{type(error).__name__}: {error}", **self.figures}
        try:
            yield self.about("task.end", outcome=outcome, result=self.result, **figures)
        finally:
            # agentd hears of the end whether or not somebody waits for its answer.
            self.leave(outcome)

    def leave(self, state: str) -> None:
        self.state = state
        self.worker.release(self)

    def look(self) -> None:
        if self.cancelled is not None:
            raise Cancelled(self.cancelled)

    def done(self, result: Any = None, **figures: Any) -> None:
        """Says how it ended: `result`, and `tokens_in`, `tokens_out`, `cost_usd`, `tool_calls`, `steps`, `ctx_used`,
        `ctx_max`, `quality`, `ttft_ms`. Sent at the end of the block."""
        self.result, self.figures = result, figures


class Task(Work):
    """A task of a thread."""

    def save(self, step: int, state: Any, *, safe: bool = True, state_version: int | None = None) -> None:
        """Returns when the checkpoint is durable. Raises `Drained` after it when the worker drains and it is `safe`."""
        self.worker.drive(self.saving(step, state, safe, state_version))

    def yield_(self, reason: str = "asked") -> None:
        """Hands the task over from its last checkpoint: raises `Drained`, unless nobody could go on from here."""
        self.worker.drive(self.yielding(self.checkpoint.step if self.checkpoint else 0, reason))

    def effect(self, kind: str, key: str, run: Callable[[str], Any], *, desc: str | None = None, compensate: Any = None) -> Any:
        """Runs `run(idempotency_key)` once for this key of the task, and gives its result every time. The result is JSON."""
        todo, value = self.worker.drive(self.effecting(kind, key, desc, compensate))
        if not todo:
            return value
        try:
            result = run(value)
        except BaseException as error:
            self.worker.drive(self.ended(key, None, error))
            raise
        self.worker.drive(self.ended(key, result, None))
        return result

    def __enter__(self) -> Task:
        if self.state == "new":
            self.worker.drive(self.begin(), self.begun)
        self.token = current.set(self)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.token is not None:
            current.reset(self.token)
        self.worker.drive(self.ending(error))


class AsyncTask(Work):
    """A task of an event loop."""

    async def save(self, step: int, state: Any, *, safe: bool = True, state_version: int | None = None) -> None:
        await self.worker.drive_async(self.saving(step, state, safe, state_version))

    async def yield_(self, reason: str = "asked") -> None:
        await self.worker.drive_async(self.yielding(self.checkpoint.step if self.checkpoint else 0, reason))

    async def effect(
        self, kind: str, key: str, run: Callable[[str], Awaitable[Any] | Any], *, desc: str | None = None, compensate: Any = None
    ) -> Any:
        todo, value = await self.worker.drive_async(self.effecting(kind, key, desc, compensate))
        if not todo:
            return value
        try:
            result = run(value)
            if inspect.isawaitable(result):
                result = await result
        except BaseException as error:
            await self.worker.drive_async(self.ended(key, None, error))
            raise
        await self.worker.drive_async(self.ended(key, result, None))
        return result

    async def __aenter__(self) -> AsyncTask:
        if self.state == "new":
            try:
                await self.worker.drive_async(self.begin(), self.begun)
            except asyncio.CancelledError as error:
                with admitting:
                    self.abandoned = self.state == "new"
                if not self.abandoned:
                    await self.worker.drive_async(self.ending(error))
                raise
        self.token = current.set(self)
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.token is not None:
            current.reset(self.token)
        await self.worker.drive_async(self.ending(error))
