//! Reading logs back for a client, beside the loop: it is disk I/O, and a client may read slowly.

use agentd_core::id::{AppName, Launch, WorkerId};
use agentd_protocol::control::{ErrorKind, ErrorObject, LogLine, LogStream, LogsEnd, LogsParams, Notice, Reply};
use jiff::Timestamp;
use regex::{Regex, RegexBuilder};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;
use tokio::sync::watch;

use super::Dispatcher;
use crate::causes::in_full;
use crate::control::ReplySink;
use crate::logs::follow::{Follower, PollAgain, Start};
use crate::logs::layout::sources;
use crate::logs::layout::{Source, StreamKind};
use crate::logs::line::Line;

/// Bytes that a compiled pattern may take.
const PATTERN_MAX: usize = 1 << 20;

/// Most lines that are shown of the past at once.
const LINES_MAX: u32 = 100_000;

/// What a log request needs once the loop has looked things up.
struct Reading {
    sources: Vec<Source>,
    start: Start,
    follow: bool,
    wanted: Wanted,
    /// Which worker a launch was, as far as it is still known.
    workers: BTreeMap<Launch, WorkerId>,
    /// Where else lines are.
    elsewhere: Vec<String>,
}

impl Dispatcher {
    pub(super) fn logs(&mut self, params: &LogsParams, reply: ReplySink) {
        match self.reading(params) {
            Ok(reading) => {
                let grew = self.logs.grew();
                tokio::spawn(read(reading, grew, reply));
            }
            Err(error) => reply.finish(Err(error)),
        }
    }

    fn reading(&self, params: &LogsParams) -> Result<Reading, ErrorObject> {
        let apps: Vec<AppName> = if params.names.is_empty() {
            self.fleet.apps().map(|app| app.head.name.clone()).collect()
        } else {
            self.named(&params.names)?
        };
        let wanted = |kind: StreamKind| match params.stream {
            None | Some(LogStream::Unknown) => true,
            Some(LogStream::Stdout) => kind == StreamKind::Out,
            Some(LogStream::Stderr) => kind == StreamKind::Err,
        };
        let mut found = Vec::new();
        for app in &apps {
            let printed = sources(&self.home.logs, app)
                .map_err(|error| ErrorObject::new(ErrorKind::Internal, format!("failed to {}", in_full(&error))))?;
            found.extend(printed);
            // A worker that has not printed yet has no file; a follower waits for it.
            let slots = self.fleet.app(app).map(|app| app.weights.len().max(app.workers.len()).max(1)).unwrap_or(1);
            for slot in (0..u32::try_from(slots).unwrap_or(u32::MAX)).map(agentd_core::id::Slot) {
                found.extend(StreamKind::BOTH.map(|kind| Source::new(&self.home.logs, app, slot, kind)));
            }
        }
        found.retain(|source| wanted(source.stream));
        found.sort();
        found.dedup();
        let lines = params.lines.min(LINES_MAX) as usize;
        let wanted = Wanted::of(params, lines)?;
        let start = match params.since {
            Some(since) => Start::Since { time_us: micros(since) },
            // How far back the last lines lie that are wanted is known only when all were looked at.
            None if wanted.is_choosy() => Start::Since { time_us: 0 },
            None => Start::Last(lines),
        };
        let mut workers = BTreeMap::new();
        for worker in self.fleet.apps().flat_map(|app| app.workers.values()) {
            let past = worker.last_exit.as_ref().map(|last| last.launch);
            workers.extend(worker.launch().into_iter().chain(past).map(|launch| (launch, worker.id.clone())));
        }
        let elsewhere: Vec<_> = apps.iter().filter_map(|app| self.elsewhere(app)).collect();
        // Where nothing will ever come nobody is left waiting.
        let follow = params.follow && elsewhere.len() < apps.len();
        Ok(Reading { sources: found, start, follow, wanted, workers, elsewhere })
    }
}

async fn read(mut reading: Reading, mut grew: watch::Receiver<u64>, reply: ReplySink) {
    let mut shown = 0;
    let elsewhere = std::mem::take(&mut reading.elsewhere);
    let answer = match stream(reading, &mut grew, &reply, &mut shown).await {
        Ok(()) => Ok(Reply::LogsEnd(LogsEnd { lines: shown, skipped: 0, elsewhere })),
        Err(why) => Err(ErrorObject::new(ErrorKind::Internal, format!("failed to {why}"))),
    };
    reply.finish(answer);
}

