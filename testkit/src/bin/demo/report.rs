//! What a person reads: lines as things happen, and the table at the end, within 80 columns.

use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use agentd_protocol::control::OperationState;

use crate::instance::{App, CHAPTERS, Reload, WRITER_APP, Written};
use crate::load::{Tallies, Work};

/// How often the line that moves is drawn.
const REDRAW: Duration = Duration::from_millis(200);

/// Widths: of the table's first column, and of each app's.
const LABEL: usize = 40;
const COLUMN: usize = 16;

/// Where the second line of a line begins: under what came.
const INDENT: usize = 35;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";
const GREEN: &str = "32";

/// Where the story is told, and when it began.
pub(crate) struct Scene {
    begun: Instant,
    terminal: bool,
    coloured: bool,
}

impl Scene {
    /// Says what is going to be shown.
    pub(crate) fn open(apps: &[App]) -> Self {
        let terminal = io::stdout().is_terminal();
        let coloured = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let scene = Self { begun: Instant::now(), terminal, coloured };
        println!("\n{}\n", scene.paint(BOLD, "Two apps, two workers each, reloaded and upgraded under load"));
        for App { name, address, runtime, manner } in apps {
            println!("  {}  {runtime:<18}  {manner:<25} {address}", scene.paint(BOLD, &format!("{name:<12}")));
        }
        println!();
        scene
    }

    /// Tells what was done, and what came of it.
    pub(crate) fn line(&self, done: &str, came: &str) {
        self.clear();
        println!("  {}  {done:<22}  {came}", self.paint(DIM, &self.time()));
    }

