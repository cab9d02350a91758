"""LangGraph's own conformance suite for checkpointers, run on agentd's `Saver` by a worker. Its report is put at $REPORT."""

import asyncio
import json
import os
import uuid

from agentd_worker import Worker
from agentd_worker.langgraph import Saver
from langgraph.checkpoint.conformance import checkpointer_test, validate

worker = Worker()


@checkpointer_test(name="agentd")
async def made():
    yield Saver(worker, ns=uuid.uuid4().hex)


assert worker.inside, "what is judged is the store of a daemon"
worker.ready()
report = asyncio.run(validate(made))
with open(os.environ["REPORT"] + ".new", "w") as out:
    json.dump(report.to_dict(), out)
os.rename(os.environ["REPORT"] + ".new", os.environ["REPORT"])
worker.serve()
