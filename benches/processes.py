"""Figures about processes: crash, up, idle, ls, apply, logs."""
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import time

import proc
from supervisors import Agentd, App, Floor, Supervisor, chosen

HERE = os.path.dirname(os.path.abspath(__file__))


@contextlib.contextmanager
def supervised(cls, tag):
    """A supervisor that is gone afterwards, with everything that carries `tag`."""
    supervisor = cls()
    try:
        yield supervisor
    finally:
        with contextlib.suppress(Exception):
            supervisor.end()
        for pid in proc.Tagged(tag).look():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        supervisor.remove()


def new_tag():
    """An argument for `sleep` that nobody else has."""
    return f"1000000.{os.getpid()}{time.monotonic_ns() % 10**9:09d}"


def sleepers(tag, count, **more):
    return [App(f"s{number:04d}", ["sleep", tag], **more) for number in range(count)]


def supervisors_only(names):
    """Those chosen that keep, list and log anything."""
    return [cls for cls in chosen(names) if cls is not Floor]


def crash(args):
    """kill -9 of a worker until the next has its program's arguments. Ten apps in turn, busy poll of /proc.

    All supervisors run at once and each round kills a worker of every one, in any order: whatever the machine does to one it
    does to all. `calm` are the kills during which the hypervisor gave none of our processor time to others.
    """
    with contextlib.ExitStack() as running:
        fleets = [Fleet(cls, running) for cls in chosen(args.peers)]
        time.sleep(2)
        for _ in range(args.kills):
            for fleet in random.sample(fleets, len(fleets)):
                fleet.kill_one()
                time.sleep(0.1 + random.uniform(0, 0.1))
    rows = {fleet.name: proc.emit(args, "crash", fleet.name, fleet.result()) for fleet in fleets}
    for key in ("ms", "calm"):
        seen = {name: {k: row[key][k] for k in ("median", "p99", "min") if k in row[key]} for name, row in rows.items()}
        proc.emit_ratios(args, "crash" if key == "ms" else "crash, calm", seen)


class Fleet:
    """Ten workers of a supervisor, one after the other killed."""

    def __init__(self, cls, running):
        self.name, self.tag = cls.name, new_tag()
        running.enter_context(supervised(cls, self.tag)).start(sleepers(self.tag, 10, more=cls.least_delay))
        tagged = proc.Tagged(self.tag)
        proc.wait_for(lambda: len(tagged.look()) >= 10, 60)
        self.alive = sorted(tagged.known)
        self.took, self.calm, self.lost = [], [], 0

    def kill_one(self):
        if not self.alive:
            return
        before = proc.stolen()
        seconds, new = one_crash(self.tag, self.alive.pop(0))
        if new is None:
            self.lost += 1
            return
        self.alive.append(new)
        self.took.append(seconds * 1000)
        if proc.stolen() == before:
            self.calm.append(seconds * 1000)

    def result(self):
        return {"ms": proc.summary(self.took), "calm": proc.summary(self.calm), "not_restarted": self.lost}


def one_crash(tag, victim, limit_s=6):
    before, tag = set(proc.pids()), tag.encode()
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    while time.monotonic() - began < limit_s:
        for pid in proc.pids():
            if pid not in before and tag in proc.arguments(pid):
                return time.monotonic() - began, pid
        if time.monotonic() - began > 0.1:
            time.sleep(0.001)
    return None, None


def up(args):
    """From the command that declares N workers to N of them alive; from the command that stops all to none left."""
    seen = {}
    for cls in chosen(args.peers):
        shapes = [("apps", args.n)] + ([("workers of one app", args.n)] if cls is Agentd and args.n <= 1024 else [])
        for shape, count in shapes:
            for _ in range(args.rounds):
                tag = new_tag()
                apps = sleepers(tag, count) if shape == "apps" else [App("s", ["sleep", tag], workers=count)]
                with supervised(cls, tag) as supervisor:
                    row = {"n": count, "shape": shape, **one_up(supervisor, tag, apps, count)}
                proc.emit(args, "up", cls.name, row)
                if shape == "apps":
                    best = seen.setdefault(cls.name, {"up_s": row["up_s"], "stopped_s": row["stopped_s"]})
                    best.update({key: min(best[key], row[key]) for key in best})
    # Of the best rounds: the machine adds to a figure, and takes nothing off.
    proc.emit_ratios(args, "up", seen)


def one_up(supervisor, tag, apps, count):
    supervisor.start([])
    time.sleep(1)
    tagged = proc.Tagged(tag)
    began = time.monotonic()
    supervisor.declare(apps)
    command_s = time.monotonic() - began
    proc.wait_for(lambda: len(tagged.look()) >= count, 120)
    up_s = time.monotonic() - began
    time.sleep(2)
    tagged.look()
    began = time.monotonic()
    supervisor.stop_all()
    stop_command_s = time.monotonic() - began
    proc.wait_for(lambda: not tagged.left(), 120)
    return {"up_s": round(up_s, 3), "command_s": round(command_s, 3), "stop_command_s": round(stop_command_s, 3),
            "stopped_s": round(time.monotonic() - began, 3)}


