//! What happens while a command waits: on a terminal a line for each worker, redrawn; elsewhere a line for each
//! event. Always on stderr: stdout is for the result.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use agentd_protocol::Timestamp;
use agentd_protocol::control::OperationView;
use agentd_protocol::events::{Event, EventKind};
use agentd_protocol::status::{AppView, WorkerState, WorkerView};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::bytes_time::span;
use super::state::{self, FAINT, STRONG};
use super::worker::drain_left;
use super::{Canvas, event, operation};

/// How often a picture is redrawn without news, so that the time left counts down.
pub(crate) const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// What shows that it goes on.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Redrawn on a terminal.
    Picture(Picture),
    /// A line for each event.
    Lines,
}

/// The workers of the apps that are being changed.
#[derive(Debug)]
pub(crate) struct Picture {
    canvas: Canvas,
    area: MultiProgress,
    apps: BTreeMap<String, AppView>,
    /// Releases that are being cut, by app, since when.
    cutting: BTreeMap<String, Instant>,
    rows: Vec<ProgressBar>,
}

impl Progress {
    /// As fits what stderr is.
    pub(crate) fn on_stderr() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        Self::Picture(Picture {
            canvas: Canvas::stderr(),
            area: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            apps: BTreeMap::new(),
            cutting: BTreeMap::new(),
            rows: Vec::new(),
        })
    }

    /// Until when to wait before [`tick`](Self::tick) has something to redraw.
    pub(crate) const fn redraw_every(&self) -> Option<Duration> {
        match self {
            Self::Picture(_) => Some(REDRAW_EVERY),
            Self::Lines => None,
        }
    }

    /// What was admitted.
    pub(crate) fn accepted(&self, operations: &[OperationView]) {
        for view in operations.iter().filter(|view| view.already || view.note.is_some()) {
            self.say(operation::accepted(view).trim_end());
        }
    }

    /// An app looks different now.
    pub(crate) fn app(&mut self, app: AppView) {
        if let Self::Picture(picture) = self {
            picture.apps.insert(app.name.clone(), app);
            picture.draw();
        }
    }

    /// Something happened.
    pub(crate) fn event(&mut self, happened: &Event) {
        if let Self::Picture(picture) = self {
            picture.note_cutting(happened);
        }
        match (&*self, &happened.event) {
            // The result says it better; shares of connections are a matter of `status`.
            (_, EventKind::OperationStarted { .. } | EventKind::OperationFinished { .. } | EventKind::Unknown)
            | (_, EventKind::Weights { .. } | EventKind::TaskBegun { .. } | EventKind::TaskEnded { .. }) => {}
            (Self::Lines, _) => self.say(&event::line(happened)),
            // What a picture of states cannot tell.
            (Self::Picture(_), EventKind::WorkerExited { .. } | EventKind::WorkerFailed { .. })
            | (Self::Picture(_), EventKind::WorkerOutgrown { .. })
            | (Self::Picture(_), EventKind::ProbeFailed { .. } | EventKind::WorkerRestarting { .. })
            | (Self::Picture(_), EventKind::WorkerRefreshed { .. })
            | (Self::Picture(_), EventKind::ConfigRejected { .. }) => self.say(&event::line(happened)),
            (Self::Picture(_), EventKind::DeploymentJudged { .. } | EventKind::DeploymentStep { why: Some(_), .. }) => {
                self.say(&event::line(happened))
            }
            (
                Self::Picture(_),
                EventKind::DaemonStarted { .. }
                | EventKind::DaemonStopping { .. }
                | EventKind::AppAdded { .. }
                | EventKind::AppDeleted
                | EventKind::ReleaseCutting { .. }
                | EventKind::ReleaseCut { .. }
                | EventKind::ReleaseFailed { .. }
                | EventKind::AppState { .. }
                | EventKind::AppScaled { .. }
                | EventKind::WorkerStarting { .. }
                | EventKind::WorkerReady { .. }
                | EventKind::WorkerDraining { .. }
                | EventKind::WorkerDrainDeadline { .. }
                | EventKind::WorkerDrained { .. }
                | EventKind::WorkerStopping { .. }
                | EventKind::DeploymentStarted { .. }
                | EventKind::DeploymentStep { why: None, .. }
                | EventKind::DeploymentFinished { .. }
                | EventKind::NotifyStatus { .. }
                | EventKind::LogsDropping { .. }
                | EventKind::LogsResumed { .. }
                | EventKind::HookFailed { .. }
                | EventKind::EventsLost { .. },
            ) => {}
        }
    }

    /// Time went by.
    pub(crate) fn tick(&mut self) {
        if let Self::Picture(picture) = self {
            picture.draw();
        }
    }

    /// Takes the picture away: what is printed next stands alone.
    pub(crate) fn end(self) {
        match self {
            // A terminal that takes no clearing shows an old picture: nothing to end the command for.
            Self::Picture(picture) => picture.area.clear().unwrap_or(()),
            Self::Lines => {}
        }
    }

    fn say(&self, line: &str) {
        match self {
            Self::Picture(picture) => picture.area.suspend(|| super::note(line)),
            Self::Lines => super::note(line),
        }
    }
}

