"""What looking at the daemon costs and how fresh it is: documents a second, and how late events are."""
import json
import os
import selectors
import signal
import socket
import threading
import time
from datetime import datetime

import proc
from survival import PATIENCE, Instance, emit, ready, sleepers

# An app that ends and is started again, so that there are events.
RESTLESS = """[agent.restless]
command = ["sleep", "1000000"]
restart = { backoff = "1ms..1ms", max = "1000000 in 1m" }
"""


def documents(path, until):
    """Fetches documents one after another as a script would; how many until then, and the size of the last."""
    count, size = 0, 0
    while time.monotonic() < until:
        with socket.socket(socket.AF_UNIX) as status:
            status.settimeout(PATIENCE)
            status.connect(path)
            status.shutdown(socket.SHUT_WR)
            size = 0
            while part := status.recv(1 << 20):
                size += len(part)
        count += 1
    return count, size


def fetched(path, clients, seconds):
    """The same by several processes at once: how many they got together, and the size of one."""
    until, readers = time.monotonic() + seconds, []
    for _ in range(clients):
        read, write = os.pipe()
        if os.fork() == 0:
            try:
                os.write(write, json.dumps(documents(path, until)).encode())
            finally:
                os._exit(0)
        os.close(write)
        readers.append(read)
    results = []
    for read in readers:
        with os.fdopen(read, "rb") as file:
            results.append(json.loads(file.read()))
        os.wait()
    return sum(count for count, _ in results), results[0][1]


class Watchers:
    """Clients that read every event, and note when it came."""

    def __init__(self, path, count):
        self.selector, self.came, self.stopping = selectors.DefaultSelector(), [], False
        for number in range(count):
            client = socket.socket(socket.AF_UNIX)
            client.connect(path)
            client.sendall(b'{"watch":true}\n')
            client.setblocking(False)
            self.selector.register(client, selectors.EVENT_READ, number)
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        rest = {}
        while not self.stopping:
            for key, _ in self.selector.select(0.1):
                data = key.fileobj.recv(1 << 20)
                at = time.time()
                *lines, rest[key.data] = (rest.get(key.data, b"") + data).split(b"\n")
                self.came += [(at, line) for line in lines]

    def delays_ms(self):
        """How long after it happened each event was here."""
        self.stopping = True
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        found = []
        for at, line in self.came:
            event = json.loads(line)
            if "seq" in event and "event" in event:
                found.append((at - datetime.fromisoformat(event["at"][:26].rstrip("Z") + "+00:00").timestamp()) * 1e3)
        return found


def status(given):
    """Documents a second with N workers, by some clients at once; and how late events are with W watchers."""
    with Instance(given.bin) as one:
        one.start()
        one.ctl("start", one.config(sleepers(given.n) + RESTLESS))
        one.until(ready)
        path = os.path.join(one.home, "run", "status.sock")
        time.sleep(1)
        cpu = proc.cpu_s([one.process.pid])
        count, size = fetched(path, given.clients, given.seconds)
        cpu = proc.cpu_s([one.process.pid]) - cpu
        emit(given, "status-documents", workers=given.n + 1, clients=given.clients, bytes=size,
             a_second=round(count / given.seconds), cpu_us_each=round(cpu / max(count, 1) * 1e6))
        watchers, until, killed = Watchers(path, given.watchers), time.monotonic() + given.seconds, 0
        time.sleep(0.5)
        watchers.came.clear()
        while time.monotonic() < until:
            document = one.document()
            worker = next(app for app in document["apps"] if app["name"] == "restless")["workers"][0]
            if worker["state"] == "ready" and worker["pid"]:
                os.kill(worker["pid"], signal.SIGKILL)
                killed += 1
            time.sleep(0.05)
        time.sleep(0.3)
        delays = watchers.delays_ms()
        emit(given, "status-events", watchers=given.watchers, crashes=killed, events_read=len(delays),
             delay_ms={"median": round(proc.percentile(delays, 0.5), 2), "p99": round(proc.percentile(delays, 0.99), 2),
                       "max": round(max(delays), 2)})
