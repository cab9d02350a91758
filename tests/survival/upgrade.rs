//! Another binary takes the daemon's place.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agentd_protocol::status::WorkerState;
use agentd_testkit::e2e::{Daemon, Load, Mix};

use crate::{AGENTD, PATIENCE, all_ready, fleet, pids, workers};

fn history(daemon: &Daemon) -> Vec<serde_json::Value> {
    let page = daemon.ctl_ok(&["daemon", "status", "--json"]).stdout;
    let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    page["supervisors"].as_array().expect("a history").clone()
}

#[test]
fn an_upgrade_under_load_keeps_the_process_the_workers_every_request_and_every_line() {
    let (daemon, port) = fleet();
    let (before, pid) = (pids(&daemon.status()), daemon.pid());
    let report = Load::run(port, Mix { long: 0, sse: 0, ..Mix::default() }, || {
        for _ in 0..5 {
            let told = daemon.ctl_ok(&["daemon", "upgrade", "--binary", AGENTD, "--json"]);
            let told: serde_json::Value = serde_json::from_str(&told.stdout).expect("JSON");
            assert_eq!((&told["in_place"], &told["adopted"], &told["pid"]), (&true.into(), &3.into(), &pid.into()));
            // Nobody is refused in between: the sockets stay open, and who connects waits.
            assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before);
        }
    });
    report.assert_none_lost_in_service();
    daemon.ctl_ok(&["stop", "printer"]);
    workers::numbers_without_gap(&daemon.ctl_ok(&["logs", "printer", "-n", "100000", "--json"]).stdout);
    let ends: Vec<_> = history(&daemon).iter().map(|supervisor| supervisor["end"].clone()).collect();
    assert_eq!(ends[..5], ["upgraded", "upgraded", "upgraded", "upgraded", "upgraded"].map(serde_json::Value::from));
}

