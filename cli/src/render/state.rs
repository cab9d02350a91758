//! How states look: a symbol and a colour each, so that they read with colours and without.

use agentd_protocol::control::{EffectState, TaskState};
use agentd_protocol::status::{AppState, DeploymentState, Strategy, WorkerState};
use anstyle::{AnsiColor, Style};

use super::table::Cell;

/// Good news.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Something is on its way.
pub(crate) const BUSY: Style = AnsiColor::Cyan.on_default();
/// Somebody should look.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// Something is broken.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Of little interest.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// A heading.
pub(crate) const STRONG: Style = Style::new().bold();

/// A state's symbol, word and colour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// Tells the state without colour, at a glance.
    pub(crate) symbol: char,
    /// The state's name on the wire.
    pub(crate) word: &'static str,
    /// The state's colour.
    pub(crate) style: Style,
}

impl Mark {
    pub(super) const fn new(symbol: char, word: &'static str, style: Style) -> Self {
        Self { symbol, word, style }
    }

    /// Symbol and word as a cell.
    pub(crate) fn cell(self) -> Cell {
        Cell::styled(format!("{} {}", self.symbol, self.word), self.style)
    }

    /// Symbol and word as styled text.
    pub(crate) fn text(self) -> String {
        let Self { symbol, word, style } = self;
        format!("{style}{symbol} {word}{style:#}")
    }
}

/// How a task's state looks.
pub(crate) const fn task(state: TaskState) -> Mark {
    match state {
        TaskState::Running => Mark::new('●', "running", GOOD),
        TaskState::Waiting => Mark::new('◐', "waiting", BUSY),
        TaskState::Parked => Mark::new('▲', "parked", WARN),
        TaskState::Ended => Mark::new('○', "ended", FAINT),
        TaskState::Unknown => Mark::new('?', "unknown", WARN),
    }
}

/// How an effect's state looks.
pub(crate) const fn effect(state: EffectState) -> Mark {
    match state {
        EffectState::Open => Mark::new('◐', "open", BUSY),
        EffectState::Indeterminate => Mark::new('▲', "indeterminate", WARN),
        EffectState::Done => Mark::new('●', "done", GOOD),
        EffectState::Failed => Mark::new('✗', "failed", BAD),
        EffectState::Skipped => Mark::new('○', "skipped", FAINT),
        EffectState::Unknown => Mark::new('?', "unknown", WARN),
    }
}

/// How an app's state looks.
pub(crate) const fn app(state: AppState) -> Mark {
    match state {
        AppState::Running => Mark::new('●', "running", GOOD),
        AppState::Starting => Mark::new('◐', "starting", BUSY),
        AppState::Degraded => Mark::new('▲', "degraded", WARN),
        AppState::Deploying => Mark::new('↻', "deploying", BUSY),
        AppState::Stopped => Mark::new('○', "stopped", FAINT),
        AppState::Failed => Mark::new('✗', "failed", BAD),
        AppState::Unknown => Mark::new('?', "unknown", WARN),
    }
}

/// How a worker's state looks.
pub(crate) const fn worker(state: WorkerState) -> Mark {
    match state {
        WorkerState::Starting => Mark::new('◐', "starting", BUSY),
        WorkerState::Ready => Mark::new('●', "ready", GOOD),
        WorkerState::Draining => Mark::new('◒', "draining", BUSY),
        WorkerState::Stopping => Mark::new('◌', "stopping", FAINT),
        WorkerState::Backoff => Mark::new('▲', "backoff", WARN),
        WorkerState::Exited => Mark::new('○', "exited", FAINT),
        WorkerState::Failed => Mark::new('✗', "failed", BAD),
        WorkerState::Unknown => Mark::new('?', "unknown", WARN),
    }
}

/// How a deployment's state looks.
pub(crate) const fn deployment(state: DeploymentState) -> Mark {
    match state {
        DeploymentState::Running => Mark::new('↻', "running", BUSY),
        DeploymentState::Paused => Mark::new('‖', "paused", WARN),
        DeploymentState::RollingBack => Mark::new('↺', "rolling back", WARN),
        DeploymentState::Done => Mark::new('●', "done", GOOD),
        DeploymentState::RolledBack => Mark::new('↺', "rolled back", BAD),
        DeploymentState::Aborted => Mark::new('○', "aborted", WARN),
        DeploymentState::Failed => Mark::new('✗', "failed", BAD),
        DeploymentState::Unknown => Mark::new('?', "unknown", WARN),
    }
}

/// A strategy's name.
pub(crate) const fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Rolling => "rolling",
        Strategy::BlueGreen => "blue-green",
        Strategy::Canary => "canary",
        Strategy::Recreate => "recreate",
        Strategy::Unknown => "unknown",
    }
}
