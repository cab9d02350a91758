"""Tasks that are cancelled while agentd owes an answer: each case by its name. The other side answers when it is told to."""

import asyncio
import json
import os
import socket
import sys
import tempfile
import threading

folder = tempfile.TemporaryDirectory()
os.environ["AGENTD_WORKER_SOCKET"] = os.path.join(folder.name, "worker.sock")
os.environ["AGENTD_WORKER_TOKEN"] = "token"

from agentd_worker import Worker  # noqa: E402

said = []
withheld = threading.Event()
answered = threading.Event()


def serve(withhold):
    """Answers everything but `withhold`, which waits for `withheld`."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.environ["AGENTD_WORKER_SOCKET"])
    listener.listen()

    def talk():
        stream, _ = listener.accept()
        for line in stream.makefile("rb"):
            word = json.loads(line)
            said.append(word)
            if word["t"] == withhold:
                asked.set()
                assert withheld.wait(30)
            answer = {"re": word.get("n"), "ok": True, "lease_ms": 30000, "task": word.get("task"), "fence": 1, "attempt": 1}
            if word.get("n") is not None:
                stream.sendall(json.dumps(answer).encode() + b"\n")
            if word["t"] == "task.end":
                answered.set()

    asked = threading.Event()
    threading.Thread(target=talk, daemon=True).start()
    return asked


async def work(worker):
    async with worker.task(kind="k"):
        pass


async def until(so):
    for _ in range(3000):
        if so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not so after 30 s: {said}")


async def cancel(task):
    task.cancel()
    await asyncio.wait([task], timeout=30)
    assert task.cancelled(), task


def ends():
    return [word["outcome"] for word in said if word["t"] == "task.end"]


async def away():
    """Nobody listens: the loop ends all the same."""
    asyncio.ensure_future(work(Worker()))
    await asyncio.sleep(0)


async def beginning():
    asked, worker = serve("task.begin"), Worker()
    task = asyncio.ensure_future(work(worker))
    await until(asked.is_set)
    await cancel(task)
    withheld.set()
    await until(answered.is_set)
    assert ends() == ["cancelled"], said
    assert not worker.held and not worker.link.beating, worker.held


async def ending():
    asked, worker = serve("task.end"), Worker()
    task = asyncio.ensure_future(work(worker))
    await until(asked.is_set)
    await cancel(task)
    assert not worker.held and not worker.link.beating, worker.held
    withheld.set()
    await until(answered.is_set)
    assert ends() == ["ok"], said


asyncio.run({"away": away, "beginning": beginning, "ending": ending}[sys.argv[1]]())
print("as it should be")
