//! An event-sourced agent: it keeps no state of its own. Whoever takes it up replays it from its first step, with the
//! effects that were done skipped; what they answered is their recorded result. Each e-mail
//! sent is a line of the file OUTBOX.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;
use std::{env, thread};

use agentd_worker::{Error, Options, Task, Worker};
use serde_json::{Value, json};

fn setting(name: &str, otherwise: &str) -> String {
    env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

fn send_email(key: &str) -> Result<Value, Error> {
    let outbox = setting("OUTBOX", "outbox.txt");
    let file = OpenOptions::new().create(true).append(true).open(&outbox);
    file.and_then(|mut file| file.write_all(format!("{key}\n").as_bytes())).map_err(Error::failed)?;
    Ok(json!({ "sent": key }))
}

fn agent(task: &Task) -> Result<Value, Error> {
    let steps = task.options.input.as_ref().and_then(|input| input["steps"].as_u64()).unwrap_or(0);
    let kept = task.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step);
    let mut events = Vec::new();
    for step in 1..=steps {
        events.push(task.effect("send_email", &format!("{step}:mail"), send_email)?);
        if step > kept {
            task.save(step, &json!({ "sent": step }))?;
            thread::sleep(Duration::from_secs_f64(setting("PAUSE", "0.1").parse().map_err(Error::failed)?));
        }
    }
    Ok(json!(events))
}

fn main() -> Result<(), Error> {
    let worker = Worker::new();
    worker.on_task("events", agent);
    let begun = worker.clone();
    let first = thread::spawn(move || {
        let steps: u64 = setting("STEPS", "5").parse().map_err(Error::failed)?;
        let options = Options {
            kind: Some("events".into()),
            key: Some("tell everybody".into()),
            input: Some(json!({ "steps": steps })),
            ..Options::default()
        };
        match begun.task(options, agent) {
            Ok(_) => Ok(()),
            Err(why @ (Error::Drained(_) | Error::Duplicate { .. })) => {
                println!("not here any more: {why}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    });
    if worker.is_inside() {
        worker.serve()?;
    }
    first.join().map_err(|_| Error::failed("the first task panicked"))?
}
