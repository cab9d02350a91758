#!/usr/bin/env python3
"""agentd beside its peers, measured in one run. docs/benchmarks.md says how to read it.

    cargo build --release --workspace
    python3 benches/bench.py crash                    # agentd and every peer on PATH
    python3 benches/bench.py up agentd s6 --n 1000
    python3 benches/bench.py reload agentd-dies pm2 --reloads 50

Python 3.11, nothing but its standard library. Everything happens on 127.0.0.1 and in fresh temporary folders, every
wait has an end, and only processes that were started here are ended. Each result is one line of JSON; --out appends it
to a file as well.
"""
import argparse
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import processes  # noqa: E402
import releases  # noqa: E402
import shipping  # noqa: E402
import rotation  # noqa: E402
import soak  # noqa: E402
import tasks  # noqa: E402
import survival  # noqa: E402
import traffic  # noqa: E402
import watching  # noqa: E402

CASES = ("agentd-cooperates", "agentd-dies", "pm2", "pm2-best", "supervisord")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    figures = parser.add_subparsers(required=True, metavar="FIGURE")

    def figure(name, run, peers=True, **options):
        # argparse takes a per cent sign for the beginning of a name to fill in.
        sub = figures.add_parser(
            name, help=run.__doc__.splitlines()[0].replace("%", "%%"), description=run.__doc__.replace("%", "%%")
        )
        sub.set_defaults(run=run)
        if peers:
            sub.add_argument("peers", nargs="*", help="who is measured (default: all that are installed)")
        for option, default in options.items():
            sub.add_argument(f"--{option}", type=type(default), default=default)
        sub.add_argument("--out", help="file that results are appended to")
        return sub

    figure("crash", processes.crash, kills=100)
    figure("up", processes.up, n=100, rounds=3)
    figure("idle", processes.idle, n=100, seconds=30.0)
    figure("ls", processes.listing, runs=200)
    figure("apply", processes.applying, peers=False, n=100, runs=200)
    figure("logs", processes.logs, lines=100_000, rounds=5)
    figure("latency", traffic.latency, peers=False, workers=4, load=0.6, service=10.0, seconds=10.0, rounds=6)
    figure("throughput", traffic.throughput, peers=False, connections=32, seconds=5, rounds=6)
    figure("tasks", tasks.tasks, peers=False, workers=50, seconds=10, tasks=10_000, drains=50)
    figure("release", releases.release, peers=False, megabytes=200, files=2000, rounds=7, bin="")
    figure("shares", shipping.shares, peers=False, connections=20_000, bin="")
    figure("switch", shipping.switch, peers=False, rounds=10, bin="")
    figure("rolling", shipping.rolling, peers=False, upgrades=10, rate=2000, bin="")
    figure("kills", survival.kills, peers=False, kills=300, uvicorn="", node="", bin="")
    figure("ready", survival.ready_after_kill, peers=False, n=1000, rounds=10, bin="")
    figure("upgrade", survival.upgrade, peers=False, upgrades=100, bin="")
    figure("fsyncs", survival.fsyncs, peers=False, restarts=50, seconds=10.0, bin="")
    figure("rotation", rotation.rotation, peers=False, rate=50_000, seconds=20, bin="")
    figure("status", watching.status, peers=False, n=100, clients=4, seconds=10.0, watchers=50, bin="")
    sub = figure("soak", soak.soak, peers=False, rounds=2000, most=256, bin="")
    sub.add_argument("--points", action="store_true", help="every look at the daemon as well")
    sub = figure("reload", traffic.reload, peers=False, reloads=5, workers=4, surge=4, task=10.0, pause=1.0)
    sub.add_argument("cases", nargs="+", choices=CASES)
    sub.add_argument("--quiet", action="store_true", help="without load: only the time that a reload takes")
    return parser.parse_args()


def end_early(*_):
    """What was started ends as well, and a second signal must not interrupt that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


if __name__ == "__main__":
    given = arguments()
    signal.signal(signal.SIGTERM, end_early)
    given.run(given)
