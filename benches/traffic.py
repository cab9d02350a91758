"""Figures about requests: reload, latency, throughput."""
import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import client
import proc
from processes import supervised
from supervisors import ALL, Agentd, App, Supervisor

HERE = os.path.dirname(os.path.abspath(__file__))
WEB = os.path.join(HERE, "workers", "web.js")
SLOW_STOP = 'grace = { default = "5m" }\n'


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def cases(args, port):
    """name -> (supervisor, app)"""
    node, own = shutil.which("node"), {"PORT": str(port)}
    at = f"127.0.0.1:{port}"
    surge = f"reload = {{ max_surge = {args.surge} }}\n" + SLOW_STOP
    of_agentd = {"workers": args.workers, "listen": at, "more": {"agentd": surge}}
    cluster = {"exec_mode": "cluster", "instances": args.workers, "interpreter": node}
    best = {**cluster, "wait_ready": True, "listen_timeout": 10_000, "kill_timeout": 60_000}
    return {
        "agentd-cooperates": (Agentd, App("web", [node, WEB], {"STYLE": "cooperates"}, **of_agentd)),
        "agentd-dies": (Agentd, App("web", [node, WEB], {"STYLE": "dies"}, **of_agentd)),
        "pm2": (ALL["pm2"], App("web", [WEB], own, more={"pm2": cluster})),
        "pm2-best": (ALL["pm2"], App("web", [WEB], {**own, "STYLE": "pm2"}, more={"pm2": best})),
        "supervisord": (ALL["supervisord"], App("web", [node, WEB], {**own, "CLUSTER": str(args.workers)})),
    }


def reload(args):
    """Reloads under load, and what became of the requests. With --quiet there is no load: only the time it takes."""
    for name in args.cases:
        port = free_port()
        cls, app = cases(args, port)[name]
        if not cls.installed():
            raise SystemExit(f"{cls.name} is not installed")
        with supervised(cls, f"no-tag-{os.getpid()}") as supervisor:
            supervisor.start([app])
            proc.wait_for(lambda: client.answers(port), 30, 0.05)
            time.sleep(2)
            row = quiet_reloads(supervisor, args) if args.quiet else loaded_reloads(supervisor, port, args)
        proc.emit(args, "reload", name, row)


