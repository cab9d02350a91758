//! What one app's tasks have taken so far: a series for all, one for each kind, and for each its twin over the gaps
//! between safe points.
//!
//! Owns the series and the curves drawn from them. Does not know tasks: whoever owns those keeps a [`Run`] with each, and
//! tells when it began, reached a safe point and ended. What changed since the last save is told by
//! [`AppGrace::changed`], so that it can be written in the transaction that writes the end itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::answer::{self, Found, Grace, SettledBy, Until};
use super::buckets::EDGES;
use super::curve::{Curve, Prior};
use super::series::{BytesError, Observation, Series};
use crate::policy::GracePolicy;
use crate::time::Moment;

/// Most kinds of one app with curves of their own; tasks of further ones are measured in the pool only. Kinds are names
/// that workers choose, and each costs 12 KiB.
pub const KINDS_MAX: usize = 64;
/// A shape is drawn until this share survives.
const SHAPE_END: f64 = 0.001;

/// How a task ended, as far as its duration is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// By itself, whatever its outcome.
    Done,
    /// It yielded at a safe point: its duration is cut, its last gap is not.
    Yielded,
    /// Handed over from an earlier checkpoint: both are cut.
    HandedOver,
    /// Its worker was killed: both are cut.
    Killed,
    /// Its worker crashed: both are cut.
    Crashed,
}

impl Ended {
    const fn finished(self) -> bool {
        match self {
            Self::Done => true,
            Self::Yielded | Self::HandedOver | Self::Killed | Self::Crashed => false,
        }
    }

    const fn at_safe_point(self) -> bool {
        match self {
            Self::Done | Self::Yielded => true,
            Self::HandedOver | Self::Killed | Self::Crashed => false,
        }
    }
}

/// What must be remembered of a running task to learn from its end. Kept by whoever owns the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    began: Moment,
    age0: Duration,
    safe: Moment,
    /// Ends counted when it began, and when it was last safe.
    whole: Marks,
    gap: Marks,
}

/// Counts of ends in the pool and in a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Marks {
    pool: u64,
    kind: u64,
}

impl Run {
    /// How long the task has lasted, what it took before it was resumed included.
    #[must_use]
    pub fn age(&self, now: Moment) -> Duration {
        self.age0 + now.since(self.began)
    }

    /// How long since its last safe point, or since it began here.
    #[must_use]
    pub fn since_safe(&self, now: Moment) -> Duration {
        now.since(self.safe)
    }
}

/// A task in flight, as a query sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight<'a> {
    /// Its kind; none without one.
    pub kind: Option<&'a str>,
    /// Its age.
    pub age: Duration,
    /// For one that can checkpoint: how long since its last safe point.
    pub since_safe: Option<Duration>,
}

/// Names one series of an app. Ordered, and stable on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    /// The kind; none for the pool.
    pub kind: Option<String>,
    /// Whether it is of the gaps between safe points.
    pub gaps: bool,
}

/// A curve for display.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Durations in seconds and the share that outlasts each, falling from 1; at most 193.
    pub points: Vec<(f64, f64)>,
    /// What half outlasts, in seconds.
    pub p50: f64,
    /// What one in ten outlasts, in seconds.
    pub p90: f64,
    /// What one in a hundred outlasts, in seconds.
    pub p99: f64,
    /// How many observations it rests on.
    pub seen: u64,
    /// How many of them were cut.
    pub cut: u64,
}

/// The durations of one app's tasks.
#[derive(Clone, Debug, Default)]
pub struct AppGrace {
    pool: Pair,
    kinds: BTreeMap<Box<str>, Pair>,
}

/// A series and its twin over gaps.
#[derive(Clone, Debug, Default)]
struct Pair {
    whole: Watched,
    gaps: Watched,
}

/// A series with the curve last drawn from it.
#[derive(Clone, Debug, Default)]
struct Watched {
    series: Box<Series>,
    unsaved: bool,
    drawn: Option<Box<Drawn>>,
}

