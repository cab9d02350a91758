//! What the ledger thread does: take in all that came, decide, commit once, then answer.
//!
//! ```text
//!        ┌────────────────────────────────── a round ───────────────────────────────────┐
//!  wait ─► commands, due moments, lines ─► ledger (core) ─► rows ─► COMMIT ─► answers, words, facts ─► wait
//!                                             │ refused: an answer, no row    │ failed: ROLLBACK, the ledger as stored,
//!                                             ▼                               ▼ every request of the round is refused
//! ```
//! While a commit waits for the disk, what workers send waits in their sockets, and all of it is the next round: group
//! commit without a timer. A round without rows costs no commit.
//!
//! **Fair.** Of each connection a round takes at most [`READ_MAX`] bytes or [`LINES_AT_ONCE`] lines; whoever sends more
//! is read more slowly, and nobody else notices.
//!
//! What can go wrong here is epoll: without it nothing can be waited for, and the thread ends with an error in the log.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use agentd_core::id::Launch;
use agentd_core::task::{Fact, Ledger, Order, Outcome};
use agentd_core::time::Tick;
use agentd_protocol::control::{ErrorKind, ErrorObject, Reply};
use agentd_protocol::worker::Code;
use camino::Utf8PathBuf;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;

use super::askers::AskedBy;
use super::db::{Db, DbError};
use super::link::{LARGE, LARGE_WITHIN, Link, Read, Standing, too_long};
use super::listener::Listener;
use super::measure::Measures;
use super::orders::Launched;
use super::panels::Panels;
use super::renewing::Renewing;
use super::retention::Sweeper;
use super::showing::Showing;
use super::thread::{Asker, Command, Governed, Report, TasksError};
use super::token::Secret;
use crate::causes::in_full;
use crate::process::sys;

/// Bytes read from one connection in a round.
const READ_MAX: usize = 256 * 1024;
/// Lines taken from one connection in a round.
const LINES_AT_ONCE: usize = 512;
/// Answers of one connection in a round, in bytes, after which its other lines wait for the next.
const STAGED_MAX: usize = 4 * 1024 * 1024;
/// Connections that may read a line beyond [`LARGE`] to its end at the same time.
const LARGE_AT_ONCE: usize = 4;
/// Connections at a time.
const LINKS_MAX: usize = 8192;
/// Pause before orders that could not be committed are given again.
const OWED_AGAIN: Duration = Duration::from_secs(1);

/// Names in epoll that no connection has.
const WAKE: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;

/// Where reports go.
pub(super) type Reporter = Box<dyn FnMut(Report) + Send>;

/// What came of the present round so far.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Why it cannot be committed any more.
    pub(super) failed: Option<String>,
    /// What the fleet is to know once it is committed.
    pub(super) facts: Vec<Fact>,
    /// Answers to people.
    pub(super) answers: Vec<(Asker, Result<Reply, ErrorObject>)>,
    /// Process starts that ended in it.
    pub(super) gone: Vec<Launch>,
    /// Orders in it, to be given again when it fails.
    pub(super) orders: Vec<Order>,
    /// Connections that asked or are told something.
    pub(super) touched: BTreeSet<u64>,
}

/// Everything that the thread owns.
pub(super) struct Desk {
    pub(super) db: Db,
    pub(super) ledger: Ledger,
    pub(super) measures: Measures,
    pub(super) panels: Panels,
    pub(super) askers: BTreeMap<agentd_core::id::AppName, AskedBy>,
    pub(super) governed: BTreeMap<agentd_core::id::AppName, Governed>,
    pub(super) launches: HashMap<Launch, Launched>,
    pub(super) links: BTreeMap<u64, Link>,
    pub(super) secret: Secret,
    pub(super) batch: Batch,
    /// Who was told to renew what it knows.
    pub(super) renewing: HashMap<Launch, Renewing>,
    pub(super) sweeper: Sweeper,
    /// Launches whose gauge is out of date.
    pub(super) unshown: BTreeSet<Launch>,
    pub(super) listener: Listener,
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    inbox: mpsc::Receiver<Command>,
    report: Reporter,
    next_link: u64,
    /// Connections that have bytes, or lines left from the last round.
    hot: BTreeSet<u64>,
    /// Connections that read a large line, and those that wait for their turn to.
    large: Vec<u64>,
    large_waiting: VecDeque<u64>,
    /// Orders whose rows could not be committed, and when they are given again.
    owed: Vec<Order>,
    owed_at: Option<Instant>,
    showing: Showing,
    trouble: Option<String>,
    chance: u64,
    scratch: Vec<u8>,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Continue,
    Stop,
}

