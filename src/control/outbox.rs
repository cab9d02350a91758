//! The bounded way out to one client.
//!
//! Owns: the lines that wait for a client to read them, and their bound. Putting one in never waits, so a client that
//! does not read costs the dispatcher nothing: when more than [`BUDGET`] bytes wait, it is given up.
//! Who reads a log back for a client is not the dispatcher and may wait for room instead. It leaves most of the bound to those
//! who may not, so that an answer finds its place behind any amount of lines, and a client that reads slowly is served whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc};

/// A client for whom this many bytes wait gets nothing more. One line may go beyond it.
pub(super) const BUDGET: usize = 4 * 1024 * 1024;

/// Who may wait does so while this many bytes wait.
const ROOM: usize = BUDGET / 4;

/// Lines are written together up to this many bytes. The kernel takes so much whole or not at all, so that a connection that
/// ends in between leaves no line cut.
const AT_ONCE: usize = 16 * 1024;

/// What a queued line costs beside its bytes.
const OVERHEAD: usize = 64;

/// The client does not read, or is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// Puts lines in.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    lines: mpsc::UnboundedSender<String>,
    shared: Arc<Shared>,
}

/// Takes lines out.
#[derive(Debug)]
pub(super) struct Outgoing {
    lines: mpsc::UnboundedReceiver<String>,
    shared: Arc<Shared>,
}

/// Lines that are written together.
#[derive(Debug)]
pub(super) struct Batch {
    /// All of them, each with its end.
    pub(super) text: String,
    /// What they count for while they wait.
    cost: usize,
}

/// Told by either end when a client is given up; shared apart from the ends, so that waiting borrows neither.
#[derive(Debug)]
pub(super) struct Shared {
    waiting: AtomicUsize,
    given_up: AtomicBool,
    reads_back: AtomicBool,
    endless: AtomicBool,
    /// Of the lines that are being written the client has some and not all.
    within: AtomicBool,
    over_budget: Notify,
    room: Notify,
}

pub(super) fn outbox() -> (Outbox, Outgoing) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        waiting: AtomicUsize::new(0),
        given_up: AtomicBool::new(false),
        reads_back: AtomicBool::new(false),
        endless: AtomicBool::new(false),
        within: AtomicBool::new(false),
        over_budget: Notify::new(),
        room: Notify::new(),
    });
    (Outbox { lines: sender, shared: Arc::clone(&shared) }, Outgoing { lines: receiver, shared })
}

impl Outbox {
    /// Queues a line, or gives the client up.
    pub(super) fn put(&self, line: String) -> Result<(), Closed> {
        if self.shared.waiting() >= BUDGET {
            self.give_up();
            return Err(Closed);
        }
        self.push(line)
    }

    /// Nothing more is written to the client, and its connection ends.
    pub(super) fn give_up(&self) {
        self.shared.given_up.store(true, Ordering::Relaxed);
        self.shared.over_budget.notify_one();
    }

    /// What the client awaits has no end: nobody waits for it.
    pub(super) fn is_endless_now(&self) {
        self.shared.endless.store(true, Ordering::Relaxed);
        self.shared.room.notify_waiters();
    }

    /// Queues a line when there is room for it. From the first on, the client counts as one that reads back.
    pub(super) async fn put_when_room(&self, line: String) -> Result<(), Closed> {
        self.shared.reads_back.store(true, Ordering::Relaxed);
        loop {
            // Made before the look, so that room made in between is not missed.
            let room = self.shared.room.notified();
            if self.is_closed() {
                return Err(Closed);
            }
            if self.shared.waiting() < ROOM {
                return self.push(line);
            }
            room.await;
        }
    }

    /// How many other ends there are: calls that await their answer, where the connection's own end asks.
    pub(super) fn pending(&self) -> usize {
        self.lines.strong_count().saturating_sub(1)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lines.is_closed() || self.shared.given_up.load(Ordering::Relaxed)
    }

    fn push(&self, line: String) -> Result<(), Closed> {
        if self.is_closed() {
            return Err(Closed);
        }
        self.shared.waiting.fetch_add(line.len() + OVERHEAD, Ordering::Relaxed);
        self.lines.send(line).map_err(|_| Closed)
    }
}

impl Outgoing {
    /// The next line, and those that wait behind it as far as [`AT_ONCE`] goes; none when nobody can put one in any more.
    pub(super) async fn next(&mut self) -> Option<Batch> {
        let mut text = self.lines.recv().await?;
        let mut cost = text.len() + OVERHEAD;
        text.push('\n');
        while text.len() < AT_ONCE
            && let Ok(line) = self.lines.try_recv()
        {
            cost += line.len() + OVERHEAD;
            text += &line;
            text.push('\n');
        }
        Some(Batch { text, cost })
    }

