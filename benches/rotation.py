"""Rotation while a worker prints fast: is any line lost, or there twice?"""
import json
import os
import subprocess
import sys
import time

import proc
from survival import Instance, emit

# Prints numbered lines of 100 bytes at a steady rate, tells how long that took, and stays.
PRINTER = """import os, sys, time
count, rate = int(sys.argv[1]), int(sys.argv[2])
batch, begun = rate // 1000, time.monotonic()
for first in range(0, count, batch):
    os.write(1, b"".join(b"%099d\\n" % number for number in range(first, min(first + batch, count))))
    early = begun + first / rate - time.monotonic()
    if early > 0: time.sleep(early)
open(sys.argv[3], "w").write(str(time.monotonic() - begun))
time.sleep(1000000)
"""


def rotation(given):
    """Lines lost and doubled while files are put aside and packed under R lines a second."""
    count = given.rate * given.seconds
    with Instance(given.bin) as one:
        one.start()
        script, done = os.path.join(one.home, "printer.py"), os.path.join(one.home, "done")
        with open(script, "w", encoding="utf-8") as file:
            file.write(PRINTER)
        words = json.dumps([sys.executable, script, str(count), str(given.rate), done])
        one.ctl("start", one.config(f'[agent.printer]\ncommand = {words}\nlog = {{ max_size = "1M", keep = 10000 }}\n'))
        proc.wait_for(lambda: os.path.exists(done) and os.path.getsize(done), given.seconds * 10 + 60, 0.1)
        with open(done, encoding="utf-8") as file:
            took = float(file.read())
        time.sleep(1)
        shown = subprocess.Popen([os.path.join(one.bin, "agentctl"), "logs", "printer", "--since", "1d"],
                                 env=one.env, stdout=subprocess.PIPE)
        seen = bytearray(count)
        for line in shown.stdout:
            words = line.split()
            number = int(words[-1]) if words and words[-1].isdigit() and len(words[-1]) == 99 else None
            if number is not None:
                seen[number] = min(seen[number] + 1, 255)
        shown.wait()
        files = os.listdir(os.path.join(one.home, "logs", "printer"))
        emit(given, "rotation", lines=count, a_second=round(count / took), lost=seen.count(0),
             doubled=sum(1 for times in seen if times > 1), files_put_aside=sum(".log.0" in name for name in files
                                                                              if ".idx" not in name),
             packed=sum(name.endswith(".log.zst") or name[-4:] == ".zst" for name in files if ".idx" not in name))
        one.ctl("stop", "printer")
