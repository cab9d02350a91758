"""A soak in miniature: reloads and crashes of small workers, and whether the daemon stays as small as it was.

Memory is RssAnon: what the daemon itself wrote. It is read every 2 % of the rounds, together with the number of its
descriptors and of the processes of its instance.
"""
import json
import os
import signal
import socket
import time

import proc
from survival import PATIENCE, Instance, emit

# Two workers that are small and ready at once, and are started again at once however often they end.
FLEET = """[agent.small]
command = ["sleep", "1000000"]
workers = 2
restart = { backoff = "1ms..1ms", max = "1000000 in 1m" }
stop = { timeout = "5s" }
"""


class Control:
    """Calls over the control socket; one at a time."""

    def __init__(self, home):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(os.path.join(home, "run", "control.sock"))
        self.lines = self.socket.makefile("rb")
        self.number = 0
        self.call("hello", protocol=1, version="bench")

    def call(self, method, **params):
        self.number += 1
        call = {"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}
        self.socket.sendall(json.dumps(call).encode() + b"\n")
        for line in self.lines:
            answer = json.loads(line)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
        raise RuntimeError(f"{method}: the daemon closed the connection")


def looked_at(pid):
    fields = dict(line.split(b":", 1) for line in proc.read(f"/proc/{pid}/status").splitlines() if b":" in line)
    return int(fields[b"RssAnon"].split()[0]), len(os.listdir(f"/proc/{pid}/fd"))


def slope(points):
    """Least squares: how much the second number grows for each of the first."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    square = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / square if square else 0.0


def pids(document):
    return {worker["pid"] for app in document["apps"] for worker in app["workers"] if worker["state"] == "ready"}


def crash(one):
    """Kills a worker and waits until another is ready in its place."""
    before = pids(one.document())
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while len(pids(one.document()) - {victim}) < len(before):
        if time.monotonic() > deadline:
            raise RuntimeError("a worker that was killed is not replaced")
        time.sleep(0.001)


def soak(given):
    """N reloads and N crashes in turn: growth of the daemon's memory and descriptors, and their slope."""
    with Instance(given.bin) as one:
        one.start()
        one.ctl("start", one.config(FLEET))
        one.until(lambda document: len(pids(document)) == 2)
        control, pid, points = Control(one.home), one.process.pid, []
        begun, processes = time.monotonic(), 0
        for number in range(given.rounds):
            if number % max(1, given.rounds // 50) == 0:
                points.append((number, *looked_at(pid)))
            control.call("reload", names=["small"], wait=True)
            crash(one)
            # Helpers that come with the first start are there by now.
            processes = processes or len(proc.descendants(pid))
        points.append((given.rounds, *looked_at(pid)))
        second = [point for point in points if point[0] >= given.rounds / 2]
        row = {
            "reloads": given.rounds, "crashes": given.rounds, "seconds": round(time.monotonic() - begun, 1),
            "memory_kib": {"at_start": points[0][1], "at_half": second[0][1], "at_end": points[-1][1]},
            "growth_kib": points[-1][1] - points[0][1],
            "growth_of_second_half_kib": points[-1][1] - second[0][1],
            "slope_of_second_half_kib_a_1000_rounds": round(slope([(x, y) for x, y, _ in second]) * 1000, 1),
            "descriptors": {"at_start": points[1][2], "at_end": points[-1][2]},
            "processes": {"at_start": processes, "at_end": len(proc.descendants(pid))},
        }
        emit(given, "soak", **row)
        if given.points:
            for point in points:
                print("# rounds %5d  RssAnon %6d KiB  descriptors %3d" % point)
        one.ctl("stop", "small")
        bad = [what for what, wrong in {
            f"memory grew by more than {given.most} KiB": row["growth_kib"] > given.most,
            "descriptors are left": row["descriptors"]["at_end"] > row["descriptors"]["at_start"] + 1,
            "processes are left": row["processes"]["at_end"] > row["processes"]["at_start"],
        }.items() if wrong]
        if bad:
            raise SystemExit("; ".join(bad))
