//! Reading logs back for a client, beside the loop: it is disk I/O, and a client may read slowly.

use agentd_core::id::{AppName, Launch, WorkerId};
use agentd_protocol::control::{ErrorKind, ErrorObject, LogLine, LogStream, LogsEnd, LogsParams, Notice, Reply};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Instant;
use tokio::sync::watch;

use super::Dispatcher;
use super::commit::in_full;
use crate::control::ReplySink;
use crate::logs::follow::{Follower, PollAgain, Start};
use crate::logs::layout::sources;
use crate::logs::layout::{Source, StreamKind};
use crate::logs::line::Line;

/// Most lines that are shown of the past at once.
const LINES_MAX: u32 = 100_000;

/// What a log request needs once the loop has looked things up.
struct Reading {
    sources: Vec<Source>,
    start: Start,
    follow: bool,
    /// Which worker a launch was, as far as it is still known.
    workers: BTreeMap<Launch, WorkerId>,
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
        let start = match params.since {
            Some(since) => Start::Since { time_us: u64::try_from(since.as_microsecond()).unwrap_or(0) },
            None => Start::Last(params.lines.min(LINES_MAX) as usize),
        };
        let mut workers = BTreeMap::new();
        for worker in self.fleet.apps().flat_map(|app| app.workers.values()) {
            let past = worker.last_exit.as_ref().map(|last| last.launch);
            workers.extend(worker.launch().into_iter().chain(past).map(|launch| (launch, worker.id.clone())));
        }
        Ok(Reading { sources: found, start, follow: params.follow, workers })
    }
}

async fn read(reading: Reading, mut grew: watch::Receiver<u64>, reply: ReplySink) {
    let mut shown = 0;
    let answer = match stream(reading, &mut grew, &reply, &mut shown).await {
        Ok(()) => Ok(Reply::LogsEnd(LogsEnd { lines: shown, skipped: 0 })),
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
    let Reading { sources, start, follow, workers } = reading;
    let opened = tokio::task::spawn_blocking(move || Follower::start(&sources, start)).await;
    let (lines, mut follower) = opened.map_err(|error| error.to_string())?.map_err(|error| in_full(&error))?;
    if !send(lines, &workers, reply, shown).await {
        return Ok(());
    }
    loop {
        let (back, batch) = tokio::task::spawn_blocking(move || {
            let batch = follower.poll(Instant::now());
            (follower, batch)
        })
        .await
        .map_err(|error| error.to_string())?;
        follower = back;
        let batch = batch.map_err(|error| in_full(&error))?;
        if !send(batch.lines, &workers, reply, shown).await {
            return Ok(());
        }
        match batch.again {
            PollAgain::Now => {}
            PollAgain::At(_) | PollAgain::OnGrowth if !follow => {
                send(follower.finish(), &workers, reply, shown).await;
                return Ok(());
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
