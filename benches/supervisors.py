"""agentd and its peers, each behind the same few methods. A peer that is not on PATH is left out.

To add one: a class with these methods, and its name in ALL.
"""
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

import proc

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@dataclass
class App:
    name: str
    argv: list
    env: dict = field(default_factory=dict)
    workers: int = 1
    listen: str = ""     # agentd only: what it listens to for the app
    log: str = ""        # peers: the file for its output; agentd has its own
    more: dict = field(default_factory=dict)    # further settings by supervisor: TOML lines, or keys and values


class Supervisor:
    """Keeps everything in a fresh folder. `start` is cold: the daemon is made with its apps."""

    name = "?"
    programs = ()
    least_delay = {}     # what App.more has to say for the shortest restart delay on offer

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix=f"bench-{self.name}-")
        # What an installation keeps in /run: making a FIFO or a socket on a disk's file system takes several times as long.
        in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.run_dir = tempfile.mkdtemp(prefix=f"bench-{self.name}-", dir=in_memory)
        self.process = None

    @classmethod
    def installed(cls):
        return all(shutil.which(program) for program in cls.programs)

    def start(self, apps): raise NotImplementedError
    def declare(self, apps): """Adds apps to the running daemon and starts them."""; raise NotImplementedError
    def stop_all(self): """Ends every app; the daemon stays."""; raise NotImplementedError
    def end(self): self.terminate()
    def list_argv(self): return None
    def reload_argv(self, _name): return None
    def env(self): return {}
    def daemon(self): return self.process.pid if self.process else None
    def logs(self): return self.at("logs")

    def at(self, *parts):
        return os.path.join(self.dir, *parts)

    def write(self, name, text, mode=0o644):
        path = self.at(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def run(self, argv, seconds=300, check=True):
        done = subprocess.run(argv, env={**os.environ, **self.env()}, cwd=self.dir, timeout=seconds, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{shlex.join(argv)}: {done.returncode}: {done.stdout[-600:]}")
        return done.stdout

    def spawn(self, argv):
        with open(self.at("daemon.out"), "ab") as out:
            self.process = subprocess.Popen(argv, env={**os.environ, **self.env()}, cwd=self.dir, stdout=out,
                                            stdin=subprocess.DEVNULL, stderr=out, start_new_session=True)

    def terminate(self, how=signal.SIGTERM, seconds=60):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def own_processes(self, tag):
        """The daemon with its shims and loggers, without the apps."""
        daemon = self.daemon()
        return [p for p in [daemon, *proc.descendants(daemon)] if tag.encode() not in proc.arguments(p)]

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        shutil.rmtree(self.run_dir, ignore_errors=True)


def toml(value):
    return json.dumps(value) if not isinstance(value, dict) else \
        "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"


class Agentd(Supervisor):
    name = "agentd"
    # A worker that has served for the longest wait is started again at once: a millisecond here.
    least_delay = {"agentd": 'restart = { backoff = "1ms..1ms", max = "1000000 in 1m" }\n'}

    @staticmethod
    def binary(name):
        """By AGENTD_BIN or AGENTCTL_BIN, from this checkout, or from PATH."""
        built = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(REPOSITORY, "target")), "release", name)
        given = os.environ.get(name.upper() + "_BIN")
        return given or (built if os.path.exists(built) else shutil.which(name))

    @classmethod
    def installed(cls):
        return bool(cls.binary("agentd") and cls.binary("agentctl"))

    def env(self): return {"AGENTD_HOME": self.at("home"), "AGENTD_LOG": "warn"}
    def ctl(self, *words): return [self.binary("agentctl"), *words]
    def logs(self): return self.at("home", "logs")
    def list_argv(self): return self.ctl("ls")
    def reload_argv(self, name): return self.ctl("reload", name)
    def declare(self, apps): return self.run(self.ctl("start", self.file(apps)))
    def stop_all(self): return self.run(self.ctl("stop", "all"))

    def file(self, apps):
        text = ""
        for app in apps:
            text += f"[agent.{app.name}]\ncommand = {toml(app.argv)}\nworkers = {app.workers}\n"
            text += f"env = {toml(app.env)}\n" if app.env else ""
            text += f"listen.http = {toml(app.listen)}\n" if app.listen else ""
            text += app.more.get("agentd", "")
        return self.write("apps.toml", text)

    def start(self, apps):
        os.mkdir(self.at("home"), 0o700)
        os.symlink(self.run_dir, self.at("home", "run"))
        self.spawn([self.binary("agentd")])
        proc.wait_for(lambda: os.path.exists(self.at("home", "run", "control.sock")), 20)
        if apps:
            self.declare(apps)

    def end(self):
        if self.process and self.process.poll() is None:
            self.run(self.ctl("daemon", "stop"), check=False)
        self.terminate()


