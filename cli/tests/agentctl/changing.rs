//! Commands that change something: waiting, results, refusals, detaching.

use std::io::{BufRead, BufReader};

use agentd_protocol::control::{Diagnostic, ErrorKind, ErrorObject, Notice, PROTOCOL, Progress, Request};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::fake::{Answering, Daemon, Play, document, end, reload, typed_event};

fn result(state: &str, why: Option<&str>, log_tail: &[&str]) -> Value {
    json!({
        "operations": [reload()],
        "results": [{
            "id": 17, "app": "support", "kind": "reload", "state": state, "why": why, "log_tail": log_tail,
            "started_at": "2026-01-02T12:00:00Z", "finished_at": "2026-01-02T12:00:12Z", "duration_ms": 12_000,
            "tasks": { "finished": 3, "handed_over": 0, "lost": 0 }, "connections": { "cut": 0 },
            "deployment": 17, "from": "r1", "to": "r2",
        }],
    })
}

fn reloads(request: Request, answering: &mut Answering) {
    let Request::Reload(params) = request else { panic!("{} was asked", request.method()) };
    if !params.wait {
        return answering.done(json!({ "operations": [reload()] }));
    }
    answering.accept(reload());
    answering.notice(Notice::Event(typed_event(4, &json!({ "type": "worker_starting", "pid": 4300 }))));
    let app = serde_json::from_value(document()["apps"][0].clone()).unwrap();
    answering.notice(Notice::Progress(Box::new(Progress { app })));
    answering.notice(Notice::Event(typed_event(5, &json!({ "type": "worker_ready", "how": "http", "after_ms": 9 }))));
    answering.done(result("done", None, &[]));
}

#[test]
fn a_reload_tells_its_way_on_stderr_and_its_end_on_stdout() {
    let ended = Daemon::answering(reloads).run("reload support").expect(0);
    assert_eq!(ended.stdout, "● support: reload done in 12s, r1 → r2, 3 tasks finished\n");
    assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("#5  support.0.18  ready after 9ms (http)"), "{}", ended.stderr);
}

#[test]
fn the_json_of_a_reload_holds_its_result_and_nothing_else_is_on_stdout() {
    let json = Daemon::answering(reloads).run("reload support --json").expect(0).json();
    assert_eq!(json["results"][0]["deployment"], 17);
    assert_eq!(json["results"][0]["tasks"]["finished"], 3);
}

#[test]
fn who_does_not_wait_hears_the_number_of_the_operation() {
    let ended = Daemon::answering(reloads).run("gracefulReload support --no-wait").expect(0);
    assert_eq!(ended.stdout, "reload of support accepted as operation 17\n");
    assert_eq!(ended.stderr, "");
}

fn rolls_back(_: Request, answering: &mut Answering) {
    answering.accept(reload());
    let why = "support.0.18 exited with code 1 before it was ready";
    answering.done(result("rolled_back", Some(why), &["Traceback", "KeyError: 'MODEL'"]));
}

#[test]
fn a_reload_that_was_taken_back_says_why_shows_the_worker_s_last_lines_and_exits_with_5() {
    let ended = Daemon::answering(rolls_back).run("reload support").expect(5);
    assert_eq!(
        ended.stderr,
        "↺ support: reload rolled back in 12s, r1 → r2, 3 tasks finished: support.0.18 exited with code 1 before it \
         was ready\n  │ Traceback\n  │ KeyError: 'MODEL'\n"
    );
    assert_eq!(ended.stdout, "");
    let json = Daemon::answering(rolls_back).run("reload support --json").expect(5).json();
    assert_eq!(json["results"][0]["state"], "rolled_back");
}

fn refuses(request: Request, answering: &mut Answering) {
    answering.refuse(match request {
        Request::Reload(_) => ErrorObject::new(ErrorKind::Refused, "deployment 16 of support runs")
            .with_help("wait for it, or look at it with: agentctl status support"),
        _ => ErrorObject::new(ErrorKind::NoSuchApp, "no app is called \"suport\"").with_advice("support is near"),
    });
}

