//! Runs the program of a conformance vector with the Rust SDK: `conformance VECTOR`. See `sdk/conformance`.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, process, thread};

use agentd_worker::{Error, Options, Task, Worker};
use serde_json::{Value, json};

fn say(line: &Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the player reads what is printed");
}

fn seen(task: &Task) -> Value {
    let at = task.checkpoint.as_ref().map(|at| json!([at.step, at.state]));
    json!({ "value": { "attempt": task.attempt, "checkpoint": at } })
}

fn name(error: &Error) -> &'static str {
    match error {
        Error::Drained(_) => "drained",
        Error::Cancelled(_) => "cancelled",
        Error::Duplicate { .. } => "duplicate",
        Error::Indeterminate { .. } => "indeterminate",
        Error::Refused { .. } => "refused",
        Error::Answer(_) | Error::Start(_) | Error::Failed(_) => "failed",
    }
}

fn until(wanted: impl Fn() -> bool) {
    while !wanted() {
        thread::sleep(Duration::from_millis(5));
    }
}

fn text<'a>(op: &'a Value, field: &str) -> &'a str {
    op[field].as_str().unwrap_or_default()
}

/// Runs the ops of a task; its result.
fn inside(worker: &Worker, task: &Task, ops: &[Value]) -> Result<Value, Error> {
    say(&seen(task));
    let mut result = Value::Null;
    for op in ops {
        let step = op["step"].as_u64().unwrap_or_default();
        let value = match text(op, "op") {
            "save" if op["safe"] == false => task.save_unsafe(step, &op["state"]).map(|()| Value::Null)?,
            "save" => task.save(step, &op["state"]).map(|()| Value::Null)?,
            "effect" => task.effect(text(op, "kind"), text(op, "key"), |_| match op["fails"].as_str() {
                Some(why) => Err(Error::failed(why)),
                None => Ok(op["result"].clone()),
            })?,
            "done" => {
                result = op["result"].clone();
                if let Some(figures) = op.get("figures") {
                    task.figures(figures.clone());
                }
                Value::Null
            }
            "fail" => return Err(Error::failed("as told")),
            "drain" => {
                until(|| worker.is_draining());
                Value::Null
            }
            "cancel" => {
                until(|| task.is_cancelled());
                Value::Null
            }
            _ => outside(worker, op)?,
        };
        say(&json!({ "value": value }));
    }
    Ok(result)
}

fn outside(worker: &Worker, op: &Value) -> Result<Value, Error> {
    let kv = worker.kv(text(op, "ns"));
    match text(op, "op") {
        "ready" => worker.ready().map(|()| Value::Null),
        "on_refresh" => {
            let fails = op["fails"].as_str().map(str::to_owned);
            worker.on_refresh(move |scope| match &fails {
                Some(why) => Err(Error::failed(why.clone())),
                None => {
                    say(&json!({ "renewed": scope }));
                    Ok(())
                }
            });
            Ok(Value::Null)
        }
        "put" => kv.put(text(op, "key"), &op["value"]).map(|()| Value::Null),
        "get" => kv.get(text(op, "key")).map(Option::unwrap_or_default),
        other => Err(Error::failed(format!("no op {other}"))),
    }
}

fn serve(worker: &Worker, op: &Value) -> Result<Value, Error> {
    let (given, body) = (Arc::new(Mutex::new(Value::Null)), op["body"].as_array().cloned().unwrap_or_default());
    let (kept, runs) = (Arc::clone(&given), worker.clone());
    worker.on_task(text(op, "kind"), move |task| {
        *kept.lock().expect("one task") = task.options.input.clone().unwrap_or_default();
        let result = inside(&runs, task, &body);
        let me = process::id().to_string();
        process::Command::new("kill").arg(me).status().expect("kill runs");
        result
    });
    worker.serve()?;
    let given = given.lock().expect("one task").clone();
    Ok(given)
}

fn main() {
    let path = std::env::args().nth(1).expect("a vector's path");
    let vector: Value = serde_json::from_slice(&fs::read(path).expect("the vector is there")).expect("JSON");
    let worker = Worker::new();
    let mut ops = vector["program"].as_array().expect("a program").as_slice();
    while let Some((op, rest)) = ops.split_first() {
        ops = rest;
        let ran = match text(op, "op") {
            "begin" => {
                let end = ops.iter().position(|op| matches!(text(op, "op"), "done" | "fail")).expect("an end") + 1;
                let (body, rest) = ops.split_at(end);
                ops = rest;
                let given = |field: &str| op[field].as_str().map(Into::into);
                let options = Options {
                    kind: given("kind"),
                    key: given("key"),
                    session: given("session"),
                    input: op.get("input").cloned(),
                    traceparent: None,
                };
                worker.task(options, |task| inside(&worker, task, body)).map(|_| None)
            }
            "serve" => serve(&worker, op).map(Some),
            _ => outside(&worker, op).map(Some),
        };
        match ran {
            Ok(None) => {}
            Ok(Some(value)) => say(&json!({ "value": value })),
            Err(error) => say(&json!({ "error": name(&error) })),
        }
    }
}
