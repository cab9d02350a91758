"""A worker that answers each connection with a task and tells its figures; worse where its environment says so.

ERRORS  every so many-th task fails     SLOW  how many times as long     TOOLS  how many times as many tool calls
READY_AFTER, CRASH_AFTER  seconds, from its start on and from its readiness on
"""
import os
import socket
import threading
import time

from agentd_worker import Worker

errors = int(os.environ.get("ERRORS", "0"))
slow = float(os.environ.get("SLOW", "1"))
tools = int(os.environ.get("TOOLS", "1"))
lock, count = threading.Lock(), 0
worker = Worker()


class Told(Exception):
    """Fails as it was told to."""


def serve(client):
    global count
    with client:
        with lock:
            count += 1
            n = count
        # Not all the same: a distribution.
        pause = (0.004 + 0.0004 * (n * 7 % 11)) * slow
        try:
            with worker.task(kind="answer") as task:
                if n % 20 == 1:
                    task.effect("mail", key=f"{n}:mail", run=lambda key: None)
                time.sleep(pause)
                task.done(tokens_in=100 + n % 13, tokens_out=40 + n % 7, cost_usd=0.01, tool_calls=tools * (1 + n % 3),
                          steps=3, quality=0.8)
                if errors and n % errors == 0:
                    raise Told
        except Told:
            pass
        client.sendall(b"ok %d\n" % n)


listener = socket.socket(fileno=3)
listener.settimeout(None)
time.sleep(float(os.environ.get("READY_AFTER", "0")))
worker.ready()
if "CRASH_AFTER" in os.environ:
    threading.Timer(float(os.environ["CRASH_AFTER"]), os._exit, [1]).start()
while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