def one_reload(supervisor):
    began = time.monotonic()
    done = subprocess.run(supervisor.reload_argv("web"), env={**os.environ, **supervisor.env()}, timeout=600, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return time.monotonic() - began, done.returncode, done.stdout


def quiet_reloads(supervisor, args):
    took, failed = [], 0
    for _ in range(args.reloads):
        seconds, code, _ = one_reload(supervisor)
        took.append(seconds)
        failed += code != 0
        time.sleep(0.5)
    starts = [start_time() for _ in range(10)]
    return {"reload_s": proc.summary(took, 3), "failed_reloads": failed, "start_of_one_worker_s": proc.summary(starts, 3)}


def start_time():
    """One worker alone, from its start to its first answer."""
    port = free_port()
    began = time.monotonic()
    worker = subprocess.Popen([shutil.which("node"), WEB], env={**os.environ, "PORT": str(port)})
    try:
        proc.wait_for(lambda: client.answers(port), 20, 0.001)
        return time.monotonic() - began
    finally:
        worker.kill()
        worker.wait()


def loaded_reloads(supervisor, port, args):
    loads = [client.Load(port, args.task, kinds) for kinds in (["fresh"], ["keepalive", "long", "sse"])]
    began, took, failures = time.monotonic(), [], []
    try:
        time.sleep(3)
        for _ in range(args.reloads):
            seconds, code, said = one_reload(supervisor)
            took.append(seconds)
            if code:
                failures.append(said[-300:])
            time.sleep(args.pause)
    finally:
        for load in loads:
            load.ask_to_finish()
        counts = {kind: count for load in loads for kind, count in load.counts().items()}
    return {"workers": args.workers, "reloads": len(took), "failed_reloads": len(failures), "why": failures[:3],
            "reload_s": proc.summary(took), "task_s": args.task, "window_s": round(time.monotonic() - began),
            "requests": counts}


class Own(Supervisor):
    """A server on its own socket, without a supervisor."""

    name = "own socket"

    def start(self, apps):
        with open(self.at("out"), "wb") as out:
            self.process = subprocess.Popen(apps[0].argv, env={**os.environ, **apps[0].env}, stdout=out, stderr=out)

    def end(self):
        children = proc.descendants(self.process.pid)
        self.terminate()
        with contextlib.suppress(TimeoutError):
            proc.wait_for(lambda: not any(map(proc.lives, children)), 10)


def latency(args):
    """gunicorn's sync workers, one request each: p99 with balance = "shared" against gunicorn's own socket.

    Open loop: arrivals by chance at `--load` of what the workers can do, service times by chance around `--service`,
    the same series for both, in turns.
    """
    gunicorn = shutil.which("gunicorn") or sys.exit("gunicorn is not installed")
    took = {"own socket": [], "agentd": []}
    rounds = {"own socket": [], "agentd": []}
    for turn in range(args.rounds):
        order = list(took) if turn % 2 else list(took)[::-1]
        for who in order:
            port = free_port()
            serve = [gunicorn, "--chdir", os.path.join(HERE, "workers"), "--log-level", "warning"]
            if who == "agentd":
                cls, app = Agentd, App("web", [*serve, "-w", "1", "-b", "fd://{fd:http}", "service:application"],
                                       workers=args.workers, listen=f"127.0.0.1:{port}",
                                       more={"agentd": 'balance = "shared"\n'})
            else:
                cls, app = Own, App("web", [*serve, "-w", str(args.workers), "-b", f"127.0.0.1:{port}",
                                            "service:application"])
            with supervised(cls, f"no-tag-{os.getpid()}") as supervisor:
                supervisor.start([app])
                proc.wait_for(lambda port=port: client.answers(port), 30, 0.05)
                time.sleep(2)
                times = open_loop(port, args, seed=turn)
            took[who] += times
            rounds[who].append(proc.percentile(times, 0.99))
    for who, times in took.items():
        proc.emit(args, "latency", who, {"ms": proc.summary(times), "p99_by_round_ms": [round(x, 1) for x in rounds[who]]})
    ratio = proc.percentile(took["agentd"], 0.99) / proc.percentile(took["own socket"], 0.99)
    proc.emit(args, "latency", "ratio of p99", {"ratio": round(ratio, 3)})


def open_loop(port, args, seed):
    chance, clock, plan = random.Random(seed), 0.0, []
    rate = args.load * args.workers / (args.service / 1000)
    while clock < args.seconds:
        clock += chance.expovariate(rate)
        plan.append((clock, chance.expovariate(1 / args.service)))
    took, lock, began = [], threading.Lock(), time.monotonic() + 0.2
    left = iter(plan)

    def caller():
        while True:
            with lock:
                at, work = next(left, (None, None))
            if at is None:
                return
            time.sleep(max(0, began + at - time.monotonic()))
            sent = time.monotonic()
            with socket.create_connection(("127.0.0.1", port), 30) as sock:
                outcome, _ = client.exchange(sock, f"/?ms={work:.2f}", False)
            if outcome != "ok":
                raise RuntimeError(outcome)
            # From when it was due: a late caller must not hide a queue.
            with lock:
                took.append((time.monotonic() - min(sent, began + at)) * 1000)

    callers = [threading.Thread(target=caller) for _ in range(64)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    return took


def throughput(args):
    """wrk against one trivial Node server, 2 workers: agentd, Node's own cluster, PM2's cluster; in turns."""
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed")
    node, seen = shutil.which("node"), {}
    names = ["node cluster", "agentd"] + (["pm2 cluster"] if ALL["pm2"].installed() else [])
    for turn in range(args.rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            port = free_port()
            own = {"PORT": str(port)}
            if name == "agentd":
                cls, app = Agentd, App("web", [node, WEB], workers=2, listen=f"127.0.0.1:{port}")
            elif name == "pm2 cluster":
                keys = {"exec_mode": "cluster", "instances": 2, "interpreter": node}
                cls, app = ALL["pm2"], App("web", [WEB], own, more={"pm2": keys})
            else:
                cls, app = Own, App("web", [node, WEB], {**own, "CLUSTER": "2"})
            with supervised(cls, f"no-tag-{os.getpid()}") as supervisor:
                supervisor.start([app])
                proc.wait_for(lambda port=port: client.answers(port), 30, 0.05)
                time.sleep(1)
                wrk(port, args.connections, 1)
                seen.setdefault(name, []).append(wrk(port, args.connections, args.seconds))
    for name, values in seen.items():
        ratios = [value / floor for value, floor in zip(values, seen["node cluster"])]
        proc.emit(args, "throughput", name, {"requests_per_s": proc.summary(values, 0),
                                             "of_node_cluster": proc.summary(ratios, 3)})


def wrk(port, connections, seconds):
    said = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://127.0.0.1:{port}/"],
                          stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + 30).stdout
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])
