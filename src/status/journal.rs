//! The events, numbered and kept for a while.
//!
//! Owns: the order of events, the last [`RECENT`] of them, and handing each to everybody who watches. Older ones are read
//! from the disk ([`super::tail`]) by those who ask for them. It belongs to the dispatcher, and recording never waits: a
//! watcher that falls [`BEHIND_MAX`] events behind loses its place, and is told ([`Lagged`]). An event is encoded once,
//! whoever watches.

use std::collections::VecDeque;
use std::sync::Arc;

use agentd_protocol::Timestamp;
use agentd_protocol::events::{Event, EventKind};
use thiserror::Error;
use tokio::sync::broadcast;

use super::tail::{EventTail, Older, Remembered};

/// How many events can be asked for again, at least.
pub const KEPT: usize = 4096;

/// How many of them are in memory.
///
/// Enough to begin the file anew with after one that could not be written ([`super::tail`]); whoever asks for more reads
/// it from there.
pub const RECENT: usize = 64;

/// How far a watcher may fall behind.
pub const BEHIND_MAX: usize = 1024;

#[derive(Clone, Debug)]
struct Kept {
    seq: u64,
    line: Arc<str>,
}

/// The events, in the order in which they happened.
#[derive(Debug)]
pub struct EventJournal {
    kept: VecDeque<Kept>,
    seq: u64,
    /// Where they are written down; none in tests alone.
    tail: Option<EventTail>,
    live: broadcast::Sender<Arc<str>>,
}

/// Events for one watcher: those it asked for again, then each as it happens.
#[derive(Debug)]
pub struct Subscription {
    again: Again,
    live: broadcast::Receiver<Arc<str>>,
}

/// The events up to number `newest` from number `next` on, as far as kept, each gap announced in its place.
#[derive(Debug)]
struct Again {
    older: Option<Older>,
    recent: VecDeque<Kept>,
    /// It follows a gap that was announced.
    held: Option<Kept>,
    next: u64,
    newest: u64,
    now: Timestamp,
}

/// A watcher fell behind and lost its place.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("keep up with events: {missed} were missed")]
pub struct Lagged {
    /// How many events it will never see.
    pub missed: u64,
}

impl EventJournal {
    /// An empty journal whose first event is number `after + 1`.
    #[must_use]
    pub fn after(after: u64) -> Self {
        Self { kept: VecDeque::new(), seq: after, tail: None, live: broadcast::channel(BEHIND_MAX).0 }
    }

    /// Goes on where an earlier daemon's journal ended. To be called before anything is recorded. Numbers up to `reserved`
    /// may have been given out by it: where what it left is not whole, the next event has a greater one.
    pub fn resume(&mut self, tail: EventTail, remembered: Remembered, reserved: u64) {
        let Remembered { events, whole } = remembered;
        let newest = events.last().map_or(0, |(seq, _)| *seq);
        self.seq = if whole { newest } else { newest.max(reserved) };
        self.kept = events.into_iter().map(|(seq, line)| Kept { seq, line: line.into() }).collect();
        self.tail = Some(tail);
    }

    /// Number of the newest event.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Numbers what happened, keeps it, and hands it to everybody who watches. Never waits.
    pub fn record(&mut self, at: Timestamp, app: Option<&str>, worker: Option<&str>, event: EventKind) -> Event {
        self.seq += 1;
        let event = Event { seq: self.seq, at, app: app.map(str::to_owned), worker: worker.map(str::to_owned), event };
        let line = encode(&event);
        if self.kept.len() == RECENT {
            self.kept.pop_front();
        }
        self.kept.push_back(Kept { seq: self.seq, line: Arc::clone(&line) });
        if let Some(tail) = &mut self.tail {
            tail.append(self.seq, &line, self.kept.iter().map(|kept| &*kept.line));
        }
        // Nobody watches: that is no error.
        let _ = self.live.send(line);
        event
    }

    /// Every event after number `since`, as far as kept, then each as it happens. What is not kept is announced by an
    /// `events_lost` at `now` in its place. A `since` beyond the newest event comes from an earlier life of the journal:
    /// everything that is kept follows.
    #[must_use]
    pub fn subscribe(&self, since: u64, now: Timestamp) -> Subscription {
        let since = if since > self.seq { 0 } else { since };
        let first = self.kept.front().map_or(self.seq + 1, |kept| kept.seq);
        let again = Again {
            older: self.tail.as_ref().filter(|_| since + 1 < first).map(|tail| tail.older(since, first)),
            recent: self.kept.iter().filter(|kept| kept.seq > since).cloned().collect(),
            held: None,
            next: since + 1,
            newest: self.seq,
            now,
        };
        Subscription { again, live: self.live.subscribe() }
    }
}

impl Iterator for Again {
    type Item = Arc<str>;

