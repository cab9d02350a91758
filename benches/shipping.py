"""Another version of a service takes the place of the first: shares of connections, the switch, and requests meanwhile."""
import math
import os
import socket
import statistics
import threading
import time

from survival import PATIENCE, Instance, emit

# Answers each connection with the worker it is, whose last part is its generation.
SERVER = """import os, socket
me = os.environ["AGENTD_WORKER"].encode()
door = socket.socket(fileno=3)
door.setblocking(True)
while True:
    client, _ = door.accept()
    with client:
        try:
            if client.recv(64):
                client.sendall(me)
        except OSError:
            pass
"""

APP = """[skill.web]
command = ["python3", "server.py"]
workers = 2
listen = "127.0.0.1:{port}"
env.VERSION = "{version}"
upgrade = {{ strategy = "{strategy}", steps = [5, 10, 25, 50, 100], dwell = "1h", judged_by = "time", stability = "{stability}", min_uptime = "0s" }}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Shipped:
    """The service in its first version, and how to ship another."""

    def __init__(self, one, strategy, stability="0s"):
        self.one, self.strategy, self.stability = one, strategy, stability
        self.port, self.version = free_port(), 0
        with open(os.path.join(one.home, "server.py"), "w", encoding="utf-8") as file:
            file.write(SERVER)
        one.start()
        one.ctl("start", self.configure())

    def configure(self):
        self.version += 1
        return self.one.config(APP.format(port=self.port, version=self.version, strategy=self.strategy,
                                          stability=self.stability))

    def ship(self, *words, **options):
        self.configure()
        return self.one.ctl("upgrade", "web", *words, **options)

    def generation(self):
        """Which generation answers a new connection."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
            client.settimeout(PATIENCE)
            client.sendall(b"?")
            said = b""
            while part := client.recv(64):
                said += part
        if not said:
            raise OSError("no answer")
        return int(said.rsplit(b".", 1)[1])


def shares(given):
    """share of new connections that a canary of 5, 10, 25 and 50 % gets, of N connections at each"""
    rows, worst = {}, 0.0
    with Instance(given.bin) as one:
        web = Shipped(one, "canary")
        web.ship("--no-wait")
        for percent in (5, 10, 25, 50):
            one.until(lambda document, percent=percent: at(document) == percent and all_ready(document))
            time.sleep(0.2)  # a step is told of before its weights are set
            new = sum(web.generation() > 1 for _ in range(given.connections))
            expected = given.connections * percent / 100
            sigmas = (new - expected) / math.sqrt(expected * (1 - percent / 100))
            worst = max(worst, abs(sigmas))
            rows[percent] = {"share_percent": round(100 * new / given.connections, 2), "sigmas": round(sigmas, 2)}
            one.ctl("promote", "web")
        one.ctl("abort", "web")
    emit(given, "shares", connections=given.connections, steps=rows, worst_sigmas=round(worst, 2))


def at(document):
    """Percent of the step that a canary is at, once its weights are set; none when no deployment runs."""
    deployment = document["apps"][0].get("deployment")
    return deployment and deployment.get("percent", 0)


def all_ready(document):
    return all(worker["state"] == "ready" for worker in document["apps"][0]["workers"])


class Asking(threading.Thread):
    """One new connection after another; for each, when it was begun and which generation it reached."""

    def __init__(self, web, pause=0.0):
        super().__init__(daemon=True)
        self.web, self.pause, self.seen, self.failed, self.over = web, pause, [], [], threading.Event()

    def run(self):
        due = time.monotonic()
        while not self.over.is_set():
            begun = time.monotonic()
            try:
                self.seen.append((begun, self.web.generation()))
            except OSError as error:
                self.failed.append(repr(error))
            due = max(due + self.pause, time.monotonic() - 0.1)
            if due > time.monotonic():
                self.over.wait(due - time.monotonic())

    def end(self):
        self.over.set()
        self.join(PATIENCE)


def switch(given):
    """blue-green, as clients see it: from the first answer of the new to the last of the old, and back after a command"""
    there, back, failed = [], [], 0
    with Instance(given.bin) as one:
        web = Shipped(one, "blue-green", "1h")
        for _ in range(given.rounds):
            old = web.generation()
            asking = Asking(web)
            asking.start()
            web.ship("--no-wait")
            one.until(lambda document, old=old: web.generation() != old)
            time.sleep(0.2)
            turn = time.monotonic()
            one.ctl("abort", "web")
            time.sleep(0.2)
            asking.end()
            failed += len(asking.failed)
            new = [begun for begun, generation in asking.seen if generation != old]
            first, last = new[0], new[-1]
            before = [begun for begun, generation in asking.seen if generation == old and begun < turn]
            there.append(max(0.0, (before[-1] - first) * 1e3))
            back.append(max(0.0, (last - turn) * 1e3))
            one.until(lambda document: at(document) is None)
    emit(given, "switch", rounds=given.rounds, failed=failed,
         there_ms={"median": round(statistics.median(there), 2), "max": round(max(there), 2)},
         back_ms={"median": round(statistics.median(back), 2), "max": round(max(back), 2)})


def rolling(given):
    """rolling upgrades of two workers under so many requests a second: how many failed"""
    with Instance(given.bin) as one:
        web = Shipped(one, "rolling")
        asking = [Asking(web, 4 / given.rate) for _ in range(4)]
        begun = time.monotonic()
        for thread in asking:
            thread.start()
        for _ in range(given.upgrades):
            web.ship()
        took = time.monotonic() - begun
        for thread in asking:
            thread.end()
    answered, failed = sum(len(thread.seen) for thread in asking), sum((thread.failed for thread in asking), [])
    emit(given, "rolling", upgrades=given.upgrades, asked_per_second=given.rate,
         requests_per_second=round(answered / took), requests=answered, failed=len(failed), why=failed[:3])
