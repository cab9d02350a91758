//! All gates of one deployment: which there are, what each is fed from a task's end, and what they say together.
//!
//! ```text
//!  ends of the old version ── begin_stage ──► a baseline for each gate, frozen for the stage
//!  end of a task of the new one ── observe ──► gates ──► said()
//!                                    │                    │ a hard limit was passed, or the gravest gate is sure: Worse
//!                                    └─ hard limits ──►   │ a gate has evidence: Hold
//!                                                         │ fewer than n_min tasks, or too few of the old: TooFew
//!                                                         └ else: Pass
//! ```
//!
//! A plain value: whoever keeps it writes it down whole with the end that it was fed, so that nothing is counted twice or
//! lost. Knows neither time nor deployments; a stage is a number that rises.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BASELINE_MIN, Gate, Measure, Reading, Settings, Verdict};

/// What is judged, in the order in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Tasks that failed or were lost.
    ErrorRate,
    /// Seconds that a task took.
    Latency,
    /// Tokens in and out.
    Tokens,
    /// US dollars.
    Cost,
    /// Calls of tools.
    ToolCalls,
    /// Steps.
    Steps,
    /// Share of the context window that was used.
    Context,
    /// The task's own score, from 0 to 1.
    Quality,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ErrorRate,
        Self::Latency,
        Self::Tokens,
        Self::Cost,
        Self::ToolCalls,
        Self::Steps,
        Self::Context,
        Self::Quality,
    ];

    /// As it is called in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::ErrorRate => "error_rate",
            Self::Latency => "latency",
            Self::Tokens => "tokens",
            Self::Cost => "cost",
            Self::ToolCalls => "tool_calls",
            Self::Steps => "steps",
            Self::Context => "context",
            Self::Quality => "quality",
        }
    }

    /// A value of it, for people.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::ErrorRate | Self::Context => format!("{:.1} %", value * 100.0),
            Self::Latency if value < 1.0 => format!("{:.0}ms", value * 1000.0),
            Self::Latency => format!("{value:.1}s"),
            Self::Cost => format!("${value:.4}"),
            Self::Tokens => format!("{value:.0}"),
            Self::ToolCalls | Self::Steps => format!("{value:.1}"),
            Self::Quality => format!("{value:.2}"),
        }
    }
}

/// What a new version must hold to. None switches a gate off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// A share of failed tasks that is always allowed.
    pub error_rate: Option<f64>,
    /// How much longer tasks may take, as a share.
    pub latency: Option<f64>,
    /// How many more tokens they may take.
    pub tokens: Option<f64>,
    /// How much more they may cost.
    pub cost: Option<f64>,
    /// How many more tools they may call.
    pub tool_calls: Option<f64>,
    /// How many more steps they may take.
    pub steps: Option<f64>,
    /// How much more of the context window they may use.
    pub context: Option<f64>,
    /// How much the mean score may fall.
    pub quality: Option<f64>,
    /// Fewest tasks of a stage.
    pub n_min: u64,
    /// One task that takes longer condemns the version.
    pub latency_max: Option<Duration>,
    /// One task that costs more, in US dollars, condemns it.
    pub cost_max: Option<f64>,
}

impl Default for Rules {
    fn default() -> Self {
        let tol = Some(0.1);
        Self {
            error_rate: Some(0.01),
            latency: tol,
            tokens: tol,
            cost: tol,
            tool_calls: tol,
            steps: tol,
            context: tol,
            quality: Some(0.03),
            n_min: 30,
            latency_max: None,
            cost_max: None,
        }
    }
}

impl Rules {
    /// How a metric is judged; none when it is not.
    #[must_use]
    pub fn measure(&self, metric: Metric) -> Option<Measure> {
        let numeric = |tol: Option<f64>| tol.map(|tol| Measure::Numeric { tol });
        match metric {
            Metric::ErrorRate => self.error_rate.map(|floor| Measure::Binary { floor }),
            Metric::Latency => numeric(self.latency),
            Metric::Tokens => numeric(self.tokens),
            Metric::Cost => numeric(self.cost),
            Metric::ToolCalls => numeric(self.tool_calls),
            Metric::Steps => numeric(self.steps),
            Metric::Context => numeric(self.context),
            Metric::Quality => self.quality.map(|margin| Measure::Mean { margin }),
        }
    }
}