    fn next(&mut self) -> Option<Self::Item> {
        let older = |older: &mut Option<Older>| {
            let (seq, line) = older.as_mut()?.next()?;
            Some(Kept { seq, line: line.into() })
        };
        let kept = self.held.take().or_else(|| older(&mut self.older)).or_else(|| self.recent.pop_front());
        let upto = kept.as_ref().map_or(self.newest, |kept| kept.seq.saturating_sub(1));
        if upto >= self.next {
            let from = std::mem::replace(&mut self.next, upto + 1);
            self.held = kept;
            let event = EventKind::EventsLost { from, to: upto };
            return Some(encode(&Event { seq: upto, at: self.now, app: None, worker: None, event }));
        }
        let kept = kept?;
        self.next = kept.seq + 1;
        Some(kept.line)
    }
}

#[cfg(test)]
impl EventJournal {
    /// What can be written to the file from now on is nothing.
    pub(super) fn break_tail(&mut self) {
        self.tail.as_mut().expect("a journal with a file").close_for_a_test();
    }
}

impl Subscription {
    /// What is there already.
    #[cfg(test)]
    pub(super) fn into_backlog(self) -> Vec<Arc<str>> {
        self.again.collect()
    }

    /// The next event as a line without its end; none when the journal is gone.
    ///
    /// # Errors
    /// When events were missed. The watcher has to begin anew.
    pub async fn next(&mut self) -> Result<Option<Arc<str>>, Lagged> {
        if let Some(line) = self.again.next() {
            return Ok(Some(line));
        }
        match self.live.recv().await {
            Ok(line) => Ok(Some(line)),
            Err(broadcast::error::RecvError::Closed) => Ok(None),
            Err(broadcast::error::RecvError::Lagged(missed)) => Err(Lagged { missed }),
        }
    }

    /// The next event, if it has happened already.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_at_once(&mut self) -> Result<Option<Arc<str>>, Lagged> {
        if let Some(line) = self.again.next() {
            return Ok(Some(line));
        }
        match self.live.try_recv() {
            Ok(line) => Ok(Some(line)),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => Ok(None),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Err(Lagged { missed }),
        }
    }
}

fn encode(event: &Event) -> Arc<str> {
    serde_json::to_string(event).expect("events have text keys and no failing serializer").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(journal: &mut EventJournal, count: usize) {
        for _ in 0..count {
            journal.record(Timestamp::UNIX_EPOCH, Some("web"), None, EventKind::AppDeleted);
        }
    }

    /// What is there without waiting.
    fn drain(subscription: &mut Subscription) -> Vec<Event> {
        let mut lines: Vec<Arc<str>> = subscription.again.by_ref().collect();
        while let Ok(line) = subscription.live.try_recv() {
            lines.push(line);
        }
        lines.iter().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }

    fn numbers(events: &[Event]) -> Vec<u64> {
        events.iter().map(|e| e.seq).collect()
    }

    #[test]
    fn who_resumes_gets_every_later_event_once_and_in_order() {
        let mut journal = EventJournal::after(0);
        record(&mut journal, 5);
        let mut subscription = journal.subscribe(2, Timestamp::UNIX_EPOCH);
        record(&mut journal, 2);
        assert_eq!(numbers(&drain(&mut subscription)), [3, 4, 5, 6, 7]);
    }

    #[test]
    fn what_is_no_longer_kept_is_announced() {
        let mut journal = EventJournal::after(0);
        record(&mut journal, RECENT + 10);
        let events = drain(&mut journal.subscribe(3, Timestamp::UNIX_EPOCH));
        assert_eq!(events[0].event, EventKind::EventsLost { from: 4, to: 10 });
        assert_eq!(events[0].seq, 10);
        assert_eq!(events[1].seq, 11);
        assert_eq!(events.len(), RECENT + 1);
    }

    #[test]
    fn a_new_journal_that_goes_on_from_an_old_number_knows_that_it_has_none_of_the_old_events() {
        let journal = EventJournal::after(100);
        assert!(drain(&mut journal.subscribe(100, Timestamp::UNIX_EPOCH)).is_empty());
        let events = drain(&mut journal.subscribe(90, Timestamp::UNIX_EPOCH));
        assert_eq!(events.iter().map(|e| &e.event).collect::<Vec<_>>(), [&EventKind::EventsLost { from: 91, to: 100 }]);
    }

    #[test]
    fn a_number_of_an_earlier_life_begins_with_all_that_is_kept() {
        let mut journal = EventJournal::after(0);
        record(&mut journal, 3);
        assert_eq!(numbers(&drain(&mut journal.subscribe(500, Timestamp::UNIX_EPOCH))), [1, 2, 3]);
    }

    #[tokio::test]
    async fn who_falls_behind_is_told_and_holds_nobody_up() {
        let mut journal = EventJournal::after(0);
        let mut slow = journal.subscribe(0, Timestamp::UNIX_EPOCH);
        record(&mut journal, BEHIND_MAX + 7);
        assert_eq!(slow.next().await, Err(Lagged { missed: 7 }));
    }
}