    /// Does something that takes a while, and shows on a terminal meanwhile how things stand.
    pub(crate) fn during<T: Send>(
        &self,
        doing: &str,
        progress: impl Fn() -> String + Sync,
        work: impl FnOnce() -> T + Send,
    ) -> T {
        if !self.terminal {
            return work();
        }
        let over = AtomicBool::new(false);
        let outcome = thread::scope(|scope| {
            let drawing = scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let line = format!("{} …  {}", doing, progress());
                    let line: String = line.chars().take(69).collect();
                    print!("\r\x1b[K  {}  {}", self.time(), self.paint(DIM, &line));
                    drop(io::stdout().flush());
                    thread::park_timeout(REDRAW);
                }
            });
            let outcome = work();
            over.store(true, Ordering::SeqCst);
            drawing.thread().unpark();
            outcome
        });
        self.clear();
        outcome
    }

    fn clear(&self) {
        if self.terminal {
            print!("\r\x1b[K");
        }
    }

    fn time(&self) -> String {
        format!("{:5.1} s", self.begun.elapsed().as_secs_f32())
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A release that was shipped.
struct Shipped {
    version: &'static str,
    /// How it is to end.
    ends: OperationState,
    ended: Vec<Reload>,
}

/// What is to be in the table.
pub(crate) struct Report {
    apps: Vec<App>,
    reloads: Vec<Vec<Reload>>,
    releases: Vec<Shipped>,
    changing: Vec<Tallies>,
    killing: Vec<Tallies>,
    written: Option<Written>,
}

impl Report {
    pub(crate) fn new(apps: &[App]) -> Self {
        Self {
            apps: apps.to_vec(),
            reloads: Vec::new(),
            releases: Vec::new(),
            changing: Vec::new(),
            killing: Vec::new(),
            written: None,
        }
    }

    /// Takes in one reload of all apps; returns how to tell of it.
    pub(crate) fn reloaded(&mut self, reloads: Vec<Reload>) -> String {
        let slowest = reloads.iter().map(|reload| reload.duration_ms).max().unwrap_or(0);
        let unfinished = reloads.iter().find(|reload| reload.state != OperationState::Done);
        let told = match unfinished {
            None => {
                let handed_over: u64 = reloads.iter().map(|reload| reload.tasks.handed_over).sum();
                let on = if handed_over > 0 { "; the report goes on in the new one" } else { "" };
                format!("five workers replaced in {:.1} s{on}", seconds(slowest))
            }
            Some(Reload { app, state, why, .. }) => {
                format!("{app}: {}: {}", ending(*state), why.as_deref().unwrap_or("no reason"))
            }
        };
        self.reloads.push(reloads);
        told
    }

    /// Takes in one release, which is to end as `ends`; returns how to tell of it.
    pub(crate) fn shipped(&mut self, version: &'static str, ends: OperationState, ended: Vec<Reload>) -> String {
        let told = ended.iter().map(|upgrade| {
            let (ending, took) = (ending(upgrade.state), seconds(upgrade.duration_ms));
            match &upgrade.why {
                None => format!("{}: {ending} in {took:.2} s", upgrade.app),
                Some(why) => format!("{ending} in {took:.2} s:\n{:INDENT$}{why}", ""),
            }
        });
        let told = told.collect();
        self.releases.push(Shipped { version, ends, ended });
        told
    }

    /// Takes in the long task; returns how to tell of it.
    pub(crate) fn written(&mut self, written: Written) -> String {
        let workers = written.task.fence;
        let told =
            format!("the report is {}, written by {workers} workers", written.task.why.as_deref().unwrap_or("-"));
        self.written = Some(written);
        told
    }

    /// How often reloads handed the long task over, how many of them lost it, and how much it sent more than once.
    fn handed_over(&self) -> (u64, u64, usize) {
        let of = self.reloads.iter().flatten().filter(|reload| reload.app == WRITER_APP);
        let (handed_over, lost) = of.fold((0, 0), |(handed_over, lost), reload| {
            (handed_over + reload.tasks.handed_over, lost + reload.tasks.lost)
        });
        let sent = self.written.as_ref().map_or(&[][..], |written| &written.sent);
        let twice = sent.len() - sent.iter().collect::<HashSet<_>>().len();
        (handed_over, lost, twice)
    }

    /// Whether the long task was handed over, came to its end, and did everything once.
    fn written_once(&self) -> bool {
        let (handed_over, lost, twice) = self.handed_over();
        let whole = self
            .written
            .as_ref()
            .is_some_and(|Written { task, sent }| task.why.as_deref() == Some("ok") && sent.len() == CHAPTERS);
        handed_over > 0 && lost == 0 && twice == 0 && whole
    }

    pub(crate) fn under_changes(&mut self, tallies: Vec<Tallies>) {
        self.changing = tallies;
    }

    pub(crate) fn under_kill(&mut self, tallies: Vec<Tallies>) {
        self.killing = tallies;
    }

    /// Whether every reload was done, every release ended as it is to, and all that cost nothing.
    pub(crate) fn nothing_lost(&self) -> bool {
        let done = self.reloads.iter().flatten().all(|reload| reload.state == OperationState::Done);
        let as_meant = |shipped: &Shipped| {
            !shipped.ended.is_empty() && shipped.ended.iter().all(|upgrade| upgrade.state == shipped.ends)
        };
        done && self.releases.iter().all(as_meant)
            && self.changing.iter().flatten().all(|tally| tally.lost == 0)
            && self.written_once()
    }

    pub(crate) fn print(&self, scene: &Scene) {
        let rule = scene.paint(DIM, &"─".repeat(LABEL + self.apps.len() * COLUMN));
        println!("\n  {}", scene.paint(BOLD, &row("", self.apps.iter().map(|app| app.name))));
        println!("  {rule}");
        for work in Work::ALL {
            let tallies = || self.changing.iter().map(|app| &app[work as usize]);
            let (answered, lost) = labels(work);
            println!("  {}", row(answered, tallies().map(|tally| tally.finished)));
            let losses: u64 = tallies().map(|tally| tally.lost).sum();
            let colour = if losses == 0 { GREEN } else { RED };
            println!("  {}", scene.paint(colour, &row(lost, tallies().map(|tally| tally.lost))));
        }
        for (number, reloads) in (1..).zip(&self.reloads) {
            println!("  {}", self.took(&format!("reload {number} took"), reloads));
        }
        for Shipped { version, ended, .. } in &self.releases {
            let state = ended.first().map_or("not shipped", |upgrade| ending(upgrade.state));
            println!("  {}", self.took(&format!("release {version}: {state} in"), ended));
        }
        if let Some(Written { sent, .. }) = &self.written {
            let (handed_over, lost, twice) = self.handed_over();
            let (over, colour) = (
                format!("handed over {handed_over} times, lost {lost}"),
                if self.written_once() { GREEN } else { RED },
            );
            println!("  {}", wide("the long task of sample-writer", &over));
            let once = format!("{} done, {twice} of them twice", sent.len());
            println!("  {}", scene.paint(colour, &wide("  its effects", &once)));
        }
        let lost = self.killing.iter().map(|app| app[Work::Request as usize].lost);
        println!("  {}", row("requests in the killed worker's hands", lost));
        println!("  {rule}");
        self.conclude(scene);
    }

    fn took(&self, label: &str, changes: &[Reload]) -> String {
        let of = self.apps.iter().map(|app| changes.iter().find(|change| change.app == app.name));
        row(label, of.map(|of| of.map_or("-".to_owned(), |change| format!("{:.2} s", seconds(change.duration_ms)))))
    }

    fn conclude(&self, scene: &Scene) {
        if self.nothing_lost() {
            println!(
                "  {}",
                scene.paint(GREEN, "Nothing was refused, cut or lost by a reload or a release, good or bad.")
            );
            println!("  The long task went on in each new worker at its last checkpoint: no effect was done again.");
            println!("  A reload waits for tasks: here 3 s a worker, two workers, one after the other.");
            println!("  Your own app: see README.md.\n");
            return;
        }
        println!("  {}", scene.paint(RED, "Something was lost, which must not be. The first of each:"));
        for (app, tallies) in self.apps.iter().zip(&self.changing) {
            for why in tallies.iter().filter_map(|tally| tally.first_loss.as_ref()) {
                println!("    {}: {why}", app.name);
            }
        }
        println!();
    }
}

const fn ending(state: OperationState) -> &'static str {
    match state {
        OperationState::Done => "done",
        OperationState::RolledBack => "taken back",
        OperationState::Aborted => "aborted",
        OperationState::Failed => "failed",
        OperationState::Unknown => "in a state unknown to this demo",
    }
}

const fn labels(work: Work) -> (&'static str, &'static str) {
    match work {
        Work::Request => ("short requests answered", "  refused, reset or wrong"),
        Work::Task => ("long tasks finished", "  cut"),
        Work::Stream => ("streams finished", "  cut"),
    }
}

fn row(label: &str, cells: impl Iterator<Item = impl Display>) -> String {
    cells.fold(format!("{label:<LABEL$}"), |row, cell| row + &format!("{:>COLUMN$}", cell.to_string()))
}

/// A row of what is no app's that takes requests.
fn wide(label: &str, text: &str) -> String {
    format!("{label:<LABEL$}{text:>width$}", width = 2 * COLUMN)
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}