/// The end of a task, as far as it is judged. What was not told is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// Whether it failed or was lost by its worker's fault.
    pub bad: bool,
    /// Seconds from its beginning; none when more than one worker had it.
    pub latency: Option<f64>,
    /// Tokens in and out.
    pub tokens: Option<f64>,
    /// US dollars.
    pub cost: Option<f64>,
    /// Calls of tools.
    pub tool_calls: Option<f64>,
    /// Steps.
    pub steps: Option<f64>,
    /// Share of the context window that was used.
    pub context: Option<f64>,
    /// Its score.
    pub quality: Option<f64>,
}

impl End {
    fn value(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::ErrorRate => Some(f64::from(u8::from(self.bad))),
            Metric::Latency => self.latency,
            Metric::Tokens => self.tokens,
            Metric::Cost => self.cost,
            Metric::ToolCalls => self.tool_calls,
            Metric::Steps => self.steps,
            Metric::Context => self.context,
            Metric::Quality => self.quality,
        }
    }
}

/// What the gates say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is worse: back with it.
    Worse(String),
    /// It may be worse; why, in one sentence.
    Hold(String),
    /// Too little was seen; what is missing.
    TooFew(String),
    /// Nothing speaks against it.
    Pass,
}

/// A gate of the panel as it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    /// Which.
    pub metric: Metric,
    /// None when it is switched off.
    pub reading: Option<Reading>,
}

/// All gates of one deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    rules: Rules,
    stage: Option<u32>,
    gates: Vec<(Metric, Gate)>,
    /// Tasks of this stage.
    tasks: u64,
    /// Tasks of the old version that the stage could be compared with.
    old: u64,
    /// Why the version is condemned by a hard limit. For good.
    beyond: Option<String>,
}

impl Panel {
    /// Ends of the old version that a baseline is made of, at most: the latest.
    pub const BASELINE: usize = 500;

    /// Gates that saw nothing.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let mut panel = Self { rules, stage: None, gates: Vec::new(), tasks: 0, old: 0, beyond: None };
        panel.gates = Metric::ALL.iter().filter_map(|&metric| Some((metric, panel.gate(metric)?))).collect();
        panel
    }

    fn gate(&self, metric: Metric) -> Option<Gate> {
        let settings = Settings { n_min: self.rules.n_min, ..Settings::new(self.rules.measure(metric)?) };
        // What is out of range was refused with the configuration.
        Gate::new(settings).ok()
    }

    /// The stage that it judges.
    #[must_use]
    pub const fn stage(&self) -> Option<u32> {
        self.stage
    }

    /// A stage begins, to be compared with these ends of the old version. False when it has begun before: nothing
    /// changes then.
    pub fn begin_stage(&mut self, stage: u32, old: &[End]) -> bool {
        if self.stage.is_some_and(|now| now >= stage) {
            return false;
        }
        self.stage = Some(stage);
        (self.tasks, self.old) = (0, old.len() as u64);
        for (metric, gate) in &mut self.gates {
            give(*metric, gate, old);
            gate.begin_stage();
        }
        true
    }

    /// Whether too little is known of the old version to compare with.
    #[must_use]
    pub fn lacks_baseline(&self) -> bool {
        self.stage.is_some() && self.old < BASELINE_MIN as u64
    }

    /// More ends of the old version, for gates that have nothing to compare with. They begin anew: what they saw of the
    /// new one was not judged.
    pub fn compare_with(&mut self, old: &[End]) {
        self.old = old.len() as u64;
        if old.len() < BASELINE_MIN {
            return;
        }
        let fresh = Self::new(self.rules.clone());
        for ((metric, gate), (_, new)) in self.gates.iter_mut().zip(fresh.gates) {
            if bare(gate) {
                *gate = new;
                give(*metric, gate, old);
            }
        }
        self.tasks = 0;
    }

    /// A task of the new version ended.
    pub fn observe(&mut self, end: &End) {
        self.tasks += 1;
        for (metric, gate) in &mut self.gates {
            // A figure out of range says nothing: as if it had not been told.
            if let Some(value) = end.value(*metric) {
                let _ = gate.observe(value);
            }
        }
        self.beyond = self.beyond.take().or_else(|| self.limit_passed(end));
    }

    fn limit_passed(&self, end: &End) -> Option<String> {
        let over = |metric: Metric, most: f64| {
            let value = end.value(metric).filter(|&value| value > most)?;
            let (value, most) = (metric.show(value), metric.show(most));
            Some(format!("a task's {} was {value}, the most allowed is {most}", metric.word()))
        };
        let latency = self.rules.latency_max.and_then(|most| over(Metric::Latency, most.as_secs_f64()));
        latency.or_else(|| self.rules.cost_max.and_then(|most| over(Metric::Cost, most)))
    }

    /// Every metric, in order.
    pub fn shown(&self) -> impl Iterator<Item = Shown> {
        Metric::ALL.into_iter().map(|metric| {
            let gate = self.gates.iter().find(|(own, _)| *own == metric);
            Shown { metric, reading: gate.map(|(_, gate)| gate.reading()) }
        })
    }

    /// What they say together.
    #[must_use]
    pub fn said(&self) -> Said {
        if let Some(why) = &self.beyond {
            return Said::Worse(why.clone());
        }
        let readings: Vec<(Metric, Reading)> =
            self.gates.iter().map(|(metric, gate)| (*metric, gate.reading())).collect();
        let gravest =
            readings.iter().min_by(|(_, a), (_, b)| a.verdict.cmp(&b.verdict).then(b.log_e.total_cmp(&a.log_e)));
        match gravest {
            Some((metric, reading)) if reading.verdict == Verdict::Rollback => {
                return Said::Worse(sentence(*metric, reading));
            }
            Some((metric, reading)) if reading.verdict == Verdict::Hold => {
                return Said::Hold(sentence(*metric, reading));
            }
            Some(_) | None => {}
        }
        self.lacking(&readings).map_or(Said::Pass, Said::TooFew)
    }

    /// What is missing before it may pass.
    fn lacking(&self, readings: &[(Metric, Reading)]) -> Option<String> {
        let least = self.rules.n_min;
        if self.old < BASELINE_MIN as u64 {
            return Some(format!(
                "the old version ended {} tasks, {BASELINE_MIN} are needed to compare with",
                self.old
            ));
        }
        if self.tasks < least {
            return Some(format!("{} of the {least} tasks were seen that a verdict needs", self.tasks));
        }
        // One that nobody tells of is not evaluated, and shown so; one that is told of now and then has to be enough.
        let sparse = readings
            .iter()
            .find(|(_, reading)| reading.baseline.is_some() && reading.n > 0 && reading.verdict == Verdict::TooFew);
        sparse.map(|(metric, reading)| format!("{} of {least} tasks told their {}", reading.n, metric.word()))
    }
}

