"""A worker that speaks the task protocol by the standard library only: the protocol in one page, for tests.

Link keeps one connection, redials, and sends again what was not answered. Tasks come by task.run (kinds below) or over
a control socket (TASKER_SOCKET): one line of JSON in, one out. A listener `http` is served beside them.

kinds:  steps   {"steps": n, "pause": s, "ledger": url}  a checkpoint and an effect a step
                "hang": n                                the first run never gets beyond step n
                "await_drain": n                         the first run goes on behind step n once its worker drains
        sleep   {"pause": s}                              no checkpoint
        last    {"pause": s}                              ends that long after its worker was told to drain
        shell   {"command": [...]}                        runs a command to its end
"""
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid

EXIT_FENCED = 75


class Refused(Exception):
    def __init__(self, answer):
        super().__init__(answer.get("msg"))
        self.code = answer["err"]


class Link:
    def __init__(self, on_message, max_tasks=0):
        self.path = os.environ["AGENTD_WORKER_SOCKET"]
        self.token = os.environ["AGENTD_WORKER_TOKEN"]
        self.on_message, self.max_tasks = on_message, max_tasks
        self.lock, self.n, self.pending = threading.Lock(), 0, {}
        self.sock, self.tasks, self.welcome = None, {}, threading.Event()
        threading.Thread(target=self.live, daemon=True).start()
        threading.Thread(target=self.beat, daemon=True).start()

    def live(self):
        while True:
            try:
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(self.path)
                hello = {"t": "hello", "n": 0, "proto": "agentd/1", "token": self.token, "sdk": "tasker",
                         "pid": os.getpid(), "caps": ["checkpoint", "drain"], "max_tasks": self.max_tasks}
                sock.sendall(json.dumps(hello).encode() + b"\n")
                lines = sock.makefile("rb")
                first = json.loads(lines.readline() or b'{"ok":false,"err":"gone","msg":"closed"}')
                if not first["ok"]:
                    raise OSError(first["msg"])
                with self.lock:
                    self.sock = sock
                    for n in sorted(self.pending):
                        sock.sendall(self.pending[n][0])
                self.info = first
                self.welcome.set()
                for line in lines:
                    self.take(json.loads(line))
            except (OSError, ValueError):
                pass
            with self.lock:
                self.sock = None
            time.sleep(0.05)

    def take(self, message):
        if "re" in message:
            with self.lock:
                waiting = self.pending.pop(message["re"], None)
            if waiting:
                waiting[2].append(message)
                waiting[1].set()
        elif message.get("t") == "fenced":
            os._exit(EXIT_FENCED)
        else:
            self.on_message(message)

    def send(self, **fields):
        done, box = threading.Event(), []
        with self.lock:
            self.n += 1
            line = json.dumps({**fields, "n": self.n}).encode() + b"\n"
            self.pending[self.n] = (line, done, box)
            if self.sock:
                try:
                    self.sock.sendall(line)
                except OSError:
                    pass
        done.wait()
        if not box[0]["ok"]:
            if box[0]["err"] == "fenced":
                os._exit(EXIT_FENCED)
            raise Refused(box[0])
        return box[0]

    def tell(self, **fields):
        with self.lock:
            if self.sock:
                try:
                    self.sock.sendall(json.dumps(fields).encode() + b"\n")
                except OSError:
                    pass

    def beat(self):
        while True:
            self.welcome.wait()
            time.sleep(self.info["lease_ms"] / 3000)
            tasks = [{"task": task, "fence": fence} for task, fence in list(self.tasks.items())]
            if tasks:
                self.tell(t="beat", tasks=tasks)


draining = threading.Event()
cancelled = set()


def post(url, key):
    request = urllib.request.Request(f"{url}/{key}", method="POST", headers={"Idempotency-Key": key})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def work(task, fence, kind, given, ckpt, attempt):
    own = {"task": task, "fence": fence}
    link.tasks[task] = fence
    try:
        if kind == "sleep":
            time.sleep(given["pause"])
        elif kind == "last":
            draining.wait()
            time.sleep(given["pause"])
        elif kind == "shell":
            subprocess.run(given["command"], check=False)
        else:
            for step in range(ckpt["step"] + 1 if ckpt else 1, given["steps"] + 1):
                if task in cancelled:
                    return link.send(t="task.end", outcome="cancelled", **own)
                key = f"{step}:post"
                state = link.send(t="effect.begin", key=key, kind="post", **own)
                if state["state"] == "new" or state.get("policy") == "retry":
                    result = post(given["ledger"], state["key"]) if given.get("ledger") else None
                    link.send(t="effect.end", key=key, ok=True, result=result, **own)
                elif state.get("policy") == "ask":
                    return None
                link.send(t="ckpt", step=step, json={"step": step, "pad": "x" * given.get("pad", 0)}, **own)
                if step == given.get("await_drain") and attempt == 1:
                    draining.wait()
                if draining.is_set() and step < given["steps"]:
                    try:
                        return link.send(t="task.yield", step=step, reason="drain", **own)
                    except Refused as refused:
                        if refused.code != "conflict":
                            raise
                if step == given.get("hang") and attempt == 1:
                    time.sleep(3600)
                time.sleep(given.get("pause", 0))
        if given.get("ledger"):
            post(given["ledger"], f"{task}:end")
        return link.send(t="task.end", outcome="ok", result={"attempt": attempt}, **own)
    finally:
        link.tasks.pop(task, None)


def on_message(message):
    if message["t"] == "task.run":
        given = message.get("input") or {}
        args = (message["task"], message["fence"], message.get("kind"), given, message.get("ckpt"), message["attempt"])
        threading.Thread(target=work, args=args, daemon=True).start()
    elif message["t"] == "drain":
        draining.set()
    elif message["t"] == "undrain":
        draining.clear()
    elif message["t"] == "cancel":
        cancelled.add(message["task"])


def door(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    return listener


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


def serve_pages(descriptor):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=descriptor)
    server.serve_forever(poll_interval=0.05)


def serve(listener):
    """Requests from outside, one connection each: {"t":"task.begin",…} is begun and worked on here."""
    while True:
        client, _ = listener.accept()
        threading.Thread(target=answer, args=(client,), daemon=True).start()


def answer(client):
    with client, client.makefile("rw") as lines:
        request = json.loads(lines.readline())
        try:
            begun = link.send(t="task.begin", task=request.get("task") or uuid.uuid4().hex, kind=request["kind"],
                              key=request.get("key"), input=request["input"])
            if "dup" not in begun:
                args = (begun["task"], begun["fence"], request["kind"], request["input"], begun.get("ckpt"), begun["attempt"])
                threading.Thread(target=work, args=args, daemon=True).start()
        except Refused as refused:
            begun = {"err": refused.code}
        lines.write(json.dumps(begun) + "\n")


link = Link(on_message, max_tasks=int(os.environ.get("TASKER_MAX", "8")))
link.welcome.wait()
if os.environ.get("TASKER_SOCKET"):
    path = os.environ["TASKER_SOCKET"] + "." + os.environ["AGENTD_SLOT"] + "." + os.environ["AGENTD_GENERATION"]
    # There before it says that it is ready.
    threading.Thread(target=serve, args=(door(path),), daemon=True).start()
if "AGENTD_FD_HTTP" in os.environ:
    threading.Thread(target=serve_pages, args=(int(os.environ["AGENTD_FD_HTTP"]),), daemon=True).start()
link.tell(t="ready")
while True:
    time.sleep(0.05)
    if draining.is_set() and not link.tasks:
        time.sleep(3600)
