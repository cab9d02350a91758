"""What the benches see of processes and time: /proc readers, bounded waits, percentiles, one JSON line a result.

Memory is Pss of /proc/PID/smaps_rollup: shared pages are divided among those who map them. CPU is the on-CPU time of
every thread (schedstat, nanoseconds). A process is found by its tag, one argument that nobody else on the machine has.
"""
import fcntl
import json
import os
import stat
import statistics
import time


def read(path):
    """The bytes of a file of /proc, none when the process is gone."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def arguments(pid):
    return read(f"/proc/{pid}/cmdline").split(b"\0")[:-1]


def status(pid):
    """The fields of /proc/PID/stat from the state on."""
    return read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()


def lives(pid):
    fields = status(pid)
    return bool(fields) and fields[0] not in (b"Z", b"X")


def stolen():
    """Ticks in which one of our processors was to run and the hypervisor ran somebody else."""
    return int(read("/proc/stat").split(b"\n", 1)[0].split()[8])


def descendants(root):
    children = {}
    for pid in pids():
        fields = status(pid)
        if fields:
            children.setdefault(int(fields[1]), []).append(pid)
    found, left = [], [root]
    while left:
        new = children.get(left.pop(), [])
        found += new
        left += new
    return found


class Tagged:
    """The processes that carry a tag. Looks only at what it has not recognised yet, so that looking stays cheap."""

    def __init__(self, tag):
        self.tag = tag.encode()
        self.known = set()

    def look(self):
        now = set(pids())
        self.known = {pid for pid in now if pid in self.known or self.tag in arguments(pid)}
        return self.known

    def left(self):
        """Of those known, the ones that live; new ones are not looked for."""
        self.known = {pid for pid in self.known if lives(pid)}
        return self.known


def pss_kib(some):
    total = 0
    for pid in some:
        for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                total += int(line.split()[1])
    return total


def cpu_s(some):
    total = 0
    for pid in some:
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            total += int((read(f"/proc/{pid}/task/{thread}/schedstat").split() or [b"0"])[0])
    return total / 1e9


def pipes(some):
    """The pipes that processes have open: inode -> capacity in bytes."""
    found = {}
    for pid in some:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            name = f"/proc/{pid}/fd/{fd}"
            try:
                about = os.stat(name)
                if stat.S_ISFIFO(about.st_mode) and about.st_ino not in found:
                    own = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
                    found[about.st_ino] = fcntl.fcntl(own, fcntl.F_GETPIPE_SZ)
                    os.close(own)
            except OSError:
                continue
    return found


def slab_kib():
    return next(int(line.split()[1]) for line in read("/proc/meminfo").splitlines() if line.startswith(b"Slab:"))


def pipe_kernel_kib(capacity, count=500):
    """Kernel memory of an empty pipe that can hold `capacity` bytes. Each page that waits to be read adds 4 KiB."""
    before = slab_kib()
    ends = [os.pipe() for _ in range(count)]
    for _, end in ends:
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, capacity)
    after = slab_kib()
    for pair in ends:
        os.close(pair[0])
        os.close(pair[1])
    return round((after - before) / count, 1)


def wait_for(condition, seconds, pause=0.005):
    """Seconds until `condition()` holds; raises when it does not in time."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"waited {seconds} s in vain")
        time.sleep(pause)
    return time.monotonic() - began


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def summary(values, digits=2):
    values = [value for value in values if value is not None]
    if not values:
        return {"n": 0}
    return {
        "n": len(values),
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "p99": round(percentile(values, 0.99), digits),
        "max": round(max(values), digits),
    }


def emit(args, figure, who, result):
    row = {"figure": figure, "who": who, "load1": round(os.getloadavg()[0], 2), **result}
    line = json.dumps(row)
    print(line, flush=True)
    if args.out:
        with open(args.out, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    return row


def emit_ratios(args, figure, of):
    """agentd's figure as a multiple of everybody else's of this run. `of`: {who: {quantity: figure}}."""
    ours = of.pop("agentd", {})
    for who, theirs in of.items():
        shared = {key: round(ours[key] / theirs[key], 2) for key in ours if theirs.get(key)}
        if shared:
            emit(args, figure, f"agentd / {who}", shared)
