//! The tables of `status`: a heading an app, a row a worker.

use std::time::Duration;

use agentd_protocol::Timestamp;
use agentd_protocol::status::{AppView, ExitReason, ExitView, WorkerState, WorkerView};

use super::bytes_time::{between, bytes, percent, span};
use super::state;
use super::table::{Align, Cell, Column, NOTHING, Table};

const COLUMNS: &[Column] = &[
    Column { title: "SLOT", align: Align::Right, rank: 0 },
    Column { title: "GEN", align: Align::Right, rank: 0 },
    Column { title: "STATE", align: Align::Left, rank: 0 },
    Column { title: "PID", align: Align::Right, rank: 1 },
    Column { title: "SHARE", align: Align::Right, rank: 6 },
    Column { title: "IN FLIGHT", align: Align::Right, rank: 2 },
    Column { title: "OLDEST", align: Align::Right, rank: 8 },
    Column { title: "DRAIN LEFT", align: Align::Right, rank: 3 },
    Column { title: "RESTARTS", align: Align::Right, rank: 4 },
    Column { title: "CPU", align: Align::Right, rank: 7 },
    Column { title: "MEM", align: Align::Right, rank: 5 },
    Column { title: "UPTIME", align: Align::Right, rank: 3 },
    Column { title: "RELEASE", align: Align::Left, rank: 10 },
    Column { title: "LAST EXIT", align: Align::Left, rank: 9 },
];

/// One app: its heading, then its workers.
pub(crate) fn section(app: &AppView, now: Timestamp, width: Option<usize>) -> String {
    let (strong, faint) = (state::STRONG, state::FAINT);
    let mut text = format!(
        "{strong}{}{strong:#}  {}  {}/{} ready  {} in flight  {faint}grace {}  {}{faint:#}\n",
        app.name,
        state::app(app.state).text(),
        app.ready,
        app.desired,
        app.in_flight,
        span(Duration::from_millis(app.grace_ms)),
        app.release,
    );
    for line in super::apps::standing(app, now) {
        line.write_beneath(&mut text, 2, width);
    }
    if !app.workers.is_empty() {
        text.push_str(&table(app, now, width));
    }
    text
}

/// The workers of `app` as a table.
pub(crate) fn table(app: &AppView, now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(COLUMNS, 2);
    for worker in &app.workers {
        table.row(row(worker, now), beneath(worker, now));
    }
    table.render(width)
}

fn row(worker: &WorkerView, now: Timestamp) -> Vec<Cell> {
    let optional = |text: Option<String>| Cell::plain(text.unwrap_or_else(|| NOTHING.to_owned()));
    vec![
        Cell::plain(worker.slot.to_string()),
        Cell::plain(worker.generation.to_string()),
        state::worker(worker.state).cell(),
        optional(worker.pid.map(|pid| pid.to_string())),
        Cell::plain(format!("{}%", worker.weight)),
        Cell::plain(worker.in_flight.to_string()),
        optional(worker.oldest_task_ms.map(|ms| span(Duration::from_millis(ms)))),
        optional(drain_left(worker, now).map(span)),
        Cell::plain(worker.restarts.to_string()),
        optional(worker.cpu_percent.map(percent)),
        optional(worker.memory_bytes.map(bytes)),
        optional(worker.pid.and(worker.started_at).map(|since| span(between(since, now)))),
        Cell::plain(&worker.release),
        optional(worker.last_exit.as_ref().map(exit)),
    ]
}

fn beneath(worker: &WorkerView, now: Timestamp) -> Vec<Cell> {
    let mut lines = Vec::new();
    if let Some(why) = &worker.why {
        lines.push(Cell::styled(why, state::worker(worker.state).style));
    }
    if let Some(words) = super::breaker::words(&worker.breaker, now) {
        lines.push(Cell::styled(words, state::WARN));
    }
    for line in &worker.log_tail {
        lines.push(Cell::styled(format!("│ {}", printable(line)), state::FAINT));
    }
    if let Some(text) = &worker.status_text {
        lines.push(Cell::styled(printable(text), state::FAINT));
    }
    lines
}

/// What is left of a drain; none for a worker that does not drain.
pub(crate) fn drain_left(worker: &WorkerView, now: Timestamp) -> Option<Duration> {
    match worker.state {
        WorkerState::Draining | WorkerState::Stopping => worker.drain_deadline.map(|at| between(now, at)),
        WorkerState::Starting
        | WorkerState::Ready
        | WorkerState::Backoff
        | WorkerState::Exited
        | WorkerState::Failed
        | WorkerState::Unknown => None,
    }
}

/// `crashed, code 1`, `out of memory, SIGKILL`, `reload`.
pub(crate) fn exit(exit: &ExitView) -> String {
    let by = match (&exit.code, &exit.signal) {
        (Some(0), _) | (None, None) => None,
        (Some(code), _) => Some(format!("code {code}")),
        (None, Some(signal)) => Some(signal.clone()),
    };
    let why = exit.why.as_deref().unwrap_or(reason(exit.reason));
    by.map_or_else(|| why.to_owned(), |by| format!("{why}, {by}"))
}