#[test]
fn a_refusal_names_what_stands_against_it_and_exits_with_4() {
    let daemon = Daemon::answering(refuses);
    let ended = daemon.run("reload support").expect(4);
    assert_eq!(
        ended.stderr,
        "error: deployment 16 of support runs\n  help: wait for it, or look at it with: agentctl status support\n"
    );
    let json = daemon.run("reload support --json").expect(4).json();
    assert_eq!(json["error"]["kind"], "refused");
}

#[test]
fn an_app_that_nobody_knows_exits_with_3() {
    let daemon = Daemon::answering(refuses);
    for line in ["stop suport", "restart suport", "delete suport", "del suport", "scale suport 2", "describe suport"] {
        let ended = daemon.run(line).expect(3);
        assert!(ended.stderr.contains("no app is called \"suport\"\n  support is near"), "{}", ended.stderr);
    }
}

fn never_ends(request: Request, answering: &mut Answering) {
    if let Request::Reload(_) = request {
        answering.accept(reload());
        answering.notice(Notice::Event(typed_event(4, &json!({ "type": "worker_starting", "pid": 4300 }))));
    }
}

#[test]
fn a_timeout_exits_with_7_and_says_that_the_work_goes_on() {
    let daemon = Daemon::answering(never_ends);
    let ended = daemon.run("reload support --timeout 300ms").expect(7);
    assert!(ended.stderr.contains("reload of support goes on as operation 17"), "{}", ended.stderr);
    assert!(ended.stderr.contains("agentctl status support --watch"), "{}", ended.stderr);
    let json = daemon.run("reload support --timeout 300ms --json").expect(7).json();
    assert_eq!((&json["error"]["exit"], &json["operations"][0]["id"]), (&json!(7), &json!(17)));
}

#[test]
fn ctrl_c_detaches_and_says_so() {
    let daemon = Daemon::answering(never_ends);
    let mut child = daemon.agentctl("reload support").spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("starting as 4300"), "{line}");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    line.clear();
    while stderr.read_line(&mut line).unwrap() > 0 {}
    end(child).expect(130);
    assert!(line.contains("detached: reload of support goes on as operation 17"), "{line}");
}

fn hangs_up(_: Request, answering: &mut Answering) {
    answering.hang_up();
}

fn accepts_and_hangs_up(_: Request, answering: &mut Answering) {
    answering.accept(reload());
    answering.hang_up();
}

#[test]
fn a_daemon_that_goes_away_is_told_from_one_that_refuses() {
    let ended = Daemon::answering(hangs_up).run("reload support").expect(6);
    assert!(ended.stderr.contains("closed the connection before it answered"), "{}", ended.stderr);
}

#[test]
fn what_was_accepted_by_a_daemon_that_goes_away_goes_on_under_the_next_one() {
    let daemon = Daemon::answering(accepts_and_hangs_up);
    let ended = daemon.run("reload support").expect(6);
    assert!(ended.stderr.contains("reload of support goes on as operation 17, under the next one"), "{}", ended.stderr);
    let json = daemon.run("reload support --json").expect(6).json();
    assert_eq!((&json["error"]["exit"], &json["operations"][0]["id"]), (&json!(6), &json!(17)));
}

fn finds_mistakes(request: Request, answering: &mut Answering) {
    let Request::Start(params) = request else { panic!("{} was asked", request.method()) };
    assert!(params.cwd.starts_with('/') && params.env.contains_key("PATH") && params.wait);
    let mistake = |line: u32, source_line: &str, message: &str| Diagnostic {
        file: "agentd.toml".into(),
        line,
        column: 1,
        end_column: 7,
        source_line: source_line.into(),
        message: message.into(),
        expected: Some("a number of workers".into()),
        help: None,
    };
    answering.refuse(ErrorObject::new(ErrorKind::Usage, "agentd.toml has 2 mistakes").with_diagnostics(vec![
        mistake(2, "worker = 2", "unknown key \"worker\""),
        mistake(9, "workers = \"many\"", "not a number"),
    ]));
}

