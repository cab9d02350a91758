//! An app of two workers that know what a file says, in each of the ways in which it can be told to read it anew.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentd_protocol::status::RefreshView;
use agentd_testkit::e2e::{Daemon, free_port};

/// Longest wait for anything that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Serves what it knows; reads it anew on request.
const HTTP: &str = r#"
import asyncio, os, pathlib
FILE = pathlib.Path("knowledge/fact")
known = FILE.read_text()
async def app(scope, receive, send):
    global known
    if scope["type"] != "http":
        return
    status = 200
    if (scope["method"], scope["path"]) == ("POST", "/admin/reindex"):
        new = FILE.read_text()
        if new == "hangs":
            await asyncio.sleep(600)
        elif new == "broken":
            status = 500
        else:
            known = new
            pathlib.Path(f"known.{os.getpid()}.tmp").write_text(known)
            os.rename(f"known.{os.getpid()}.tmp", f"known.{os.getpid()}")
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": known.encode()})
"#;

/// Reads it anew on SIGHUP, and tells so as `Type=notify-reload` asks for.
const SIGNAL: &str = r#"
import os, signal, socket, time
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
def renew(*_):
    say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    print("knows", open("knowledge/fact").read(), flush=True)
    say("READY=1")
signal.signal(signal.SIGHUP, renew)
say("READY=1")
while True:
    signal.pause()
"#;

/// Reads it anew when agentd says so.
const PROTOCOL: &str = r#"
from agentd_worker import Worker
worker = Worker()
async def renew(scope):
    assert scope == "knowledge", scope
    fact = open("knowledge/fact").read()
    if fact == "broken":
        raise ValueError("the knowledge is broken")
    print("knows", fact, flush=True)
worker.on_refresh.append(renew)
worker.serve()
"#;

/// A daemon with the app `web`.
pub(crate) struct Site {
    pub(crate) daemon: Daemon,
}

impl Site {
    /// Starts the app of this kind, with these lines of configuration.
    pub(crate) fn start(kind: &str, lines: &str) -> Self {
        let daemon = Daemon::start(env!("CARGO_BIN_EXE_agentd"));
        let site = Self { daemon };
        std::fs::create_dir(site.path("knowledge")).expect("the home takes folders");
        site.learn("one");
        let python = python();
        let app = match kind {
            "http" => {
                site.daemon.config("app.py", HTTP);
                let port = free_port();
                format!(
                    "command = [{python:?}, \"-m\", \"uvicorn\", \"app:app\", \"--fd\", \"{{fd:http}}\"]\n\
                     listen.http = \"127.0.0.1:{port}\"\nready = {{ http = \"/\" }}\nstop.timeout = \"1s\"\n"
                )
            }
            "signal" => {
                site.daemon.config("app.py", SIGNAL);
                format!("command = [{python:?}, \"app.py\"]\nready = \"notify\"\n")
            }
            _ => {
                site.daemon.config("app.py", PROTOCOL);
                let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/python");
                format!("command = [{python:?}, \"app.py\"]\nenv.PYTHONPATH = {library:?}\n")
            }
        };
        site.daemon.config("web.toml", &format!("[agent.web]\nworkers = 2\n{app}{lines}\n"));
        site.daemon.ctl_ok(&["start", "./web.toml"]);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.daemon.home.path().join(name)
    }

    /// Writes what is to be known, as editors do: beside, then over.
    pub(crate) fn learn(&self, fact: &str) {
        std::fs::write(self.path("knowledge/.fact.tmp"), fact).expect("the folder takes files");
        std::fs::rename(self.path("knowledge/.fact.tmp"), self.path("knowledge/fact")).expect("both are ours");
    }

    /// Who serves.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.daemon.app("web").workers.iter().filter_map(|worker| worker.pid).collect()
    }

    /// What each process knows since its last refresh; what it began with where there was none.
    pub(crate) fn known(&self) -> Vec<String> {
        let of =
            |pid: &u32| std::fs::read_to_string(self.path(&format!("known.{pid}"))).unwrap_or_else(|_| "one".into());
        self.pids().iter().map(of).collect()
    }

    /// How many lines that contain this were printed.
    pub(crate) fn printed(&self, words: &str) -> usize {
        let lines = self.daemon.ctl_ok(&["logs", "web", "-n", "1000"]).stdout;
        lines.lines().filter(|line| line.contains(words)).count()
    }

    /// The refresh, once it is as wanted.
    pub(crate) fn await_refresh(&self, wanted: impl Fn(&RefreshView) -> bool) -> RefreshView {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let view = self.daemon.app("web").refresh;
            match view {
                Some(view) if wanted(&view) => return view,
                other => assert!(Instant::now() < deadline, "{other:?}: {}", self.daemon.log()),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The Python that `tests/prepare` gave packages.
fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_agentd")).ancestors().nth(2).expect("target/<profile>/agentd");
    let path = target.join("test-env/venv/bin/python");
    assert!(path.exists(), "{} is missing: run tests/prepare", path.display());
    path
}
