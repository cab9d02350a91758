#!/usr/bin/env python3
"""Scores `agentd estimate` (docs/design/grace.md) against an oracle that knows the distribution.

    python3 benches/estimate.py                              every scenario, the closed loop, save and load, speed
    python3 benches/estimate.py --scenarios pareto --reps 20
    python3 benches/estimate.py --durations FOLDER           real runs too: FOLDER/swebench_agent_real.csv.gz with the columns
                                                             variant, duration_s, outcome (done, error, timeout)

A scenario is a stream of tasks on some slots and, now and then, a reload that asks how long the drain may take. Coverage
is the share of reloads whose tasks all end within the answer; cost is the geometric mean of answer over the oracle's, which
is the exact quantile of the true distribution at the tasks' ages. Both are over all reloads, also those before the first end.
Beside it: the p99 of finished tasks (naive), and Kaplan-Meier at the tasks' ages without tail, bounds or caution.
Seeded: the same figures in every run. Standard library only.
"""

import argparse
import bisect
import csv
import gzip
import heapq
import math
import os
import random
import subprocess
import sys
import tempfile
import time

TARGET, LEAST, MOST, DEFAULT = 0.99, 1.0, 1e6, 300.0
CONFIG = f"config target={TARGET} min_grace={LEAST} max_grace={MOST} default_grace={DEFAULT}"


# -- distributions: draw a duration, and the true share that outlasts one ----------------------------------------------

class Lognormal:
    def __init__(self, median, sigma):
        self.mu, self.sigma = math.log(median), sigma

    def draw(self, rng):
        return rng.lognormvariate(self.mu, self.sigma)

    def survival(self, x):
        return 1.0 if x <= 0 else 0.5 * math.erfc((math.log(x) - self.mu) / (self.sigma * math.sqrt(2)))


class Pareto:
    def __init__(self, least, alpha):
        self.least, self.alpha = least, alpha

    def draw(self, rng):
        return self.least * rng.paretovariate(self.alpha)

    def survival(self, x):
        return 1.0 if x <= self.least else (x / self.least) ** -self.alpha


class Observed:
    """Recorded durations, drawn again and again, each up to some percent apart, as two runs of the same are."""

    SPREAD = 0.1

    def __init__(self, durations):
        self.recorded = sorted(durations)
        low, high = math.log(self.recorded[0]) - 1, math.log(self.recorded[-1]) + 1
        self.grid = [low + (high - low) * k / 999 for k in range(1000)]
        width = self.SPREAD * math.sqrt(2)
        logs = [math.log(duration) for duration in self.recorded]
        self.shares = [sum(math.erfc((x - log) / width) for log in logs) / 2 / len(logs) for x in self.grid]

    def draw(self, rng):
        return rng.choice(self.recorded) * rng.lognormvariate(0, self.SPREAD)

    def survival(self, x):
        if x <= 0 or math.log(x) <= self.grid[0]:
            return 1.0
        place = (math.log(x) - self.grid[0]) / (self.grid[1] - self.grid[0])
        k = int(place)
        if k >= len(self.grid) - 1:
            return 0.0
        return self.shares[k] + (place - k) * (self.shares[k + 1] - self.shares[k])


class Scaled:
    def __init__(self, inner, factor):
        self.inner, self.factor = inner, factor

    def draw(self, rng):
        return self.factor * self.inner.draw(rng)

    def survival(self, x):
        return self.inner.survival(x / self.factor)


# -- scenarios ---------------------------------------------------------------------------------------------------------

class Scenario:
    def __init__(self, kinds, tasks, slots, pause, reload_every, later=None, random_slots=False):
        """kinds: {name: (share, distribution)}; pause: mean idle seconds of a slot; reload_every: mean seconds of a life;
        later: takes the place of kinds after half of the tasks; random_slots: 1 to slots of them in each life."""
        self.kinds, self.tasks, self.slots, self.pause = kinds, tasks, slots, pause
        self.reload_every, self.later, self.random_slots = reload_every, later or kinds, random_slots

    def stream(self, rng):
        """Lives of a worker, one after another: its slots run tasks until a reload, which sees those in flight; the next
        life begins when they have ended. Yields (time, what, task or list of tasks); a task is (id, kind, start, duration,
        survival)."""
        now, begun = 0.0, 0
        while begun < self.tasks:
            kinds = self.kinds if begun < self.tasks / 2 else self.later
            names, shares = list(kinds), [share for share, _ in kinds.values()]
            reload_at, tasks = now + rng.expovariate(1 / self.reload_every), []
            for _ in range(rng.randint(1, self.slots) if self.random_slots else self.slots):
                at = now + rng.expovariate(1 / self.pause)
                while at < reload_at:
                    kind = rng.choices(names, shares)[0]
                    tasks.append((f"t{begun}", kind, at, kinds[kind][1].draw(rng), kinds[kind][1].survival))
                    begun += 1
                    at += tasks[-1][3] + rng.expovariate(1 / self.pause)
            events = [(task[2], "start", task) for task in tasks] + [(task[2] + task[3], "end", task) for task in tasks]
            in_flight = [task for task in tasks if task[2] + task[3] > reload_at]
            if in_flight:
                events.append((reload_at, "reload", in_flight))
            yield from sorted(events, key=lambda event: event[0])
            now = max((event[0] for event in events), default=reload_at)