class Pm2(Supervisor):
    name, programs = "pm2", ("pm2", "node")
    least_delay = {"pm2": {"max_restarts": 100_000, "min_uptime": 100, "restart_delay": 0}}

    def env(self): return {"PM2_HOME": self.at("home"), "PM2_DISABLE_VERSION_CHECK": "true"}
    def list_argv(self): return ["pm2", "list"]
    def reload_argv(self, name): return ["pm2", "reload", name]
    def start(self, apps): return self.declare(apps) if apps else self.run(["pm2", "ping"])
    def stop_all(self): return self.run(["pm2", "stop", "all"])
    def daemon(self): return int(proc.read(self.at("home", "pm2.pid")) or 0) or None

    def declare(self, apps):
        rows = []
        for app in apps:
            row = {"name": app.name, "script": app.argv[0], "args": app.argv[1:], "interpreter": "none", "env": app.env}
            if app.log:
                row.update(out_file=app.log, error_file=app.log + ".err")
            rows.append({**row, **app.more.get("pm2", {})})
        return self.run(["pm2", "start", self.write("ecosystem.json", json.dumps({"apps": rows}))])

    def end(self):
        self.run(["pm2", "delete", "all"], check=False)
        self.run(["pm2", "kill"], check=False)


class Supervisord(Supervisor):
    name, programs = "supervisord", ("supervisord", "supervisorctl")
    least_delay = {"supervisord": {"startsecs": 0, "startretries": 100_000}}

    def ctl(self, *words): return ["supervisorctl", "-c", self.at("supervisord.conf"), *words]
    def list_argv(self): return self.ctl("status")
    def reload_argv(self, name): return self.ctl("restart", name)
    def stop_all(self): return self.run(self.ctl("stop", "all"))

    def configure(self, apps):
        self.write("supervisord.conf", f"[supervisord]\nnodaemon=true\nlogfile={self.at('log')}\nminfds=8192\n"
                   f"pidfile={self.at('pid')}\nchildlogdir={self.dir}\n[unix_http_server]\nfile={self.at('sock')}\n"
                   "[rpcinterface:supervisor]\n"
                   "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
                   f"[supervisorctl]\nserverurl=unix://{self.at('sock')}\n[include]\nfiles={self.at('apps', '*')}\n")
        text = ""
        for app in apps:
            keys = {"command": shlex.join(app.argv), "autorestart": "true", "redirect_stderr": "true"}
            if app.env:
                keys["environment"] = ",".join(f'{key}="{value}"' for key, value in app.env.items())
            if app.log:
                keys["stdout_logfile"] = app.log
            keys.update(app.more.get("supervisord", {}))
            text += f"[program:{app.name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())
        self.write("apps/all.conf", text)

    def start(self, apps):
        self.configure(apps)
        self.spawn(["supervisord", "-c", self.at("supervisord.conf")])
        proc.wait_for(lambda: os.path.exists(self.at("sock")), 20)

    def declare(self, apps):
        self.configure(apps)
        return self.run(self.ctl("update"))


class Circusd(Supervisor):
    name, programs = "circusd", ("circusd", "circusctl")

    def ctl(self, *words): return ["circusctl", "--endpoint", f"ipc://{self.at('e')}", "--timeout", "120", *words]
    def list_argv(self): return self.ctl("status")
    def reload_argv(self, name): return self.ctl("reload", name, "--waiting")
    def stop_all(self): return self.run(self.ctl("stop", "--waiting"))

    def configure(self, apps):
        # Its default looks at the children every 5 s.
        text = f"[circus]\nendpoint=ipc://{self.at('e')}\npubsub_endpoint=ipc://{self.at('p')}\ncheck_delay=0.1\n"
        for app in apps:
            keys = {"cmd": app.argv[0], "args": shlex.join(app.argv[1:]), "copy_env": "True", "warmup_delay": 0,
                    "max_retry": -1}
            if app.log:
                keys.update({"stdout_stream.class": "FileStream", "stdout_stream.filename": app.log})
            keys.update(app.more.get("circusd", {}))
            text += f"[watcher:{app.name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())
        return self.write("circus.ini", text)

    def start(self, apps):
        self.spawn(["circusd", self.configure(apps)])
        proc.wait_for(lambda: self.run(self.ctl("numwatchers"), check=False).strip().isdigit(), 30)

    def declare(self, apps):
        self.configure(apps)
        return self.run(self.ctl("reloadconfig", "--waiting"))


class Floor(Supervisor):
    """No supervisor: bare posix_spawn in a loop, with nothing between the program and it."""

    name = "floor"

    def start(self, apps):
        loop = os.path.join(REPOSITORY, "benches", "workers", "floor.py")
        self.process = subprocess.Popen([sys.executable, loop], cwd=self.dir, stdin=subprocess.PIPE, text=True,
                                        start_new_session=True)
        time.sleep(0.5)
        if apps:
            self.declare(apps)

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def declare(self, apps):
        self.say(json.dumps([[shutil.which(app.argv[0]), *app.argv[1:]] for app in apps for _ in range(app.workers)]))

    def stop_all(self): self.say("")
    def end(self): self.terminate()


