//! An agent that takes no requests, and does what `etc/writer.py` does: a report of many chapters, each of them an effect
//! and a checkpoint. What is sent is a line of the file OUTBOX.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::thread;
use std::time::Duration;

use agentd_worker::{Error, Options, Task, Worker};
use serde_json::{Value, json};

/// Takes the report up, begins it unless it was begun before, and serves until it is told to stop.
pub(crate) fn serve() -> Result<(), Error> {
    let worker = Worker::new();
    worker.on_task("report", write);
    let beginning = worker.clone();
    let first = thread::spawn(move || {
        let options = Options {
            kind: Some("report".into()),
            key: Some("the report".into()),
            input: Some(json!({ "chapters": setting("CHAPTERS", 60) })),
            ..Options::default()
        };
        match beginning.task(options, write) {
            Err(why @ (Error::Drained(_) | Error::Duplicate { .. })) => println!("not here: {why}"),
            Ok(_) => println!("the report is written"),
            Err(error) => eprintln!("sample: the report: {error}"),
        }
    });
    if worker.is_inside() {
        worker.serve()?;
    }
    first.join().map_err(|_| Error::failed("the report's thread panicked"))
}

fn write(task: &Task) -> Result<Value, Error> {
    let chapters = task.options.input.as_ref().and_then(|input| input["chapters"].as_u64()).unwrap_or(0);
    let done = task.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step);
    for chapter in done + 1..=chapters {
        thread::sleep(Duration::from_millis(setting("PAUSE_MS", 200)));
        task.effect("send", &format!("{chapter}:send"), send)?;
        task.save(chapter, &json!({ "sent": chapter }))?;
    }
    Ok(json!({ "chapters": chapters }))
}

fn send(key: &str) -> Result<Value, Error> {
    if let Ok(outbox) = env::var("OUTBOX") {
        let file = OpenOptions::new().create(true).append(true).open(outbox);
        file.and_then(|mut file| file.write_all(format!("{key}\n").as_bytes())).map_err(Error::failed)?;
    }
    println!("sent {key}");
    Ok(json!({ "sent": key }))
}

fn setting(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}