def scenarios(folder):
    slow, chat, code = Lognormal(900, 0.8), Lognormal(8, 0.7), Lognormal(240, 0.9)
    research = Pareto(120, 2.2)
    mixture = {"chat": (0.7, chat), "code": (0.2, code), "research": (0.1, research)}
    usual = Lognormal(30, 1.3)
    every = {
        "cold": Scenario({"-": (1, slow)}, 30, 2, 300, 2000),
        "lognormal": Scenario({"-": (1, Lognormal(20, 1.8))}, 400, 3, 10, 400),
        "pareto": Scenario({"-": (1, Pareto(5, 1.3))}, 400, 3, 5, 100),
        "mixture": Scenario(mixture, 500, 4, 5, 400),
        "sixteen": Scenario({"-": (1, usual)}, 600, 16, 20, 150, random_slots=True),
        "slower": Scenario({"-": (1, usual)}, 800, 3, 10, 300, later={"-": (1, Scaled(usual, 3))}),
    }
    if folder:
        with gzip.open(os.path.join(folder, "swebench_agent_real.csv.gz"), "rt") as rows:
            rows = [(row["variant"], float(row["duration_s"])) for row in csv.DictReader(rows)]
        variants = sorted({variant for variant, _ in rows})
        of = {v: [seconds for variant, seconds in rows if variant == v] for v in variants}
        every["real"] = Scenario({"-": (1, Observed(sum(of.values(), [])))}, 500, 3, 100, 2500)
        every["real, kinds"] = Scenario({v: (len(of[v]), Observed(of[v])) for v in variants}, 500, 3, 100, 2500)
    return every


# -- answers -----------------------------------------------------------------------------------------------------------

def oracle(tasks, now):
    def all_ended(g):
        chance = 1.0
        for _, _, start, _, survival in tasks:
            there = survival(now - start)
            chance *= 1 - (survival(now - start + g) / there if there > 0 else 0.0)
        return chance

    low, high = 1e-3, 1e9
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if all_ended(middle) >= TARGET else (middle, high)
    return min(max(high, LEAST), MOST)


class Naive:
    """The p99 of what finished, as everybody does it first."""

    def __init__(self):
        self.done = []

    def end(self, _kind, duration, done):
        if done:
            bisect.insort(self.done, duration)

    def query(self, _tasks, _now):
        return max(self.done[min(len(self.done) - 1, int(len(self.done) * TARGET))], LEAST) if self.done else DEFAULT


class KaplanMeier:
    """Product limit by kind, at the tasks' ages; the longest seen duration ends the curve."""

    def __init__(self):
        self.seen, self.curves = {}, {}

    def end(self, kind, duration, done):
        bisect.insort(self.seen.setdefault(kind, []), (duration, not done))
        self.curves.pop(kind, None)

    def curve(self, kind):
        if kind not in self.curves:
            seen, survives, times, shares = self.seen.get(kind, []), 1.0, [0.0], [1.0]
            for k, (duration, cut) in enumerate(seen):
                if not cut:
                    survives *= 1 - 1 / (len(seen) - k)
                    times.append(duration)
                    shares.append(survives)
            self.curves[kind] = (times, shares)
        return self.curves[kind]

    def query(self, tasks, now):
        if not self.seen:
            return DEFAULT
        places = []
        for _, kind, start, _, _ in tasks:
            times, shares = self.curve(kind)
            there = shares[bisect.bisect_right(times, now - start) - 1]
            if there <= 0 or len(times) < 2:
                return max(DEFAULT, times[-1])
            places.append((times, shares, now - start, there))

        def all_ended(g):
            return math.prod(1 - s[bisect.bisect_right(t, age + g) - 1] / there for t, s, age, there in places)

        low, high = 1e-3, MOST
        while high > low * 1.005:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if all_ended(middle) >= TARGET else (middle, high)
        return max(high if high < MOST * 0.99 else max(t[-1] - age for t, _, age, _ in places), LEAST)


