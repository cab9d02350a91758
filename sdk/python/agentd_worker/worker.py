"""The worker: what it takes, whether it drains, and its small durable store."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import threading
import traceback
from typing import Any, Callable

from .alone import Alone
from .link import Body, Heard, Link
from .task import AsyncTask, Cancelled, Drained, Steps, Task, Work, current, pack, unpack

SDK = "python/0.1.0"


class Scope:
    """`with` gives a `Task`, `async with` an `AsyncTask`."""

    def __init__(self, worker: Worker, said: Body) -> None:
        self.worker, self.said = worker, said

    def __enter__(self) -> Task:
        self.open = Task(self.worker, self.said)
        return self.open.__enter__()

    def __exit__(self, *error: Any) -> None:
        return self.open.__exit__(*error)

    async def __aenter__(self) -> AsyncTask:
        self.opened = AsyncTask(self.worker, self.said)
        return await self.opened.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        return await self.opened.__aexit__(*error)


class Worker:
    """This process as agentd's worker. Outside agentd everything works the same, and nothing is kept."""

    def __init__(self, *, max_tasks: int = 16) -> None:
        path, token = os.environ.get("AGENTD_WORKER_SOCKET"), os.environ.get("AGENTD_WORKER_TOKEN")
        self.inside = bool(path and token)
        self.link: Link | Alone = Link(path, token, self.hear, self.hello) if path and token else Alone()
        self.max_tasks = max_tasks
        self.handlers: dict[str | None, Callable[[Any], Any]] = {}
        self.held: dict[str, Work] = {}
        self.drain: Body | None = None
        self.on_drain: list[Callable[[Body], Any]] = []
        self.on_undrain: list[Callable[[], Any]] = []
        self.on_refresh: list[Callable[[str], Any]] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stopping = threading.Event()
        self.idle = threading.Condition()
        os.register_at_fork(after_in_child=lambda: self.held.clear())

    @property
    def draining(self) -> bool:
        return self.drain is not None

    def hello(self) -> Body:
        return {"sdk": SDK, "caps": ["checkpoint", "drain", "kv", "refresh"], "max_tasks": self.max_tasks if self.handlers else 0}

    def drive(self, steps: Steps, heard: Heard = None) -> Any:
        link, answer, wrong = self.link, None, None
        while True:
            try:
                body = steps.throw(wrong) if wrong else steps.send(answer)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value
            try:
                answer, wrong = link.ask(body, forgets(body), heard), None
            except Exception as error:
                wrong = error

    async def drive_async(self, steps: Steps, heard: Heard = None) -> Any:
        link, answer, wrong = self.link, None, None
        while True:
            try:
                body = steps.throw(wrong) if wrong else steps.send(answer)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value
            try:
                answer, wrong = await link.ask_async(body, forgets(body), heard), None
            except Exception as error:
                wrong = error
            except BaseException:
                # Cancelled: what the steps do at their end is done now, not when somebody drops the traceback.
                steps.close()
                raise

    def task(
        self, *, kind: str | None = None, session: str | None = None, key: str | None = None, input: Any = None,
        traceparent: str | None = None, task: str | None = None,
    ) -> Scope:
        """A task, for `with` or `async with`. With `input` it can be done elsewhere from its start. With `key` it is done
        once: `Duplicate` is raised while it runs and after it is done."""
        return Scope(self, {"kind": kind, "session": session, "key": key, "input": input, "traceparent": traceparent, "task": task})

    def ready(self) -> None:
        """Says that this worker can serve."""
        self.link.ask({"t": "ready"})

    def on_task(self, kind: str | None, run: Callable[[Any], Any] | None = None) -> Any:
        """Takes tasks of `kind` (None: of every other kind). `run(task)` is a function or coroutine function, whose value is
        the result. Also a decorator."""
        if run is None:
            return lambda run: self.on_task(kind, run)
        self.handlers[kind] = run
        self.link.redial()
        return run

    def serve(self) -> None:
        """Is ready, and runs what agentd gives until it is told to stop and nothing is in hand."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stopping.set())
        self.ready()
        while not self.stopping.wait(1.0):
            pass
        with self.idle:
            self.idle.wait_for(lambda: not self.held)

    async def serve_async(self) -> None:
        """`serve` in an event loop; coroutine functions run in it."""
        self.loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, stop.set)
        await self.link.ask_async({"t": "ready"})
        await stop.wait()
        while self.held:
            await asyncio.sleep(0.02)

    def hear(self, word: Body) -> None:
        """Takes a message of agentd, in the link's thread."""
        t, held = word["t"], self.held.get(word.get("task", ""))
        if t == "task.run" and held is None:
            self.run(word)
        elif t == "drain":
            self.drain = word
            self.tell(self.on_drain, word)
        elif t == "undrain":
            self.drain = None
            self.tell(self.on_undrain)
        elif t == "refresh":
            threading.Thread(target=self.refresh, args=(word,), daemon=True).start()
        elif t == "ckpt.now" and held is not None:
            held.checkpoint_wanted = True
        elif t == "cancel" and held is not None:
            held.cancelled = word.get("reason") or "cancelled"
            if held.stop is not None:
                held.stop()

    def tell(self, who: list[Callable[..., Any]], *what: Any) -> None:
        for call in who:
            try:
                call(*what)
            except Exception:
                traceback.print_exc()

    def refresh(self, word: Body) -> None:
        """Has its own thread: to read knowledge anew takes time, and beats go on meanwhile."""
        said: Body = {"t": "refreshed", "refresh": word.get("refresh"), "ok": bool(self.on_refresh)}
        if not self.on_refresh:
            said["error"] = "has nothing that renews what it knows: `worker.on_refresh` is empty"
        for call in self.on_refresh:
            try:
                renewed = call(word.get("scope"))
                if inspect.isawaitable(renewed):
                    self.await_all(renewed)
            except Exception as error:
                traceback.print_exc()
                said |= {"ok": False, "error": f"{type(error).__name__}: {error}"[:1000]}
        try:
            self.link.ask(said)
        except Exception:
            traceback.print_exc()

    def await_all(self, renewed: Any) -> None:
        async def whole() -> None:
            await renewed
        if self.loop is not None:
            asyncio.run_coroutine_threadsafe(whole(), self.loop).result()
        else:
            asyncio.run(whole())

    def run(self, word: Body) -> None:
        handler = self.handlers.get(word.get("kind"), self.handlers.get(None))
        is_async = inspect.iscoroutinefunction(handler)
        work = (AsyncTask if is_async else Task)(self, word, run=word)
        if handler is None:
            threading.Thread(target=lambda: self.drive(work.ending(LookupError(f"no handler for kind {work.kind}"))), daemon=True).start()
        elif isinstance(work, AsyncTask) and self.loop is not None:
            asyncio.run_coroutine_threadsafe(self.run_async(handler, work), self.loop)
        elif isinstance(work, AsyncTask):
            threading.Thread(target=lambda: asyncio.run(self.run_async(handler, work)), daemon=True).start()
        else:
            threading.Thread(target=self.run_sync, args=(handler, work), daemon=True).start()

    def run_sync(self, handler: Callable[[Task], Any], task: Task) -> None:
        try:
            with task:
                result = handler(task)
                task.result = result if task.result is None else task.result
        except (Drained, Cancelled):
            pass
        except Exception:
            traceback.print_exc(file=sys.stderr)

    async def run_async(self, handler: Callable[[AsyncTask], Any], task: AsyncTask) -> None:
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        task.stop = lambda: loop.call_soon_threadsafe(me.cancel) if me is not None else None
        try:
            async with task:
                result = await handler(task)
                task.result = result if task.result is None else task.result
        except (Drained, Cancelled, asyncio.CancelledError):
            pass
        except Exception:
            traceback.print_exc(file=sys.stderr)

    def hold(self, work: Work) -> None:
        self.held[work.id] = work
        self.link.beating[work.id] = work.fence

    def release(self, work: Work) -> None:
        self.link.beating.pop(work.id, None)
        self.held.pop(work.id, None)
        if not self.held:
            with self.idle:
                self.idle.notify_all()

    def kv(self, ns: str) -> Kv:
        return Kv(self, ns)