impl Desk {
    pub(super) fn new(
        db: Db,
        secret: Secret,
        socket: Utf8PathBuf,
        wake: Arc<OwnedFd>,
        inbox: mpsc::Receiver<Command>,
        report: Reporter,
    ) -> Result<Self, TasksError> {
        let made = epoll::create(epoll::CreateFlags::CLOEXEC).and_then(|epoll| {
            epoll::add(&epoll, &*wake, EventData::new_u64(WAKE), EventFlags::IN)?;
            Ok(epoll)
        });
        let epoll = made.map_err(|errno| TasksError::Epoll(errno.into()))?;
        let now = sys::boottime();
        let ledger = Ledger::restore(now, db.boot()?, db.open_tasks()?);
        let measures = Measures::restore(&db)?;
        let panels = Panels::restore(&db)?;
        let askers = db.askers()?;
        let sweeper = Sweeper::new(&db)?;
        let listener = Listener::bind(&socket).map_err(|source| TasksError::Listen { path: socket.clone(), source })?;
        Ok(Self {
            db,
            ledger,
            measures,
            panels,
            askers,
            governed: BTreeMap::new(),
            launches: HashMap::new(),
            links: BTreeMap::new(),
            secret,
            batch: Batch::default(),
            renewing: HashMap::new(),
            sweeper,
            unshown: BTreeSet::new(),
            listener,
            epoll,
            wake,
            inbox,
            report,
            next_link: 0,
            hot: BTreeSet::new(),
            large: Vec::new(),
            large_waiting: VecDeque::new(),
            owed: Vec::new(),
            owed_at: None,
            showing: Showing::default(),
            trouble: None,
            chance: now.as_micros() ^ u64::from(std::process::id()).rotate_left(40),
            scratch: vec![0; READ_MAX],
        })
    }