class Scanned(Supervisor):
    """runit and s6: a folder a service, linked into a folder that is scanned."""

    def __init__(self):
        super().__init__()
        self.scan = os.path.join(self.run_dir, "scan")

    def logger(self, folder): raise NotImplementedError
    def services(self): return [os.path.join(self.scan, name) for name in sorted(os.listdir(self.scan)) if name[0] != "."]

    def link(self, apps):
        os.makedirs(self.scan, exist_ok=True)
        for app in apps:
            env = "".join(f"export {key}={shlex.quote(str(value))}\n" for key, value in app.env.items())
            service = os.path.join(self.run_dir, "services", app.name)
            self.write(os.path.join(service, "run"), f"#!/bin/sh\n{env}exec {shlex.join(app.argv)}\n", 0o755)
            if app.log:
                logger = self.logger(os.path.dirname(app.log))
                self.write(os.path.join(service, "log", "run"), f"#!/bin/sh\nexec {logger}\n", 0o755)
            os.symlink(service, os.path.join(self.scan, app.name))


class Runit(Scanned):
    name, programs = "runit", ("runsvdir", "sv", "svlogd")

    def logger(self, folder): return f"svlogd {folder}"
    def list_argv(self): return ["sv", "status", *self.services()]
    def declare(self, apps): self.link(apps)
    def stop_all(self): return self.run(["sv", "-w", "60", "down", *self.services()])
    def start(self, apps):
        self.link(apps)
        self.spawn(["runsvdir", self.scan])

    def end(self):
        # It tells its runsv to end and does not wait for them.
        services = proc.descendants(self.process.pid) if self.process else []
        self.terminate(signal.SIGHUP)
        proc.wait_for(lambda: not any(map(proc.lives, services)), 20)


class S6(Scanned):
    name, programs = "s6", ("s6-svscan", "s6-svscanctl", "s6-svc", "s6-log")

    def logger(self, folder): return f"s6-log -b -- s100000000 {folder}"
    def list_argv(self): return ["sh", "-c", f"for s in {self.scan}/*; do s6-svstat $s; done"]

    def start(self, apps):
        self.link(apps)
        self.spawn(["s6-svscan", "-c", "1100", self.scan])

    def declare(self, apps):
        self.link(apps)
        self.run(["s6-svscanctl", "-a", self.scan])

    def stop_all(self):
        for service in self.services():
            self.run(["s6-svc", "-d", service])


class Oxmgr(Supervisor):
    name, programs = "oxmgr", ("oxmgr",)
    least_delay = {"oxmgr": {"restart_delay_secs": 0, "crash_restart_limit": 0, "max_restarts": 100_000}}

    def port(self): return 20_000 + os.getpid() % 20_000
    def list_argv(self): return ["oxmgr", "list"]
    def reload_argv(self, name): return ["oxmgr", "reload", name]
    def stop_all(self): return self.run(["oxmgr", "stop", "all"])

    def env(self):
        return {"OXMGR_HOME": self.at("home"), "OXMGR_DAEMON_ADDR": f"127.0.0.1:{self.port()}",
                "OXMGR_API_ADDR": f"127.0.0.1:{self.port() + 1}"}

    def start(self, apps):
        self.spawn(["oxmgr", "daemon", "run"])
        time.sleep(1)
        if apps:
            self.declare(apps)

    def declare(self, apps):
        text = "version = 1\n"
        for app in apps:
            keys = {"name": app.name, "command": shlex.join(app.argv), "restart_policy": "always",
                    **app.more.get("oxmgr", {})}
            text += "[[apps]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in keys.items())
            text += f"env = {toml(app.env)}\n" if app.env else ""
            text += f"[apps.logs]\nstdout = {toml(app.log)}\n" if app.log else ""
        return self.run(["oxmgr", "apply", self.write("oxfile.toml", text)])

    def end(self):
        self.run(["oxmgr", "delete", "all"], check=False)
        self.run(["oxmgr", "daemon", "stop"], check=False)
        self.terminate()


ALL = {cls.name: cls for cls in (Floor, Agentd, Pm2, Supervisord, Circusd, Runit, S6, Oxmgr)}


def chosen(names):
    """Those named, or all that are installed."""
    for name in names:
        if name not in ALL:
            raise SystemExit(f"{name} is none of {', '.join(ALL)}")
        if not ALL[name].installed():
            raise SystemExit(f"{name} is not installed")
    return [cls for cls in ALL.values() if (cls.name in names if names else cls.installed())]