def idle(args):
    """Memory with nothing and with N workers, and CPU while nothing happens."""
    seen = {}
    for cls in supervisors_only(args.peers):
        tag = new_tag()
        with supervised(cls, tag) as supervisor:
            supervisor.start([])
            time.sleep(3)
            empty = proc.pss_kib(supervisor.own_processes(tag))
            supervisor.declare(sleepers(tag, args.n))
            tagged = proc.Tagged(tag)
            proc.wait_for(lambda: len(tagged.look()) >= args.n, 120)
            time.sleep(5)
            own = supervisor.own_processes(tag)
            full, before, began = proc.pss_kib(own), proc.cpu_s(own), time.monotonic()
            time.sleep(args.seconds)
            share = (proc.cpu_s(own) - before) / (time.monotonic() - began)
            row = {"n": args.n, "processes": len(own), "idle_pss_kib": empty, "pss_kib": full,
                   "pss_per_worker_kib": round((full - empty) / args.n, 1), "cpu_percent": round(share * 100, 4),
                   "keeper_pss_kib": proc.pss_kib(own[1:]) if cls is Agentd else None, **kernel_memory(own, args.n)}
        proc.emit(args, "idle", cls.name, row)
        seen[cls.name] = {key: row[key] for key in ("idle_pss_kib", "pss_per_worker_kib", "cpu_percent")}
    proc.emit_ratios(args, "idle", seen)


def kernel_memory(own, count):
    """What the pipes of a worker's output take in the kernel, which no Pss shows."""
    capacities = list(proc.pipes(own).values())
    known = {capacity: proc.pipe_kernel_kib(capacity) for capacity in set(capacities)}
    total = sum(known[capacity] for capacity in capacities)
    return {"pipes": len(capacities), "pipe_kernel_kib": known, "pipes_per_worker_kib": round(total / count, 1)}


def listing(args):
    """The command that lists the apps, from its start to its end; `true` is the floor."""
    floor = proc.emit(args, "ls", "true", {"ms": timed(["true"], args.runs, {})})["ms"]["median"]
    seen = {"true": {"1 app": floor, "100 apps": floor}}
    for cls in supervisors_only(args.peers):
        for count in (1, 100):
            tag = new_tag()
            with supervised(cls, tag) as supervisor:
                supervisor.start(sleepers(tag, count))
                tagged = proc.Tagged(tag)
                proc.wait_for(lambda: len(tagged.look()) >= count, 120)
                time.sleep(1)
                row = {"apps": count, "ms": timed(supervisor.list_argv(), args.runs, supervisor.env())}
            proc.emit(args, "ls", cls.name, row)
            seen.setdefault(cls.name, {})[f"{count} app{'s' * (count > 1)}"] = row["ms"]["median"]
    proc.emit_ratios(args, "ls", seen)


def applying(args):
    """`agentctl apply` of N apps of which nothing changed, from its start to its end."""
    tag = new_tag()
    with supervised(Agentd, tag) as supervisor:
        supervisor.start(sleepers(tag, args.n))
        tagged = proc.Tagged(tag)
        proc.wait_for(lambda: len(tagged.look()) >= args.n, 120)
        time.sleep(1)
        argv = supervisor.ctl("apply", supervisor.at("apps.toml"))
        said = supervisor.run(argv) or ""
        row = {"apps": args.n, "ms": timed(argv, args.runs, supervisor.env())}
        assert not said or "nothing to do" in said, said
    proc.emit(args, "apply", "agentd", row)


def timed(argv, runs, env):
    took, env = [], {**os.environ, **env}
    with open(os.devnull, "r+b") as null:
        for _ in range(runs):
            began = time.monotonic()
            actions = [(os.POSIX_SPAWN_DUP2, null.fileno(), fd) for fd in (0, 1, 2)]
            pid = os.posix_spawnp(argv[0], argv, env, file_actions=actions)
            os.waitpid(pid, 0)
            took.append((time.monotonic() - began) * 1000)
            if sum(took) > 20_000:
                break
    return proc.summary(took[2:])


class Direct(Supervisor):
    """No supervisor: standard output is the file. The floor of the log bench."""

    name = "direct file"

    def start(self, apps):
        with open(apps[0].log, "ab") as out:
            self.process = subprocess.Popen(apps[0].argv, stdout=out, stdin=subprocess.DEVNULL)

    def own_processes(self, tag): return []


def logs(args):
    """A worker prints 100,000 lines of 100 bytes as fast as it can: when are all in the file, and at what CPU?"""
    seen = {}
    for turn in range(args.rounds):
        for cls in [Direct, *supervisors_only(args.peers)]:
            tag = f"printer.{new_tag()}"
            with supervised(cls, tag) as supervisor:
                row = proc.emit(args, "logs", cls.name, {"round": turn, **one_log(supervisor, tag, args.lines)})
            for key in ("all_in_file_s", "supervisor_cpu_s"):
                seen.setdefault(cls.name, {}).setdefault(key, []).append(row[key])
    medians = {who: {key: statistics.median(values) for key, values in of.items()} for who, of in seen.items()}
    proc.emit_ratios(args, "logs", medians)


def one_log(supervisor, tag, lines, width=100):
    go, folder = supervisor.at("go"), supervisor.at("logs")
    os.makedirs(folder)
    argv = [sys.executable, os.path.join(HERE, "workers", "printer.py"), tag, go, str(lines), str(width)]
    supervisor.start([App("printer", argv, log=os.path.join(folder, "current"))])
    tagged = proc.Tagged(tag)
    proc.wait_for(lambda: tagged.look(), 20)
    time.sleep(2)
    own = supervisor.own_processes(tag)
    before, base = proc.cpu_s(own), size(supervisor.logs())
    open(go, "wb").close()
    proc.wait_for(lambda: size(supervisor.logs()) - base >= lines * width, 60, 0.001)
    ended = time.time()
    proc.wait_for(lambda: os.path.exists(go + ".times"), 10)
    time.sleep(0.5)
    began, written = (float(word) for word in proc.read(go + ".times").split())
    return {"all_in_file_s": round(ended - began, 3), "printed_s": round(written - began, 3),
            "supervisor_cpu_s": round(proc.cpu_s(own) - before, 3)}


def size(folder):
    """Bytes printed, without what a supervisor keeps beside them."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += 0 if name.endswith(".index") else os.path.getsize(os.path.join(where, name))
    return total
