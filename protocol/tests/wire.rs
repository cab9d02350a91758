//! Both sides of both sockets: what is written is read, and what a newer side writes is read as far as it is known.

use std::collections::BTreeMap;

use agentd_protocol::Timestamp;
use agentd_protocol::control::{
    AbortParams, Accepted, ApplyParams, Call, Changed, DaemonStatusParams, DaemonStopParams, DaemonUpgradeParams,
    DeleteParams, DeploymentParams, DeploymentsParams, DescribeParams, Diagnostic, EffectJudgement, EffectsParams,
    ErrorKind, ErrorObject, GraceParams, HelloParams, LogLine, LogStream, LogsEnd, LogsParams, Notice, OperationKind,
    OperationResult, OperationState, OperationView, PauseParams, Progress, PromoteParams, RefreshParams,
    ReleasesParams, ReloadParams, Reply, Request, RequestId, RestartParams, ResumeParams, RollbackParams, ScaleParams,
    ServerMessage, SessionsParams, SignalParams, StartParams, StartTarget, StatusParams, StopParams, TaskChange,
    TaskChangeParams, TaskCounts, TaskState, TasksParams, TasksPruneParams, TasksUsageParams, UpgradeParams,
};
use agentd_protocol::events::{Event, EventKind, TaskOutcome};
use agentd_protocol::exit;
use agentd_protocol::frame::{LineDecoder, LineTooLong};
use agentd_protocol::status::{
    AppState, DeploymentState, ExitReason, StatusDocument, StatusErrorKind, StatusLine, StatusLineError, WorkerState,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The document of the product page, word for word but for its dates.
const DOCUMENT: &str = r#"{"schema":1,"instance":"i","pid":812,"version":"0.1.0","started_at":"2026-11-01T00:00:00Z",
 "now":"2026-11-02T00:00:00Z","apps":[
 {"name":"support","kind":"agent","state":"running","release":"1.4.0+ab12cd34","desired":2,"ready":2,
  "in_flight":3,"grace_ms":312000,"deployment":null,
  "workers":[{"id":"support.0.17","slot":0,"generation":17,"release":"1.4.0+ab12cd34","pid":4242,"state":"ready",
   "weight":50,"restarts":0,"started_at":"2026-11-01T00:00:00Z","in_flight":2,"oldest_task_ms":41000,
   "drain_deadline":null,"memory_bytes":1,"cpu_percent":0.1,
   "last_exit":{"code":0,"signal":null,"reason":"reload"}}]}]}"#;

fn document() -> StatusDocument {
    serde_json::from_str(DOCUMENT).expect("the product page's document is read")
}

fn requests() -> Vec<Request> {
    let names = || vec!["web".to_owned(), "api".to_owned()];
    let env = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
    let start = |target| StartParams { target, cwd: "/srv".to_owned(), env: env.clone(), wait: true };
    let script = StartTarget::Script {
        script: "app.py".to_owned(),
        name: Some("web".to_owned()),
        workers: Some(2),
        listen: vec!["http=0.0.0.0:8080".to_owned()],
        args: vec!["--fast".to_owned()],
    };
    vec![
        HelloParams { protocol: 1, version: "0.1.0".to_owned() }.into(),
        start(StartTarget::File { path: "a.toml".to_owned() }).into(),
        start(script).into(),
        start(StartTarget::Names { names: names() }).into(),
        StopParams { names: names(), wait: true }.into(),
        RestartParams { names: names(), wait: false }.into(),
        DeleteParams { names: names(), wait: true }.into(),
        ScaleParams { name: "web".to_owned(), workers: 0, wait: true }.into(),
        SignalParams { names: names(), signal: "HUP".to_owned() }.into(),
        ReloadParams { names: names(), changed: true, task: Some("t-1".to_owned()), wait: true }.into(),
        RefreshParams { names: names(), wait: true }.into(),
        UpgradeParams {
            name: "web".to_owned(),
            from: Some("/srv/web.tar.gz".to_owned()),
            sha256: None,
            strategy: Some(agentd_protocol::status::Strategy::BlueGreen),
            dry_run: true,
            force: true,
            wait: false,
        }
        .into(),
        RollbackParams { name: "web".to_owned(), to: None, wait: true }.into(),
        ReleasesParams { name: "web".to_owned() }.into(),
        DeploymentsParams { name: Some("web".to_owned()) }.into(),
        DeploymentParams { id: 7 }.into(),
        PromoteParams { name: "web".to_owned() }.into(),
        PauseParams { name: "web".to_owned() }.into(),
        ResumeParams { name: "web".to_owned() }.into(),
        AbortParams { name: "web".to_owned() }.into(),
        ApplyParams { path: "/srv/a.toml".to_owned(), env: env.clone(), dry_run: true, prune: true, wait: false }
            .into(),
        StatusParams::default().into(),
        DescribeParams { name: "web".to_owned() }.into(),
        LogsParams { stream: Some(LogStream::Stderr), since: Some(Timestamp::UNIX_EPOCH), ..Default::default() }.into(),
        TasksParams { states: vec![TaskState::Parked], ..Default::default() }.into(),
        TaskChangeParams { task: "a1".to_owned(), change: TaskChange::Retry { effect: Some(EffectJudgement::Redo) } }
            .into(),
        EffectsParams { release: Some("g7".to_owned()), ..Default::default() }.into(),
        SessionsParams { name: "web".to_owned(), limit: 5 }.into(),
        GraceParams { name: "web".to_owned() }.into(),
        TasksUsageParams {}.into(),
        TasksPruneParams { names: names(), older_than_ms: 1000 }.into(),
        DaemonStatusParams {}.into(),
        DaemonStopParams { wait: true }.into(),
        DaemonUpgradeParams { binary: Some("/usr/local/bin/agentd".to_owned()) }.into(),
    ]
}

