"""LangGraph on agentd: `Saver` keeps checkpoints in agentd's store, `run` makes a graph's run a task.

Keys, in one namespace of the app's own; each part is quoted, and hashed where it is long:

    t/THREAD                          that the thread is there
    c/THREAD/NS/CHECKPOINT            a checkpoint, its metadata and its parent
    w/THREAD/NS/CHECKPOINT/TASK/IDX   a pending write
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    SerializerProtocol,
    get_checkpoint_id,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from .link import Body
from .task import AsyncTask, Steps, Task
from .worker import Worker

PAGE = 200


def part(text: str) -> str:
    quoted = quote(text, safe="")
    return quoted if len(quoted) <= 96 else f"{quoted[:24]}~{hashlib.sha256(text.encode()).hexdigest()}"


def where(config: RunnableConfig) -> tuple[str, str]:
    return config["configurable"]["thread_id"], config["configurable"].get("checkpoint_ns", "")


def config_of(thread: str, ns: str, checkpoint: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint}}


class Saver(BaseCheckpointSaver[str]):
    """A checkpoint saver on agentd's `kv`. What it put is durable when it returns, and refused to a zombie."""

    def __init__(self, worker: Worker | None = None, *, ns: str = "langgraph", serde: SerializerProtocol | None = None) -> None:
        super().__init__(serde=serde)
        self.worker = worker or Worker()
        self.kv = self.worker.kv(ns)

    def dump(self, value: Any) -> list[str]:
        form, data = self.serde.dumps_typed(value)
        return [form, base64.b64encode(data).decode()]

    def load(self, packed: Sequence[str]) -> Any:
        return self.serde.loads_typed((packed[0], base64.b64decode(packed[1])))

    # Each verb is a generator of requests: threads drive it with `drive`, event loops with `drive_async`.

    def all_items(self, prefix: str, reverse: bool = False, keys_only: bool = False) -> Steps:
        items: list[Body] = []
        more: dict[str, Any] = {"reverse": reverse, "keys_only": keys_only, "limit": PAGE}
        while True:
            page = yield self.kv.body("kv.scan", prefix=prefix, **more)
            items += page["items"]
            if not page["more"] or not page["items"]:
                return items
            more["after"] = page["items"][-1]["key"]

    def getting(self, config: RunnableConfig) -> Steps:
        thread, ns = where(config)
        prefix = f"c/{part(thread)}/{part(ns)}/"
        if checkpoint := get_checkpoint_id(config):
            found = yield self.kv.body("kv.get", key=prefix + part(checkpoint))
            if not found["found"]:
                return None
            return (yield from self.tuple_of(found["json"]))
        page = yield self.kv.body("kv.scan", prefix=prefix, reverse=True, limit=1)
        if not page["items"]:
            return None
        return (yield from self.tuple_of(page["items"][0]["json"]))

    def tuple_of(self, kept: Body) -> Steps:
        thread, ns, checkpoint = kept["thread"], kept["ns"], kept["id"]
        items = yield from self.all_items(f"w/{part(thread)}/{part(ns)}/{part(checkpoint)}/")
        writes = sorted((item["json"] for item in items), key=lambda w: writes_sort_key(w["path"], w["task"], w["idx"]))
        return CheckpointTuple(
            config=config_of(thread, ns, checkpoint),
            checkpoint=self.load(kept["checkpoint"]),
            metadata=self.load(kept["metadata"]),
            parent_config=config_of(thread, ns, kept["parent"]) if kept["parent"] else None,
            pending_writes=[(write["task"], write["channel"], self.load(write["value"])) for write in writes],
        )

    def listing(
        self, config: RunnableConfig | None, filter: dict[str, Any] | None, before: RunnableConfig | None, limit: int | None
    ) -> Steps:
        """The kept checkpoints that are meant, newest first."""
        ns = config["configurable"].get("checkpoint_ns") if config else None
        prefix = "c/"
        if config:
            prefix += part(config["configurable"]["thread_id"]) + "/"
            prefix += "" if ns is None else part(ns) + "/"
        only, until = get_checkpoint_id(config) if config else None, get_checkpoint_id(before) if before else None
        found: list[Body] = []
        for item in (yield from self.all_items(prefix, reverse=True)):
            kept = item["json"]
            metadata = self.load(kept["metadata"]) if filter else {}
            if (only and kept["id"] != only) or (until and kept["id"] >= until):
                continue
            if all(metadata.get(name) == value for name, value in (filter or {}).items()):
                found.append(kept)
        return sorted(found, key=lambda kept: kept["id"], reverse=True)[:limit]

    def putting(self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> Steps:
        thread, ns = where(config)
        kept = {
            "thread": thread, "ns": ns, "id": checkpoint["id"], "parent": config["configurable"].get("checkpoint_id"),
            "checkpoint": self.dump(checkpoint), "metadata": self.dump(get_checkpoint_metadata(config, metadata)),
        }
        key = f"{part(thread)}/{part(ns)}/{part(checkpoint['id'])}"
        yield self.kv.putting({f"t/{part(thread)}": thread, f"c/{key}": kept})
        return config_of(thread, ns, checkpoint["id"])

    def putting_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task: str, path: str) -> Steps:
        thread, ns = where(config)
        prefix = f"w/{part(thread)}/{part(ns)}/{part(config['configurable']['checkpoint_id'])}/{part(task)}/"
        first, again = {}, {}
        for n, (channel, value) in enumerate(writes):
            idx = WRITES_IDX_MAP.get(channel, n)
            write = {"task": task, "idx": idx, "channel": channel, "value": self.dump(value), "path": path}
            (first if idx >= 0 else again)[f"{prefix}{idx}"] = write
        # A node's writes are kept as they were first put; what it was interrupted by is replaced.
        items = self.kv.putting(first, if_absent=True)["items"] + self.kv.putting(again)["items"]
        if items:
            yield {**self.kv.putting({}), "items": items}

    def deleting(self, threads: Iterable[str]) -> Steps:
        for thread in threads:
            for prefix in (f"c/{part(thread)}/", f"w/{part(thread)}/"):
                yield self.kv.body("kv.del", prefix=prefix)
            yield self.kv.body("kv.del", key=f"t/{part(thread)}")

    def deleting_checkpoints(self, kept: Iterable[Body]) -> Steps:
        for one in kept:
            key = f"{part(one['thread'])}/{part(one['ns'])}/{part(one['id'])}"
            yield self.kv.body("kv.del", prefix=f"w/{key}/")
            yield self.kv.body("kv.del", key=f"c/{key}")

    def deleting_runs(self, runs: Sequence[str]) -> Steps:
        kept = yield from self.listing(None, None, None, None)
        yield from self.deleting_checkpoints(one for one in kept if self.load(one["metadata"]).get("run_id") in set(runs))

    def copying(self, source: str, target: str) -> Steps:
        yield self.kv.putting({f"t/{part(target)}": target})
        for sort in ("c", "w"):
            head = f"{sort}/{part(source)}/"
            for item in (yield from self.all_items(head)):
                value = {**item["json"], "thread": target} if sort == "c" else item["json"]
                yield self.kv.putting({f"{sort}/{part(target)}/{item['key'][len(head):]}": value})

    def pruning(self, threads: Sequence[str], strategy: str) -> Steps:
        if strategy == "delete":
            yield from self.deleting(threads)
            return
        for thread in threads:
            newest: set[str] = set()
            old = []
            for kept in (yield from self.listing({"configurable": {"thread_id": thread}}, None, None, None)):
                if kept["ns"] in newest:
                    old.append(kept)
                newest.add(kept["ns"])
            yield from self.deleting_checkpoints(old)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self.worker.drive(self.getting(config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self.worker.drive_async(self.getting(config))

    def list(
        self, config: RunnableConfig | None, *, filter: dict[str, Any] | None = None, before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        for kept in self.worker.drive(self.listing(config, filter, before, limit)):
            yield self.worker.drive(self.tuple_of(kept))

    async def alist(
        self, config: RunnableConfig | None, *, filter: dict[str, Any] | None = None, before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        for kept in await self.worker.drive_async(self.listing(config, filter, before, limit)):
            yield await self.worker.drive_async(self.tuple_of(kept))

    def put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        return self.worker.drive(self.putting(config, checkpoint, metadata))

    async def aput(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        return await self.worker.drive_async(self.putting(config, checkpoint, metadata))

    def put_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        self.worker.drive(self.putting_writes(config, writes, task_id, task_path))

    async def aput_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        await self.worker.drive_async(self.putting_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        self.worker.drive(self.deleting([thread_id]))

    async def adelete_thread(self, thread_id: str) -> None:
        await self.worker.drive_async(self.deleting([thread_id]))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self.worker.drive(self.deleting_runs(run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        await self.worker.drive_async(self.deleting_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self.worker.drive(self.copying(source_thread_id, target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self.worker.drive_async(self.copying(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self.worker.drive(self.pruning(thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        await self.worker.drive_async(self.pruning(thread_ids, strategy))

    def get_next_version(self, current: str | None, channel: None) -> str:
        now = int(str(current).split(".")[0]) if current is not None else 0
        return f"{now + 1:032}.{random.random():016}"


def run(graph: Any, task: Task, input: Any, config: RunnableConfig | None = None) -> Any:
    """Runs a compiled graph (with `Saver`) as `task`: it is drained between nodes and goes on where it was. Gives its result."""
    config, control = prepared(task, config)
    state = graph.get_state(config)
    if not state.next and state.created_at is not None:
        return state.values
    task.save(task.checkpoint.step if task.checkpoint else 0, thread_of(config), safe=False)
    with stopping(task.worker, control):
        try:
            start = None if state.next else input
            return graph.invoke(start, config, durability="sync", control=control)
        except GraphDrained:
            task.save(graph.get_state(config).metadata.get("step", 0) + 1, thread_of(config))
            raise


async def run_async(graph: Any, task: AsyncTask, input: Any, config: RunnableConfig | None = None) -> Any:
    """`run` in an event loop."""
    config, control = prepared(task, config)
    state = await graph.aget_state(config)
    if not state.next and state.created_at is not None:
        return state.values
    await task.save(task.checkpoint.step if task.checkpoint else 0, thread_of(config), safe=False)
    with stopping(task.worker, control):
        try:
            start = None if state.next else input
            return await graph.ainvoke(start, config, durability="sync", control=control)
        except GraphDrained:
            await task.save((await graph.aget_state(config)).metadata.get("step", 0) + 1, thread_of(config))
            raise


def prepared(task: Task | AsyncTask, config: RunnableConfig | None) -> tuple[RunnableConfig, RunControl]:
    # One thread a task: a session's next turn would be taken for this one's rest.
    named = {"thread_id": task.key or task.id, **(config or {}).get("configurable", {})}
    return {**(config or {}), "configurable": named}, RunControl()  # type: ignore[typeddict-item]


def thread_of(config: RunnableConfig) -> Body:
    return {"thread_id": config["configurable"]["thread_id"]}


class stopping:
    """While it is entered, a drain of the worker stops the run at its next node."""

    def __init__(self, worker: Worker, control: RunControl) -> None:
        self.worker, self.call = worker, lambda drain: control.request_drain(drain.get("reason", "drain"))

    def __enter__(self) -> None:
        self.worker.on_drain.append(self.call)
        if self.worker.drain is not None:
            self.call(self.worker.drain)

    def __exit__(self, *error: Any) -> None:
        self.worker.on_drain.remove(self.call)
