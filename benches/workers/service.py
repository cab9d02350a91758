"""WSGI: works for as long as the request says (`GET /?ms=N`), one request at a time. For the latency bench."""
import time


def application(environ, start_response):
    time.sleep(float(environ["QUERY_STRING"].partition("=")[2] or 0) / 1000)
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]
