//! The worker: what it takes, whether it drains, and its small durable store.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::alone::Alone;
use crate::error::Error;
use crate::link::{Ear, Heard, Link};
use crate::task::{Options, Signs, Task};

type Handler = Arc<dyn Fn(&Arc<Task>) -> Result<Value, Error> + Send + Sync>;
type OnDrain = Arc<dyn Fn(&Drain) + Send + Sync>;
type OnRefresh = Arc<dyn Fn(&str) -> Result<(), Error> + Send + Sync>;

/// What agentd said when it began to replace this worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long it waits, from when it was said.
    pub deadline_ms: u64,
    /// `reload`, `rollback`, `stop` or `scale_down`.
    pub reason: String,
    /// The release that takes over.
    pub to_release: Option<String>,
}

/// What tasks and threads share.
#[derive(Default)]
pub(crate) struct Shared {
    link: OnceLock<Arc<Link>>,
    alone: Mutex<Alone>,
    hand: Mutex<Hand>,
    idle: Condvar,
    me: OnceLock<std::sync::Weak<Shared>>,
}

#[derive(Default)]
struct Hand {
    held: HashMap<String, Arc<Signs>>,
    handlers: HashMap<String, Handler>,
    on_drain: Vec<OnDrain>,
    on_refresh: Option<OnRefresh>,
    drain: Option<Drain>,
    max_tasks: u32,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("held", &self.hand().held.keys()).finish_non_exhaustive()
    }
}

impl Shared {
    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ask(&self, body: Value, forget: Option<&str>) -> Result<Value, Error> {
        self.ask_hearing(body, forget, None)
    }

    pub(crate) fn ask_hearing(&self, body: Value, forget: Option<&str>, heard: Option<Heard>) -> Result<Value, Error> {
        match self.link.get() {
            Some(link) => link.ask(body, forget, heard),
            // Nothing is ever said behind an answer of nobody.
            None => Ok(self.alone.lock().unwrap_or_else(PoisonError::into_inner).ask(&body)),
        }
    }

    /// It wants to be told of drains from here on.
    fn want(&self) {
        if let Some(link) = self.link.get() {
            link.want();
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.hand().drain.is_some()
    }

    pub(crate) fn hold(&self, task: &str, fence: u64, signs: &Arc<Signs>) {
        self.hand().held.insert(task.into(), Arc::clone(signs));
        if let Some(link) = self.link.get() {
            link.hold(task, Some(fence));
        }
    }

    pub(crate) fn release(&self, task: &str) {
        if let Some(link) = self.link.get() {
            link.hold(task, None);
        }
        self.hand().held.remove(task);
        self.idle.notify_all();
    }

    /// Has its own thread: to read knowledge anew takes time, and beats go on meanwhile.
    fn refresh(self: &Arc<Self>, word: &Value) {
        let (shared, call) = (Arc::clone(self), self.hand().on_refresh.clone());
        let (refresh, scope) = (word["refresh"].clone(), word["scope"].as_str().unwrap_or_default().to_owned());
        thread::spawn(move || {
            let renewed = call.map_or_else(
                || Err("has nothing that renews what it knows: `Worker::on_refresh` was not called".to_owned()),
                |call| call(&scope).map_err(|error| error.to_string()),
            );
            let mut said = json!({ "t": "refreshed", "refresh": refresh, "ok": renewed.is_ok() });
            if let Err(why) = renewed {
                said["error"] = Value::from(why.chars().take(1000).collect::<String>());
            }
            if let Err(error) = shared.ask(said, None) {
                eprintln!("agentd-worker: a refresh cannot be answered: {error}");
            }
        });
    }

    fn run(self: &Arc<Self>, word: &Value) {
        let text = |name: &str| word[name].as_str().map(Into::into);
        let options = Options {
            kind: text("kind"),
            session: text("session"),
            key: text("key"),
            input: word.get("input").cloned(),
            traceparent: text("traceparent"),
        };
        let handler = {
            let hand = self.hand();
            let kind = options.kind.as_deref().unwrap_or_default();
            hand.handlers.get(kind).or_else(|| hand.handlers.get("")).cloned()
        };
        let task = match Task::take(self, word, options, Arc::default()) {
            Ok(task) => Arc::new(task),
            Err(error) => return eprintln!("agentd-worker: a task cannot be run: {error}"),
        };
        thread::spawn(move || {
            let worked = match &handler {
                Some(handler) => handler(&task),
                None => Err(Error::failed(format!("no handler for kind {:?}", task.options.kind))),
            };
            match task.end(worked) {
                Ok(_) | Err(Error::Drained(_) | Error::Cancelled(_)) => {}
                Err(error) => eprintln!("agentd-worker: task {}: {error}", task.id),
            }
        });
    }
}

impl Ear for Shared {
    fn hello(&self) -> Value {
        let hand = self.hand();
        json!({
            "t": "hello", "n": 0, "proto": "agentd/1", "pid": std::process::id(), "sdk": "rust/0.1.0",
            "caps": ["checkpoint", "drain", "kv", "refresh"],
            "max_tasks": if hand.handlers.is_empty() { 0 } else { hand.max_tasks },
        })
    }

