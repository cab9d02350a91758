"""Runs a vector's program with the Python SDK: `runner.py VECTOR [async]`."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))
from agentd_worker import Cancelled, Drained, Duplicate, Indeterminate, Refused, Worker  # noqa: E402

NAMES = {Drained: "drained", Cancelled: "cancelled", Duplicate: "duplicate", Indeterminate: "indeterminate", Refused: "refused"}
worker = Worker()


class Failed(Exception):
    pass


def say(**line):
    print(json.dumps(line), flush=True)


def seen(task):
    ckpt = task.checkpoint
    return {"attempt": task.attempt, "checkpoint": [ckpt.step, ckpt.state] if ckpt else None}


def until(wanted):
    while not wanted():
        time.sleep(0.005)


async def step(op, task, is_async):
    """One op; what it awaits is a value already where the task is a thread's."""
    name, value = op["op"], None
    if name == "ready":
        worker.ready()
    elif name == "on_refresh":
        def renew(scope):
            if "fails" in op:
                raise Failed(op["fails"])
            say(renewed=scope)
        worker.on_refresh.append(renew)
    elif name == "save":
        value = task.save(op["step"], op["state"], safe=op.get("safe", True))
    elif name == "effect":
        def run(key):
            if "fails" in op:
                raise Failed(op["fails"])
            return op["result"]
        value = task.effect(op["kind"], op["key"], run)
    elif name == "done":
        task.done(op.get("result"), **op.get("figures", {}))
    elif name == "fail":
        raise Failed("as told")
    elif name == "drain":
        until(lambda: worker.draining)
    elif name == "cancel":
        until(lambda: task.cancelled is not None)
    elif name == "put":
        worker.kv(op["ns"]).put(op["key"], op["value"])
    elif name == "get":
        value = worker.kv(op["ns"]).get(op["key"])
    say(value=await value if is_async and asyncio.iscoroutine(value) else value)


async def inside(scope, body, is_async):
    try:
        if is_async:
            async with scope as task:
                say(value=seen(task))
                for op in body:
                    await step(op, task, True)
        else:
            with scope as task:
                say(value=seen(task))
                for op in body:
                    await step(op, task, False)
    except tuple(NAMES) + (Failed,) as error:
        say(error=NAMES.get(type(error), "failed"))


async def main(program, is_async):
    ops = list(program)
    while ops:
        op = ops.pop(0)
        if op["op"] == "begin":
            body = []
            while ops and (not body or body[-1]["op"] not in ("done", "fail")):
                body.append(ops.pop(0))
            given = {name: op[name] for name in ("kind", "key", "session", "input") if name in op}
            await inside(worker.task(**given), body, is_async)
        elif op["op"] == "serve":
            def run(task, op=op):
                say(value=seen(task))
                for one in op["body"]:
                    asyncio.run(step(one, task, False))
                os.kill(os.getpid(), signal.SIGTERM)
                return task.result
            given = []
            worker.on_task(op["kind"], lambda task: given.append(task.input) or run(task))
            worker.serve()
            say(value=given[0])
        else:
            try:
                await step(op, None, False)
            except Refused:
                say(error="refused")


asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())["program"], "async" in sys.argv[2:]))