async fn stream(
    reading: Reading,
    grew: &mut watch::Receiver<u64>,
    reply: &ReplySink,
    shown: &mut u64,
) -> Result<(), String> {
    let Reading { sources, start, follow, mut wanted, workers, elsewhere: _ } = reading;
    let opened = tokio::task::spawn_blocking(move || Follower::start(&sources, start)).await;
    let (lines, mut follower) = opened.map_err(|error| error.to_string())?.map_err(|error| in_full(&error))?;
    if !send(wanted.pick(lines), &workers, reply, shown).await {
        return Ok(());
    }
    if follow {
        reply.has_no_end();
    }
    loop {
        let (back, wanted_back, batch) = tokio::task::spawn_blocking(move || {
            let batch = follower.poll(Instant::now()).map(|mut batch| {
                batch.lines = wanted.pick(batch.lines);
                batch
            });
            (follower, wanted, batch)
        })
        .await
        .map_err(|error| error.to_string())?;
        (follower, wanted) = (back, wanted_back);
        let batch = batch.map_err(|error| in_full(&error))?;
        if !send(batch.lines, &workers, reply, shown).await {
            return Ok(());
        }
        match batch.again {
            PollAgain::Now => {}
            PollAgain::At(_) | PollAgain::OnGrowth if !follow => {
                let mut rest = wanted.pick(follower.finish());
                rest.splice(..0, wanted.held_back());
                send(rest, &workers, reply, shown).await;
                return Ok(());
            }
            // Caught up: what was held back to find the last of it is shown, and from now on each as it comes.
            PollAgain::At(_) | PollAgain::OnGrowth if wanted.holds_back() => {
                if !send(wanted.held_back(), &workers, reply, shown).await {
                    return Ok(());
                }
            }
            PollAgain::At(at) => drop(tokio::time::timeout_at(at.into(), grew.changed()).await),
            // The log thread is gone only at the daemon's end.
            PollAgain::OnGrowth => {
                if grew.changed().await.is_err() {
                    return Ok(());
                }
            }
        }
        if reply.is_gone() {
            return Ok(());
        }
    }
}

/// Which lines a client wants to see.
struct Wanted {
    /// Only those before, in µs since 1970.
    until_us: Option<u64>,
    /// Only those that it is found in.
    pattern: Option<Regex>,
    last: Last,
}

/// Whether all lines are shown, or the last ones.
///
/// ```text
///   Of ── all were looked at ──► All
/// ```
enum Last {
    /// Each as it comes.
    All,
    /// So many, which are held back until all were looked at.
    Of(usize, VecDeque<Line>),
}

impl Wanted {
    fn of(params: &LogsParams, lines: usize) -> Result<Self, ErrorObject> {
        let compile = |pattern: &String| {
            RegexBuilder::new(pattern).size_limit(PATTERN_MAX).build().map_err(|error| {
                let why = format!("the pattern {pattern:?} cannot be looked for: {error}");
                ErrorObject::new(ErrorKind::Usage, why)
                    .with_help("it is a regular expression; `\\` before a sign means the sign")
            })
        };
        let pattern = params.grep.as_ref().map(compile).transpose()?;
        let mut wanted = Self { until_us: params.until.map(micros), pattern, last: Last::All };
        if params.last || params.since.is_none() && wanted.is_choosy() {
            wanted.last = Last::Of(lines, VecDeque::new());
        }
        Ok(wanted)
    }

    /// Whether there are lines that it does not want, wherever they stand.
    fn is_choosy(&self) -> bool {
        self.until_us.is_some() || self.pattern.is_some()
    }

    /// Those of some lines that are to be shown now.
    fn pick(&mut self, mut lines: Vec<Line>) -> Vec<Line> {
        lines.retain(|line| {
            self.until_us.is_none_or(|until| line.time_us < until)
                && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&line.text))
        });
        match &mut self.last {
            Last::All => lines,
            Last::Of(count, held) => {
                held.extend(lines);
                held.drain(..held.len().saturating_sub(*count));
                Vec::new()
            }
        }
    }

    fn holds_back(&self) -> bool {
        matches!(self.last, Last::Of(..))
    }

    /// What was held back; nothing is from now on.
    fn held_back(&mut self) -> Vec<Line> {
        match std::mem::replace(&mut self.last, Last::All) {
            Last::All => Vec::new(),
            Last::Of(_, held) => held.into(),
        }
    }
}

fn micros(at: Timestamp) -> u64 {
    u64::try_from(at.as_microsecond()).unwrap_or(0)
}

/// Sends lines; false when the client is gone.
async fn send(lines: Vec<Line>, workers: &BTreeMap<Launch, WorkerId>, reply: &ReplySink, shown: &mut u64) -> bool {
    for line in lines {
        *shown += 1;
        if reply.notify_when_room(Notice::Log(wire_line(line, workers))).await.is_err() {
            return false;
        }
    }
    true
}

pub(super) fn wire_line(line: Line, workers: &BTreeMap<Launch, WorkerId>) -> LogLine {
    let worker = line.launch.and_then(|launch| workers.get(&launch));
    LogLine {
        app: line.app.to_string(),
        // A worker that is gone is still known by its slot.
        worker: Some(worker.map_or_else(|| format!("{}.{}", line.app, line.slot), ToString::to_string)),
        stream: match line.stream {
            StreamKind::Out => LogStream::Stdout,
            StreamKind::Err => LogStream::Stderr,
        },
        at: i64::try_from(line.time_us).ok().and_then(|us| Timestamp::from_microsecond(us).ok()),
        text: line.text,
    }
}