class Kv:
    """A small durable store of the app's own. Inside a task its writes are fenced: a zombie's are refused."""

    def __init__(self, worker: Worker, ns: str) -> None:
        self.worker, self.ns = worker, ns

    def body(self, t: str, **fields: Any) -> Body:
        body = {"t": t, "ns": self.ns, **{k: v for k, v in fields.items() if v is not None}}
        work = current.get()
        if t in ("kv.put", "kv.del") and work is not None and work.state == "running" and work.worker is self.worker:
            body |= {"task": work.id, "fence": work.fence}
        return body

    def putting(self, items: dict[str, Any], if_absent: bool = False) -> Body:
        return self.body("kv.put", items=[{"key": k, **pack(v), **({"if_absent": True} if if_absent else {})} for k, v in items.items()])

    def put(self, key: str, value: Any, *, if_absent: bool = False) -> bool:
        return bool(self.worker.link.ask(self.putting({key: value}, if_absent))["put"][0])

    def get(self, key: str) -> Any:
        return unpack(self.worker.link.ask(self.body("kv.get", key=key)))

    def scan(self, prefix: str = "", **how: Any) -> list[tuple[str, Any]]:
        items = self.worker.link.ask(self.body("kv.scan", prefix=prefix, **how))["items"]
        return [(item["key"], unpack(item)) for item in items]

    def delete(self, key: str | None = None, *, prefix: str | None = None) -> int:
        return int(self.worker.link.ask(self.body("kv.del", key=key, prefix=prefix))["deleted"])


def forgets(body: Body) -> str | None:
    return body["task"] if body["t"] in ("task.end", "task.yield") else None
