//! What a run came to, as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Action, Death};

/// What happened, how often, and what it cost.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How long each death took to be made good, by what was under way.
    settled: BTreeMap<Action, Vec<Duration>>,
    deaths: BTreeMap<Death, u32>,
    /// Requests of the load.
    pub requests: u64,
    /// Those that were not answered; left out are kept connections that were closed while idle, and what killed workers
    /// took along.
    pub lost: u64,
    /// Requests on connections that a worker had accepted when it was killed.
    pub taken_along: u64,
    /// The load's own table.
    pub load: String,
    /// Lines of the printer: all there, each once, in order.
    pub lines: u64,
    /// How long all of it took.
    pub took: Duration,
}

impl Summary {
    /// How often a supervisor went.
    #[must_use]
    pub fn deaths(&self) -> u32 {
        self.deaths.values().sum()
    }

    /// Deaths at this fault point.
    #[must_use]
    pub fn at_point(&self, point: &str) -> u32 {
        self.deaths
            .iter()
            .filter(|(death, _)| matches!(death, Death::AtPoint(at) if *at == point))
            .map(|(_, n)| n)
            .sum()
    }

    pub(super) fn add(&mut self, action: Action, death: Death, settled: Duration) {
        self.settled.entry(action).or_default().push(settled);
        *self.deaths.entry(death).or_default() += 1;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28} {:>6}", "the supervisor went", "times")?;
        for (death, count) in &self.deaths {
            let how = match death {
                Death::Killed => "by SIGKILL".to_owned(),
                Death::AtPoint(point) => format!("at the point \"{point}\""),
                Death::Left => "by SIGTERM".to_owned(),
                Death::Upgraded => "upgraded in place".to_owned(),
                Death::KeeperKilled => "not; its keeper was killed".to_owned(),
            };
            writeln!(f, "{how:<28} {count:>6}")?;
        }
        writeln!(f, "\n{:<28} {:>6} {:>10} {:>10}", "while", "times", "median ms", "max ms")?;
        for (action, times) in &self.settled {
            let what = match action {
                Action::Nothing => "nothing was changed",
                Action::Reload => "a server was reloaded",
                Action::Reconfigure => "its configuration changed",
                Action::Scale => "it was scaled",
                Action::Crash => "a worker crashed",
            };
            let mut sorted: Vec<u128> = times.iter().map(Duration::as_millis).collect();
            sorted.sort_unstable();
            let (median, max) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
            writeln!(f, "{what:<28} {:>6} {median:>10} {max:>10}", sorted.len())?;
        }
        writeln!(f, "\n{}", self.load)?;
        writeln!(f, "{} requests were in the hands of workers that were killed", self.taken_along)?;
        writeln!(f, "{} lines printed: none lost, doubled or garbled", self.lines)?;
        write!(
            f,
            "{} deaths in {:.0} s; processes, weights and status as they should be after each; {} of {} requests failed",
            self.deaths(),
            self.took.as_secs_f64(),
            self.lost,
            self.requests
        )
    }
}
