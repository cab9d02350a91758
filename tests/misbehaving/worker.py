"""A worker that misbehaves as its arguments say: each word is done in its turn, and what follows `=` belongs to it.

A worker that comes to the end of its words without `serve` ends with success. Only the standard library, so that it
runs wherever python3 is.
"""
import array
import os
import signal
import socket
import sys
import threading
import time


def defer(_):
    """Has the kernel keep connections back until their request comes, as some servers do."""
    socket.socket(fileno=os.dup(3)).setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)


def serve(_):
    """Answers HTTP on the socket that was passed: `/`, `/long?s=`, `/sse?s=`, and `/die?code=` by ending."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from socketserver import ThreadingMixIn
    from urllib.parse import parse_qs, urlparse

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            url = urlparse(self.path)
            query = parse_qs(url.query)
            seconds = float(query.get("s", ["1"])[0])
            if url.path == "/die":
                os._exit(int(query["code"][0]))
            if url.path == "/sse":
                return self.stream(seconds)
            if url.path == "/long":
                time.sleep(seconds)
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"ok\n")

        def stream(self, seconds):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for n in range(int(seconds / 0.2)):
                self.wfile.write(b"data: %d\n\n" % n)
                self.wfile.flush()
                time.sleep(0.2)
            self.wfile.write(b"data: end\n\n")
            self.close_connection = True

    class Server(ThreadingMixIn, HTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=3)
    server.socket.setblocking(True)
    server.serve_forever()


def bind(port):
    """Listens on a port of its own choice instead of what it was given."""
    os.close(3)
    listener = socket.create_server(("127.0.0.1", int(port)))
    threading.Event().wait()
    listener.close()


def ignore(name):
    """Ignores a signal."""
    signal.signal(getattr(signal, name), signal.SIG_IGN)


def escape(folder):
    """Leaves a grandchild behind that left its session and parent; with `:cleared` it forgot its environment too."""
    folder, _, cleared = folder.partition(":")
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        environment = {"PATH": os.environ["PATH"]} if cleared else dict(os.environ)
        text = f"import os, threading; open({folder!r}, 'w').write(str(os.getpid()))"
        text += f"; os.rename({folder!r}, {folder + '.pid'!r}); threading.Event().wait()"
        os.execvpe("python3", ["python3", "-c", text], environment)
    os.wait()
    while not os.path.exists(folder + ".pid"):
        time.sleep(0.005)


def flood(megabytes):
    """Prints as fast as it can."""
    line = b"x" * 1023 + b"\n"
    for _ in range(int(megabytes)):
        os.write(1, line * 1024)


def notify(text):
    """Says something over the notify socket; `;` separates lines."""
    send(text)


def send(text, fds=()):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect(os.environ["NOTIFY_SOCKET"])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        out.sendmsg([text.replace(";", "\n").encode()], rights)


def store(name):
    """Gives a pipe's reading end that holds its own pid away to be kept, and keeps the writing end stored too."""
    reader, writer = os.pipe()
    os.write(writer, str(os.getpid()).encode())
    send(f"FDSTORE=1;FDNAME={name}", [reader, writer])


def recall(name):
    """Prints what the stored pipe holds; stores a new one where nothing was kept."""
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    if name in names:
        print("recalled", os.read(3 + names.index(name), 64).decode(), flush=True)
    else:
        store(name)


def task(text):
    """Does a task for as long as the named file is missing: `id:file`."""
    name, _, path = text.partition(":")
    send(f"X_AGENTD_TASK_BEGIN={name} chat")

    def finish():
        while not os.path.exists(path):
            time.sleep(0.005)
        send(f"X_AGENTD_TASK_END={name} ok")

    threading.Thread(target=finish, daemon=True).start()


def heart(interval):
    """Says WATCHDOG=1 as long as it lives."""

    def beat():
        while True:
            send("WATCHDOG=1")
            time.sleep(float(interval))

    threading.Thread(target=beat, daemon=True).start()


def fork_main(text):
    """Names a child as its main process, says what else there is to say, and ends when the child does."""
    child = os.fork()
    if child == 0:
        threading.Event().wait()
    send(f"MAINPID={child};{text}")
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 127)


def crash_beside(path):
    """Ends with 7 as soon as the named file is there."""

    def watch():
        while not os.path.exists(path):
            time.sleep(0.005)
        os._exit(7)

    threading.Thread(target=watch, daemon=True).start()


def fork_away(text):
    """Names a child as its main process and ends at once, as old daemons do; the child goes on with the next word."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        send(f"MAINPID={child};{text}")
        os.write(writer, b".")
        os._exit(0)
    os.read(reader, 1)


def crash_without(path):
    """Ends with 7 unless the named file is there."""
    if not os.path.exists(path):
        os._exit(7)


def await_file(path):
    """Goes on when the named file is there."""
    while not os.path.exists(path):
        time.sleep(0.005)


def command(text):
    """Runs another program to its end: words separated by blanks."""
    import subprocess

    subprocess.run(text.split(), check=True)


WORDS = {
    "serve": serve,
    "defer": defer,
    "bind": bind,
    "ignore": ignore,
    "escape": escape,
    "flood": flood,
    "notify": notify,
    "recall": recall,
    "task": task,
    "heart": heart,
    "fork-main": fork_main,
    "fork-away": fork_away,
    "crash-beside": crash_beside,
    "command": command,
    "await": await_file,
    "crash-without": crash_without,
    "print": lambda text: os.write(1, (text + "\n").encode()),
    "print-unended": lambda text: os.write(1, text.encode()),
    "crash-after": lambda seconds: threading.Timer(float(seconds), lambda: os._exit(7)).start(),
    "pause": lambda seconds: time.sleep(float(seconds)),
    "hang": lambda _: threading.Event().wait(),
    "exit": lambda code: os._exit(int(code)),
}

for word in sys.argv[1:]:
    name, _, value = word.partition("=")
    WORDS[name](value)
