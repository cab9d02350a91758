//! The vectors of `sdk/conformance`, played to the runner of each SDK over a real Unix socket.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::programs::{built, python, source};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_python_sdk_conforms_in_threads() {
    play_all(&[python().into(), source("sdk/conformance/runner.py").into()], &[]);
}

#[test]
fn the_python_sdk_conforms_in_an_event_loop() {
    play_all(&[python().into(), source("sdk/conformance/runner.py").into()], &["async"]);
}

#[test]
fn the_node_sdk_conforms() {
    play_all(&["node".into(), source("sdk/conformance/runner.js").into()], &[]);
}

#[test]
fn the_rust_sdk_conforms() {
    play_all(&[built("conformance").into()], &[]);
}

fn play_all(runner: &[OsString], then: &[&str]) {
    let mut vectors: Vec<_> = fs::read_dir(source("sdk/conformance/vectors"))
        .expect("the vectors")
        .map(|entry| entry.expect("a vector").path())
        .collect();
    vectors.sort();
    assert!(vectors.len() >= 20, "vectors are missing: {vectors:?}");
    let wrong: Vec<_> = vectors
        .iter()
        .filter_map(|path| play(runner, then, path).err().map(|why| format!("{}: {why}", path.display())))
        .collect();
    assert!(wrong.is_empty(), "{} vectors do not hold:\n{}", wrong.len(), wrong.join("\n"));
}

/// A runner that is ended whatever becomes of the test.
struct Runner(Child);

impl Drop for Runner {
    fn drop(&mut self) {
        // It has ended already where all went well.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn play(runner: &[OsString], then: &[&str], path: &Path) -> Result<(), String> {
    let vector: Value = serde_json::from_slice(&fs::read(path).expect("a vector")).expect("a vector of JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("worker.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    listener.set_nonblocking(true).expect("a socket");
    let mut command = Command::new(&runner[0]);
    command.args(&runner[1..]).arg(path).args(then).stdout(Stdio::piped());
    command.env_remove("AGENTD_WORKER_SOCKET").env_remove("AGENTD_WORKER_TOKEN");
    let script = vector["script"].as_array();
    if script.is_some() {
        command.env("AGENTD_WORKER_SOCKET", &socket).env("AGENTD_WORKER_TOKEN", "secret");
    }
    let mut runner = Runner(command.spawn().expect("the runner starts"));
    let out = runner.0.stdout.take().expect("its output");
    let prints = thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).collect::<Vec<_>>());
    let mut bound: HashMap<String, Value> = serde_json::from_value(vector["bind"].clone()).unwrap_or_default();
    if let Some(script) = script {
        Player { by: Instant::now() + PATIENCE, listener, line: None, last: Value::Null, bound: &mut bound }
            .play(script)?;
    }
    let code = await_end(&mut runner.0)?;
    let printed = prints.join().map_err(|_| "its output cannot be read".to_owned())?;
    let printed: Vec<Value> = printed.iter().map(|line| serde_json::from_str(line).unwrap_or(json!(line))).collect();
    let wanted = vector["prints"].as_array().expect("what is printed");
    if code != vector["exit"].as_i64() {
        return Err(format!("exit code {code:?} instead of {}", vector["exit"]));
    }
    if &printed != wanted {
        return Err(format!("it printed\n  {}\ninstead of\n  {}", json!(printed), json!(wanted)));
    }
    Ok(())
}

fn await_end(runner: &mut Child) -> Result<Option<i64>, String> {
    let by = Instant::now() + PATIENCE;
    loop {
        match runner.try_wait().map_err(|error| error.to_string())? {
            Some(status) => return Ok(status.code().map(i64::from)),
            None if Instant::now() > by => return Err("the runner does not end".into()),
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// agentd's side of a vector.
struct Player<'a> {
    /// When the vector must be over; beats must not keep it alive.
    by: Instant,
    listener: UnixListener,
    line: Option<BufReader<UnixStream>>,
    last: Value,
    bound: &'a mut HashMap<String, Value>,
}

impl Player<'_> {
    fn play(mut self, script: &[Value]) -> Result<(), String> {
        for (at, turn) in script.iter().enumerate() {
            let told = |why: String| format!("script line {at}: {why}");
            if let Some(wanted) = turn.get("expect") {
                self.expect(wanted).map_err(told)?;
            } else if let Some(answer) = turn.get("answer") {
                let mut answer = self.fill(answer);
                answer["re"] = turn.get("to").map_or_else(|| self.last["n"].clone(), |to| self.fill(to));
                answer["ok"] = json!(answer.get("err").is_none());
                self.say(&answer).map_err(told)?;
            } else if let Some(word) = turn.get("tell") {
                let word = self.fill(word);
                self.say(&word).map_err(told)?;
            } else {
                self.line = None;
            }
        }
        Ok(())
    }

    fn connection(&mut self) -> Result<&mut BufReader<UnixStream>, String> {
        while self.line.is_none() {
            if let Ok((stream, _)) = self.listener.accept() {
                let ready = stream.set_nonblocking(false).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
                ready.map_err(|error| error.to_string())?;
                self.line = Some(BufReader::new(stream));
            } else if Instant::now() > self.by {
                return Err("nobody dials".into());
            } else {
                thread::sleep(Duration::from_millis(2));
            }
        }
        self.line.as_mut().ok_or_else(|| "no connection".into())
    }

    fn say(&mut self, word: &Value) -> Result<(), String> {
        let line = format!("{word}\n");
        self.connection()?.get_mut().write_all(line.as_bytes()).map_err(|error| error.to_string())
    }

    fn expect(&mut self, wanted: &Value) -> Result<(), String> {
        loop {
            let left = self.by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("nothing but beats in {PATIENCE:?} instead of {wanted}"));
            }
            let (mut line, connection) = (String::new(), self.connection()?);
            let read = connection.get_ref().set_read_timeout(Some(left)).and_then(|()| connection.read_line(&mut line));
            let read = read.map_err(|error| format!("{error} instead of {wanted}"))?;
            if read == 0 {
                return Err(format!("end of file instead of {wanted}"));
            }
            let said: Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
            if said["t"] == "beat" && wanted["t"] != "beat" {
                continue;
            }
            if !self.has(&said, wanted) {
                return Err(format!("it said {said} instead of {wanted}"));
            }
            self.last = said;
            return Ok(());
        }
    }

    /// Whether all of `wanted` is in `said`; binds what begins with `$`.
    fn has(&mut self, said: &Value, wanted: &Value) -> bool {
        match (said, wanted) {
            (_, Value::String(name)) if name.starts_with('$') => {
                self.bound.entry(name.clone()).or_insert_with(|| said.clone()) == said
            }
            (Value::Object(said), Value::Object(wanted)) => {
                wanted.iter().all(|(name, wanted)| said.get(name).is_some_and(|said| self.has(said, wanted)))
            }
            (Value::Array(said), Value::Array(wanted)) => {
                said.len() == wanted.len() && said.iter().zip(wanted).all(|(said, wanted)| self.has(said, wanted))
            }
            (said, wanted) => said == wanted,
        }
    }

    fn fill(&self, word: &Value) -> Value {
        match word {
            Value::String(name) if name.starts_with('$') => self.bound.get(name).unwrap_or(word).clone(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, field)| (name.clone(), self.fill(field)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => word.clone(),
        }
    }
}