#[test]
fn every_request_is_read_as_it_was_written() {
    let mut methods: Vec<&str> = Vec::new();
    for (n, request) in (0..).zip(requests()) {
        methods.push(request.method());
        let call = Call { id: RequestId::Number(n), request };
        let line = call.encode();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(Call::decode(line.as_bytes()), Ok(call));
    }
    methods.dedup();
    assert_eq!(methods, Request::METHODS, "every method is covered");
}

#[test]
fn a_call_written_by_hand_may_leave_out_what_has_a_default() {
    let call = Call::decode(br#"{"jsonrpc":"2.0","id":"a","method":"logs"}"#).expect("read");
    assert_eq!(call.request, LogsParams::default().into());
    assert_eq!(call.id, RequestId::Text("a".to_owned()));
    let call = Call::decode(br#"{"jsonrpc":"2.0","id":1,"method":"daemon.status","params":null}"#).expect("read");
    assert_eq!(call.request, DaemonStatusParams {}.into());
    let call = Call::decode(br#"{"jsonrpc":"2.0","id":1,"method":"stop","params":{"names":["all"]}}"#).expect("read");
    assert_eq!(call.request, StopParams { names: vec!["all".to_owned()], wait: false }.into());
}

#[test]
fn an_older_daemon_reads_a_newer_clients_call_as_far_as_it_knows_it() {
    let line = br#"{"jsonrpc":"2.0","id":1,"trace":"x","method":"reload","params":{"names":["web"],"surge":3}}"#;
    let call = Call::decode(line).expect("unknown members are no reason to refuse");
    let wanted = ReloadParams { names: vec!["web".to_owned()], changed: false, task: None, wait: false };
    assert_eq!(call.request, wanted.into());
}

#[test]
fn each_way_in_which_a_line_is_no_call_has_its_own_error() {
    for (line, kind, id) in [
        ("}{", ErrorKind::Parse, None),
        ("[]", ErrorKind::InvalidRequest, None),
        ("7", ErrorKind::InvalidRequest, None),
        (r#"{"id":1,"method":"status"}"#, ErrorKind::InvalidRequest, Some(1)),
        (r#"{"jsonrpc":"2.0","id":1}"#, ErrorKind::InvalidRequest, Some(1)),
        (r#"{"jsonrpc":"2.0","method":"status"}"#, ErrorKind::InvalidRequest, None),
        (r#"{"jsonrpc":"2.0","id":null,"method":"status"}"#, ErrorKind::InvalidRequest, None),
        (r#"{"jsonrpc":"2.0","id":-1.5,"method":"status"}"#, ErrorKind::InvalidRequest, None),
        (r#"{"jsonrpc":"2.0","id":1,"method":"explode"}"#, ErrorKind::UnknownMethod, Some(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"stop"}"#, ErrorKind::InvalidParams, Some(1)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"stop","params":[["web"]]}"#, ErrorKind::InvalidParams, Some(1)),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"scale","params":{"name":"a","workers":-1}}"#,
            ErrorKind::InvalidParams,
            Some(1),
        ),
    ] {
        let rejected = Call::decode(line.as_bytes()).expect_err(line);
        assert_eq!(rejected.error.kind(), kind, "{line}");
        assert_eq!(rejected.error.code, kind.code(), "{line}");
        assert_eq!(rejected.id, id.map(RequestId::Number), "{line}");
    }
}

#[test]
fn the_product_pages_document_is_read_and_written_back_with_every_field() {
    let written = serde_json::to_value(document()).expect("written");
    let page: Value = serde_json::from_str(DOCUMENT).expect("JSON");
    assert_contains(&written, &page, "document");
}

/// Everything in `part` is in `whole`, at the same place.
fn assert_contains(whole: &Value, part: &Value, at: &str) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (name, value) in part {
                let found = whole.get(name).unwrap_or_else(|| panic!("{at}.{name} is missing"));
                assert_contains(found, value, &format!("{at}.{name}"));
            }
        }
        (Value::Array(whole), Value::Array(part)) => {
            assert_eq!(whole.len(), part.len(), "{at}");
            for (n, (whole, part)) in whole.iter().zip(part).enumerate() {
                assert_contains(whole, part, &format!("{at}[{n}]"));
            }
        }
        (whole, part) => assert_eq!(whole, part, "{at}"),
    }
}

#[test]
fn an_older_reader_takes_a_newer_document_with_fields_and_values_that_it_does_not_know() {
    let mut newer: Value = serde_json::from_str(DOCUMENT).expect("JSON");
    newer["moon"] = json!("full");
    newer["apps"][0]["state"] = "hibernating".into();
    newer["apps"][0]["workers"][0]["state"] = "dreaming".into();
    newer["apps"][0]["workers"][0]["last_exit"]["reason"] = "boredom".into();
    newer["apps"][0]["deployment"] = json!({ "id": 9, "strategy": "osmosis", "from": "a", "to": "b", "state": "musing",
        "step": 1, "steps": 2, "started_at": "2026-11-01T00:00:00Z", "why": null, "mood": 1 });
    let StatusLine::Document(read) = StatusLine::decode(newer.to_string().as_bytes()).expect("read") else {
        panic!("a document was taken for something else");
    };
    let app = &read.apps[0];
    assert_eq!(app.state, AppState::Unknown);
    assert_eq!(app.workers[0].state, WorkerState::Unknown);
    assert_eq!(app.workers[0].last_exit.as_ref().map(|e| e.reason), Some(ExitReason::Unknown));
    assert_eq!(app.deployment.as_ref().map(|d| d.state), Some(DeploymentState::Unknown));
}

#[test]
fn a_document_of_another_schema_is_refused_by_number() {
    let error = StatusLine::decode(br#"{"schema":2}"#).expect_err("refused");
    assert!(matches!(error, StatusLineError::Schema(2)), "{error}");
}

fn events() -> Vec<EventKind> {
    let (why, id, from, to) = (Some("because".to_owned()), 3, "a".to_owned(), "b".to_owned());
    vec![
        EventKind::DaemonStarted { version: "0.1.0".to_owned(), pid: 1, adopted: 2 },
        EventKind::AppDeleted,
        EventKind::AppState { from: AppState::Starting, to: AppState::Running, why: None },
        EventKind::WorkerDraining { reason: ExitReason::Reload, deadline: Timestamp::UNIX_EPOCH },
        EventKind::WorkerDrainDeadline { deadline: Timestamp::UNIX_EPOCH },
        EventKind::WorkerExited {
            code: None,
            signal: Some("SIGKILL".to_owned()),
            reason: ExitReason::OutOfMemory,
            uptime_ms: 5,
            why: None,
        },
        EventKind::WorkerOutgrown { why: "it used too much".to_owned() },
        EventKind::Weights { weights: BTreeMap::from([("web.0.1".to_owned(), 100)]) },
        EventKind::DeploymentFinished {
            id,
            state: DeploymentState::RolledBack,
            why: why.clone(),
            duration_ms: 9,
            tasks: TaskCounts { finished: 1, handed_over: 2, lost: 0 },
        },
        EventKind::OperationFinished {
            id,
            kind: OperationKind::Reload,
            state: OperationState::RolledBack,
            why,
            duration_ms: 9,
        },
        EventKind::DeploymentStarted { id, strategy: agentd_protocol::status::Strategy::Rolling, from, to, steps: 2 },
        EventKind::TaskEnded { task: "t".to_owned(), outcome: TaskOutcome::Ok, duration_ms: 1 },
        EventKind::EventsLost { from: 1, to: 2 },
    ]
}

#[test]
fn every_kind_of_event_is_read_as_it_was_written() {
    for (seq, event) in (1..).zip(events()) {
        let event = Event { seq, at: Timestamp::UNIX_EPOCH, app: Some("web".to_owned()), worker: None, event };
        let line = serde_json::to_string(&event).expect("written");
        assert_eq!(StatusLine::decode(line.as_bytes()).expect("read"), StatusLine::Event(event), "{line}");
    }
}

#[test]
fn an_event_or_an_error_newer_than_its_reader_is_still_an_event_or_an_error() {
    let line =
        br#"{"seq":4,"at":"2026-11-01T00:00:00Z","event":{"type":"worker_levitated","height":3},"colour":"red"}"#;
    let StatusLine::Event(event) = StatusLine::decode(line).expect("read") else { panic!("no event") };
    assert_eq!((event.seq, event.event), (4, EventKind::Unknown));
    let line = br#"{"error":{"kind":"cursed","message":"so it is"}}"#;
    let StatusLine::Error(error) = StatusLine::decode(line).expect("read") else { panic!("no error") };
    assert_eq!(error.kind, StatusErrorKind::Unknown);
}

#[test]
fn every_message_of_the_daemon_is_read_as_it_was_written() {
    let operation =
        OperationView { id: 3, app: "web".to_owned(), kind: OperationKind::Reload, already: false, note: None };
    let line = LogLine {
        app: "web".to_owned(),
        worker: None,
        stream: LogStream::Stdout,
        at: Some(Timestamp::UNIX_EPOCH),
        text: "two\nlines \u{1F980}".to_owned(),
    };
    let app = document().apps.remove(0);
    let event = Event { seq: 1, at: Timestamp::UNIX_EPOCH, app: None, worker: None, event: EventKind::AppDeleted };
    let notices = [
        Notice::Accepted(Accepted { operations: vec![operation] }),
        Notice::Progress(Box::new(Progress { app })),
        Notice::Event(event),
        Notice::Log(line),
    ];
    let mut messages: Vec<ServerMessage> = Vec::new();
    messages.extend(notices.map(|notice| ServerMessage::Notice { call: RequestId::Number(2), notice }));
    let diagnostic = Diagnostic {
        file: "a.toml".to_owned(),
        line: 3,
        column: 1,
        end_column: 8,
        source_line: "wrokers = 2".to_owned(),
        message: "unknown key".to_owned(),
        expected: Some("workers".to_owned()),
        help: None,
    };
    let error = ErrorObject::new(ErrorKind::Usage, "the configuration is wrong")
        .with_help("fix it")
        .with_advice("it is one letter")
        .with_diagnostics(vec![diagnostic]);
    messages.push(ServerMessage::Answer { id: Some(RequestId::Number(2)), result: Err(Box::new(error)) });
    messages.push(ServerMessage::Answer { id: None, result: Ok(json!({})) });
    for message in messages {
        let line = message.encode();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(ServerMessage::decode(line.as_bytes()).expect(&line), message);
    }
}

#[test]
fn a_reply_written_as_it_is_reads_like_one_written_as_a_value() {
    let reply = Reply::LogsEnd(LogsEnd { lines: 3, skipped: 1, elsewhere: vec!["journalctl".to_owned()] });
    let id = RequestId::Text("a".to_owned());
    let read = ServerMessage::decode(ServerMessage::encode_reply(&id, &reply).as_bytes()).expect("read");
    let result = Ok(serde_json::to_value(&reply).expect("a value"));
    assert_eq!(read, ServerMessage::Answer { id: Some(id), result });
}

#[test]
fn a_notice_newer_than_its_client_is_recognised_as_one_to_be_ignored() {
    let line = br#"{"jsonrpc":"2.0","method":"serenade","params":{"call":1,"value":{}}}"#;
    let message = ServerMessage::decode(line).expect("read");
    assert_eq!(message, ServerMessage::UnknownNotice { method: "serenade".to_owned() });
}

#[test]
fn an_error_newer_than_its_client_still_says_what_to_exit_with() {
    let line = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"m","data":{"kind":"haunted","exit":4}}}"#;
    let ServerMessage::Answer { result: Err(error), .. } = ServerMessage::decode(line).expect("read") else {
        panic!("no error");
    };
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Unknown, exit::REFUSED));
}

fn result(state: OperationState) -> OperationResult {
    OperationResult {
        refreshed: Vec::new(),
        id: 1,
        app: "web".to_owned(),
        kind: OperationKind::Reload,
        state,
        why: None,
        log_tail: Vec::new(),
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        duration_ms: 1,
        tasks: Default::default(),
        lost_tasks: Vec::new(),
        connections: Default::default(),
        deployment: Some(1),
        from: None,
        to: None,
    }
}

#[test]
fn the_worst_of_several_results_decides_the_exit_code() {
    use OperationState::{Aborted, Done, Failed, RolledBack};
    for (states, code) in [
        (vec![], exit::DONE),
        (vec![Done, Done], exit::DONE),
        (vec![Done, Aborted], exit::REFUSED),
        (vec![Done, RolledBack, Aborted], exit::ROLLED_BACK),
        (vec![Failed, RolledBack], exit::FAILED),
    ] {
        let changed = Changed { operations: Vec::new(), results: states.iter().copied().map(result).collect() };
        assert_eq!(changed.exit_code(), code, "{states:?}");
    }
}

/// Feeds `bytes` in pieces of `step`, and collects the lines.
fn lines(bytes: &[u8], step: usize, max: usize) -> (Vec<Vec<u8>>, Option<LineTooLong>, usize) {
    let mut decoder = LineDecoder::new(max);
    let mut lines = Vec::new();
    let mut most = 0;
    for piece in bytes.chunks(step) {
        decoder.feed(piece);
        loop {
            match decoder.next_line() {
                Ok(Some(line)) => lines.push(line.to_vec()),
                Ok(None) => break,
                Err(e) => return (lines, Some(e), most),
            }
        }
        most = most.max(decoder.partial());
    }
    lines.extend(decoder.take_rest());
    (lines, None, most)
}

#[test]
fn a_line_may_be_as_long_as_the_bound_and_not_one_byte_longer() {
    for step in [1, 3, 100] {
        assert_eq!(lines(b"12345\n\r\nab\r\n", step, 5).0, [b"12345".to_vec(), b"ab".to_vec()]);
        let (taken, error, _) = lines(b"123456\nab\n", step, 5);
        assert_eq!((taken, error), (vec![], Some(LineTooLong { max: 5 })));
    }
}

#[test]
fn a_decoder_that_met_an_endless_line_holds_nothing_any_more() {
    let mut decoder = LineDecoder::new(16);
    for _ in 0..1000 {
        decoder.feed(&[b'x'; 64]);
        assert_eq!(decoder.next_line(), Err(LineTooLong { max: 16 }));
        assert_eq!(decoder.partial(), 0);
    }
}

proptest! {
    #[test]
    fn lines_are_the_same_however_the_bytes_arrive(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..400), step in 1usize..50) {
        let (whole, error, _) = lines(&bytes, bytes.len().max(1), 64);
        let (pieces, other_error, most) = lines(&bytes, step, 64);
        prop_assert_eq!(whole, pieces);
        prop_assert_eq!(error, other_error);
        prop_assert!(most <= 64, "an unfinished line beyond the bound was kept");
    }

    #[test]
    fn garbage_is_answered_and_never_fatal(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Err(rejected) = Call::decode(&bytes) {
            prop_assert_eq!(rejected.error.exit_code(), exit::USAGE);
        }
        let _ = ServerMessage::decode(&bytes);
        let _ = StatusLine::decode(&bytes);
    }

    #[test]
    fn json_of_any_shape_is_answered_and_never_fatal(method in prop::sample::select(Request::METHODS.to_vec()), params in json_value()) {
        let line = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        if let Err(rejected) = Call::decode(line.as_bytes()) {
            prop_assert_eq!(rejected.error.kind(), ErrorKind::InvalidParams);
            prop_assert_eq!(rejected.id, Some(RequestId::Number(1)));
        }
        let _ = StatusLine::decode(json!({ "schema": 1, "apps": params }).to_string().as_bytes());
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let key = prop::sample::select(vec!["names", "name", "wait", "target", "kind", "lines", "x"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..5).prop_map(|m| json!(m)),
        ]
    })
}
