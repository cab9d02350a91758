"""Figures of the task protocol: checkpoints, begin and end, memory, what a drain wastes."""
import json
import os
import subprocess

import proc

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def tasks(args):
    """Acknowledged checkpoints a second and beside a bare commit, begin and end a second, memory, drain wasted."""
    release = os.path.join(ROOT, "target", "release")
    command = [os.path.join(release, "tasks_bench"), "--agentd", os.path.join(release, "agentd")]
    for option in ("workers", "seconds", "tasks", "drains"):
        command += [f"--{option}", str(getattr(args, option))]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=900, check=True)
    proc.emit(args, "tasks", "agentd", json.loads(done.stdout))
