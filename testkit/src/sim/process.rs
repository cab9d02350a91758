//! Simulated processes: what each is going to do, drawn when it is asked for.
//!
//! A plan is fixed at the start, so a process behaves the same whatever core decides. Nothing here knows of core's
//! states; a process sees what a real one sees: connections, the stop signal, the kill.

use std::time::Duration;

use agentd_core::event::{Exit, InFlight};
use agentd_core::id::{Lane, WorkerId};
use agentd_core::time::Moment;

use super::random::Random;

/// What a process is going to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// From the request to the process, or to the news that there is none.
    pub spawn_in: Duration,
    /// Why there is none; `permanent` when trying again cannot help.
    pub spawn_fails: Option<bool>,
    /// From the spawn to the moment when it accepts connections; none when never.
    pub ready_in: Option<Duration>,
    /// Proofs fail visibly before it is ready.
    pub refuted: bool,
    /// When, after the spawn, it ends without being asked.
    pub falls: Option<(Duration, Exit)>,
    /// From the stop signal to its end; none when it ignores the signal.
    pub ends_in: Option<Duration>,
    /// The first kill does not reach all of it.
    pub survives_a_kill: bool,
    /// Pause between two `WATCHDOG=1`.
    pub beats: Duration,
    /// When, after the spawn, it stops beating.
    pub silent_after: Option<Duration>,
    /// How many of 100 liveness probes fail.
    pub probe_fails: u64,
    /// Things that it says of itself, at a time after the spawn.
    pub says: Vec<(Duration, Saying)>,
}

/// What a process may say over its notify socket.
#[derive(Clone, Copy, Debug)]
pub enum Saying {
    /// `STOPPING=1`, soon followed by its end.
    Stopping,
    /// `EXTEND_TIMEOUT_USEC`.
    Extend(Duration),
    /// It drains itself.
    DrainsItself,
    /// `WATCHDOG=trigger`.
    Hung,
    /// `WATCHDOG_USEC`.
    Watchdog(Duration),
    /// It was seen to use too much memory.
    Outgrown,
    /// A task begins, and ends after this time; none when it never tells of its end.
    Task(Option<Duration>),
}

/// Where a simulated process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Asked for; there is none yet.
    Asked,
    /// It runs.
    Alive,
    /// It ended, and its supervisor has not been told yet.
    Gone,
}

/// A simulated process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Whose.
    pub worker: WorkerId,
    /// The socket that it accepts from.
    pub lane: Option<Lane>,
    /// What it is going to do.
    pub plan: Plan,
    /// Where it stands.
    pub life: Life,
    /// When it was spawned.
    pub since: Moment,
    /// It takes connections.
    pub accepts: bool,
    /// Connections with work on them.
    pub busy: u32,
    /// Connections kept alive between two requests.
    pub idle: u32,
    /// When it was last told to end.
    pub told: Option<Moment>,
    /// How often its tree was killed.
    pub kills: u32,
    /// What was last reported of it, while it is watched.
    pub watch: Watch,
}

/// Whether the shell watches a draining process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// No.
    Off,
    /// Yes; what it was last seen to have.
    On(Option<InFlight>),
}

impl Plan {
    /// A process that does everything right, for the time when faults are over.
    pub fn calm(random: &mut Random) -> Self {
        Self {
            spawn_in: random.millis(0, 5),
            spawn_fails: None,
            ready_in: Some(random.millis(5, 400)),
            refuted: false,
            falls: None,
            ends_in: Some(random.millis(0, 200)),
            survives_a_kill: false,
            beats: Duration::from_millis(700),
            silent_after: None,
            probe_fails: 0,
            says: Vec::new(),
        }
    }

    /// A process that does anything.
    pub fn any(random: &mut Random) -> Self {
        let falls = match random.between(0, 99) {
            0..=19 => Some(random.millis(0, 3_000)),
            20..=29 => Some(random.millis(1_000, 40_000)),
            _ => None,
        };
        let exit = random.pick(&[Exit::Code(0), Exit::Code(0), Exit::Code(1), Exit::Signal(11), Exit::Unknown]);
        let ready_in = match random.between(0, 99) {
            0..=9 => None,
            10..=29 => Some(random.millis(500, 9_000)),
            _ => Some(random.millis(1, 800)),
        };
        Self {
            spawn_in: if random.chance(90) { random.millis(0, 10) } else { random.millis(10, 3_000) },
            spawn_fails: random.chance(6).then(|| random.chance(30)),
            ready_in,
            refuted: random.chance(30),
            falls: falls.map(|after| (after, exit)),
            ends_in: random.chance(85).then(|| random.millis(0, 2_500)),
            survives_a_kill: random.chance(10),
            beats: random.millis(300, 1_200),
            silent_after: random.chance(15).then(|| random.millis(500, 20_000)),
            probe_fails: if random.chance(30) { random.between(5, 100) } else { 0 },
            says: Self::any_sayings(random),
        }
    }

    fn any_sayings(random: &mut Random) -> Vec<(Duration, Saying)> {
        let count = if random.chance(60) { 0 } else { random.between(1, 4) };
        (0..count)
            .map(|_| {
                let saying = match random.between(0, 11) {
                    0 => Saying::Stopping,
                    1 => Saying::Extend(random.millis(100, 20_000)),
                    2 => Saying::DrainsItself,
                    3 => Saying::Hung,
                    4 => Saying::Watchdog(random.millis(0, 5_000)),
                    5 => Saying::Outgrown,
                    _ => Saying::Task(random.chance(80).then(|| random.millis(10, 8_000))),
                };
                (random.millis(0, 15_000), saying)
            })
            .collect()
    }
}

impl Process {
    /// A process that was asked for.
    #[must_use]
    pub fn asked(worker: WorkerId, lane: Option<Lane>, plan: Plan, now: Moment) -> Self {
        Self {
            worker,
            lane,
            plan,
            life: Life::Asked,
            since: now,
            accepts: false,
            busy: 0,
            idle: 0,
            told: None,
            kills: 0,
            watch: Watch::Off,
        }
    }

    /// Whether it would take a connection from its lane now.
    #[must_use]
    pub fn takes(&self) -> bool {
        self.life == Life::Alive && self.accepts
    }
}
