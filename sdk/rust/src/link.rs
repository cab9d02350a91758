//! The connection to agentd: a thread that dials, writes and beats, and one that reads.
//!
//! Requests of all threads meet in one outbox, which is written at once: what was asked while the last write ran leaves
//! together. What is not answered is kept, in order, and sent again with the same number when agentd was replaced.
//!
//! # What can go wrong
//! - The socket is gone: it is dialled again, every 50 ms at first and every second later, for ever.
//! - agentd refuses the worker itself (`version`, `token`, `gone`): every request is refused with that.
//! - A task is another's: the process ends with [`EXIT_FENCED`].

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{EXIT_FENCED, Error};

/// What hears agentd's messages, and says what `hello` tells of the worker.
pub(crate) trait Ear: Send + Sync {
    fn hear(&self, word: &Value);
    fn hello(&self) -> Value;
}

/// A worker's connection.
pub(crate) struct Link {
    path: String,
    token: String,
    said: Mutex<Said>,
    wake: Condvar,
}

#[derive(Default)]
struct Said {
    n: u64,
    pending: BTreeMap<u64, Call>,
    outbox: Vec<u8>,
    beating: BTreeMap<String, u64>,
    lease: Option<Duration>,
    socket: Option<UnixStream>,
    beat_now: bool,
    refused: Option<Value>,
    /// Whether the worker wants anything of agentd yet. Who says hello before must say it again once it takes tasks.
    wanted: bool,
}

struct Call {
    line: Vec<u8>,
    answered: SyncSender<Value>,
    heard: Option<Heard>,
}

/// Takes an answer in the thread that reads, before anything that agentd said behind it.
pub(crate) type Heard = Box<dyn FnOnce(&Value) + Send>;

