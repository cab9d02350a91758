"""A WSGI app without a framework, for gunicorn's sync and gthread workers: it knows nothing of agentd."""

import os
import time
from urllib.parse import parse_qs


def app(environ, start_response):
    seconds = float(parse_qs(environ["QUERY_STRING"]).get("s", ["0"])[0])
    path = environ["PATH_INFO"]
    if path == "/sse":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return events(seconds)
    if path == "/long":
        time.sleep(seconds)
        body = b"done\n"
    else:
        body = f"{os.environ.get('VERSION', '-')} {os.environ['AGENTD_WORKER']} {os.getpid()}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def events(seconds):
    for n in range(int(seconds / 0.2)):
        yield f"data: {n}\n\n".encode()
        time.sleep(0.2)
    yield b"data: end\n\n"