#[derive(Clone, Debug)]
struct Drawn {
    prior: Prior,
    /// Ends of the series and of its pool when it was drawn.
    ends: (u64, u64),
    curve: Curve,
}

impl Pair {
    const fn of(&self, until: Until) -> &Watched {
        match until {
            Until::End => &self.whole,
            Until::SafePoint => &self.gaps,
        }
    }

    const fn of_mut(&mut self, until: Until) -> &mut Watched {
        match until {
            Until::End => &mut self.whole,
            Until::SafePoint => &mut self.gaps,
        }
    }
}

impl Watched {
    fn observe(&mut self, mut seen: Observation, ends_before: u64) {
        seen.meanwhile = self.series.ends().saturating_sub(ends_before);
        self.series.observe(seen);
        self.unsaved = true;
    }

    /// Draws the curve anew unless nothing changed since.
    fn draw(&mut self, prior: Prior, pool: Option<(&Curve, u64)>) -> &Curve {
        let ends = (self.series.ends(), pool.map_or(0, |(_, ends)| ends));
        let fresh = self.drawn.take().filter(|drawn| drawn.ends == ends && drawn.prior == prior);
        let drawn = fresh.unwrap_or_else(|| {
            let curve = match pool {
                None => Curve::of_pool(&self.series, prior),
                Some((pool, _)) => Curve::of_kind(&self.series, prior, pool),
            };
            Box::new(Drawn { prior, ends, curve })
        });
        &self.drawn.insert(drawn).curve
    }
}

impl AppGrace {
    /// A task begins now, at the age `age0` when it is resumed.
    #[must_use]
    pub fn begin(&self, kind: Option<&str>, age0: Duration, now: Moment) -> Run {
        Run {
            began: now,
            age0,
            safe: now,
            whole: self.marks(kind, Until::End),
            gap: self.marks(kind, Until::SafePoint),
        }
    }

    /// The task reached a safe point: a durable checkpoint.
    pub fn on_safe_point(&mut self, kind: Option<&str>, run: &mut Run, now: Moment) {
        self.observe(kind, Until::SafePoint, run, now, true);
        run.safe = run.safe.max(now);
        run.gap = self.marks(kind, Until::SafePoint);
    }

    /// The task ended, or was cut.
    pub fn on_end(&mut self, kind: Option<&str>, run: &Run, now: Moment, ended: Ended) {
        self.observe(kind, Until::End, run, now, ended.finished());
        self.observe(kind, Until::SafePoint, run, now, ended.at_safe_point());
    }

    /// A stretch of a task ended that its owner measured: all of it, or the gap since its last safe point, from the first
    /// of `ages` to the second. `run` tells how long ago the task was young.
    pub fn on_span(
        &mut self,
        kind: Option<&str>,
        until: Until,
        (age0, age): (Duration, Duration),
        finished: bool,
        run: &Run,
    ) {
        let marks = match until {
            Until::End => run.whole,
            Until::SafePoint => run.gap,
        };
        self.count(kind, until, (age0, age), marks, finished);
    }

    /// The next gap of a running task begins now.
    pub fn mark_safe(&self, kind: Option<&str>, run: &mut Run, now: Moment) {
        run.safe = run.safe.max(now);
        run.gap = self.marks(kind, Until::SafePoint);
    }

