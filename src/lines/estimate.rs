//! `agentd estimate`: the drain-deadline estimator by itself, in lines, for scoring it from outside.
//!
//! ```text
//! reset                                     forget all observations and tasks; the configuration stays
//! config target=P min_grace=S max_grace=S default_grace=S      any of them, in any order
//! start ID KIND T [AGE0]                    a task begins at T, at the age AGE0 when it is resumed; KIND - is none
//! ckpt ID T                                 it reached a safe point
//! end ID T done|killed|crashed|handoff      only `done` ended by itself; the others are cut (censored)
//! query ID[,ID...] T                        reply: seconds within which all of them end
//! queryck ID[,ID...] T                      reply: seconds within which all end, or all are at a safe point
//! save PATH   load PATH                     reply: `ok BYTES`
//! ```
//! Times are seconds on one clock. Only `query`, `queryck`, `save` and `load` are answered, each by one line, and every
//! line that cannot be taken in by `error line N: ...`. A `start` of a task in flight begins it anew; `load` takes the
//! place of all observations and adds the tasks that were in flight at the save. Empty lines and `#` are passed over.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use agentd_core::grace::series::BytesError;
use agentd_core::grace::{AppGrace, Ended, InFlight, Run, SeriesKey};
use agentd_core::policy::{AppPolicy, GracePolicy};
use agentd_core::time::Moment;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Answers;

/// The version of a saved file. 1: JSON of [`Saved`], compressed with zstd.
const VERSION: u32 = 1;
/// A file that unpacks to more is no saved state.
const SAVED_MAX: usize = 64 << 20;
/// Times and ages beyond it (30,000 years) are no seconds.
const SECONDS_MAX: f64 = 1e12;

/// Why a line was not taken in.
#[derive(Debug, Error)]
enum LineError {
    #[error("{0:?} is no command: reset, config, start, ckpt, end, query, queryck, save or load")]
    Command(String),
    #[error("{command} needs {usage}")]
    Words { command: &'static str, usage: &'static str },
    #[error("{0:?} is not a number of seconds from 0 to 1e12")]
    Seconds(String),
    #[error("{0:?} is not done, killed, crashed or handoff")]
    Outcome(String),
    #[error("{0:?} is not target=, min_grace=, max_grace= or default_grace= with a number")]
    Setting(String),
    #[error("target must lie between 0 and 1, not {0}")]
    Target(f64),
    #[error("min_grace ({min} s) is over max_grace ({max} s)")]
    Bounds { min: f64, max: f64 },
    #[error("no task {0:?} is in flight")]
    Unknown(String),
    #[error("the line is over {} bytes", super::LINE_MAX)]
    TooLong,
    #[error("the line is not UTF-8")]
    Text,
    #[error("write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("unpack {path}: {source}")]
    Unpack { path: PathBuf, source: io::Error },
    #[error("read {path}: not a saved state: {source}")]
    Form { path: PathBuf, source: serde_json::Error },
    #[error("read {path}: its version is {version}, this agentd knows {VERSION}")]
    Version { path: PathBuf, version: u32 },
    #[error("read {path}: a series is not base64: {source}")]
    Base64 { path: PathBuf, source: base64::DecodeError },
    #[error("{path}: {source}")]
    Series { path: PathBuf, source: BytesError },
}

/// A task in flight.
struct Task {
    kind: Option<Rc<str>>,
    run: Run,
}

/// Everything between two lines.
struct Estimate {
    line: u64,
    policy: GracePolicy,
    grace: AppGrace,
    /// By name. Their kinds are kept once each.
    tasks: HashMap<Box<str>, Task>,
    kinds: HashMap<Box<str>, Rc<str>>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    series: Vec<SavedSeries>,
    tasks: Vec<SavedTask>,
}

#[derive(Serialize, Deserialize)]
struct SavedSeries {
    #[serde(flatten)]
    key: SeriesKey,
    data: String,
}

#[derive(Serialize, Deserialize)]
struct SavedTask {
    id: Box<str>,
    kind: Option<Box<str>>,
    run: Run,
}

/// Runs the program on stdin and stdout.
#[must_use]
pub fn run() -> ExitCode {
    super::serve(&mut Estimate::new())
}

impl Answers for Estimate {
    fn answer(&mut self, line: &[u8], reply: &mut Vec<u8>) {
        self.line += 1;
        let answer = std::str::from_utf8(line).map_err(|_| LineError::Text).and_then(|line| self.take(line));
        self.tell(answer, reply);
    }

