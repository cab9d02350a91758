"""The least that a supervisor does: posix_spawn of each program, and again as soon as it has ended.

Each in a session of its own, as under agentd: the scheduler shares processors out by session before it does by process.

One line of JSON on standard input is a list of argument lists to start; an empty line ends all of them for good.
"""
import json
import os
import signal
import sys
import threading

programs = {}    # pid -> its arguments
lock = threading.Lock()
wanted = threading.Event()
wanted.set()


def start(argv):
    to_null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    with lock:
        programs[os.posix_spawn(argv[0], argv, os.environ, file_actions=to_null, setsid=True)] = argv


def obey():
    for line in sys.stdin:
        if line.strip():
            for argv in json.loads(line):
                start(argv)
        else:
            wanted.clear()
            with lock:
                for pid in programs:
                    os.kill(pid, signal.SIGTERM)
    os._exit(0)


threading.Thread(target=obey, daemon=True).start()
while True:
    try:
        pid, _ = os.wait()
    except ChildProcessError:
        threading.Event().wait(0.01)
        continue
    with lock:
        argv = programs.pop(pid)
    if wanted.is_set():
        start(argv)
