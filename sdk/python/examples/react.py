"""A ReAct-style agent: it thinks, calls a tool, looks at what came of it, and keeps a checkpoint after each call.

Its model is a table, so that it runs anywhere. Each e-mail sent is a line of the file OUTBOX, so that one sent twice is seen.
"""

import asyncio
import os
from pathlib import Path

from agentd_worker import AsyncTask, Drained, Duplicate, Worker

OUTBOX = Path(os.environ.get("OUTBOX", "outbox.txt"))
PAUSE = float(os.environ.get("PAUSE", "0.1"))
worker = Worker()


def think(goal: int, seen: list[str]) -> str | None:
    return f"customer {len(seen) + 1}" if len(seen) < goal else None


def send_email(key: str) -> str:
    with OUTBOX.open("a") as outbox:
        outbox.write(f"{key}\n")
    return key


async def agent(task: AsyncTask) -> dict:
    seen = task.checkpoint.state if task.checkpoint else []
    while (whom := think(task.input["goal"], seen)) is not None:
        step = len(seen) + 1
        await task.effect("send_email", f"{step}:mail", send_email, desc=whom)
        seen.append(whom)
        await task.save(step, seen)
        await asyncio.sleep(PAUSE)
    return {"told": seen}


async def main() -> None:
    worker.on_task("react", agent)
    serving = asyncio.create_task(worker.serve_async())
    try:
        async with worker.task(kind="react", key="tell everybody", input={"goal": int(os.environ.get("STEPS", "5"))}) as task:
            task.done(await agent(task))
    except (Drained, Duplicate) as why:
        print(f"not here any more: {why!r}", flush=True)
    if worker.inside:
        await serving


asyncio.run(main())
