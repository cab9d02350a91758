#!/usr/bin/env python3
"""A sample agent that takes no requests: it writes a report of many chapters, and sends each.

Each chapter is an effect and a checkpoint. A reload hands the report over at a checkpoint: the next worker goes on with
the next chapter, and no chapter is sent twice. What is sent is a line of the file OUTBOX.
"""

import os
import threading
import time

from agentd_worker import Drained, Duplicate, Worker

worker = Worker()


def send(key):
    with open(os.environ.get("OUTBOX", os.devnull), "a") as outbox:
        outbox.write(f"{key}\n")
    print(f"sent {key}", flush=True)
    return {"sent": key}


def write(task):
    done = task.checkpoint.step if task.checkpoint else 0
    for chapter in range(done + 1, task.input["chapters"] + 1):
        time.sleep(int(os.environ.get("PAUSE_MS", "200")) / 1000)
        task.effect("send", f"{chapter}:send", send)
        task.save(chapter, {"sent": chapter})  # durable; Drained when this worker is replaced
    return {"chapters": task.input["chapters"]}


def begin():
    try:
        with worker.task(kind="report", key="the report", input={"chapters": int(os.environ.get("CHAPTERS", "60"))}) as task:
            task.done(write(task))
    except (Drained, Duplicate) as why:
        print(f"not here: {why!r}", flush=True)


worker.on_task("report", write)
first = threading.Thread(target=begin)
first.start()
if worker.inside:
    worker.serve()
first.join()
