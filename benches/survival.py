"""What the supervisor's own death costs: requests, lines, time, exit codes, fsyncs.

Each figure runs agentd alone; docs/design/survival.md says what is promised. `agentd`, `agentctl`, `chaos` are taken from
target/release, or from the folder given with --bin.
"""
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import proc

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PATIENCE = 120


def emit(given, figure, **result):
    proc.emit(given, figure, "agentd", result)


class Instance:
    """A daemon in a fresh home."""

    def __init__(self, folder):
        self.bin = os.path.abspath(folder or os.path.join(REPOSITORY, "target", "release"))
        self.home = tempfile.mkdtemp(prefix="bench-survival-")
        self.env = {**os.environ, "AGENTD_HOME": self.home}
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.ctl("daemon", "stop")
            self.process.wait(PATIENCE)
        shutil.rmtree(self.home, ignore_errors=True)

    def start(self):
        """Starts the daemon; how long until it answered on its status socket, from exec, in ms."""
        begun = time.monotonic()
        with open(os.path.join(self.home, "daemon.out"), "ab") as out:
            self.process = subprocess.Popen([os.path.join(self.bin, "agentd")], env=self.env, stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=out)
        while True:
            try:
                document = self.document()
                return (time.monotonic() - begun) * 1e3, document
            except OSError:
                if time.monotonic() - begun > PATIENCE or self.process.poll() is not None:
                    raise
                time.sleep(0.0005)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def ctl(self, *words, check=True):
        done = subprocess.run([os.path.join(self.bin, "agentctl"), *words], env=self.env, cwd=self.home, text=True,
                              capture_output=True, timeout=PATIENCE, check=False)
        if check and done.returncode:
            raise RuntimeError(f"agentctl {' '.join(words)}: {done.returncode}: {done.stderr[-600:]}")
        return done.stdout

    def config(self, text):
        path = os.path.join(self.home, "apps.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def document(self):
        with socket.socket(socket.AF_UNIX) as status:
            status.settimeout(PATIENCE)
            status.connect(os.path.join(self.home, "run", "status.sock"))
            status.shutdown(socket.SHUT_WR)
            data = b""
            while not data.endswith(b"\n"):
                part = status.recv(1 << 16)
                if not part:
                    raise OSError("closed")
                data += part
            return json.loads(data)

    def until(self, wanted):
        deadline = time.monotonic() + PATIENCE
        while not wanted(document := self.document()):
            if time.monotonic() > deadline:
                raise RuntimeError("not as wanted in time")
            time.sleep(0.02)
        return document


def ready(document):
    return all(app["ready"] == app["desired"] for app in document["apps"])


def sleepers(count):
    return f'[agent.sleepers]\ncommand = ["sleep", "1000000"]\nworkers = {count}\n'


def ready_after_kill(given):
    """From exec to the first answer of a supervisor that took everything over, in ms."""
    for count in (10, given.n):
        with Instance(given.bin) as one:
            one.start()
            one.ctl("start", one.config(sleepers(count)))
            one.until(ready)
            times = []
            for _ in range(given.rounds):
                one.kill()
                took, document = one.start()
                found = sum(len(app["workers"]) for app in document["apps"])
                assert found == count, f"{found} of {count} workers were taken over"
                times.append(took)
            emit(given, "ready-after-kill", workers=count, rounds=given.rounds,
                        median_ms=round(statistics.median(times), 1), max_ms=round(max(times), 1))


class Bare:
    """A program that does nothing but to execute itself: what the system alone takes for an upgrade in place."""

    def __init__(self, folder):
        self.socket = os.path.join(folder, "bare.sock")
        program = os.path.join(folder, "bare")
        source = os.path.join(REPOSITORY, "benches", "workers", "bare.c")
        subprocess.run(["cc", "-O2", "-Wall", "-o", program, source], check=True, timeout=PATIENCE)
        self.process = subprocess.Popen([program, self.socket], stdin=subprocess.DEVNULL)
        proc.wait_for(lambda: os.path.exists(self.socket), PATIENCE)

    def ask(self, word=b"a"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(self.socket)
            client.sendall(word)
            return client.recv(64)

    def upgrade(self):
        """How long it accepted nobody, in ms."""
        self.ask(b"u")
        return int(self.ask()) / 1e3

    def end(self):
        self.process.kill()
        self.process.wait(PATIENCE)


class Watch:
    """Asks over and over, and knows how long the slowest answer took, in ms."""

    def __init__(self, ask):
        self.ask, self.slowest, self.closed, self.over = ask, 0.0, 0, threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over.is_set():
            begun = time.monotonic()
            try:
                self.ask()
            except OSError:
                # Accepted by the program before, and not answered any more.
                self.closed += 1
                self.ask()
            self.slowest = max(self.slowest, (time.monotonic() - begun) * 1e3)

    def end(self):
        self.over.set()
        self.thread.join()


# When the workers of a round end, in seconds, so that it is while the supervisor is replaced, and with which code.
ENDINGS = [(0.25 + 0.004 * n, 40 + n) for n in range(4)]


def upgrade(given):
    """How long nobody answers on the control socket while the daemon is upgraded in place, in ms; and exit codes kept.

    In turns with a bare program that executes itself, beside which as many processes end.
    """
    with Instance(given.bin) as one:
        one.start()
        script = os.path.join(one.home, "ends.py")
        with open(script, "w", encoding="utf-8") as file:
            file.write("import sys, time\ntime.sleep(float(sys.argv[1]))\nsys.exit(int(sys.argv[2]))\n")
        bare = Bare(one.home) if shutil.which("cc") else None
        gaps, asked, floor, closed, wrong = [], [], [], 0, []
        try:
            for _ in range(given.upgrades):
                if bare:
                    floor.append(bare_round(bare, script))
                apps = "".join(f'[agent.e{code}]\ncommand = ["python3", "{script}", "{after}", "{code}"]\n'
                               f'restart = {{ policy = "never" }}\n' for after, code in ENDINGS)
                one.ctl("start", one.config(apps), "--no-wait")
                time.sleep(0.27)
                watch = Watch(one.document)
                told = json.loads(one.ctl("daemon", "upgrade", "--json"))
                watch.end()
                assert told["in_place"], told
                gaps.append(told["unwatched_us"] / 1e3)
                asked.append(watch.slowest)
                closed += watch.closed
                document = one.until(lambda d: all(w["state"] in ("exited", "failed") for a in d["apps"] for w in a["workers"]))
                for app in document["apps"]:
                    code = (app["workers"][0]["last_exit"] or {}).get("code")
                    if code != int(app["name"][1:]):
                        wrong.append((app["name"], code))
                one.ctl("delete", "all")
        finally:
            if bare:
                bare.end()
        codes = given.upgrades * len(ENDINGS)
        emit(given, "upgrade", upgrades=given.upgrades, gap_median_ms=round(statistics.median(gaps), 2),
                    gap_max_ms=round(max(gaps), 2), slowest_answer_median_ms=round(statistics.median(asked), 2),
                    slowest_answer_max_ms=round(max(asked), 2), closed_unanswered=closed, exit_codes=codes,
                    kept=codes - len(wrong), wrong=wrong[:5])
        if floor:
            of = {"agentd": {"median": statistics.median(gaps), "max": max(gaps)},
                  "a bare execve": {"median": statistics.median(floor), "max": max(floor)}}
            proc.emit(given, "upgrade", "a bare execve", {f"gap_{key}_ms": round(of["a bare execve"][key], 2) for key in of["agentd"]})
            proc.emit_ratios(given, "upgrade", of)


def bare_round(bare, script):
    """The gap of the bare program, with as many processes that end beside it."""
    ending = [subprocess.Popen(["python3", script, str(after), str(code)]) for after, code in ENDINGS]
    time.sleep(0.27)
    watch = Watch(bare.ask)
    gap = bare.upgrade()
    watch.end()
    for process in ending:
        process.wait(PATIENCE)
    return gap


def fsyncs(given):
    """Calls that wait for the disk, for a worker's restart and with nothing to do. Needs strace."""
    if not shutil.which("strace"):
        sys.exit("strace is not installed")
    calls = "fsync,fdatasync,sync_file_range,msync,write,pwrite64,splice"

    def traced(one, seconds, act):
        out = os.path.join(one.home, "strace")
        tracer = subprocess.Popen(["strace", "-f", "-c", "-e", f"trace={calls}", "-o", out, "-p", str(one.process.pid)],
                                  stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        act()
        time.sleep(seconds)
        tracer.send_signal(signal.SIGINT)
        tracer.wait(PATIENCE)
        with open(out, encoding="utf-8") as file:
            rows = [line.split() for line in file if re.match(r"\s*\d", line)]
        return {row[-1]: int(row[3]) for row in rows if row[-1] in calls.split(",")}

    with Instance(given.bin) as one:
        one.start()
        one.ctl("start", one.config(sleepers(4) + 'restart = { backoff = "10ms..10ms", max = "1000 in 1m" }\n'))
        one.until(ready)

        def kill_some():
            for _ in range(given.restarts):
                worker = one.document()["apps"][0]["workers"][0]
                os.kill(worker["pid"], signal.SIGKILL)
                one.until(lambda d, old=worker["pid"]: ready(d) and all(w["pid"] != old for w in d["apps"][0]["workers"]))

        busy = traced(one, 0.2, kill_some)
        idle = traced(one, given.seconds, lambda: None)
        waits = sum(busy.get(call, 0) for call in ("fsync", "fdatasync", "msync"))
        emit(given, "fsyncs", restarts=given.restarts, per_restart=round(waits / given.restarts, 2),
                    calls=busy, idle_seconds=given.seconds, idle_calls=idle)


def kills(given):
    """The chaos runner: requests failed and lines lost over many deaths, at full speed."""
    folder = os.path.abspath(given.bin or os.path.join(REPOSITORY, "target", "release"))
    argv = [os.path.join(folder, "chaos"), "--agentd", os.path.join(folder, "agentd"), "--kills", str(given.kills),
            "--passes", "0", "--lines", "250", "--fast"]
    for option in ("uvicorn", "node"):
        if getattr(given, option):
            argv += [f"--{option}", getattr(given, option)]
    begun = time.monotonic()
    done = subprocess.run(argv, text=True, capture_output=True, check=False)
    print(done.stdout, file=sys.stderr)
    if done.returncode == 1:
        # What was lost, one by one, and the daemons' log.
        print(done.stderr, file=sys.stderr)
    if done.returncode not in (0, 1):
        sys.exit(done.stderr[-4000:])
    took = time.monotonic() - begun
    lost, requests = re.search(r"(\d+) of (\d+) requests failed", done.stdout).groups()
    lines = re.search(r"(\d+) lines printed", done.stdout).group(1)
    emit(given, "kills", kills=given.kills, failed=int(lost), requests=int(requests),
                requests_per_second=round(int(requests) / took), lines=int(lines),
                lines_per_second=round(int(lines) / took), lines_lost=0)