fn bare(gate: &Gate) -> bool {
    gate.reading().baseline.is_none()
}

fn give(metric: Metric, gate: &mut Gate, old: &[End]) {
    let fits = |value: &f64| match metric {
        Metric::Quality => (0.0..=1.0).contains(value),
        Metric::ErrorRate
        | Metric::Latency
        | Metric::Tokens
        | Metric::Cost
        | Metric::ToolCalls
        | Metric::Steps
        | Metric::Context => *value >= 0.0 && value.is_finite(),
    };
    let values: Vec<f64> = old.iter().filter_map(|end| end.value(metric)).filter(fits).collect();
    gate.baseline(&values).expect("values out of range were left out");
}

/// `error_rate is 14.6 % of 41 tasks, it was 1.0 %: evidence 412, 160 is proof`.
fn sentence(metric: Metric, reading: &Reading) -> String {
    let mut text = metric.word().to_owned();
    if let Some(observed) = reading.observed {
        let _ = write!(text, " is {} over {} tasks", metric.show(observed), reading.n);
    }
    if let Some(baseline) = reading.baseline {
        let _ = write!(text, ", it was {}", metric.show(baseline));
    }
    let _ = write!(text, " (evidence {}, from 160 on it is worse)", evidence(reading.log_e));
    text
}