    fn too_long(&mut self, reply: &mut Vec<u8>) {
        self.line += 1;
        self.tell(Err(LineError::TooLong), reply);
    }
}

/// What a line is answered with.
enum Reply {
    Nothing,
    Seconds(f64),
    Bytes(usize),
}

impl Estimate {
    fn new() -> Self {
        Self {
            line: 0,
            policy: AppPolicy::default().grace,
            grace: AppGrace::default(),
            tasks: HashMap::new(),
            kinds: HashMap::new(),
        }
    }

    fn tell(&self, answer: Result<Reply, LineError>, reply: &mut Vec<u8>) {
        let written = match answer {
            Ok(Reply::Nothing) => Ok(()),
            Ok(Reply::Seconds(seconds)) => writeln!(reply, "{seconds:.6}"),
            Ok(Reply::Bytes(bytes)) => writeln!(reply, "ok {bytes}"),
            Err(error) => writeln!(reply, "error line {}: {error}", self.line),
        };
        written.expect("a vector takes every write");
    }

    fn take(&mut self, line: &str) -> Result<Reply, LineError> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim_start();
        let mut words = rest.split_ascii_whitespace();
        match command {
            "start" => self.start(&mut words),
            "ckpt" => self.safe_point(&mut words),
            "end" => self.end(&mut words),
            "query" => self.query(&mut words, false),
            "queryck" => self.query(&mut words, true),
            "config" => self.configure(&mut words),
            "reset" => {
                (self.grace, self.tasks, self.kinds) = (AppGrace::default(), HashMap::new(), HashMap::new());
                Ok(Reply::Nothing)
            }
            "save" => self.save(path("save", rest)?),
            "load" => self.load(path("load", rest)?),
            "" => Ok(Reply::Nothing),
            comment if comment.starts_with('#') => Ok(Reply::Nothing),
            other => Err(LineError::Command(other.to_owned())),
        }
    }

    fn start<'a>(&mut self, words: &mut impl Iterator<Item = &'a str>) -> Result<Reply, LineError> {
        let wrong = LineError::Words { command: "start", usage: "ID KIND T [AGE0]" };
        let (Some(id), Some(kind), Some(at)) = (words.next(), words.next(), words.next()) else { return Err(wrong) };
        let age0 = words.next().map(seconds).transpose()?.unwrap_or(0.0);
        let at = moment(at)?;
        if words.next().is_some() {
            return Err(wrong);
        }
        let kind = (kind != "-").then(|| self.kind(kind));
        let run = self.grace.begin(kind.as_deref(), Duration::from_secs_f64(age0), at);
        self.tasks.insert(id.into(), Task { kind, run });
        Ok(Reply::Nothing)
    }

    fn kind(&mut self, name: &str) -> Rc<str> {
        if let Some(kind) = self.kinds.get(name) {
            return kind.clone();
        }
        let kind: Rc<str> = name.into();
        self.kinds.insert(name.into(), kind.clone());
        kind
    }

    fn safe_point<'a>(&mut self, words: &mut impl Iterator<Item = &'a str>) -> Result<Reply, LineError> {
        let (Some(id), Some(at), None) = (words.next(), words.next(), words.next()) else {
            return Err(LineError::Words { command: "ckpt", usage: "ID T" });
        };
        let at = moment(at)?;
        let task = self.tasks.get_mut(id).ok_or_else(|| LineError::Unknown(id.to_owned()))?;
        self.grace.on_safe_point(task.kind.as_deref(), &mut task.run, at);
        Ok(Reply::Nothing)
    }

    fn end<'a>(&mut self, words: &mut impl Iterator<Item = &'a str>) -> Result<Reply, LineError> {
        let (Some(id), Some(at), Some(outcome), None) = (words.next(), words.next(), words.next(), words.next()) else {
            return Err(LineError::Words { command: "end", usage: "ID T done|killed|crashed|handoff" });
        };
        let at = moment(at)?;
        let ended = match outcome {
            "done" => Ended::Done,
            "killed" => Ended::Killed,
            "crashed" => Ended::Crashed,
            // A yield checkpoints first, so nothing of the last gap is lost by counting the rest of it as cut.
            "handoff" => Ended::HandedOver,
            other => return Err(LineError::Outcome(other.to_owned())),
        };
        let task = self.tasks.remove(id).ok_or_else(|| LineError::Unknown(id.to_owned()))?;
        self.grace.on_end(task.kind.as_deref(), &task.run, at, ended);
        Ok(Reply::Nothing)
    }

    fn query<'a>(&mut self, words: &mut impl Iterator<Item = &'a str>, checkpoints: bool) -> Result<Reply, LineError> {
        let (Some(ids), Some(at), None) = (words.next(), words.next(), words.next()) else {
            let command = if checkpoints { "queryck" } else { "query" };
            return Err(LineError::Words { command, usage: "ID[,ID...] T" });
        };
        let at = moment(at)?;
        let in_flight = |id: &str| {
            let task = self.tasks.get(id).ok_or_else(|| LineError::Unknown(id.to_owned()))?;
            let since_safe = checkpoints.then(|| task.run.since_safe(at));
            Ok(InFlight { kind: task.kind.as_deref(), age: task.run.age(at), since_safe })
        };
        let tasks = ids.split(',').map(in_flight).collect::<Result<Vec<_>, LineError>>()?;
        Ok(Reply::Seconds(self.grace.query(&tasks, &self.policy).bound.as_secs_f64()))
    }

    fn configure<'a>(&mut self, words: &mut impl Iterator<Item = &'a str>) -> Result<Reply, LineError> {
        let mut policy = self.policy;
        let mut any = false;
        for word in words {
            let wrong = || LineError::Setting(word.to_owned());
            let (name, value) = word.split_once('=').ok_or_else(wrong)?;
            any = true;
            match name {
                "target" => {
                    policy.target = value.parse().map_err(|_| wrong())?;
                    if !(policy.target > 0.0 && policy.target < 1.0) {
                        return Err(LineError::Target(policy.target));
                    }
                }
                "min_grace" => policy.min = Duration::from_secs_f64(seconds(value)?),
                "max_grace" => policy.max = Duration::from_secs_f64(seconds(value)?),
                "default_grace" => policy.default = Duration::from_secs_f64(seconds(value)?),
                _ => return Err(wrong()),
            }
        }
        if !any {
            let usage = "target=, min_grace=, max_grace= or default_grace=";
            return Err(LineError::Words { command: "config", usage });
        }
        if policy.min > policy.max {
            return Err(LineError::Bounds { min: policy.min.as_secs_f64(), max: policy.max.as_secs_f64() });
        }
        self.policy = policy;
        Ok(Reply::Nothing)
    }

    fn save(&self, path: &Path) -> Result<Reply, LineError> {
        let series = self.grace.all().into_iter();
        let series = series.map(|(key, bytes)| SavedSeries { key, data: BASE64.encode(bytes) }).collect();
        let tasks = self.tasks.iter().map(|(id, task)| SavedTask {
            id: id.clone(),
            kind: task.kind.as_deref().map(Into::into),
            run: task.run,
        });
        let saved = Saved { version: VERSION, series, tasks: tasks.collect() };
        let fail = |source| LineError::Write { path: path.to_owned(), source };
        let text = serde_json::to_vec(&saved).map_err(|error| fail(error.into()))?;
        let packed = zstd::bulk::compress(&text, 0).map_err(fail)?;
        std::fs::write(path, &packed).map_err(fail)?;
        Ok(Reply::Bytes(packed.len()))
    }

    fn load(&mut self, path: &Path) -> Result<Reply, LineError> {
        let packed = std::fs::read(path).map_err(|source| LineError::Read { path: path.to_owned(), source })?;
        let text = zstd::bulk::decompress(&packed, SAVED_MAX)
            .map_err(|source| LineError::Unpack { path: path.to_owned(), source })?;
        let saved: Saved =
            serde_json::from_slice(&text).map_err(|source| LineError::Form { path: path.to_owned(), source })?;
        if saved.version != VERSION {
            return Err(LineError::Version { path: path.to_owned(), version: saved.version });
        }
        let mut grace = AppGrace::default();
        for series in saved.series {
            let bytes = BASE64.decode(series.data);
            let bytes = bytes.map_err(|source| LineError::Base64 { path: path.to_owned(), source })?;
            grace.load(&series.key, &bytes).map_err(|source| LineError::Series { path: path.to_owned(), source })?;
        }
        self.grace = grace;
        for task in saved.tasks {
            let kind = task.kind.map(|kind| self.kind(&kind));
            self.tasks.insert(task.id, Task { kind, run: task.run });
        }
        Ok(Reply::Bytes(packed.len()))
    }
}