impl Link {
    /// Dials as soon as it is [wanted](Self::want); `ear` hears what agentd says.
    pub(crate) fn start(path: String, token: String, ear: Arc<dyn Ear>) -> Result<Arc<Self>, Error> {
        let link = Arc::new(Self { path, token, said: Mutex::default(), wake: Condvar::new() });
        let dialling = Arc::clone(&link);
        let named = thread::Builder::new().name("agentd-worker".into());
        named.spawn(move || dialling.dial(&ear)).map_err(Error::Start)?;
        Ok(link)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker wants to hear of agentd from here on, or asks it something.
    pub(crate) fn want(&self) {
        self.said().wanted = true;
        self.wake.notify_one();
    }

    /// Asks, and waits for the answer. `forget` is the task that is no longer beaten for from here on.
    pub(crate) fn ask(&self, mut body: Value, forget: Option<&str>, heard: Option<Heard>) -> Result<Value, Error> {
        let (answered, answer) = sync_channel(1);
        {
            let mut said = self.said();
            if let Some(refused) = &said.refused {
                return Err(Error::of_answer(refused));
            }
            said.n += 1;
            let n = said.n;
            body["n"] = json!(n);
            let mut line = body.to_string().into_bytes();
            line.push(b'\n');
            // A beat behind the end of a task would be taken for a zombie's.
            if let Some(task) = forget {
                said.beating.remove(task);
            }
            said.outbox.extend_from_slice(&line);
            said.pending.insert(n, Call { line, answered, heard });
            said.wanted = true;
        }
        self.wake.notify_one();
        // The sender is dropped only when agentd refused the worker itself.
        let answer = answer.recv().unwrap_or_else(|_| self.said().refused.clone().unwrap_or_default());
        if answer["ok"] == true { Ok(answer) } else { Err(Error::of_answer(&answer)) }
    }

    /// Beats for a task from here on, or no longer.
    pub(crate) fn hold(&self, task: &str, fence: Option<u64>) {
        let mut said = self.said();
        match fence {
            Some(fence) => drop(said.beating.insert(task.into(), fence)),
            None => drop(said.beating.remove(task)),
        }
    }

    /// Says hello anew, with what the worker takes by now.
    pub(crate) fn redial(&self) {
        if let Some(socket) = &self.said().socket {
            // Fails only where it is closed already.
            drop(socket.shutdown(Shutdown::Both));
        }
    }

    fn dial(self: &Arc<Self>, ear: &Arc<dyn Ear>) {
        let said = self.said();
        drop(self.wake.wait_while(said, |said| !said.wanted).unwrap_or_else(PoisonError::into_inner));
        let mut tries = 0;
        while self.said().refused.is_none() {
            if let Ok(socket) = UnixStream::connect(&self.path)
                && self.talk(&socket, ear)
            {
                tries = 0;
            }
            tries += 1;
            thread::sleep(Duration::from_millis(if tries < 20 { 50 } else { 1000 }));
        }
    }

    /// Serves one connection until it is lost; whether there was one to speak of.
    fn talk(self: &Arc<Self>, socket: &UnixStream, ear: &Arc<dyn Ear>) -> bool {
        let (Ok(reading), Ok(kept)) = (socket.try_clone(), socket.try_clone()) else { return false };
        {
            let mut hello = ear.hello();
            hello["token"] = json!(self.token);
            let mut said = self.said();
            said.outbox = format!("{hello}\n").into_bytes();
            let again: Vec<u8> = said.pending.values().flat_map(|call| call.line.iter().copied()).collect();
            said.outbox.extend(again);
            said.socket = Some(kept);
        }
        let (link, ear) = (Arc::clone(self), Arc::clone(ear));
        let reader = thread::spawn(move || link.read(reading, &*ear));
        self.write(socket);
        drop(socket.shutdown(Shutdown::Both));
        reader.join().unwrap_or(false)
    }

    fn write(&self, mut socket: &UnixStream) {
        let mut beat_at = None;
        loop {
            let out = {
                let mut said = self.said();
                loop {
                    if said.socket.is_none() {
                        return;
                    }
                    let third = said.lease.unwrap_or(Duration::from_secs(30)) / 3;
                    let due = *beat_at.get_or_insert_with(|| Instant::now() + third);
                    let due = due.min(Instant::now() + third);
                    if said.beat_now || Instant::now() >= due {
                        said.beat_now = false;
                        beat_at = Some(Instant::now() + third);
                        let beat = said.beat();
                        said.outbox.extend_from_slice(beat.as_bytes());
                    }
                    if !said.outbox.is_empty() {
                        break std::mem::take(&mut said.outbox);
                    }
                    let wait = due.saturating_duration_since(Instant::now());
                    said = self.wake.wait_timeout(said, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
            };
            if socket.write_all(&out).is_err() {
                return;
            }
        }
    }

    fn read(&self, socket: UnixStream, ear: &dyn Ear) -> bool {
        let (mut lines, mut line, mut heard) = (BufReader::with_capacity(1 << 16, socket), Vec::new(), false);
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if let Ok(word) = serde_json::from_slice::<Value>(&line) {
                heard = true;
                self.take(word, ear);
            }
            line.clear();
        }
        self.said().socket = None;
        self.wake.notify_one();
        heard
    }

    fn take(&self, word: Value, ear: &dyn Ear) {
        if word["err"] == "fenced" || word["t"] == "fenced" {
            let task = word["task"].as_str().unwrap_or_default();
            eprintln!("agentd-worker: task {task} is another worker's by now: exit {EXIT_FENCED}");
            std::process::exit(EXIT_FENCED);
        }
        let call = word["re"].as_u64().and_then(|n| self.said().pending.remove(&n));
        if let Some(call) = call {
            if word["ok"] == true
                && let Some(heard) = call.heard
            {
                heard(&word);
            }
            // Whoever asked waits for it, or is gone with its thread.
            drop(call.answered.send(word));
        } else if word["t"] == "ping" {
            self.said().beat_now = true;
            self.wake.notify_one();
        } else if word["t"].is_string() {
            ear.hear(&word);
        } else if word["re"] == 0 && word["ok"] == true {
            self.said().lease = word["lease_ms"].as_u64().map(Duration::from_millis);
            self.wake.notify_one();
        } else if ["version", "token", "gone"].iter().any(|code| word["err"] == *code) {
            eprintln!("agentd-worker: agentd refused this worker: {}: {}", word["err"], word["msg"]);
            let mut said = self.said();
            said.refused = Some(word);
            said.pending.clear();
        }
    }
}

impl Said {
    fn beat(&self) -> String {
        let tasks = self.beating.iter().map(|(task, fence)| json!({ "task": task, "fence": fence }));
        format!("{}\n", json!({ "t": "beat", "tasks": tasks.collect::<Vec<_>>() }))
    }
}
