//! A skill with a source, and a daemon that cuts its releases.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentd_protocol::control::{ReleaseView, Releases};
use agentd_testkit::e2e::{Daemon, Output, answer, free_port};

pub(crate) const AGENTD: &str = env!("CARGO_BIN_EXE_agentd");

/// Longest wait for anything that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Answers with what `text` beside it says, its release and its folder.
const SERVER: &str = r#"
import os, socket, sys
text = open("text").read().strip()
if text == "fails":
    print("cannot go on", flush=True)
    sys.exit(3)
body = "\n".join([text, os.environ["AGENTD_RELEASE"], os.getcwd()] + sys.argv[1:]).encode()
answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
listener = socket.socket(fileno=3)
listener.setblocking(True)
while True:
    connection, _ = listener.accept()
    with connection:
        if connection.recv(65536):
            connection.sendall(answer)
"#;

pub(crate) struct Site {
    pub(crate) daemon: Daemon,
    pub(crate) port: u16,
}

impl Site {
    /// A skill `search` of version 1.0.0 that answers "one", not started.
    pub(crate) fn new() -> Self {
        let site = Self { daemon: Daemon::start(AGENTD), port: free_port() };
        fs::create_dir(site.path("src")).expect("the home takes folders");
        site.write("src/server.py", SERVER);
        site.source("1.0.0", "one", "");
        site.configure("");
        site
    }

    /// The same, started.
    pub(crate) fn started() -> Self {
        let site = Self::new();
        assert_code(&site.daemon.ctl(&["start", "./site.toml"]), 0);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.daemon.home.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the home takes files");
    }

    /// Writes what the next release is cut from.
    pub(crate) fn source(&self, version: &str, text: &str, keys: &str) {
        self.write(
            "src/skill.toml",
            &format!(
                "name = \"search\"\nversion = \"{version}\"\ncommand = [\"python3\", \"-u\", \"server.py\"]\n{keys}\n"
            ),
        );
        self.write("src/text", text);
    }

    /// Writes the configuration, with further keys.
    pub(crate) fn configure(&self, keys: &str) {
        let port = self.port;
        self.daemon.config(
            "site.toml",
            &format!(
                "[skill.search]\nsource = \"src\"\nworkers = 2\nlisten = \"127.0.0.1:{port}\"\nready = {{ http = \"/\" }}\n\
                 upgrade = {{ min_uptime = \"50ms\" }}\n{keys}\n"
            ),
        );
    }

    pub(crate) fn upgrade(&self, arguments: &[&str]) -> Output {
        self.daemon.ctl(&[&["upgrade", "search"], arguments].concat())
    }

    /// What the skill answers, line by line: its text, its release, its folder, its arguments.
    pub(crate) fn answer(&self) -> Vec<String> {
        let body = answer(self.port).expect("it answers in time");
        body.lines().map(str::to_owned).collect()
    }

    /// Its text alone.
    pub(crate) fn says(&self) -> String {
        self.answer().swap_remove(0)
    }

    /// Process ids of its workers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.daemon.app("search").workers.iter().filter_map(|worker| worker.pid).collect()
    }

    /// Its releases, newest first.
    pub(crate) fn releases(&self) -> Vec<ReleaseView> {
        self.daemon.ctl_ok(&["releases", "search", "--json"]).json::<Releases>().releases
    }

    /// Names of what is in the folder of its releases.
    pub(crate) fn folders(&self) -> BTreeSet<String> {
        names(&self.path("state/releases/search"))
    }

    /// Waits until there is nothing but the releases that are told of.
    #[track_caller]
    pub(crate) fn assert_nothing_else(&self) {
        let told: BTreeSet<String> = self.releases().into_iter().map(|release| release.id).collect();
        eventually("only releases are left", || self.folders() == told);
    }

    /// An upgrade that is refused changes nothing; returns what was said.
    #[track_caller]
    pub(crate) fn assert_refused(&self, arguments: &[&str]) -> String {
        let before = (self.pids(), self.answer(), self.releases());
        let output = self.upgrade(arguments);
        assert_code(&output, 4);
        assert_eq!((self.pids(), self.answer(), self.releases()), before, "{output:#?}");
        self.assert_nothing_else();
        output.stderr
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not so after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asserts how a command ended.
#[track_caller]
pub(crate) fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.code, Some(code), "{output:#?}");
}