#[test]
fn every_mistake_of_a_configuration_is_shown_where_it_stands_and_the_exit_is_2() {
    let daemon = Daemon::answering(finds_mistakes);
    std::fs::write(daemon.home.join("agentd.toml"), "").unwrap();
    let ended = daemon.run("start agentd.toml").expect(2);
    for part in ["agentd.toml:2:1", "unknown key \"worker\"", "agentd.toml:9:1", "expected a number of workers"] {
        assert!(ended.stderr.contains(part), "{part:?} is missing in\n{}", ended.stderr);
    }
    let json = daemon.run("start agentd.toml --json").expect(2).json();
    assert_eq!(json["error"]["diagnostics"].as_array().unwrap().len(), 2);
}

#[test]
fn flags_of_a_new_app_beside_a_configuration_are_refused_before_anything_is_asked() {
    let daemon = Daemon::answering(crate::fake::silent);
    std::fs::write(daemon.home.join("agentd.toml"), "").unwrap();
    for line in ["start agentd.toml --name x", "start support -i 3", "start a b --name x", "start nowhere.toml"] {
        daemon.run(line).expect(2);
    }
}

fn half(request: Request, answering: &mut Answering) {
    match request {
        Request::Start(params) if serde_json::to_string(&params.target).unwrap().contains("broken") => {
            answering.refuse(ErrorObject::new(ErrorKind::Usage, "broken.toml is broken"));
        }
        _ => answering.done(result("done", None, &[])),
    }
}

#[test]
fn one_refused_target_does_not_hide_what_became_of_the_other() {
    let daemon = Daemon::answering(half);
    for name in ["broken.toml", "good.toml"] {
        std::fs::write(daemon.home.join(name), "").unwrap();
    }
    let ended = daemon.run("start broken.toml good.toml").expect(2);
    assert!(ended.stderr.contains("broken.toml is broken") && ended.stdout.contains("done in 12s"), "{}", ended.stdout);
    let json = daemon.run("start broken.toml good.toml --json").expect(2).json();
    assert_eq!((json["errors"].as_array().unwrap().len(), json["results"].as_array().unwrap().len()), (1, 1));
}

#[test]
fn the_greeting_of_another_protocol_is_a_remark_and_no_error() {
    let newer = Play { protocol: PROTOCOL + 1, ..Play::answering(reloads) };
    let ended = Daemon::playing(&newer).run("reload support --no-wait --json").expect(0);
    assert!(ended.stderr.starts_with("note: the daemon (0.1.0) speaks control protocol 2"), "{}", ended.stderr);
    assert!(ended.json().is_object());
}

fn starts_a_script(request: Request, answering: &mut Answering) {
    let Request::Start(params) = request else { panic!("{} was asked", request.method()) };
    let target = json!(params.target);
    assert_eq!(target["kind"], "script");
    assert_eq!(target["script"], format!("{}/app.py", params.cwd));
    assert_eq!(
        (&target["name"], &target["workers"], &target["listen"], &target["args"]),
        (&json!("web"), &json!(2), &json!(["http=0.0.0.0:8080"]), &json!(["--port", "{fd:http}"]))
    );
    assert_eq!(params.env.get("MODEL").map(String::as_str), Some("small"));
    assert_eq!(params.env.get("OPENAI_API_KEY"), None, "a secret was sent that nobody named");
    answering.done(json!({ "operations": [reload()], "results": [] }));
}

#[test]
fn a_script_is_sent_with_its_flags_its_arguments_and_only_the_variables_that_were_named() {
    let daemon = Daemon::answering(starts_a_script);
    std::fs::write(daemon.home.join("app.py"), "").unwrap();
    let line = "start app.py --name web -i 2 --listen http=0.0.0.0:8080 --env MODEL=small -- --port {fd:http}";
    end(daemon.agentctl(line).env("OPENAI_API_KEY", "sk-x").spawn().unwrap()).expect(0);
}

fn fails(_: Request, answering: &mut Answering) {
    answering.accept(reload());
    answering.notice(Notice::Event(typed_event(4, &json!({ "type": "worker_starting", "pid": 4300 }))));
    answering.done(result("failed", Some("neither generation is whole"), &[]));
}

#[test]
fn an_exit_code_tells_the_end_though_nobody_reads_the_output() {
    for line in ["reload support", "reload support --json"] {
        let daemon = Daemon::answering(fails);
        let mut child = daemon.agentctl(line).spawn().unwrap();
        drop(child.stdout.take());
        end(child).expect(1);
    }
}
