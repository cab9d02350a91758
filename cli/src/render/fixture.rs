//! A status document with an app in every condition, for the tests of what shows them.

use agentd_protocol::status::StatusDocument;
use serde_json::{Value, json};

/// Text without its styles.
pub(super) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// `support` deploys, `triage` failed, `web-search` runs, `zero` is stopped.
pub(super) fn document() -> StatusDocument {
    let draining = json!({
        "id": "support.0.16", "slot": 0, "generation": 16, "release": "1.4.0+ab12cd34", "pid": 4100,
        "state": "draining", "weight": 0, "restarts": 0, "started_at": "2026-01-01T00:00:00Z", "in_flight": 3,
        "oldest_task_ms": 41_000, "drain_deadline": "2026-01-02T12:04:58Z", "memory_bytes": 210_000_000,
        "cpu_percent": 1.5, "last_exit": null,
    });
    let starting = json!({
        "id": "support.0.17", "slot": 0, "generation": 17, "release": "1.5.0+ef56ab78", "pid": 4242,
        "state": "starting", "weight": 0, "restarts": 0, "started_at": "2026-01-02T11:59:58Z", "in_flight": 0,
        "oldest_task_ms": null, "drain_deadline": null, "memory_bytes": 90_000_000, "cpu_percent": 88.0,
        "last_exit": null, "status_text": "loading 3 of 7 indexes",
    });
    let failed = json!({
        "id": "triage.0.3", "slot": 0, "generation": 3, "release": "r2", "pid": null, "state": "failed", "weight": 0,
        "restarts": 10, "started_at": null, "in_flight": 0, "oldest_task_ms": null, "drain_deadline": null,
        "memory_bytes": null, "cpu_percent": null, "last_exit": { "code": 1, "signal": null, "reason": "crashed" },
        "why": "exited with code 1, 10 times within 5m",
    });
    let ready = json!({
        "id": "web-search.0.1", "slot": 0, "generation": 1, "release": "r1", "pid": 900, "state": "ready",
        "weight": 100, "restarts": 1, "started_at": "2026-01-02T10:00:00Z", "in_flight": 0, "oldest_task_ms": null,
        "drain_deadline": null, "memory_bytes": 40_000_000, "cpu_percent": 0.2,
        "last_exit": { "code": null, "signal": "SIGKILL", "reason": "out_of_memory" },
    });
    let deployment = json!({
        "id": 17, "strategy": "rolling", "from": "1.4.0+ab12cd34", "to": "1.5.0+ef56ab78", "state": "running",
        "step": 0, "steps": 2, "started_at": "2026-01-02T11:59:58Z", "why": "support.0.17 is not ready yet",
    });
    let mut apps = [
        app("support", "deploying", 1, 2, &[draining, starting]),
        app("triage", "failed", 0, 1, &[failed]),
        app("web-search", "running", 1, 1, &[ready]),
        app("zero", "stopped", 0, 1, &[]),
    ];
    apps[0]["deployment"] = deployment;
    apps[0]["in_flight"] = json!(3);
    apps[0]["release"] = json!("1.5.0+ef56ab78");
    apps[0]["listen"] = json!({ "http": "0.0.0.0:8080" });
    apps[1]["why"] =
        json!("triage.0 exited with code 1, 10 times within 5m; start it again with: agentctl start triage");
    let document = json!({
        "schema": 1, "instance": "one", "pid": 812, "version": "0.1.0", "started_at": "2026-01-01T00:00:00Z",
        "now": "2026-01-02T12:00:00Z", "seq": 9, "apps": apps,
    });
    serde_json::from_value(document).expect("a whole document")
}

fn app(name: &str, state: &str, ready: u32, desired: u32, workers: &[Value]) -> Value {
    json!({
        "name": name, "kind": "agent", "state": state, "release": "r1", "desired": desired, "ready": ready,
        "in_flight": 0, "grace_ms": 312_000, "deployment": null, "workers": workers,
    })
}
