//! What is told of a run: what it saw when all went well, and all that is needed to see why when not.

use std::fmt;

/// What a run saw, so that a test can tell that all there is to see is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Steps of the fleet.
    pub steps: u64,
    /// Requests that were admitted and began something.
    pub operations: u64,
    /// Of these, ended as asked.
    pub done: u64,
    /// Taken back.
    pub rolled_back: u64,
    /// Ended because another request took their place.
    pub aborted: u64,
    /// Failed.
    pub failed: u64,
    /// Requests that were denied.
    pub denied: u64,
    /// Supervisors that took over from a dead one.
    pub restarts: u64,
    /// Trees that were killed.
    pub kills: u64,
    /// Workers that were taken back into service.
    pub undrained: u64,
    /// Stages of blue-green and canary deployments that were reached.
    pub stages: u64,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.operations += other.operations;
        self.done += other.done;
        self.rolled_back += other.rolled_back;
        self.aborted += other.aborted;
        self.failed += other.failed;
        self.denied += other.denied;
        self.restarts += other.restarts;
        self.kills += other.kills;
        self.undrained += other.undrained;
        self.stages += other.stages;
    }
}

/// Which of the simulators a run is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Workers, deployments and connections.
    Fleet,
    /// Tasks, checkpoints, effects and leases.
    Tasks,
}

impl World {
    /// As it is named on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Tasks => "tasks",
        }
    }
}

/// An invariant that did not hold, and all that is needed to see why.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The run.
    pub seed: u64,
    /// Which of the simulators.
    pub world: World,
    /// Which invariant.
    pub invariant: &'static str,
    /// What was found instead.
    pub detail: String,
    /// The last steps before it, oldest first.
    pub recent: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: invariant \"{}\" does not hold: {}", self.seed, self.invariant, self.detail)?;
        writeln!(f, "the last {} steps:", self.recent.len())?;
        for record in &self.recent {
            writeln!(f, "{record}")?;
        }
        let (world, seed) = (self.world.word(), self.seed);
        write!(f, "replay: cargo run -p agentd-testkit --bin simulate -- --world {world} --seed {seed} --trace")
    }
}

impl std::error::Error for Failure {}

/// The name of an invariant that does not hold, and what was found.
#[derive(Clone, Debug)]
pub struct Broken {
    pub(super) invariant: &'static str,
    pub(super) detail: String,
}

impl Broken {
    pub(super) fn new(invariant: &'static str, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}