/// A path may hold spaces: it is all that follows the command.
fn path<'a>(command: &'static str, rest: &'a str) -> Result<&'a Path, LineError> {
    if rest.is_empty() { Err(LineError::Words { command, usage: "PATH" }) } else { Ok(Path::new(rest)) }
}

fn seconds(word: &str) -> Result<f64, LineError> {
    let seconds = word.parse().ok().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| LineError::Seconds(word.to_owned()))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds() is positive and small enough")]
fn moment(word: &str) -> Result<Moment, LineError> {
    seconds(word).map(|seconds| Moment::from_micros((seconds * 1e6).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(estimate: &mut Estimate, lines: &str) -> String {
        let mut reply = Vec::new();
        for line in lines.lines() {
            estimate.answer(line.as_bytes(), &mut reply);
        }
        String::from_utf8(reply).expect("replies are text")
    }

    #[test]
    fn with_nothing_observed_the_answer_is_the_default() {
        let mut estimate = Estimate::new();
        let answer = ask(&mut estimate, "config default_grace=120 max_grace=3600\nstart a - 10\nquery a 10");
        let seconds: f64 = answer.trim().parse().expect("a number");
        assert!((120.0..121.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_malformed_line_gets_an_error_with_its_number_and_nothing_changes() {
        let mut estimate = Estimate::new();
        ask(&mut estimate, "start a - 1");
        for (line, why) in [
            ("frobnicate", "is no command"),
            ("start a", "start needs ID KIND T [AGE0]"),
            ("start a - 1 2 3", "start needs"),
            ("start a - soon", "not a number of seconds"),
            ("start a - -1", "not a number of seconds"),
            ("start a - nan", "not a number of seconds"),
            ("start a - 1e300", "not a number of seconds"),
            ("ckpt b 2", "no task \"b\" is in flight"),
            ("end a 2 finished", "is not done, killed, crashed or handoff"),
            ("end a 2", "end needs"),
            ("query a,,b 3", "no task \"\" is in flight"),
            ("query", "query needs ID[,ID...] T"),
            ("config", "config needs"),
            ("config target=1", "between 0 and 1"),
            ("config grace=1", "is not target="),
            ("config min_grace=9 max_grace=3", "min_grace (9 s) is over max_grace (3 s)"),
            ("save", "save needs PATH"),
            ("load /nonexistent/state", "read /nonexistent/state"),
        ] {
            let reply = ask(&mut estimate, line);
            assert!(reply.starts_with("error line ") && reply.contains(why), "{line}: {reply}");
            assert_eq!(reply.lines().count(), 1, "{reply}");
        }
        assert_eq!(estimate.policy, AppPolicy::default().grace);
        assert!(!ask(&mut estimate, "query a 3").starts_with("error"), "the task is still there");
        let mut reply = Vec::new();
        estimate.answer(b"query \xff 3", &mut reply);
        assert!(reply.starts_with(b"error line "));
    }

    #[test]
    fn a_loaded_state_answers_as_the_saved_one_did() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a state");
        let mut first = Estimate::new();
        for task in 0..500_u32 {
            let (kind, outcome) = if task % 3 == 0 { ("chat", "done") } else { ("-", "killed") };
            let lasted = f64::from(task * 7919 % 997) / 10.0;
            ask(&mut first, &format!("start t{task} {kind} {task}\nckpt t{task} {}", f64::from(task) + lasted / 2.0));
            ask(&mut first, &format!("end t{task} {} {outcome}", f64::from(task) + lasted));
        }
        ask(&mut first, "start x chat 600\nstart y - 610 30\nstart z new 611\nckpt x 620");
        let questions = "query x,y,z 640\nqueryck x,y 640\nquery z 641.5";
        let saved = ask(&mut first, &format!("save {}", path.display()));
        let before = ask(&mut first, questions);

        let mut second = Estimate::new();
        assert_eq!(ask(&mut second, &format!("load {}", path.display())), saved);
        assert_eq!(ask(&mut second, questions), before);
        assert_eq!(before.lines().filter(|answer| answer.parse::<f64>().is_ok()).count(), 3, "{before}");
    }

    #[test]
    fn a_damaged_state_is_refused_and_what_was_known_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        let mut estimate = Estimate::new();
        ask(&mut estimate, "start a - 0\nend a 5 done\nstart b - 6");
        let before = ask(&mut estimate, "query b 7");
        ask(&mut estimate, &format!("save {}", path.display()));
        let whole = std::fs::read(&path).expect("reads");
        std::fs::write(&path, &whole[..whole.len() / 2]).expect("writes");
        let reply = ask(&mut estimate, &format!("load {}", path.display()));
        assert!(reply.starts_with("error line ") && reply.contains("unpack"), "{reply}");
        assert_eq!(ask(&mut estimate, "query b 7"), before);
    }
}