    /// How long a drain may take that begins now with these tasks in flight: long enough for all to end, or, where that
    /// is sooner, for those that can checkpoint to reach a safe point and for the others to end.
    pub fn query(&mut self, tasks: &[InFlight<'_>], policy: &GracePolicy) -> Grace {
        let ended = self.ask(tasks, policy, Until::End);
        if tasks.iter().all(|task| task.since_safe.is_none()) {
            return ended;
        }
        let safe = self.ask(tasks, policy, Until::SafePoint);
        if safe.bound < ended.bound { safe } else { ended }
    }

    /// The survival curve of a kind, or of all tasks; of the gaps between safe points with [`Until::SafePoint`].
    pub fn shape(&mut self, kind: Option<&str>, until: Until, policy: &GracePolicy) -> Shape {
        self.draw(kind, until, policy);
        let watched = self.series_of(kind, until);
        let curve = drawn(watched);
        let mut points = vec![(0.0, 1.0)];
        for edge in EDGES {
            let share = curve.share(edge);
            points.push((edge, share));
            if share < SHAPE_END {
                break;
            }
        }
        Shape {
            points,
            p50: curve.quantile(0.5),
            p90: curve.quantile(0.1),
            p99: curve.quantile(0.01),
            seen: watched.series.ends(),
            cut: watched.series.cut(),
        }
    }

    /// The kinds with curves of their own, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(AsRef::as_ref)
    }

    /// The series that changed since this was last asked, as stored. Each is at most 4 KiB.
    pub fn changed(&mut self) -> Vec<(SeriesKey, Vec<u8>)> {
        let pairs = std::iter::once((None, &mut self.pool));
        let pairs = pairs.chain(self.kinds.iter_mut().map(|(kind, pair)| (Some(kind), pair)));
        let mut changed = Vec::new();
        for (kind, pair) in pairs {
            for (gaps, watched) in [(false, &mut pair.whole), (true, &mut pair.gaps)] {
                if std::mem::take(&mut watched.unsaved) {
                    let key = SeriesKey { kind: kind.map(ToString::to_string), gaps };
                    changed.push((key, watched.series.to_bytes()));
                }
            }
        }
        changed
    }

    /// Every series that has seen something, as stored.
    #[must_use]
    pub fn all(&self) -> Vec<(SeriesKey, Vec<u8>)> {
        let mut everything = self.clone();
        let pairs = std::iter::once(&mut everything.pool).chain(everything.kinds.values_mut());
        for pair in pairs {
            for watched in [&mut pair.whole, &mut pair.gaps] {
                watched.unsaved = watched.series.ends() > 0;
            }
        }
        everything.changed()
    }

    /// Takes back one series as it was stored.
    ///
    /// # Errors
    /// [`BytesError`] when the bytes cannot be read; what was known stays.
    pub fn load(&mut self, key: &SeriesKey, bytes: &[u8]) -> Result<(), BytesError> {
        let series = Box::new(Series::from_bytes(bytes)?);
        let pair = match &key.kind {
            None => &mut self.pool,
            Some(kind) => self.kinds.entry(kind.as_str().into()).or_default(),
        };
        let until = if key.gaps { Until::SafePoint } else { Until::End };
        *pair.of_mut(until) = Watched { series, unsaved: false, drawn: None };
        Ok(())
    }

    /// Adds what another instance of the same app has seen.
    pub fn merge(&mut self, other: &Self) {
        let add = |mine: &mut Pair, theirs: &Pair| {
            for until in [Until::End, Until::SafePoint] {
                let watched = mine.of_mut(until);
                watched.series.merge(&theirs.of(until).series);
                (watched.unsaved, watched.drawn) = (true, None);
            }
        };
        add(&mut self.pool, &other.pool);
        for (kind, theirs) in &other.kinds {
            if self.kinds.len() < KINDS_MAX || self.kinds.contains_key(kind) {
                add(self.kinds.entry(kind.clone()).or_default(), theirs);
            }
        }
    }

    fn observe(&mut self, kind: Option<&str>, until: Until, run: &Run, now: Moment, finished: bool) {
        let (age0, age, marks) = match until {
            Until::End => (run.age0, run.age(now), run.whole),
            Until::SafePoint => (Duration::ZERO, run.since_safe(now), run.gap),
        };
        self.count(kind, until, (age0, age), marks, finished);
    }