def ours(agentd, lines):
    """The replies of one `agentd estimate` to many lines."""
    run = subprocess.run([agentd, "estimate"], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    return run.stdout.split("\n")[:-1]


# -- scoring -----------------------------------------------------------------------------------------------------------

class Score:
    def __init__(self):
        self.reloads, self.covered, self.logs = 0, 0, 0.0

    def add(self, answer, needed, best):
        self.reloads += 1
        self.covered += answer >= needed
        self.logs += math.log(max(answer, 1e-9) / best)

    def coverage(self):
        return self.covered / self.reloads

    def cost(self):
        return math.exp(self.logs / self.reloads)

    def __str__(self):
        return f"{self.coverage():.3f} / {self.cost():5.2f}"


def score_open(agentd, scenario, reps, seed):
    scores = {name: Score() for name in ("oracle", "naive", "km", "ours")}
    lines, asked = [], []
    for rep in range(reps):
        rng = random.Random(f"{seed}:{rep}")
        naive, km = Naive(), KaplanMeier()
        lines += ["reset", CONFIG]
        for at, what, task in scenario.stream(rng):
            if what == "start":
                lines.append(f"start {task[0]} {task[1]} {at:.6f}")
            elif what == "end":
                lines.append(f"end {task[0]} {at:.6f} done")
                naive.end(task[1], task[3], True)
                km.end(task[1], task[3], True)
            else:
                lines.append(f"query {','.join(t[0] for t in task)} {at:.6f}")
                needed = max(start + duration - at for _, _, start, duration, _ in task)
                best = oracle(task, at)
                scores["oracle"].add(best, needed, best)
                scores["naive"].add(naive.query(task, at), needed, best)
                scores["km"].add(km.query(task, at), needed, best)
                asked.append((needed, best))
    for reply, (needed, best) in zip(ours(agentd, lines), asked, strict=True):
        scores["ours"].add(float(reply), needed, best)
    return scores


class Pipe:
    """One `agentd estimate` that is asked as it goes."""

    def __init__(self, agentd):
        self.process = subprocess.Popen([agentd, "estimate"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, line):
        self.process.stdin.write(line + "\n")

    def ask(self, line):
        self.tell(line)
        self.process.stdin.flush()
        reply = self.process.stdout.readline().strip()
        if reply.startswith("error"):
            sys.exit(f"{line}: {reply}")
        return reply

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def closed_loop(agentd, who, reps, seed, tasks=600, slots=4, life=60):
    """Every reload kills what does not end in time, and the killed are seen as killed. Returns the share of the tasks in
    flight at reloads that were killed, and the mean bound over the median duration."""
    dist, killed, in_flight, waited, reloads = Lognormal(60, 1.4), 0, 0, 0.0, 0
    pipe = Pipe(agentd) if who == "ours" else None
    for rep in range(reps):
        rng, now, begun = random.Random(f"closed:{seed}:{rep}"), 0.0, 0
        other = None if pipe else {"naive": Naive, "km": KaplanMeier}[who]()
        if pipe:
            pipe.tell("reset")
            pipe.tell(CONFIG)

        def end(task, at, done):
            if pipe:
                pipe.tell(f"end {task[0]} {at:.6f} {'done' if done else 'killed'}")
            else:
                other.end("-", at - task[2], done)

        while begun < tasks:
            # A life of the worker: slots run tasks one after another until the reload comes.
            reload_at, running = now + rng.expovariate(1 / life), []
            for _ in range(slots):
                at = now
                while at < reload_at:
                    at += rng.expovariate(1 / 10)
                    task = (f"t{begun}", "-", at, dist.draw(rng), dist.survival)
                    if at >= reload_at:
                        break
                    begun += 1
                    running.append(task)
                    at += task[3]
            events = [(t[2], 0, t) for t in running] + [(t[2] + t[3], 1, t) for t in running if t[2] + t[3] <= reload_at]
            for at, ended, task in sorted(events, key=lambda event: event[:2]):
                if ended:
                    end(task, at, True)
                elif pipe:
                    pipe.tell(f"start {task[0]} - {at:.6f}")
            live = [t for t in running if t[2] + t[3] > reload_at]
            now = reload_at
            if not live:
                continue
            if pipe:
                bound = float(pipe.ask(f"query {','.join(t[0] for t in live)} {reload_at:.6f}"))
            else:
                bound = other.query(live, reload_at)
            in_flight += len(live)
            reloads += 1
            waited += math.log(bound)
            for task in sorted(live, key=lambda t: t[2] + t[3]):
                done = task[2] + task[3] <= reload_at + bound
                killed += not done
                end(task, min(task[2] + task[3], reload_at + bound), done)
            now += min(bound, max(t[2] + t[3] for t in live) - reload_at)
    if pipe:
        pipe.close()
    return killed / in_flight, math.exp(waited / reloads)


def save_and_load(agentd):
    """The same answers after save and load, by another process; and the bytes of a state."""
    rng = random.Random("save")
    with tempfile.TemporaryDirectory() as folder:
        path, first, now = os.path.join(folder, "state"), Pipe(agentd), 0.0
        first.tell(CONFIG)
        for n in range(3000):
            now += 1
            first.tell(f"start {n} {rng.choice(['-', 'chat', 'code'])} {now}")
            now += rng.lognormvariate(2, 1.5)
            if rng.random() < 0.3:
                first.tell(f"ckpt {n} {now}")
                now += rng.lognormvariate(2, 1.5)
            first.tell(f"end {n} {now} {rng.choice(['done'] * 9 + ['killed'])}")
        first.tell(f"start a chat {now}")
        first.tell(f"start b - {now} 30")
        questions = [f"{verb} {who} {now + later}" for verb in ("query", "queryck") for who in ("a", "b", "a,b")
                     for later in (0, 3, 77, 900)]
        before, said = [first.ask(question) for question in questions], first.ask(f"save {path}")
        first.close()
        second = Pipe(agentd)
        second.tell(CONFIG)
        assert second.ask(f"load {path}") == said == f"ok {os.path.getsize(path)}"
        after = [second.ask(question) for question in questions]
        second.close()
        print(f"save and load: {sum(a == b for a, b in zip(before, after))} of {len(before)} answers identical; "
              f"{os.path.getsize(path)} bytes for 6 series")
        return before == after


def speed(agentd):
    """Ends a second through the pipe, and the time of a query, both with parsing; the machine's load beside."""
    rng = random.Random("speed")
    count, in_flight = 1_000_000, 16
    lines = [CONFIG]
    for n in range(count):
        lines.append(f"start {n} - {n / 10}")
        if n >= in_flight:
            lines.append(f"end {n - in_flight} {n / 10 + rng.random()} done")
    began = time.monotonic()
    ours(agentd, lines)
    took = time.monotonic() - began
    queries = 100_000
    setup = lines[:4001] + [f"start q{k} - {k}" for k in range(16)]
    names = ",".join(f"q{k}" for k in range(16))
    began = time.monotonic()
    ours(agentd, setup)
    empty = time.monotonic() - began
    began = time.monotonic()
    ours(agentd, setup + [f"query {names} {500 + k / 100}" for k in range(queries)])
    asked = time.monotonic() - began - empty
    fresh = []
    for k in range(20_000):
        fresh += [f"start f{k} - {500 + k}", f"end f{k} {510 + k} done", f"query {names} {510 + k}"]
    began = time.monotonic()
    ours(agentd, setup + fresh)
    anew = (time.monotonic() - began - empty) / 20_000
    print(f"speed: {count / took / 1e6:.2f} million starts and ends a second; query with 16 tasks "
          f"{asked / queries * 1e6:.1f} µs, {anew * 1e6:.1f} µs with an end before each; load {os.getloadavg()[0]:.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agentd", default=os.environ.get("AGENTD_BIN", "target/release/agentd"))
    parser.add_argument("--durations", help="a folder with recorded runs")
    parser.add_argument("--scenarios", help="comma-separated; all without it")
    parser.add_argument("--reps", type=int, default=60, help="streams a scenario")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only-scenarios", action="store_true", help="no closed loop, no save and load, no speed")
    asked = parser.parse_args()
    every = scenarios(asked.durations)
    names = asked.scenarios.split(",") if asked.scenarios else list(every)
    print(f"{'coverage / cost':<16}{'reloads':>8}{'oracle':>15}{'naive p99':>15}{'Kaplan-Meier':>15}{'agentd':>15}")
    pooled, fine = Score(), True
    for name in names:
        scores = score_open(asked.agentd, every[name], asked.reps, f"{asked.seed}:{name}")
        got = scores["ours"]
        print(f"{name:<16}{got.reloads:>8}" + "".join(f"{scores[who]!s:>15}" for who in ("oracle", "naive", "km", "ours")))
        pooled.reloads, pooled.covered, pooled.logs = (
            pooled.reloads + got.reloads, pooled.covered + got.covered, pooled.logs + got.logs)
        fine &= got.coverage() >= scores["oracle"].coverage() - 0.01
    print(f"{'pooled':<16}{pooled.reloads:>8}{'':>45}{pooled!s:>15}")
    fine &= pooled.coverage() >= 0.985
    if not asked.only_scenarios:
        for who in ("naive", "km", "ours"):
            lost, bound = closed_loop(asked.agentd, who, max(1, asked.reps // 6), asked.seed)
            print(f"closed loop, {who}: {lost:.2%} of the tasks in flight killed; bound {bound:.0f} s (geometric mean)")
            fine &= who != "ours" or lost <= 0.015
        fine &= save_and_load(asked.agentd)
        speed(asked.agentd)
    print("reached" if fine else "MISSED")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