    /// The thread's life. Returns after `Stop`, or when the handle is gone.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(256);
        loop {
            match self.wait(&mut events) {
                Ok(()) | Err(Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(error = %errno, "the ledger thread ends: epoll failed");
                    return;
                }
            }
            if self.round(&events) == Next::Stop {
                return;
            }
        }
    }

    fn wait(&self, events: &mut Vec<Event>) -> Result<(), Errno> {
        let timeout = if self.hot.is_empty() { self.until_next() } else { Some(Duration::ZERO) };
        let timeout = timeout.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        events.clear();
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref())?;
        Ok(())
    }

    /// How long nothing is to be done if nothing comes; none for ever.
    fn until_next(&self) -> Option<Duration> {
        let now = Instant::now();
        let moments = self.ledger.next_wake().map(|at| at.since(sys::boottime()));
        let links = self.links.values().filter_map(Link::deadline);
        let own = [self.owed_at, self.showing.next(), self.sweeper.due(), self.measures.due()];
        let instants = links.chain(own.into_iter().flatten());
        let instants = instants.min().map(|at| at.saturating_duration_since(now));
        moments.into_iter().chain(instants).min()
    }

    fn round(&mut self, events: &[Event]) -> Next {
        let mut next = Next::Continue;
        let mut gone = Vec::new();
        for event in events {
            let flags = event.flags;
            match event.data.u64() {
                WAKE => self.clear_wake(),
                LISTENER => self.accept(),
                id => {
                    if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                        self.hot.insert(id);
                    }
                    if flags.intersects(EventFlags::HUP | EventFlags::ERR) && self.is_leaving(id) {
                        gone.push(id);
                    }
                }
            }
        }
        let tick = self.tick();
        while let Ok(command) = self.inbox.try_recv() {
            if self.obey(tick, command) == Next::Stop {
                next = Next::Stop;
            }
        }
        self.give_owed(tick);
        if self.ledger.next_wake().is_some_and(|at| at <= tick.now) {
            let mut out = Outcome::default();
            self.ledger.wake(tick, &mut out);
            self.take_up(tick, out);
        }
        for id in std::mem::take(&mut self.hot) {
            if self.serve(id, tick) == Read::Gone {
                gone.push(id);
            }
        }
        self.sweep();
        if next == Next::Stop {
            self.measures.hurry();
        }
        self.settle(tick);
        self.sweep_blobs();
        self.end_links(gone);
        self.show();
        next
    }

    fn clear_wake(&self) {
        let mut count = [0; 8];
        // Cleared before the inbox is read, so that a command sent meanwhile wakes again.
        let _ = rustix::io::read(&*self.wake, &mut count);
    }

    /// Now, with chance for jitter and ids.
    pub(super) fn tick(&mut self) -> Tick {
        // SplitMix64 (Steele, Lea and Flood, 2014): chance for jitter and for ids, not for secrets.
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Tick { now: sys::boottime(), entropy: z ^ (z >> 31) }
    }

    /// From now on workers may connect.
    pub(super) fn open_doors(&self) {
        let added = epoll::add(&self.epoll, &self.listener, EventData::new_u64(LISTENER), EventFlags::IN);
        if let Err(errno) = added
            && errno != Errno::EXIST
        {
            tracing::error!(%errno, "workers cannot connect: the worker socket cannot be watched");
        }
    }

    fn accept(&mut self) {
        while let Some((stream, peer)) = self.listener.accept() {
            if self.links.len() >= LINKS_MAX {
                tracing::warn!(pid = peer.pid, "a worker's connection is refused: there are {LINKS_MAX} already");
                continue;
            }
            let id = self.next_link;
            self.next_link += 1;
            match epoll::add(&self.epoll, &stream, EventData::new_u64(id), EventFlags::IN) {
                Ok(()) => drop(self.links.insert(id, Link::new(stream, peer, Instant::now()))),
                Err(errno) => tracing::warn!(%errno, "a worker's connection cannot be watched"),
            }
        }
    }

    /// Reads from a connection and takes its lines.
    fn serve(&mut self, id: u64, tick: Tick) -> Read {
        let Some(link) = self.links.get_mut(&id) else { return Read::Some };
        if matches!(link.standing, Standing::Leaving { .. }) {
            return link.drop_bytes(&mut self.scratch);
        }
        if link.is_full() {
            return Read::Some;
        }
        if !link.has_lines() && link.read(&mut self.scratch) == Read::Gone {
            return Read::Gone;
        }
        let mut decoder = link.take_decoder();
        let mut left = LINES_AT_ONCE;
        let mut lines = false;
        loop {
            let full = self
                .links
                .get(&id)
                .is_none_or(|link| link.staged() > STAGED_MAX || matches!(link.standing, Standing::Leaving { .. }));
            if left == 0 || full {
                lines = true;
                break;
            }
            match decoder.next_line() {
                Ok(Some(line)) => self.line(id, line, tick),
                Ok(None) => break,
                Err(error) => {
                    self.turn_away(id, None, Code::TooLarge, &too_long(error));
                    break;
                }
            }
            left -= 1;
        }
        let Some(link) = self.links.get_mut(&id) else { return Read::Some };
        if matches!(link.standing, Standing::Leaving { .. }) {
            return Read::Some;
        }
        link.put_decoder(decoder, lines);
        if lines {
            self.hot.insert(id);
        }
        self.weigh(id);
        Read::Some
    }

    /// Sees to it that only a few read a large line at a time.
    fn weigh(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let large = link.partial() > LARGE;
        match &mut link.standing {
            Standing::Fresh { .. } if large => {
                self.turn_away(id, None, Code::TooLarge, "a hello is not that long");
            }
            Standing::Known { large_until, .. } => match (large, large_until.is_some()) {
                (true, false) if self.large.len() < LARGE_AT_ONCE => {
                    *large_until = Some(Instant::now() + LARGE_WITHIN);
                    self.large.push(id);
                }
                (true, false) => {
                    if !self.large_waiting.contains(&id) {
                        self.large_waiting.push_back(id);
                    }
                }
                (false, true) => {
                    *large_until = None;
                    self.large.retain(|other| *other != id);
                    self.next_large();
                }
                (true, true) | (false, false) => {}
            },
            Standing::Fresh { .. } | Standing::Leaving { .. } => {}
        }
        self.watch(id);
    }

    /// Whoever waits longest to read a large line may.
    fn next_large(&mut self) {
        while self.large.len() < LARGE_AT_ONCE {
            let Some(id) = self.large_waiting.pop_front() else { return };
            let Some(link) = self.links.get_mut(&id) else { continue };
            if let Standing::Known { large_until, .. } = &mut link.standing {
                *large_until = Some(Instant::now() + LARGE_WITHIN);
                self.large.push(id);
                self.watch(id);
            }
        }
    }

    /// Listens for what matters of a connection now.
    fn watch(&mut self, id: u64) {
        let waits = self.large_waiting.contains(&id);
        let Some(link) = self.links.get_mut(&id) else { return };
        let wanted = link.interest(waits);
        if link.watched != wanted {
            link.watched = wanted;
            if let Err(errno) = epoll::modify(&self.epoll, &*link, EventData::new_u64(id), wanted) {
                tracing::warn!(%errno, "a worker's connection cannot be watched");
            }
        }
    }

    /// Refuses, and reads nothing more from the connection.
    pub(super) fn turn_away(&mut self, id: u64, n: Option<u64>, code: Code, why: &str) {
        self.batch.touched.insert(id);
        if let Some(link) = self.links.get_mut(&id) {
            link.refuse(n, code, why);
        }
        self.let_go(id);
    }

    fn is_leaving(&self, id: u64) -> bool {
        self.links.get(&id).is_some_and(|link| matches!(link.standing, Standing::Leaving { .. }))
    }

    /// Nothing more is read from a connection.
    fn let_go(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let launch = link.launch();
        link.leave(Instant::now());
        self.large.retain(|other| *other != id);
        self.large_waiting.retain(|other| *other != id);
        self.next_large();
        if let Some(launch) = launch {
            self.refresh_link_closed(launch, id);
            self.link_closed(launch, id);
        }
    }

    /// Commits the round, then lets everybody know.
    fn settle(&mut self, tick: Tick) {
        let failed = self.batch.failed.take().or_else(|| {
            let saved = self.measures.save(&self.db).and_then(|()| self.panels.save(&self.db));
            let saved = saved.and_then(|()| self.db.commit());
            saved.err().map(|error| in_full(&error))
        });
        let mut batch = std::mem::take(&mut self.batch);
        match failed {
            None => {
                self.mended();
                for fact in std::mem::take(&mut batch.facts) {
                    (self.report)(Report::Fact(fact));
                }
                self.panels.committed();
                self.measures.committed();
                self.tell_verdicts(false);
                for (asker, answer) in batch.answers.drain(..) {
                    asker.answer(answer);
                }
                for id in &batch.touched {
                    if let Some(link) = self.links.get_mut(id) {
                        link.committed();
                    }
                }
            }
            Some(why) => {
                for (asker, _) in batch.answers.drain(..) {
                    let why = format!("tasks are not being saved: {why}");
                    asker.answer(Err(ErrorObject::new(ErrorKind::Internal, why)));
                }
                self.undo(tick, std::mem::take(&mut batch.orders), &batch.touched, &why);
            }
        }
        for launch in batch.gone {
            (self.report)(Report::Gone(launch));
        }
        for id in batch.touched {
            self.flush(id);
        }
        let behind: Vec<u64> =
            self.links.iter().filter(|(_, link)| link.watched.contains(EventFlags::OUT)).map(|(&id, _)| id).collect();
        for id in behind {
            self.flush(id);
        }
    }

    /// The round could not be committed: nothing of it is true.
    fn undo(&mut self, tick: Tick, orders: Vec<Order>, touched: &BTreeSet<u64>, why: &str) {
        self.db.rollback();
        self.measures.roll_back();
        if self.trouble.is_none() {
            tracing::error!(error = why, "tasks are not being saved: what workers ask to be written is refused");
            (self.report)(Report::Trouble(why.to_owned()));
        }
        self.trouble = Some(why.to_owned());
        match self.db.open_tasks() {
            Ok(tasks) => self.ledger.roll_back(tick.now, tasks),
            // The next batch fails as well then, and comes here again.
            Err(error) => tracing::error!(error = in_full(&error), "open tasks could not be read back"),
        }
        for id in touched {
            if let Some(link) = self.links.get_mut(id) {
                link.failed(why);
            }
        }
        if let Err(error) = self.panels.roll_back(&self.db) {
            tracing::error!(error = in_full(&error), "the gates' evidence could not be read back");
        }
        self.owed.extend(orders);
        self.owed_at = (!self.owed.is_empty()).then(|| Instant::now() + OWED_AGAIN);
    }

    fn mended(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!("tasks are being saved again");
            (self.report)(Report::Mended);
        }
    }

    /// Gives the orders again whose rows could not be written.
    fn give_owed(&mut self, tick: Tick) {
        if self.owed_at.is_some_and(|at| at <= Instant::now()) {
            self.owed_at = None;
            for order in std::mem::take(&mut self.owed) {
                self.order(tick, order);
            }
        }
    }

    fn flush(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let alive = link.flush();
        if !alive || link.is_behind() {
            if link.is_behind() {
                tracing::warn!(launch = ?link.launch(), "a worker does not read what it is sent; its connection is dropped");
            }
            self.close(id);
        } else {
            if matches!(link.standing, Standing::Leaving { .. }) && !link.has_out() {
                link.say_goodbye();
            }
            // Lines that were read before it was behind: nothing else wakes for them.
            if link.has_lines() && !link.is_full() {
                self.hot.insert(id);
            }
            self.watch(id);
        }
    }

    /// Connections whose other side is gone, or whose time is up.
    fn end_links(&mut self, gone: Vec<u64>) {
        for id in gone {
            self.close(id);
        }
        let now = Instant::now();
        let late: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.deadline().is_some_and(|until| until <= now))
            .map(|(&id, _)| id)
            .collect();
        for id in late {
            self.close(id);
        }
    }

    fn close(&mut self, id: u64) {
        self.let_go(id);
        // Its descriptor goes with it, and epoll forgets it.
        self.links.remove(&id);
        self.hot.remove(&id);
    }

    pub(super) fn report(&mut self, report: Report) {
        (self.report)(report);
    }

    /// Tells of verdicts that changed; with `figures`, also of those that did not.
    fn tell_verdicts(&mut self, figures: bool) {
        for judged in self.panels.news(figures) {
            (self.report)(Report::Judged(Box::new(judged)));
        }
    }

    /// Brings the figures up to date that others read, not more often than they are looked at.
    fn show(&mut self) {
        let news = !self.unshown.is_empty() || self.panels.has_news();
        if self.showing.is_due(news, Instant::now()) {
            self.show_gauges();
            self.tell_verdicts(true);
        }
    }

    /// Somebody's write failed: the round is lost.
    pub(super) fn fail(&mut self, error: &DbError) {
        if self.batch.failed.is_none() {
            self.batch.failed = Some(in_full(error));
        }
    }
}
