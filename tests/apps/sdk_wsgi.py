"""The WSGI app beside this file, with each request made a task, and with requests that go wrong in every way there is."""

import time

from agentd_worker.wsgi import AgentdMiddleware
from wsgi import app as fine


def answering(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raises":
        raise RuntimeError("before its answer")
    if path == "/breaks":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return breaking()
    if path == "/unavailable":
        start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"later\n"]
    if path == "/endless":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return endless()
    if path == "/task":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"inside={environ['agentd.task'].worker.inside}\n".encode()]
    return fine(environ, start_response)


def endless():
    try:
        while True:
            yield b"data: more\n\n"
            time.sleep(0.05)
    finally:
        print("let go of", flush=True)


def breaking():
    yield b"half of it\n"
    raise RuntimeError("within its answer")


app = AgentdMiddleware(answering)