/// The evidence as a number for people.
#[must_use]
pub fn evidence(log_e: f64) -> String {
    match log_e.exp() {
        e if e >= 1e6 => "over 1000000".to_owned(),
        e if e >= 10.0 => format!("{e:.0}"),
        e => format!("{e:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> End {
        End { latency: Some(1.0), cost: Some(0.01), ..End::default() }
    }

    fn fed(rules: Rules, old: usize, new: &[End]) -> Panel {
        let mut panel = Panel::new(rules);
        panel.begin_stage(0, &vec![good(); old]);
        new.iter().for_each(|end| panel.observe(end));
        panel
    }

    #[test]
    fn good_tasks_pass_and_what_nobody_tells_of_is_shown_as_not_evaluated() {
        let panel = fed(Rules::default(), 100, &vec![good(); 30]);
        assert_eq!(panel.said(), Said::Pass);
        let quality = panel.shown().find(|shown| shown.metric == Metric::Quality).unwrap().reading.unwrap();
        assert_eq!((quality.n, quality.baseline, quality.verdict), (0, None, Verdict::TooFew));
    }

    #[test]
    fn too_few_of_either_version_hold_and_say_how_many() {
        let Said::TooFew(why) = fed(Rules::default(), 100, &vec![good(); 29]).said() else { panic!() };
        assert_eq!(why, "29 of the 30 tasks were seen that a verdict needs");
        let Said::TooFew(why) = fed(Rules::default(), 49, &vec![good(); 200]).said() else { panic!() };
        assert_eq!(why, "the old version ended 49 tasks, 50 are needed to compare with");
        let scored = End { quality: Some(0.8), ..good() };
        let mut panel = Panel::new(Rules::default());
        panel.begin_stage(0, &vec![scored.clone(); 60]);
        panel.observe(&scored);
        (0..40).for_each(|_| panel.observe(&good()));
        assert_eq!(panel.said(), Said::TooFew("1 of 30 tasks told their quality".to_owned()));
    }

    #[test]
    fn a_bad_version_is_named_by_its_gravest_gate_with_figures() {
        let slow = End { latency: Some(2.0), ..good() };
        let Said::Worse(why) = fed(Rules::default(), 100, &vec![slow; 20]).said() else { panic!() };
        assert!(why.starts_with("latency is 2.0s over 20 tasks, it was 1.0s (evidence "), "{why}");
        let bad = End { bad: true, ..good() };
        let Said::Hold(why) = fed(Rules::default(), 100, &[bad.clone(), bad.clone()]).said() else { panic!() };
        assert!(why.starts_with("error_rate is 100.0 % over 2 tasks, it was 0.0 %"), "{why}");
    }

    #[test]
    fn a_gate_that_is_off_says_nothing() {
        let slow = End { latency: Some(9.0), ..good() };
        let rules = Rules { latency: None, ..Rules::default() };
        let panel = fed(rules, 100, &vec![slow; 60]);
        assert_eq!(panel.said(), Said::Pass);
        assert!(panel.shown().any(|shown| shown.metric == Metric::Latency && shown.reading.is_none()));
    }

    #[test]
    fn one_task_over_a_hard_limit_condemns_for_good() {
        let rules = Rules { cost_max: Some(0.05), ..Rules::default() };
        let dear = End { cost: Some(0.06), ..good() };
        let mut panel = fed(rules, 100, &[dear]);
        (0..100).for_each(|_| panel.observe(&good()));
        let why = "a task's cost was $0.0600, the most allowed is $0.0500".to_owned();
        assert_eq!(panel.said(), Said::Worse(why));
    }

    #[test]
    fn a_late_baseline_begins_the_count_anew() {
        let mut panel = fed(Rules::default(), 10, &vec![good(); 40]);
        assert!(panel.lacks_baseline());
        panel.compare_with(&vec![good(); 50]);
        assert!(!panel.lacks_baseline());
        assert_eq!(panel.said(), Said::TooFew("0 of the 30 tasks were seen that a verdict needs".to_owned()));
        (0..30).for_each(|_| panel.observe(&good()));
        assert_eq!(panel.said(), Said::Pass);
    }

    #[test]
    fn a_stage_begins_once_and_counts_anew() {
        let bad = End { bad: true, ..good() };
        let mut panel = fed(Rules::default(), 100, &[bad.clone(), bad.clone(), good()]);
        assert!(!panel.begin_stage(0, &[]), "it has begun");
        (0..3).for_each(|_| panel.observe(&bad));
        assert!(matches!(panel.said(), Said::Worse(_)), "{:?}", panel.said());
        assert!(panel.begin_stage(1, &vec![good(); 100]));
        assert_eq!(panel.shown().next().unwrap().reading.unwrap().n, 0);
        assert!(matches!(panel.said(), Said::Worse(_)), "evidence that was reached stays reached");
    }

    #[test]
    fn figures_out_of_range_are_not_counted() {
        let odd = End { quality: Some(7.0), latency: Some(f64::NAN), ..good() };
        let panel = fed(Rules::default(), 100, &vec![odd; 40]);
        assert_eq!(panel.said(), Said::Pass);
    }
}
