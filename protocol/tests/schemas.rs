//! The committed schemas are those of the types. `UPDATE_SCHEMA=1 cargo test -p agentd-protocol --test schemas`
//! writes them anew; the difference then shows in review what changed on the wire.

use std::fs;
use std::path::PathBuf;

use agentd_protocol::control::Request;
use agentd_protocol::{schema, worker};
use serde_json::Value;

fn check(name: &str, schema: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(name);
    let mut wanted = serde_json::to_string_pretty(schema).expect("a schema is JSON");
    wanted.push('\n');
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, &wanted).expect("docs/reference can be written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == wanted, "docs/reference/{name} is not that of the types: run with UPDATE_SCHEMA=1");
}

#[test]
fn the_committed_status_schema_is_that_of_the_types() {
    check("status.schema.json", &schema::status());
}

#[test]
fn the_committed_events_schema_is_that_of_the_types() {
    check("events.schema.json", &schema::events());
}

#[test]
fn the_committed_control_schema_is_that_of_the_types() {
    check("control.schema.json", &schema::control());
}

#[test]
fn the_committed_worker_schema_is_that_of_the_types() {
    check("worker.schema.json", &schema::worker());
}

/// Every `$ref` of a schema.
fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(target)) = members.get("$ref") {
                found.push(target.clone());
            }
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_reference_of_a_schema_leads_somewhere() {
    for schema in [schema::status(), schema::events(), schema::control(), schema::worker()] {
        let mut found = Vec::new();
        references(&schema, &mut found);
        for target in found {
            let pointer = target.strip_prefix('#').expect("references stay within the schema");
            assert!(schema.pointer(pointer).is_some(), "{target} leads nowhere in {}", schema["title"]);
        }
    }
}

#[test]
fn what_the_document_promises_is_required_by_its_schema() {
    let schema = schema::status();
    let required = |at: &str| -> Vec<String> {
        serde_json::from_value(schema.pointer(at).expect("there").clone()).expect("names")
    };
    for field in ["schema", "instance", "pid", "version", "started_at", "now", "apps"] {
        assert!(required("/required").contains(&field.to_owned()), "{field}");
    }
    for field in ["name", "kind", "state", "release", "desired", "ready", "in_flight", "grace_ms", "deployment"] {
        assert!(required("/$defs/AppView/required").contains(&field.to_owned()), "{field}");
    }
    for field in ["id", "slot", "pid", "weight", "oldest_task_ms", "drain_deadline", "cpu_percent", "last_exit"] {
        assert!(required("/$defs/WorkerView/required").contains(&field.to_owned()), "{field}");
    }
}

#[test]
fn the_control_schema_describes_every_method_and_every_notice() {
    let schema = schema::control();
    let methods = |at: &str| -> Vec<String> {
        let branches = schema.pointer(at).and_then(Value::as_array).expect("one branch a method");
        let name = |b: &Value| b["properties"]["method"]["const"].as_str().map(str::to_owned);
        branches.iter().map(|b| name(b).expect("a branch names its method")).collect()
    };
    assert_eq!(methods("/$defs/Request/oneOf"), Request::METHODS);
    assert_eq!(methods("/$defs/Notice/oneOf"), ["accepted", "progress", "event", "log"]);
}

#[test]
fn the_worker_schema_describes_every_type_and_every_code() {
    let schema = schema::worker();
    let branches = schema.pointer("/$defs/Request/oneOf").and_then(Value::as_array).expect("one branch a type");
    let types: Vec<&str> = branches.iter().filter_map(|b| b["properties"]["t"]["const"].as_str()).collect();
    assert_eq!(types, worker::Request::TYPES);
    let codes = schema.pointer("/$defs/Code/oneOf").and_then(Value::as_array).expect("one branch a code");
    let named: Vec<&Value> = codes.iter().map(|branch| &branch["const"]).collect();
    let all: Vec<Value> = worker::Code::ALL.iter().map(|code| serde_json::to_value(code).expect("a word")).collect();
    assert_eq!(named, all.iter().collect::<Vec<_>>());
}