/// What led to an end, in words.
pub(crate) const fn reason(reason: ExitReason) -> &'static str {
    match reason {
        ExitReason::Finished => "finished",
        ExitReason::Crashed => "crashed",
        ExitReason::OutOfMemory => "out of memory",
        ExitReason::MemoryCeiling => "too much memory",
        ExitReason::PidsLimit => "too many processes",
        ExitReason::CpuTimeLimit => "processor time used up",
        ExitReason::FileSizeLimit => "file too large",
        ExitReason::ReadyTimeout => "not ready in time",
        ExitReason::Unhealthy => "unhealthy",
        ExitReason::Watchdog => "watchdog",
        ExitReason::StartFailed => "start failed",
        ExitReason::Stop => "stop",
        ExitReason::Restart => "restart",
        ExitReason::Delete => "delete",
        ExitReason::Scale => "scale",
        ExitReason::Reload => "reload",
        ExitReason::Rollback => "rollback",
        ExitReason::Shutdown => "shutdown",
        ExitReason::Unknown => "unknown",
    }
}

/// A worker's own words without what would steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{document, plain};
    use super::*;

    fn at(width: usize) -> String {
        let document = document();
        let sections: Vec<_> =
            document.apps.iter().map(|app| plain(&section(app, document.now, Some(width)))).collect();
        sections.join("\n")
    }

    #[test]
    fn a_drain_shows_what_is_left_of_it_and_a_failure_why() {
        insta::assert_snapshot!(at(80), @"
        support  ↻ deploying  1/2 ready  3 in flight  grace 5m12s  1.5.0+ef56ab78
          deployment 17: rolling 0 of 2, running: support.0.17 is not ready yet
          SLOT  GEN  STATE        PID  IN FLIGHT  DRAIN LEFT  RESTARTS   MEM  UPTIME
             0   16  ◒ draining  4100          3       4m58s         0  200M   1d12h
             0   17  ◐ starting  4242          0           -         0   85M      2s
            loading 3 of 7 indexes

        triage  ✗ failed  0/1 ready  0 in flight  grace 5m12s  r1
          triage.0 exited with code 1, 10 times within 5m; start it again with: agentctl
          start triage
          SLOT  GEN  STATE     SHARE  IN FLIGHT  RESTARTS  RELEASE  LAST EXIT
             0    3  ✗ failed     0%          0        10  r2       crashed, code 1
            exited with code 1, 10 times within 5m

        web-search  ● running  1/1 ready  0 in flight  grace 5m12s  r1
          SLOT  GEN  STATE    PID  SHARE  IN FLIGHT  RESTARTS   CPU  MEM  UPTIME
             0    1  ● ready  900   100%          0         1  0.2%  38M      2h

        zero  ○ stopped  0/1 ready  0 in flight  grace 5m12s  r1
        ");
    }

    #[test]
    fn sixty_columns_hold_less() {
        insta::assert_snapshot!(at(60), @"
        support  ↻ deploying  1/2 ready  3 in flight  grace 5m12s  1.5.0+ef56ab78
          deployment 17: rolling 0 of 2, running: support.0.17 is
          not ready yet
          SLOT  GEN  STATE        PID  IN FLIGHT  DRAIN LEFT  UPTIME
             0   16  ◒ draining  4100          3       4m58s   1d12h
             0   17  ◐ starting  4242          0           -      2s
            loading 3 of 7 indexes

        triage  ✗ failed  0/1 ready  0 in flight  grace 5m12s  r1
          triage.0 exited with code 1, 10 times within 5m; start it
          again with: agentctl start triage
          SLOT  GEN  STATE     SHARE  IN FLIGHT  RESTARTS  RELEASE
             0    3  ✗ failed     0%          0        10  r2
            exited with code 1, 10 times within 5m

        web-search  ● running  1/1 ready  0 in flight  grace 5m12s  r1
          SLOT  GEN  STATE    PID  IN FLIGHT  RESTARTS  MEM  UPTIME
             0    1  ● ready  900          0         1  38M      2h

        zero  ○ stopped  0/1 ready  0 in flight  grace 5m12s  r1
        ");
    }

    #[test]
    fn a_hundred_and_twenty_columns_hold_almost_everything() {
        insta::assert_snapshot!(at(120), @"
        support  ↻ deploying  1/2 ready  3 in flight  grace 5m12s  1.5.0+ef56ab78
          deployment 17: rolling 0 of 2, running: support.0.17 is not ready yet
          SLOT  GEN  STATE        PID  SHARE  IN FLIGHT  OLDEST  DRAIN LEFT  RESTARTS   CPU   MEM  UPTIME  RELEASE
             0   16  ◒ draining  4100     0%          3     41s       4m58s         0  1.5%  200M   1d12h  1.4.0+ab12cd34
             0   17  ◐ starting  4242     0%          0       -           -         0   88%   85M      2s  1.5.0+ef56ab78
            loading 3 of 7 indexes

        triage  ✗ failed  0/1 ready  0 in flight  grace 5m12s  r1
          triage.0 exited with code 1, 10 times within 5m; start it again with: agentctl start triage
          SLOT  GEN  STATE     SHARE  IN FLIGHT  RESTARTS  RELEASE  LAST EXIT
             0    3  ✗ failed     0%          0        10  r2       crashed, code 1
            exited with code 1, 10 times within 5m

        web-search  ● running  1/1 ready  0 in flight  grace 5m12s  r1
          SLOT  GEN  STATE    PID  SHARE  IN FLIGHT  RESTARTS   CPU  MEM  UPTIME  RELEASE  LAST EXIT
             0    1  ● ready  900   100%          0         1  0.2%  38M      2h  r1       out of memory, SIGKILL

        zero  ○ stopped  0/1 ready  0 in flight  grace 5m12s  r1
        ");
    }

    #[test]
    fn a_workers_words_cannot_steer_the_terminal() {
        assert_eq!(printable("up\x1b[2J\nnext"), "up\u{fffd}[2J\u{fffd}next");
    }
}