    fn hear(&self, word: &Value) {
        let task = word["task"].as_str().unwrap_or_default();
        let held = self.hand().held.get(task).cloned();
        match (word["t"].as_str().unwrap_or_default(), held) {
            ("task.run", None) => {
                if let Some(me) = self.me.get().and_then(std::sync::Weak::upgrade) {
                    me.run(word);
                }
            }
            ("drain", _) => {
                let drain = Drain {
                    deadline_ms: word["deadline_ms"].as_u64().unwrap_or_default(),
                    reason: word["reason"].as_str().unwrap_or_default().into(),
                    to_release: word["to_release"].as_str().map(Into::into),
                };
                let told = {
                    let mut hand = self.hand();
                    hand.drain = Some(drain.clone());
                    hand.on_drain.clone()
                };
                told.iter().for_each(|call| call(&drain));
            }
            ("refresh", _) => {
                if let Some(me) = self.me.get().and_then(std::sync::Weak::upgrade) {
                    me.refresh(word);
                }
            }
            ("undrain", _) => self.hand().drain = None,
            ("ckpt.now", Some(signs)) => signs.checkpoint_wanted.store(true, Ordering::Relaxed),
            ("cancel", Some(signs)) => {
                let reason = word["reason"].as_str().unwrap_or("cancelled");
                signs.cancelled.get_or_init(|| reason.into());
            }
            // What a newer agentd says is skipped, as is what is said of tasks that ended meanwhile.
            (_, Some(_) | None) => {}
        }
    }
}

/// This process as agentd's worker.
#[derive(Clone, Debug)]
pub struct Worker {
    shared: Arc<Shared>,
}

impl Default for Worker {
    fn default() -> Self {
        Self::new()
    }
}

impl Worker {
    /// The worker that the environment describes; one that keeps nothing where there is no agentd.
    #[must_use]
    pub fn new() -> Self {
        let shared = Arc::new(Shared::default());
        shared.hand().max_tasks = 16;
        shared.me.get_or_init(|| Arc::downgrade(&shared));
        if let (Ok(path), Ok(token)) = (std::env::var("AGENTD_WORKER_SOCKET"), std::env::var("AGENTD_WORKER_TOKEN")) {
            match Link::start(path, token, Arc::clone(&shared) as Arc<dyn Ear>) {
                Ok(link) => drop(shared.link.set(link)),
                Err(error) => eprintln!("agentd-worker: going on without agentd: {error}"),
            }
        }
        Self { shared }
    }

    /// Whether agentd runs this process.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.shared.link.get().is_some()
    }

