//! Commands that look: logs, events, describe, signal.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;

use agentd_testkit::e2e::{Daemon, free_port};
use serde_json::Value;

use crate::site::{PATIENCE, server, site};

/// An `agentctl` that follows something, ended when dropped.
struct Follower {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Follower {
    fn begin(daemon: &Daemon, arguments: &[&str]) -> Self {
        let mut command = daemon.agentctl(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("agentctl starts");
        let out = BufReader::new(child.stdout.take().expect("it was asked for"));
        let (sender, lines) = mpsc::channel();
        // It ends with the pipe.
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// Waits until all these texts have been in some line.
    fn await_all(&self, mut wanted: Vec<&str>) {
        let mut seen = Vec::new();
        while !wanted.is_empty() {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("{error} before {wanted:?} after {seen:#?}"));
            wanted.retain(|text| !line.contains(text));
            seen.push(line);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_signal_reaches_every_worker_and_followed_logs_show_several_apps() {
    let (daemon, _) = site();
    daemon.config("more.toml", &server("more", free_port()));
    daemon.ctl_ok(&["start", "./more.toml"]);
    let follower = Follower::begin(&daemon, &["logs", "web", "more", "-f", "--json"]);
    follower.await_all(vec!["begun by web", "begun by more"]);
    for name in ["web", "more"] {
        let told: Value = daemon.ctl_ok(&["signal", name, "usr1", "--json"]).json();
        assert_eq!(told["signal"], "SIGUSR1");
        assert_eq!(told["workers"].as_array().map(Vec::len), Some(2));
        follower.await_all(vec!["got SIGUSR1"]);
    }
    let told = daemon.ctl_ok(&["logs", "web", "-n", "100", "--json"]);
    let all = |text: &str| told.stdout.lines().filter(|line| line.contains(text)).count();
    assert_eq!(all("begun by web"), 2);
    assert_eq!(all("begun by more"), 0);
}

#[test]
fn event_numbers_rise_by_one_and_a_reader_resumes_where_it_ended() {
    let (daemon, _) = site();
    daemon.ctl_ok(&["reload", "web"]);
    let numbers = |arguments: &[&str]| -> Vec<u64> {
        let printed = daemon.ctl_ok(&[&["events", "--json"], arguments].concat()).stdout;
        let read = |line| serde_json::from_str::<Value>(line).expect("nothing but JSON")["seq"].as_u64();
        printed.lines().map(|line| read(line).expect("a number")).collect()
    };
    let all = numbers(&["--since", "0"]);
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "{all:?}");
    let middle = all[all.len() / 2];
    let rest = numbers(&["--since", &middle.to_string()]);
    assert_eq!(rest.first(), Some(&(middle + 1)));
    assert_eq!(rest.last(), Some(&daemon.status().seq));
    let follower = Follower::begin(&daemon, &["events", "-f", "--since", &daemon.status().seq.to_string()]);
    daemon.ctl_ok(&["scale", "web", "3"]);
    follower.await_all(vec!["ready", "(scale) done"]);
}

#[test]
fn a_secret_of_the_environment_is_shown_by_name_alone() {
    let (daemon, port) = site();
    let secret = "env = { API_KEY = \"hunter2-and-more\" }\n";
    daemon.config("web.toml", &(server("web", port) + secret));
    daemon.ctl_ok(&["reload", "web"]);
    for shown in [&["describe", "web"] as &[&str], &["describe", "web", "--json"]] {
        let output = daemon.ctl_ok(shown);
        assert!(output.stdout.contains("API_KEY"), "{output:#?}");
        assert!(!format!("{}{}", output.stdout, output.stderr).contains("hunter2"), "{output:#?}");
    }
    for shown in [&["ls", "--json"] as &[&str], &["status", "--json"], &["events", "--since", "0", "--json"]] {
        assert!(!daemon.ctl_ok(shown).stdout.contains("hunter2"));
    }
    assert!(!daemon.log().contains("hunter2"));
}
