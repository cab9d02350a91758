"""Installing a release, beside copying the same folder."""
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time


def release(args):
    """installing a release: `agentd cut` and its rename against `cp -a` and a sync of the file system, in turns"""
    agentd = args.bin or os.environ.get("AGENTD_BIN", "target/release/agentd")
    with tempfile.TemporaryDirectory(prefix="agentd-bench-", dir=os.path.abspath(os.environ.get("TMPDIR", "."))) as home:
        source = os.path.join(home, "source")
        fill(source, args.megabytes << 20, args.files)
        ours, copies = [], []
        for turn in range(args.rounds):
            copies.append(copy(source, os.path.join(home, f"copy-{turn}")))
            ours.append(cut(agentd, source, home, turn))
    result = {
        "figure": "release",
        "megabytes": args.megabytes,
        "files": args.files,
        "agentd_s": round(statistics.median(ours), 3),
        "cp_s": round(statistics.median(copies), 3),
        "ratio": round(statistics.median(ours) / statistics.median(copies), 2),
        "ratios": [round(a / b, 2) for a, b in zip(ours, copies)],
        "load": os.getloadavg()[0],
    }
    line = json.dumps(result)
    print(line)
    if args.out:
        with open(args.out, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def fill(folder, size, files):
    """So many files of random bytes, a hundred to a folder."""
    each = size // files
    for number in range(files):
        inner = os.path.join(folder, str(number // 100))
        os.makedirs(inner, exist_ok=True)
        with open(os.path.join(inner, f"{number}.bin"), "wb") as file:
            file.write(os.urandom(each))
    os.sync()


def copy(source, target):
    begin = time.monotonic()
    subprocess.run(["cp", "-a", source, target], check=True)
    subprocess.run(["sync", "-f", target], check=True)
    took = time.monotonic() - begin
    shutil.rmtree(target)
    os.sync()
    return took


def cut(agentd, source, home, turn):
    staging, target = os.path.join(home, f".cut-{turn}"), os.path.join(home, f"release-{turn}")
    order = {
        "app": "bench", "manifest": "skill.toml", "source": source, "sha256": None, "staging": staging,
        "wanted": {"release": {"have": [], "build_log": os.path.join(home, "build.log")}},
        "limits": {"bytes": 4 << 30, "entries": 250_000}, "env": {"PATH": os.environ["PATH"]},
    }
    begin = time.monotonic()
    process = subprocess.Popen([agentd, "cut"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    report = json.loads(process.stdout.readline())
    os.rename(report["cut"]["folder"], target)
    folder = os.open(home, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    took = time.monotonic() - begin
    process.stdin.close()
    process.wait(timeout=30)
    shutil.rmtree(target)
    shutil.rmtree(staging, ignore_errors=True)
    os.sync()
    return took
