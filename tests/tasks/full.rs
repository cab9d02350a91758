//! A disk that is full refuses the write, keeps what is there, and takes it when there is room again.

use serde_json::json;

use super::{silent, speaker, task};

#[test]
fn a_full_disk_refuses_the_write_and_keeps_what_is_there() {
    let (daemon, token) = silent("");
    let mut worker = speaker(&daemon, &token);
    assert_eq!(worker.ask(json!({"t":"task.begin","task":"a","input":1}))["ok"], true);
    assert_eq!(worker.ask(json!({"t":"ckpt","task":"a","fence":1,"step":1,"json":"kept"}))["ok"], true);
    // As a full disk: no file of the daemon's may grow.
    limit(daemon.pid(), Some(0));
    let refused = worker.ask(json!({"t":"ckpt","task":"a","fence":1,"step":2,"json":"x".repeat(30_000)}));
    assert_eq!((&refused["ok"], &refused["err"]), (&json!(false), &json!("store")), "{refused}");
    let refused = worker.ask(json!({"t":"ckpt","task":"a","fence":1,"step":2,"json":"x".repeat(300_000)}));
    assert_eq!(refused["err"], "store", "a blob as well: {refused}");
    let read = worker.ask(json!({"t":"kv.get","ns":"n","key":"k"}));
    assert_eq!(read["ok"], true, "reading goes on: {read}");
    assert_eq!(task(&daemon, "a").step, Some(1), "what is there is kept");
    limit(daemon.pid(), None);
    assert_eq!(worker.ask(json!({"t":"ckpt","task":"a","fence":1,"step":2,"json":"taken"}))["ok"], true);
    assert_eq!(worker.ask(json!({"t":"task.end","task":"a","fence":1,"outcome":"ok"}))["ok"], true);
    assert_eq!(task(&daemon, "a").why.as_deref(), Some("ok"));
}

/// Limits how large files of a process may become; none for no limit.
fn limit(pid: u32, bytes: Option<u64>) {
    let bytes = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let done = std::process::Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--fsize={bytes}:")])
        .status()
        .expect("prlimit is part of util-linux");
    assert!(done.success());
}
