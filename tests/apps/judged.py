"""A worker that answers each connection with a task and tells its figures; worse where its environment says so. What it
had in hand when it died is done by another: each task has its number as its input.

ERRORS  every so many-th task fails     SLOW  how many times as long     TOOLS  how many times as many tool calls
STAYS          ends by SIGKILL alone
READY_AFTER    seconds from its start to its readiness
CRASH_AFTER    seconds from its readiness to its end, in the midst of the next task that it has in hand then
"""
import os
import signal
import socket
import threading
import time

from agentd_worker import Worker

errors = int(os.environ.get("ERRORS", "0"))
slow = float(os.environ.get("SLOW", "1"))
tools = int(os.environ.get("TOOLS", "1"))
lock, count = threading.Lock(), 0
doomed = threading.Event()
worker = Worker()


class Told(Exception):
    """Fails as it was told to."""


def answer(task):
    n = task.input
    if doomed.is_set():
        os._exit(1)
    if n % 20 == 1:
        task.effect("mail", key=f"{n}:mail", run=lambda key: None)
    # Not all the same: a distribution.
    time.sleep((0.004 + 0.0004 * (n * 7 % 11)) * slow)
    task.done(tokens_in=100 + n % 13, tokens_out=40 + n % 7, cost_usd=0.01, tool_calls=tools * (1 + n % 3),
              steps=3, quality=0.8)
    if errors and n % errors == 0:
        raise Told


def serve(client):
    global count
    with client:
        with lock:
            count += 1
            n = count
        try:
            with worker.task(kind="answer", input=n) as task:
                answer(task)
        except Told:
            pass
        client.sendall(b"ok %d\n" % n)


listener = socket.socket(fileno=3)
listener.settimeout(None)
worker.on_task("answer", answer)
if "STAYS" in os.environ:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(float(os.environ.get("READY_AFTER", "0")))
worker.ready()
if "CRASH_AFTER" in os.environ:
    threading.Timer(float(os.environ["CRASH_AFTER"]), doomed.set).start()
while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