    /// Whether this worker is being replaced.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.want();
        self.shared.is_draining()
    }

    /// Says that this worker can serve.
    pub fn ready(&self) -> Result<(), Error> {
        self.shared.ask(json!({ "t": "ready" }), None).map(drop)
    }

    /// Runs `work` as a task, and gives its result. An error of its ends the task as an error.
    pub fn task(&self, options: Options, work: impl FnOnce(&Task) -> Result<Value, Error>) -> Result<Value, Error> {
        let task = self.begin(options)?;
        let worked = work(&task);
        task.end(worked)
    }

    pub(crate) fn begin(&self, options: Options) -> Result<Task, Error> {
        Task::begin(&self.shared, options)
    }

    /// Takes tasks of `kind`; of every other kind when it is empty. At most `max_tasks` at a time, 16 without it.
    pub fn on_task(&self, kind: &str, run: impl Fn(&Task) -> Result<Value, Error> + Send + Sync + 'static) {
        self.on_shared_task(kind, move |task| run(task));
    }

    pub(crate) fn on_shared_task(
        &self,
        kind: &str,
        run: impl Fn(&Arc<Task>) -> Result<Value, Error> + Send + Sync + 'static,
    ) {
        self.shared.hand().handlers.insert(kind.into(), Arc::new(run));
        if let Some(link) = self.shared.link.get() {
            link.redial();
        }
    }

    /// How many tasks it is given at a time; said before [`on_task`](Self::on_task).
    pub fn max_tasks(&self, max_tasks: u32) {
        self.shared.hand().max_tasks = max_tasks;
    }

    /// Calls `call` when agentd begins to replace this worker.
    pub fn on_drain(&self, call: impl Fn(&Drain) + Send + Sync + 'static) {
        self.shared.hand().on_drain.push(Arc::new(call));
        self.shared.want();
    }

    /// Calls `call` with the word for what has changed when agentd asks this worker to renew what it knows. An error
    /// of its is told as the reason why it cannot.
    pub fn on_refresh(&self, call: impl Fn(&str) -> Result<(), Error> + Send + Sync + 'static) {
        self.shared.hand().on_refresh = Some(Arc::new(call));
        self.shared.want();
    }

    /// Is ready, and runs what agentd gives until it is told to stop and nothing is in hand.
    pub fn serve(&self) -> Result<(), Error> {
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(Error::Start)?;
        self.ready()?;
        signals.forever().next();
        let hand = self.shared.hand();
        let done = self.shared.idle.wait_while(hand, |hand| !hand.held.is_empty());
        drop(done);
        Ok(())
    }

    /// A small durable store of the app's own.
    #[must_use]
    pub fn kv(&self, ns: &str) -> Kv {
        Kv { shared: Arc::clone(&self.shared), ns: ns.into() }
    }
}

/// A namespace of the app's store.
#[derive(Clone, Debug)]
pub struct Kv {
    shared: Arc<Shared>,
    ns: String,
}

impl Kv {
    /// Writes an item; durable when it returns.
    pub fn put(&self, key: &str, value: &Value) -> Result<(), Error> {
        let items = json!([{ "key": key, "json": value }]);
        self.shared.ask(json!({ "t": "kv.put", "ns": self.ns, "items": items }), None).map(drop)
    }

    /// Writes an item where there is none; whether its value is there now.
    pub fn put_if_absent(&self, key: &str, value: &Value) -> Result<bool, Error> {
        let items = json!([{ "key": key, "json": value, "if_absent": true }]);
        let answer = self.shared.ask(json!({ "t": "kv.put", "ns": self.ns, "items": items }), None)?;
        answer["put"][0].as_bool().ok_or(Error::Answer("put"))
    }

    /// Reads an item.
    pub fn get(&self, key: &str) -> Result<Option<Value>, Error> {
        let answer = self.shared.ask(json!({ "t": "kv.get", "ns": self.ns, "key": key }), None)?;
        Ok((answer["found"] == true).then(|| answer["json"].clone()))
    }

    /// The first items whose keys begin with `prefix`, in the order of their keys.
    pub fn scan(&self, prefix: &str) -> Result<Vec<(String, Value)>, Error> {
        let answer = self.shared.ask(json!({ "t": "kv.scan", "ns": self.ns, "prefix": prefix }), None)?;
        let items = answer["items"].as_array().ok_or(Error::Answer("items"))?;
        Ok(items.iter().map(|item| (item["key"].as_str().unwrap_or_default().into(), item["json"].clone())).collect())
    }

    /// Removes all items whose keys begin with `prefix`; how many.
    pub fn delete_all(&self, prefix: &str) -> Result<u64, Error> {
        let answer = self.shared.ask(json!({ "t": "kv.del", "ns": self.ns, "prefix": prefix }), None)?;
        answer["deleted"].as_u64().ok_or(Error::Answer("deleted"))
    }
}