impl Picture {
    #[expect(clippy::wildcard_enum_match_arm, reason = "three events tell of cuts")]
    fn note_cutting(&mut self, happened: &Event) {
        let Some(app) = &happened.app else { return };
        match &happened.event {
            EventKind::ReleaseCutting { .. } => drop(self.cutting.insert(app.clone(), Instant::now())),
            EventKind::ReleaseCut { .. } | EventKind::ReleaseFailed { .. } => drop(self.cutting.remove(app)),
            // Also what was there already, for which nothing is told: its deployment tells.
            EventKind::DeploymentStarted { .. } => drop(self.cutting.remove(app)),
            _ => {}
        }
    }

    fn draw(&mut self) {
        let mut lines = lines(self.apps.values(), Timestamp::now());
        lines.extend(self.cutting.iter().map(|(app, since)| {
            let since = span(Duration::from_secs(since.elapsed().as_secs()));
            format!("{STRONG}{app}{STRONG:#}  {FAINT}a release is being cut and built, {since}{FAINT:#}")
        }));
        while self.rows.len() < lines.len() {
            let style = ProgressStyle::with_template("{msg}").expect("a template of one known key");
            // Hidden at first: a bar draws itself, and would do so outside of the area.
            let row = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style);
            self.rows.push(self.area.add(row));
        }
        for row in self.rows.drain(lines.len()..) {
            self.area.remove(&row);
        }
        for (row, line) in self.rows.iter().zip(lines) {
            let line = if self.canvas.color { line } else { anstream::adapter::strip_str(&line).to_string() };
            // Each message redraws the whole area.
            if row.message() != line {
                row.set_message(line);
            }
        }
    }
}

/// A line for each worker: `support  0  ◒ draining  3 in flight  4m58s left`; beneath, how far its deployment is.
fn lines<'a>(apps: impl Iterator<Item = &'a AppView> + Clone, now: Timestamp) -> Vec<String> {
    let widest = apps.clone().map(|app| app.name.len()).max().unwrap_or(0);
    let deploys = |app: &AppView| {
        let line = format!("{FAINT}{}{FAINT:#}", super::apps::deployment(app.deployment.as_ref()?));
        Some(format!("{:widest$}  {line}", ""))
    };
    apps.flat_map(|app| app.workers.iter().map(move |worker| line(app, worker, widest, now)).chain(deploys(app)))
        .collect()
}

fn line(app: &AppView, worker: &WorkerView, widest: usize, now: Timestamp) -> String {
    let mark = state::worker(worker.state);
    let mut line = format!(
        "{STRONG}{:widest$}{STRONG:#}  {}  {}{} {:8}{:#}  {FAINT}#{}{FAINT:#}",
        app.name, worker.slot, mark.style, mark.symbol, mark.word, mark.style, worker.generation,
    );
    if worker.in_flight > 0 {
        line.push_str(&format!("  {} in flight", worker.in_flight));
    }
    if let Some(left) = drain_left(worker, now) {
        line.push_str(&format!("  {} left", span(Duration::from_secs(left.as_secs()))));
    }
    if is_watched(app, worker) {
        line.push_str("  watched before the old one ends");
    }
    if let Some(why) = &worker.why {
        line.push_str(&format!("  {}", super::worker::printable(why)));
    }
    line
}

/// Whether it serves in the place of one that has nothing in hand any more and is kept, to serve again should this one
/// fail: `reload.settle`, `upgrade.min_uptime`.
fn is_watched(app: &AppView, worker: &WorkerView) -> bool {
    let kept = |other: &WorkerView| {
        other.state == WorkerState::Draining && other.in_flight == 0 && other.generation < worker.generation
    };
    worker.state == WorkerState::Ready && app.deployment.is_some() && app.workers.iter().any(kept)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{document, plain};
    use super::*;

    #[test]
    fn a_new_worker_is_watched_while_the_old_one_is_kept_with_nothing_in_hand() {
        let document = document();
        let mut app = document.apps.iter().find(|app| app.name == "support").expect("the fixture has it").clone();
        app.workers[1].state = WorkerState::Ready;
        let shown = |app: &AppView| plain(&lines(std::iter::once(app), document.now).join("\n"));
        assert!(!shown(&app).contains("watched"), "{}", shown(&app));
        app.workers[0].in_flight = 0;
        assert!(shown(&app).contains("● ready     #17  watched before the old one ends"), "{}", shown(&app));
    }

    #[test]
    fn every_worker_has_a_line_with_what_is_left_of_its_drain() {
        let document = document();
        let shown = lines(document.apps.iter(), document.now).join("\n");
        insta::assert_snapshot!(plain(&shown), @"
        support     0  ◒ draining  #16  3 in flight  4m58s left
        support     0  ◐ starting  #17
                    deployment 17: rolling 0 of 2, running: support.0.17 is not ready yet
        triage      0  ✗ failed    #3  exited with code 1, 10 times within 5m
        web-search  0  ● ready     #1
        ");
    }
}