    /// Lines were written, and cost nothing any more.
    pub(super) fn written(&self, batch: &Batch) {
        self.shared.waiting.fetch_sub(batch.cost, Ordering::Relaxed);
        self.shared.within.store(false, Ordering::Relaxed);
        self.shared.room.notify_waiters();
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.lines.close();
        self.shared.room.notify_waiters();
    }
}

impl Shared {
    /// Ends when the client took something, or there may be another reason to look again.
    pub(super) fn written(&self) -> Notified<'_> {
        self.room.notified()
    }

    /// The client took some of what is being written.
    pub(super) fn has_begun(&self) {
        self.within.store(true, Ordering::Relaxed);
        self.room.notify_waiters();
    }

    /// Whether lines wait of which the client has none, so that its connection can end without a line cut in two.
    pub(super) fn is_between_lines(&self) -> bool {
        !self.is_empty() && !self.within.load(Ordering::Relaxed)
    }

    /// Whether every line was written.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// Whether the client was told something by one who waits for it.
    pub(super) fn reads_back(&self) -> bool {
        self.reads_back.load(Ordering::Relaxed)
    }

    pub(super) fn is_endless(&self) -> bool {
        self.endless.load(Ordering::Relaxed)
    }

    /// Ends when the client was given up.
    pub(super) async fn given_up(&self) {
        self.over_budget.notified().await;
    }

    /// Bytes that wait to be written.
    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_is_given_up_at_the_budget() {
        let (outbox, outgoing) = outbox();
        let shared = outgoing.shared();
        let line = "x".repeat(BUDGET / 4);
        let taken = (0..100).take_while(|_| outbox.put(line.clone()).is_ok()).count();
        assert_eq!(taken, 4, "bounded, whatever was sent");
        tokio::time::timeout(std::time::Duration::from_secs(1), shared.given_up()).await.expect("told so");
        assert!(outbox.is_closed());
    }

    #[tokio::test]
    async fn who_may_wait_goes_on_when_lines_were_written() {
        let (outbox, mut outgoing) = outbox();
        outbox.put("x".repeat(BUDGET)).expect("there was room");
        let waiter = tokio::spawn(async move { outbox.put_when_room("y".to_owned()).await });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished(), "it waits");
        let first = outgoing.next().await.expect("the first line");
        outgoing.written(&first);
        assert_eq!(waiter.await.expect("no panic"), Ok(()));
        assert_eq!(outgoing.next().await.expect("the next").text, "y\n");
    }

    #[tokio::test]
    async fn an_answer_finds_its_place_behind_whoever_waits_for_room() {
        let (outbox, mut outgoing) = outbox();
        let filling = outbox.clone();
        let filler = tokio::spawn(async move { while filling.put_when_room("x".repeat(1000)).await.is_ok() {} });
        tokio::task::yield_now().await;
        assert!(outgoing.shared.waiting() >= ROOM, "it fills the room and waits");
        assert_eq!(outbox.put("answer".to_owned()), Ok(()));
        assert!(!outbox.is_closed());
        loop {
            let batch = outgoing.next().await.expect("there is more");
            if batch.text.contains("answer\n") {
                break;
            }
            outgoing.written(&batch);
        }
        drop(outgoing);
        filler.await.expect("no panic");
    }

    #[tokio::test]
    async fn short_lines_are_written_together_and_count_until_they_are() {
        let (outbox, mut outgoing) = outbox();
        let line = "x".repeat(AT_ONCE / 4);
        (0..6).for_each(|_| outbox.put(line.clone()).expect("there is room"));
        let batch = outgoing.next().await.expect("what waits");
        assert_eq!(batch.text, format!("{line}\n").repeat(4), "whole lines, in order, not many more bytes than that");
        let waiting = outgoing.shared.waiting();
        outgoing.written(&batch);
        assert_eq!(waiting - outgoing.shared.waiting(), 4 * (line.len() + OVERHEAD));
        let rest = outgoing.next().await.expect("the rest");
        outgoing.written(&rest);
        assert!(outgoing.shared.is_empty());
        drop(outbox);
        assert!(outgoing.next().await.is_none());
    }

    #[tokio::test]
    async fn who_waits_for_room_is_woken_when_the_client_goes() {
        let (outbox, outgoing) = outbox();
        outbox.put("x".repeat(BUDGET)).expect("there was room");
        let waiter = tokio::spawn(async move { outbox.put_when_room("y".to_owned()).await });
        tokio::task::yield_now().await;
        drop(outgoing);
        assert_eq!(waiter.await.expect("no panic"), Err(Closed));
    }
}
