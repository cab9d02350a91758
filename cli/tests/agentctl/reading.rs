//! Commands that look: `ls`, `status`, `logs`, `events`, `describe`, `daemon status`.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::Path;

use agentd_protocol::control::{ErrorKind, ErrorObject, LogLine, LogStream, Notice, Request};
use serde_json::{Value, json};

use crate::fake::{Answering, Daemon, Play, document, end, event, serve, silent};

#[test]
fn ls_shows_the_apps_and_why_one_failed() {
    let ended = Daemon::answering(silent).run("ls").expect(0);
    assert!(ended.stdout.contains("support  ● running    1/1  r1"), "{}", ended.stdout);
    assert!(ended.stdout.contains("\n  exited with code 1, 10 times within 5m\n"), "{}", ended.stdout);
    assert!(!ended.stdout.contains('\x1b'), "a pipe got colours: {:?}", ended.stdout);
    assert_eq!(ended.stderr, "");
}

#[test]
fn ls_json_is_the_document_with_what_this_version_does_not_know() {
    let ended = Daemon::answering(silent).run("ls --json").expect(0);
    assert_eq!(ended.json(), document());
}

#[test]
fn colours_come_when_they_are_asked_for_and_never_against_no_color() {
    let daemon = Daemon::answering(silent);
    assert!(daemon.run("ls --color always").expect(0).stdout.contains("\x1b["));
    let plain = end(daemon.agentctl("ls").env("NO_COLOR", "1").spawn().unwrap()).expect(0);
    assert!(!plain.stdout.contains('\x1b'));
}

