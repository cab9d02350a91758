"""A LangGraph agent that is handed over between two nodes. Its nodes are deterministic, so that it runs anywhere.

Each e-mail sent is a line of the file OUTBOX, so that one sent twice is seen.
"""

import os
import threading
import time
from pathlib import Path
from typing import TypedDict

from agentd_worker import Cancelled, Drained, Duplicate, Task, Worker
from agentd_worker.langgraph import Saver, run
from agentd_worker.task import current
from langgraph.graph import END, START, StateGraph

OUTBOX = Path(os.environ.get("OUTBOX", "outbox.txt"))
PAUSE = float(os.environ.get("PAUSE", "0.1"))
worker = Worker()


class State(TypedDict):
    goal: int
    told: int


def send_email(key: str) -> str:
    with OUTBOX.open("a") as outbox:
        outbox.write(f"{key}\n")
    return key


def tell(state: State) -> dict:
    step = state["told"] + 1
    current.get().effect("send_email", f"{step}:mail", send_email)
    time.sleep(PAUSE)
    return {"told": step}


def rest(state: State) -> str:
    return "tell" if state["told"] < state["goal"] else END


builder = StateGraph(State)
builder.add_node("tell", tell)
builder.add_edge(START, "tell")
builder.add_conditional_edges("tell", rest, ["tell", END])
graph = builder.compile(checkpointer=Saver(worker))


def agent(task: Task) -> dict:
    return run(graph, task, {"goal": task.input["goal"], "told": 0}, {"recursion_limit": 1000})


def begin() -> None:
    try:
        with worker.task(kind="graph", key="tell everybody", input={"goal": int(os.environ.get("STEPS", "5"))}) as task:
            task.done(agent(task))
    except (Cancelled, Drained, Duplicate) as why:
        print(f"not here any more: {why!r}", flush=True)


worker.on_task("graph", agent)
first = threading.Thread(target=begin)
first.start()
if worker.inside:
    worker.serve()
first.join()
