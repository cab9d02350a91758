#!/usr/bin/env python3
"""Scores `agentd gate` (docs/design/gates.md) by simulated canaries.

    python3 benches/gate.py [--agentd target/release/agentd] [--baseline 500] [--reps 1000]

False rollbacks: eight gates over 400 tasks in four stages with no change at all, looked at after every task; beside it a
Mann-Whitney test at 5 % on each measure, looked at after every tenth. Detection: tasks until the rollback, the median.
Seeded. Standard library only.
"""

import argparse
import bisect
import collections
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time


def count(rng, mean):
    limit, product, drawn = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        drawn += 1
    return drawn


# name: gate, a draw of the old version, a draw of the bad one, median tasks of the reference
MEASURES = {
    "errors 1 to 10 %": ("binary", lambda r: int(r.random() < 0.01), lambda r: int(r.random() < 0.1), 50),
    "errors 1 to 20 %": ("binary", lambda r: int(r.random() < 0.01), lambda r: int(r.random() < 0.2), 18),
    "latency + 50 %": ("numeric", lambda r: r.lognormvariate(3, 0.5), lambda r: 1.5 * r.lognormvariate(3, 0.5), 48),
    "tool calls x 3": ("numeric", lambda r: count(r, r.gammavariate(1.5, 2)), lambda r: count(r, r.gammavariate(1.5, 6)), 12),
    "quality .80 to .70": ("mean", lambda r: min(1, max(0, r.gauss(0.8, 0.15))), lambda r: min(1, max(0, r.gauss(0.7, 0.15))), 54),
    "tokens": ("numeric", lambda r: r.lognormvariate(8, 0.8), None, None),
    "cost": ("numeric", lambda r: r.lognormvariate(-4, 0.8), None, None),
    "steps": ("numeric", lambda r: count(r, 8), None, None),
    "context use": ("numeric", lambda r: r.betavariate(3, 6), None, None),
}
EIGHT = [name for name in MEASURES if name != "errors 1 to 20 %"]


def ask(agentd, lines):
    run = subprocess.run([agentd, "gate"], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def configured(kind, values):
    return [json.dumps({"gate": kind}), json.dumps({"baseline": values})]


def mann_whitney(old, new):
    """One-sided p that the new values are larger, by the normal approximation with ties."""
    both = sorted(old + new)
    ranks = sum((bisect.bisect_left(both, x) + bisect.bisect_right(both, x) + 1) / 2 for x in new)
    n, m = len(old), len(new)
    ties = sum(same**3 - same for same in collections.Counter(both).values())
    spread = math.sqrt(n * m * (n + m + 1 - ties / ((n + m) * (n + m - 1))) / 12)
    return 0.5 * math.erfc((ranks - m * (m + 1) / 2 - n * m / 2) / spread / math.sqrt(2))


def false_rollbacks(agentd, size, reps):
    lines = []
    for rep in range(reps):
        for name in EIGHT:
            rng = random.Random(f"same:{rep}:{name}")
            kind, old = MEASURES[name][:2]
            lines += configured(kind, [old(rng) for _ in range(size)])
            for stage in range(4):
                lines.append('{"stage":true}')
                lines += [json.dumps({"x": old(rng)}) for _ in range(100)]
    replies = ask(agentd, lines)
    each = 400 * len(EIGHT)
    verdicts = [{reply["verdict"] for reply in replies[k : k + each]} for k in range(0, len(replies), each)]
    return sum("rollback" in seen for seen in verdicts) / reps, sum("hold" in seen for seen in verdicts) / reps


def false_mann_whitney(size, reps):
    wrong = 0
    for rep in range(reps):
        def one(name):
            rng = random.Random(f"same:{rep}:{name}")
            kind, draw = MEASURES[name][:2]
            sign = -1 if kind == "mean" else 1
            old, new = [sign * draw(rng) for _ in range(size)], []
            for task in range(400):
                new.append(sign * draw(rng))
                if task % 10 == 9 and task > 20 and mann_whitney(old, new) < 0.05:
                    return True
            return False

        wrong += any(one(name) for name in EIGHT)
    return wrong / reps


def detection(agentd, name, size, reps, good=0, most=1500):
    kind, old, bad, _ = MEASURES[name]
    lines = []
    for rep in range(reps):
        rng = random.Random(f"bad:{rep}:{name}")
        lines += configured(kind, [old(rng) for _ in range(size)])
        lines += [json.dumps({"x": old(rng)}) for _ in range(good)] + ['{"stage":true}']
        lines += [json.dumps({"x": bad(rng)}) for _ in range(most)]
    replies, each, tasks = ask(agentd, lines), good + most, []
    for rep in range(reps):
        mine = replies[rep * each + good : (rep + 1) * each]
        tasks.append(next((k + 1 for k, reply in enumerate(mine) if reply["verdict"] == "rollback"), most))
    return statistics.median(tasks)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agentd", default=os.environ.get("AGENTD_BIN", "target/release/agentd"))
    parser.add_argument("--baseline", type=int, default=500, help="observations of the old version")
    parser.add_argument("--reps", type=int, default=1000)
    asked = parser.parse_args()
    rollbacks, holds = false_rollbacks(asked.agentd, asked.baseline, asked.reps)
    looked = false_mann_whitney(asked.baseline, min(asked.reps, 100))
    print(f"no change, baseline of {asked.baseline}: rollback {rollbacks:.2%}, held at some look {holds:.2%}; "
          f"peeked Mann-Whitney {looked:.0%}")
    fine = rollbacks <= 0.015
    for name, (_, _, bad, reference) in MEASURES.items():
        if bad:
            tasks = detection(asked.agentd, name, asked.baseline, min(asked.reps, 200))
            fine &= tasks <= 1.2 * reference
            print(f"{name:<20} detected after {tasks:>5.0f} tasks (median); reference {reference}")
    for name in ("errors 1 to 10 %", "errors 1 to 20 %"):
        late = detection(asked.agentd, name, asked.baseline, min(asked.reps, 200), good=150)
        print(f"{name:<20} detected after {late:>5.0f} tasks that follow 150 good ones")
    lines = configured("numeric", [float(k % 100) for k in range(500)])
    observations = ['{"x":%d}' % (k % 90) for k in range(300_000)]
    began = time.monotonic()
    ask(asked.agentd, lines)
    empty = time.monotonic() - began
    began = time.monotonic()
    subprocess.run([asked.agentd, "gate"], input="\n".join(lines + observations) + "\n", capture_output=True, text=True, check=True)
    print(f"{(time.monotonic() - began - empty) / len(observations) * 1e6:.2f} µs an observation, with its JSON both ways; "
          f"load {os.getloadavg()[0]:.1f}")
    print("reached" if fine else "MISSED")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