#[test]
fn without_a_daemon_every_command_exits_with_6_and_says_how_to_start_one() {
    let daemon = Daemon::absent();
    let commands =
        ["ls", "status", "describe a", "logs", "events", "stop a", "reload a", "signal a HUP", "daemon status"];
    for command in commands {
        let ended = daemon.run(command).expect(6);
        assert!(
            ended.stderr.contains("no daemon runs at") && ended.stderr.contains("daemon start"),
            "{}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "");
        let json = daemon.run(&format!("{command} --json")).expect(6).json();
        assert_eq!(json["error"]["exit"], 6);
    }
}

#[test]
fn a_socket_that_a_dead_daemon_left_is_no_daemon() {
    let daemon = Daemon::absent();
    drop(UnixListener::bind(daemon.home.join("run/status.sock")).unwrap());
    let ended = daemon.run("ls").expect(6);
    assert!(ended.stderr.contains("a daemon died"), "{}", ended.stderr);
}

#[test]
fn a_home_too_deep_for_a_socket_address_works() {
    let daemon = Daemon::absent();
    let deep = daemon.home.join("d".repeat(100)).join("e".repeat(100));
    fs::create_dir_all(deep.join("run")).unwrap();
    serve(&deep, &Play::answering(silent));
    let home = deep.to_str().unwrap();
    assert!(daemon.run(&format!("--home {home} ls")).expect(0).stdout.contains("support"));
}

#[test]
fn status_shows_workers_and_knows_who_does_not_exist() {
    let daemon = Daemon::answering(silent);
    let ended = daemon.run("status support").expect(0);
    assert!(ended.stdout.contains("● ready") && !ended.stdout.contains("triage"), "{}", ended.stdout);
    let ended = daemon.run("status supprot").expect(3);
    assert!(ended.stderr.contains("no app is called \"supprot\""), "{}", ended.stderr);
    assert!(ended.stderr.contains("known apps: support, triage"), "{}", ended.stderr);
}

#[test]
fn events_shows_what_happened_and_ends() {
    let events = [1, 2, 3, 4].map(|seq| event(seq, &json!({ "type": "worker_starting", "pid": seq })));
    let daemon = Daemon::playing(&Play { watch: events.to_vec(), ..Play::answering(silent) });
    let ended = daemon.run("events --since 1").expect(0);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ended.stdout);
    assert!(lines[0].ends_with("#2  support.0.18  starting as 2"), "{}", lines[0]);
    let ended = daemon.run("events --json").expect(0);
    let seqs: Vec<u64> = ended.stdout.lines().map(|line| parse(line)["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3]);
    let ended = daemon.run("events -n 2").expect(0);
    assert_eq!(ended.stdout.lines().count(), 2, "{}", ended.stdout);
    assert!(ended.stdout.lines().last().is_some_and(|line| line.contains("#3  ")), "{}", ended.stdout);
}

#[test]
fn numbers_that_a_dead_daemon_had_set_aside_are_no_alarm() {
    let gap = json!({ "type": "events_lost", "from": 2, "to": 2 });
    let started = json!({ "type": "daemon_started", "version": "1", "pid": 7, "adopted": 1 });
    let begun = |seq| event(seq, &json!({ "type": "worker_starting", "pid": 1 }));
    let daemon =
        Daemon::playing(&Play { watch: vec![begun(1), event(2, &gap), event(3, &started)], ..Play::answering(silent) });
    let shown = daemon.run("events").expect(0).stdout;
    assert!(shown.contains("-- the daemon before died") && !shown.contains("no longer kept"), "{shown}");
    let shown = daemon.run("events -n 2").expect(0).stdout;
    assert!(shown.starts_with("12:") || shown.lines().count() == 1, "{shown}");
    let daemon = Daemon::playing(&Play { watch: vec![event(2, &gap), begun(3)], ..Play::answering(silent) });
    let shown = daemon.run("events --since 1").expect(0).stdout;
    assert!(shown.contains("events 2 to 2 are no longer kept"), "{shown}");
}

#[test]
fn a_watched_status_is_a_document_and_then_events_where_there_is_no_terminal() {
    let events = [event(4, &json!({ "type": "worker_ready", "how": "http", "after_ms": 5 }))];
    let daemon = Daemon::playing(&Play { watch: events.to_vec(), ..Play::answering(silent) });
    let mut child = daemon.agentctl("status --watch --json").spawn().unwrap();
    let mut read = String::new();
    let mut stdout = child.stdout.take().unwrap();
    let mut chunk = [0; 4096];
    while read.lines().count() < 2 || !read.ends_with('\n') {
        let count = stdout.read(&mut chunk).unwrap();
        assert!(count > 0, "ended after {read}");
        read.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
    let lines: Vec<Value> = read.lines().map(parse).collect();
    assert_eq!(lines[0]["schema"], 1);
    assert_eq!(lines[1]["event"]["type"], "worker_ready");
    // Whoever read it goes away; the command follows without a word, though nothing more happens.
    drop(stdout);
    assert_eq!(end(child).expect(0).stderr, "");
}

fn log_line(app: &str, second: i64, text: &str) -> Notice {
    Notice::Log(LogLine {
        app: app.into(),
        worker: Some(format!("{app}.0.17")),
        stream: LogStream::Stdout,
        at: Some(agentd_protocol::Timestamp::from_second(second).unwrap()),
        text: text.into(),
    })
}

fn three_lines(request: Request, answering: &mut Answering) {
    let Request::Logs(params) = request else { panic!("{} was asked", request.method()) };
    answering.notice(log_line("support", 1, "one"));
    answering.notice(log_line("support", 3, "three"));
    answering.notice(log_line("triage", 2, "two"));
    if !params.follow {
        answering.done(json!({ "lines": 3, "skipped": 0 }));
    }
}

#[test]
fn logs_of_several_apps_are_interleaved_by_time_behind_who_printed_them() {
    let daemon = Daemon::answering(three_lines);
    let ended = daemon.run("logs").expect(0);
    assert_eq!(ended.stdout, "support.0 │ one\ntriage.0  │ two\nsupport.0 │ three\n");
    let ended = daemon.run("logs --json -n 5").expect(0);
    let texts: Vec<Value> = ended.stdout.lines().map(|line| parse(line)["text"].clone()).collect();
    assert_eq!(texts, ["one", "two", "three"]);
}

#[test]
fn logs_that_end_early_show_what_came_and_then_why() {
    let refused: fn(Request, &mut Answering) = |_, answering| {
        let error = ErrorObject::new(ErrorKind::Internal, "failed to read the log /l/support/0.out.log");
        answering.notice_and_refuse(log_line("support", 1, "one"), error);
    };
    let cut: fn(Request, &mut Answering) = |_, answering| {
        answering.notice(log_line("support", 1, "one"));
        answering.end_within_a_line();
    };
    for (script, code, why) in [(refused, 1, "failed to read the log"), (cut, 6, "closed the connection")] {
        for line in ["logs support", "logs support -f", "logs"] {
            let ended = Daemon::answering(script).run(line).expect(code);
            assert_eq!(ended.stdout, "support.0 │ one\n", "{line}");
            assert!(ended.stderr.contains(why), "{line}: {}", ended.stderr);
        }
    }
}

fn many_lines(_: Request, answering: &mut Answering) {
    for second in 0..5000 {
        answering.notice(log_line("support", second, &"x".repeat(200)));
    }
    answering.done(json!({ "lines": 5000, "skipped": 0 }));
}

#[test]
fn a_reader_that_has_enough_ends_logs_quietly() {
    for (script, line) in [
        (many_lines as fn(Request, &mut Answering), "logs support -n 5000"),
        (many_lines, "logs -n 5000 --json"),
        (three_lines, "logs -f"),
    ] {
        let daemon = Daemon::answering(script);
        let mut child = daemon.agentctl(line).spawn().unwrap();
        let mut first = [0; 8];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        assert_eq!(end(child).expect(0).stderr, "", "{line}");
    }
}

fn details(request: Request, answering: &mut Answering) {
    match request {
        Request::Describe(_) => answering.done(json!({
            "app": document()["apps"][0], "command": ["uvicorn", "app:app"], "cwd": "/srv/support", "env": ["MODEL"],
            "listeners": [{ "name": "http", "configured": "0.0.0.0:0", "address": "0.0.0.0:8080" }],
            "config_file": "/etc/agentd/support.toml", "revision": 3, "policy": { "grace": "5m" },
            "log_files": [{ "stream": null, "path": "/var/log/agentd/support.log", "bytes": 2048 }],
            "last_lines": [{ "app": "support", "worker": null, "stream": "stdout", "at": null, "text": "hello" }],
        })),
        Request::DaemonStatus(_) => answering.done(json!({
            "instance": "one", "pid": 812, "version": "0.1.0", "protocol": 1, "started_at": "2026-01-01T00:00:00Z",
            "state_dir": "/s", "runtime_dir": "/r", "log_dir": "/l", "apps": 2, "workers": 1, "memory_bytes": null,
            "seq": 3, "notes": ["no cgroup controllers"],
        })),
        Request::Signal(params) => answering.done(json!({
            "signal": params.signal, "workers": [{ "id": "support.0.17", "pid": 4242 }],
        })),
        other => panic!("{} was asked", other.method()),
    }
}

#[test]
fn describe_shows_everything_in_sections() {
    let ended = Daemon::answering(details).run("describe support").expect(0);
    for part in [
        "support  agent  ● running",
        "command       uvicorn app:app",
        "http          0.0.0.0:8080 (configured as 0.0.0.0:0)",
        "grace         5m",
        "  MODEL\n",
        "both          /var/log/agentd/support.log (2.0K)",
        "support │ hello",
    ] {
        assert!(ended.stdout.contains(part), "{part:?} is missing in\n{}", ended.stdout);
    }
}

#[test]
fn what_is_short_is_told_shortly() {
    let daemon = Daemon::answering(details);
    assert_eq!(daemon.run("signal support hup").expect(0).stdout, "SIGHUP sent to support.0.17 (pid 4242)\n");
    let ended = daemon.run("daemon status").expect(0);
    assert!(
        ended.stdout.starts_with("daemon    running as 812") && ended.stdout.contains("no cgroup"),
        "{}",
        ended.stdout
    );
}

#[test]
fn json_is_all_there_is_on_stdout() {
    let daemon = Daemon::answering(details);
    for line in ["ls", "list", "status", "status triage", "describe support", "signal support 1", "daemon status"] {
        let ended = daemon.run(&format!("--json {line}")).expect(0);
        assert!(ended.json().is_object(), "{line}");
        assert_eq!(ended.stderr, "", "{line}");
    }
    let ended = daemon.run("status nobody --json").expect(3);
    assert_eq!(ended.json()["error"]["exit"], 3);
}

#[test]
fn a_wrong_command_line_exits_with_2_and_prints_nothing_on_stdout() {
    let daemon = Daemon::absent();
    for line in ["", "lss", "scale support", "reload", "signal support NOPE", "reload all --timeout soon"] {
        assert_eq!(daemon.run(line).expect(2).stdout, "", "{line}");
    }
    let mut command = daemon.agentctl("ls");
    command.env("AGENTD_HOME", Path::new("relative"));
    end(command.spawn().unwrap()).expect(6);
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
}