    fn count(
        &mut self,
        kind: Option<&str>,
        until: Until,
        (age0, age): (Duration, Duration),
        marks: Marks,
        finished: bool,
    ) {
        let seen = Observation { age0_s: age0.as_secs_f64(), age_s: age.as_secs_f64(), finished, meanwhile: 0 };
        if let Some(kind) = kind {
            if self.kinds.len() < KINDS_MAX && !self.kinds.contains_key(kind) {
                self.kinds.insert(kind.into(), Pair::default());
            }
            if let Some(pair) = self.kinds.get_mut(kind) {
                pair.of_mut(until).observe(seen, marks.kind);
            }
        }
        self.pool.of_mut(until).observe(seen, marks.pool);
    }

    fn marks(&self, kind: Option<&str>, until: Until) -> Marks {
        let ends = |pair: &Pair| pair.of(until).series.ends();
        Marks { pool: ends(&self.pool), kind: kind.and_then(|kind| self.kinds.get(kind)).map_or(0, ends) }
    }

    fn ask(&mut self, tasks: &[InFlight<'_>], policy: &GracePolicy, until: Until) -> Grace {
        let curve_of = |task: &InFlight<'_>| match (until, task.since_safe) {
            (Until::SafePoint, Some(since_safe)) => (Until::SafePoint, since_safe),
            (Until::SafePoint, None) | (Until::End, _) => (Until::End, task.age),
        };
        for task in tasks {
            self.draw(task.kind, curve_of(task).0, policy);
        }
        let places: Vec<_> = tasks
            .iter()
            .map(|task| {
                let (until, age) = curve_of(task);
                drawn(self.series_of(task.kind, until)).from_age(age.as_secs_f64())
            })
            .collect();
        let found = match tasks {
            [] => Found { seconds: policy.min.as_secs_f64(), by: SettledBy::Idle, probability: 1.0 },
            _ => answer::smallest(&places, policy),
        };
        let nothing_seen = self.pool.of(until).series.ends() == 0 && !tasks.is_empty();
        let mut bound = Duration::try_from_secs_f64(found.seconds).unwrap_or(policy.max);
        let mut by = found.by;
        if nothing_seen && by != SettledBy::Max {
            bound = bound.max(super::bound(policy));
            by = SettledBy::Default;
        }
        let basis = self.basis(tasks, until);
        Grace {
            bound,
            tasks: tasks.len(),
            oldest: tasks.iter().map(|task| task.age).max().unwrap_or_default(),
            until,
            by,
            probability: found.probability,
            seen: basis.ends(),
            cut: basis.cut(),
        }
    }

    /// What the sentence counts: the observations of the kind when all tasks are of one, else the pool's.
    fn basis(&self, tasks: &[InFlight<'_>], until: Until) -> &Series {
        let mut kinds = tasks.iter().map(|task| task.kind);
        let first = kinds.next().flatten();
        let only = first.filter(|first| kinds.all(|kind| kind == Some(first)));
        let of_kind = only.and_then(|kind| self.kinds.get(kind)).map(|pair| &pair.of(until).series);
        of_kind.filter(|series| series.ends() > 0).unwrap_or(&self.pool.of(until).series)
    }

    /// The series that speaks for a kind: its own, or the pool's.
    fn series_of(&self, kind: Option<&str>, until: Until) -> &Watched {
        kind.and_then(|kind| self.kinds.get(kind)).unwrap_or(&self.pool).of(until)
    }

    fn draw(&mut self, kind: Option<&str>, until: Until, policy: &GracePolicy) {
        let prior = Prior::new(policy.default.as_secs_f64(), policy.target);
        let pool = self.pool.of_mut(until);
        let ends = pool.series.ends();
        let curve = pool.draw(prior, None);
        if let Some(pair) = kind.and_then(|kind| self.kinds.get_mut(kind)) {
            pair.of_mut(until).draw(prior, Some((curve, ends)));
        }
    }
}

/// The curve of a series that was drawn in this very query.
fn drawn(watched: &Watched) -> &Curve {
    &watched.drawn.as_ref().expect("a query draws every curve that it asks").curve
}
