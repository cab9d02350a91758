"""The load of the reload bench: blocking sockets in threads, in a process of its own. A request has one outcome:

ok | refused | reset (closed before the first byte) | truncated (closed in the middle) | timeout | http_NNN
kept_reset: reset on a connection that had been used before; a careful client may repeat those.
"""
import collections
import os
import pickle
import socket
import threading
import time


def exchange(sock, path, keep):
    """Sends one request and reads its answer: outcome, and whether the connection may be used again."""
    closing = "" if keep else "Connection: close\r\n"
    got = b""
    try:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{closing}\r\n".encode())
        while b"\r\n\r\n" not in got:
            more = sock.recv(65536)
            if not more:
                return ("truncated" if got else "reset"), False
            got += more
        head, _, body = got.partition(b"\r\n\r\n")
        head = head.lower()
        if not head.startswith(b"http/1.1 200"):
            return "http_" + head[9:12].decode(), False
        length = head.partition(b"content-length:")[2].split(b"\r\n")[0].strip()
        ends = (lambda: len(body) >= int(length)) if length else (lambda: body.endswith(b"0\r\n\r\n"))
        while not ends():
            more = sock.recv(65536)
            if not more:
                return "truncated", False
            body += more
        if path.startswith("/sse") and b"data: done" not in body:
            return "truncated", False
        return "ok", b"connection: close" not in head
    except TimeoutError:
        return "timeout", False
    except OSError:
        return ("truncated" if got else "reset"), False


def client(port, kind, path, think_s, limit_s, until, note):
    sock, used = None, False
    while not until.is_set():
        if sock is None:
            used = False
            try:
                sock = socket.create_connection(("127.0.0.1", port), limit_s)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                note[kind, "refused" if isinstance(error, ConnectionRefusedError) else "timeout"] += 1
                time.sleep(0.05)
                continue
        outcome, usable = exchange(sock, path, kind == "keepalive")
        note[kind, "kept_reset" if outcome == "reset" and used else outcome] += 1
        used = True
        if kind != "keepalive" or not usable:
            sock.close()
            sock = None
        if think_s:
            time.sleep(think_s)


class Load:
    """Load of some kinds from a process of its own, until it is asked to finish; requests that are under way end."""

    # kind: clients, path, pause between requests
    KINDS = {"fresh": (6, "/", 0), "keepalive": (10, "/", 0.01), "long": (5, "/long", 0), "sse": (5, "/sse", 0)}

    def __init__(self, port, task_s, kinds):
        go_on, self.stop = os.pipe()
        results, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.stop)
            try:
                counts = self.run(port, task_s, kinds, go_on)
                os.write(told, pickle.dumps(counts))
            finally:
                os._exit(0)
        os.close(go_on)
        os.close(told)
        self.results = results

    @staticmethod
    def run(port, task_s, kinds, go_on):
        until, threads = threading.Event(), []
        for kind in kinds:
            count, path, think_s = Load.KINDS[kind]
            slow = path != "/"
            for _ in range(count):
                note = collections.Counter()
                given = (port, kind, path + f"?s={task_s}" * slow, think_s, task_s + 90 if slow else 10, until, note)
                threads.append((threading.Thread(target=client, args=given), note))
        for thread, _ in threads:
            thread.start()
        os.read(go_on, 1)
        until.set()
        counts = {}
        for thread, note in threads:
            thread.join()
            for (kind, outcome), count in note.items():
                of = counts.setdefault(kind, {})
                of[outcome] = of.get(outcome, 0) + count
        return counts

    def ask_to_finish(self):
        os.close(self.stop)

    def counts(self):
        """{kind: {outcome: count}}, once all have ended."""
        with os.fdopen(self.results, "rb") as file:
            counts = pickle.load(file)
        os.waitpid(self.pid, 0)
        return counts


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.settimeout(1)
            return exchange(sock, "/", False)[0] == "ok"
    except OSError:
        return False