#[test]
fn no_client_that_connects_or_is_connected_during_an_upgrade_is_closed_unanswered() {
    let (daemon, _) = fleet();
    let (over, answered) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 4]);
    let going_on = |who: usize| {
        answered[who].fetch_add(1, Ordering::Relaxed);
        !over.load(Ordering::Relaxed)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while going_on(0) {
                Asking::status(&daemon).document()
            }
        });
        // Between connecting and saying that it says nothing, the daemon may have closed the doors.
        scope.spawn(|| {
            while going_on(1) {
                let asking = Asking::status(&daemon);
                std::thread::sleep(Duration::from_millis(1));
                asking.document();
            }
        });
        scope.spawn(|| {
            while going_on(2) {
                let mut asking = Asking::control(&daemon);
                asking.greeting();
                asking.who_supervises();
            }
        });
        // One that never connects again.
        scope.spawn(|| {
            let mut asking = Asking::control(&daemon);
            while going_on(3) {
                asking.who_supervises()
            }
        });
        let mut heard = [0; 4];
        for _ in 0..6 {
            daemon.ctl_ok(&["daemon", "upgrade"]);
            // Each is answered by the new program before the next comes.
            for (before, now) in heard.iter_mut().zip(&answered) {
                workers::until(PATIENCE, || now.load(Ordering::Relaxed) > *before + 2);
                *before = now.load(Ordering::Relaxed);
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(history(&daemon).len(), 7);
}

/// A client that insists on its answer.
struct Asking(BufReader<UnixStream>);

impl Asking {
    fn status(daemon: &Daemon) -> Self {
        Self::at(daemon, "status.sock")
    }

    fn control(daemon: &Daemon) -> Self {
        Self::at(daemon, "control.sock")
    }

    fn at(daemon: &Daemon, socket: &str) -> Self {
        let stream = UnixStream::connect(daemon.home.socket(socket)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
        Self(BufReader::new(stream))
    }

    fn document(mut self) {
        self.0.get_ref().shutdown(std::net::Shutdown::Write).expect("connected");
        let document = self.line();
        assert!(document["apps"].is_array(), "{document}");
    }

    fn greeting(&mut self) {
        let hello = self.call(r#"{"jsonrpc":"2.0","id":1,"method":"hello","params":{"protocol":1,"version":"9.9"}}"#);
        assert_eq!(hello["result"]["protocol"], 1, "{hello}");
    }

    fn who_supervises(&mut self) {
        let told = self.call(r#"{"jsonrpc":"2.0","id":2,"method":"daemon.status","params":{}}"#);
        assert!(told["result"]["supervisors"].is_array(), "{told}");
    }

    fn call(&mut self, line: &str) -> serde_json::Value {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).expect("sent");
        self.line()
    }

    fn line(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer in time");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("closed unanswered: {line:?}"))
    }
}

#[test]
fn exit_codes_of_workers_that_end_meanwhile_are_kept() {
    let (daemon, _) = fleet();
    let script = "import sys, time\ntime.sleep(float(sys.argv[1]))\nsys.exit(int(sys.argv[2]))\n";
    daemon.config("ends.py", script);
    let mut config = String::new();
    for n in 0..10 {
        let after = 0.35 + f64::from(n) * 0.02;
        config += &format!(
            "[agent.e{n}]\ncommand = [\"python3\", \"ends.py\", \"{after}\", \"{}\"]\nrestart = {{ policy = \"never\" }}\n",
            20 + n
        );
    }
    daemon.config("ends.toml", &config);
    daemon.ctl_ok(&["start", "ends.toml", "--no-wait"]);
    for _ in 0..12 {
        daemon.ctl_ok(&["daemon", "upgrade"]);
    }
    let document = daemon.wait_until(PATIENCE, |document| {
        document.apps.iter().filter(|app| app.name.starts_with('e')).all(|app| {
            app.workers.iter().all(|worker| matches!(worker.state, WorkerState::Exited | WorkerState::Failed))
        })
    });
    for n in 0..10 {
        let app = document.apps.iter().find(|app| app.name == format!("e{n}")).expect("it is known");
        let exit = app.workers[0].last_exit.as_ref().expect("it ended");
        assert_eq!(exit.code, Some(20 + n), "{}: {exit:?}", app.name);
    }
}

#[test]
fn a_binary_that_cannot_take_over_is_refused_and_nothing_has_changed() {
    let (daemon, _) = fleet();
    let before = pids(&daemon.status());
    let script = |name: &str, text: &str| {
        let path = daemon.config(name, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        path.to_string_lossy().into_owned()
    };
    let newer =
        script("newer", "#!/bin/sh\necho 'agentd: the state has schema 1, and this agentd knows 0' >&2\nexit 1\n");
    let stranger = script("stranger", "#!/bin/sh\necho hello\n");
    let future = script(
        "future",
        "#!/bin/sh\necho '{\"version\":\"9\",\"schema\":9,\"handover\":99,\"apps\":0,\"workers\":0}'\n",
    );
    for (binary, why) in [
        (newer.as_str(), "knows 0"),
        (stranger.as_str(), "no agentd"),
        (future.as_str(), "handover 99"),
        ("/nonexistent/agentd", "No such file"),
    ] {
        let refused = daemon.ctl(&["daemon", "upgrade", "--binary", binary]);
        assert_eq!(refused.code, Some(4), "{refused:#?}");
        assert!(refused.stderr.contains(why) && refused.stderr.contains("nothing was changed"), "{refused:#?}");
    }
    assert_eq!(pids(&daemon.status()), before);
    assert_eq!(history(&daemon).len(), 1, "the same supervisor all the time");
}

#[test]
fn an_upgrade_waits_for_a_reload_that_somebody_awaits() {
    let (daemon, _) = fleet();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| daemon.ctl(&["reload", "web"]));
        daemon.wait_until(PATIENCE, |document| document.apps.iter().any(|app| app.deployment.is_some()));
        daemon.ctl_ok(&["daemon", "upgrade"]);
        let reload = reload.join().expect("no panic");
        assert_eq!(reload.code, Some(0), "its answer came: {reload:#?}");
    });
    assert_eq!(history(&daemon).len(), 2);
    daemon.wait_until(PATIENCE, all_ready);
}

#[test]
fn a_stop_signal_during_the_exec_is_not_lost() {
    let (mut daemon, _) = fleet();
    let before = pids(&daemon.status());
    for _ in 0..5 {
        std::thread::scope(|scope| {
            let upgrade = scope.spawn(|| daemon.ctl(&["daemon", "upgrade"]));
            std::thread::sleep(Duration::from_millis(8));
            daemon.terminate();
            // Whether it came before or after, it was heard; agentctl may have found nobody any more.
            let _upgrade = upgrade.join().expect("no panic");
        });
        assert_eq!(daemon.await_end(PATIENCE), None, "it ends by the signal");
        daemon.start_again();
        assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before);
    }
}

#[test]
fn a_client_of_another_version_is_understood_as_far_as_it_can_be() {
    let (daemon, _) = fleet();
    let mut socket = UnixStream::connect(daemon.home.socket("control.sock")).expect("it listens");
    let mut answers = BufReader::new(socket.try_clone().expect("a copy")).lines();
    let mut ask = |line: &str| -> serde_json::Value {
        socket.write_all(format!("{line}\n").as_bytes()).expect("sent");
        serde_json::from_str(&answers.next().expect("an answer").expect("it is read")).expect("JSON")
    };
    let hello =
        ask(r#"{"jsonrpc":"2.0","id":1,"method":"hello","params":{"protocol":99,"version":"9.9","future":[1]}}"#);
    assert_eq!(hello["result"]["protocol"], 1, "the newest that both speak: {hello}");
    let later = ask(r#"{"jsonrpc":"2.0","id":2,"method":"scale","params":{"name":"web","workers":2,"by":"somebody"}}"#);
    assert!(later["error"].is_null(), "a field that is not known is passed over: {later}");
    let unknown = ask(r#"{"jsonrpc":"2.0","id":3,"method":"daemon.levitate","params":{}}"#);
    assert_eq!(unknown["error"]["data"]["kind"], "unknown_method", "{unknown}");
}
