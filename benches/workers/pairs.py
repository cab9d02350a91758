"""Begins and ends tasks through the Python SDK, many at a time, for SECONDS; writes how many to the file RESULT."""

import asyncio
import json
import os
import time

from agentd_worker import Worker

AT_ONCE = 512
worker = Worker()
done = 0


async def one(until: float) -> None:
    global done
    while time.monotonic() < until:
        async with worker.task(kind="pair"):
            pass
        done += 1


async def main() -> None:
    await worker.link.ask_async({"t": "ready"})
    began = time.monotonic()
    await asyncio.gather(*(one(began + float(os.environ["SECONDS"])) for _ in range(AT_ONCE)))
    said = {"n": done, "per_second": done / (time.monotonic() - began), "cpu_seconds": time.process_time()}
    with open(os.environ["RESULT"] + ".new", "w") as file:
        json.dump(said, file)
    os.rename(os.environ["RESULT"] + ".new", os.environ["RESULT"])
    await asyncio.Event().wait()


asyncio.run(main())
