//! An agent of futures: it keeps a checkpoint after each e-mail, and goes on behind the last one. Each e-mail sent is a line
//! of the file OUTBOX.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use agentd_worker::{AsyncTask, Error, Options, Worker};
use serde_json::{Value, json};

fn setting(name: &str, otherwise: &str) -> String {
    env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

async fn send_email(key: String) -> Result<Value, Error> {
    let outbox = setting("OUTBOX", "outbox.txt");
    let file = OpenOptions::new().create(true).append(true).open(&outbox);
    file.and_then(|mut file| file.write_all(format!("{key}\n").as_bytes())).map_err(Error::failed)?;
    Ok(json!({ "sent": key }))
}

async fn agent(task: AsyncTask) -> Result<Value, Error> {
    let steps = task.options.input.as_ref().and_then(|input| input["steps"].as_u64()).unwrap_or(0);
    let pause = Duration::from_secs_f64(setting("PAUSE", "0.1").parse().map_err(Error::failed)?);
    let done = task.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step);
    for step in done + 1..=steps {
        task.effect("send_email", &format!("{step}:mail"), send_email).await?;
        task.save(step, &json!({ "sent": step })).await?;
        tokio::time::sleep(pause).await;
    }
    Ok(json!({ "sent": steps }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let worker = Worker::new();
    worker.on_task_async("futures", agent);
    let beginning = worker.clone();
    let first = tokio::spawn(async move {
        let steps: u64 = setting("STEPS", "5").parse().map_err(Error::failed)?;
        let options = Options {
            kind: Some("futures".into()),
            key: Some("tell everybody".into()),
            input: Some(json!({ "steps": steps })),
            ..Options::default()
        };
        match beginning.task_async(options, agent).await {
            Ok(_) => Ok(()),
            Err(why @ (Error::Drained(_) | Error::Duplicate { .. })) => {
                println!("not here any more: {why}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    });
    if worker.is_inside() {
        worker.serve_async().await?;
    }
    first.await.map_err(Error::failed)?
}
