//! The page of `grace`: the bound and its reason, the survival curve with the present tasks on it, and a row a kind.
//!
//! The curve is drawn over the logarithm of time, because work that takes seconds and work that takes hours stand on the
//! same page. A column's height is the share that takes longer than the column's time.

use std::fmt::Write as _;
use std::time::Duration;

use agentd_protocol::control::{CurveView, GraceView, InHandView};

use super::bytes_time::span;
use super::state;
use super::table::{Align, Cell, Column, NOTHING, Table, wrap};

/// Lines of the drawing.
const HEIGHT: usize = 10;
/// Columns left of it.
const MARGIN: usize = 6;
/// Columns of it where the width is not known, and at most.
const WIDTH: usize = 74;
const WIDTH_MAX: usize = 120;
/// Eighths of a line.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Times named under it, in seconds, where they fit.
const TICKS_S: [f64; 11] = [0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 28_800.0, 86_400.0, 259_200.0, 864_000.0];

const COLUMNS: &[Column] = &[
    Column { title: "KIND", align: Align::Left, rank: 0 },
    Column { title: "SEEN", align: Align::Right, rank: 0 },
    Column { title: "CUT", align: Align::Right, rank: 2 },
    Column { title: "P50", align: Align::Right, rank: 0 },
    Column { title: "P90", align: Align::Right, rank: 1 },
    Column { title: "P99", align: Align::Right, rank: 0 },
    Column { title: "SAFE P99", align: Align::Right, rank: 3 },
    Column { title: "IN HAND", align: Align::Right, rank: 0 },
    Column { title: "OLDEST", align: Align::Right, rank: 0 },
];

const WORKERS: &[Column] =
    &[Column { title: "WORKER", align: Align::Left, rank: 0 }, Column { title: "GRACE", align: Align::Right, rank: 0 }];

/// The page at `width`, with the curve of `kind`, or of all tasks.
pub(crate) fn page(grace: &GraceView, kind: Option<&str>, width: Option<usize>) -> String {
    let mut text = String::new();
    let (strong, faint) = (state::STRONG, state::FAINT);
    let bound = brief(Duration::from_millis(grace.grace_ms));
    let percent = (grace.target * 1000.0).round() / 10.0;
    let _ = writeln!(text, "{strong}{}{strong:#}: a drain now may take {strong}{bound}{strong:#}", grace.app);
    let why = match (grace.tasks.is_empty(), &grace.why) {
        // What is not told of as a task is still waited for, as long as that.
        (true, why) => format!("{why}: it waits for connections, at most so long"),
        (false, why) => format!("{why}; wanted: {percent} %"),
    };
    for line in wrap(&why, width.map(|width| width.saturating_sub(2))) {
        let _ = writeln!(text, "  {line}");
    }
    let whole = |curve: &&CurveView| !curve.gaps && curve.kind.as_deref() == kind;
    let Some(curve) = grace.curves.iter().find(whole) else {
        let _ = writeln!(text, "\nno curve of {:?}: it was never seen", kind.unwrap_or("its tasks"));
        return text;
    };
    let of = kind.map_or_else(|| "tasks".to_owned(), |kind| format!("tasks of kind {kind}"));
    let heading = match curve.seen {
        0 => format!("share of {of} that is assumed to take longer: nothing was observed yet"),
        1 => format!("share of {of} that take longer: 1 observation, {} censored", curve.cut),
        seen => format!("share of {of} that take longer: {seen} observations, {} of them censored", curve.cut),
    };
    text.push('\n');
    for line in wrap(&heading, width) {
        let _ = writeln!(text, "{faint}{line}{faint:#}");
    }
    let ages: Vec<f64> =
        grace.tasks.iter().filter(|task| kind.is_none() || task.kind.as_deref() == kind).map(age_s).collect();
    text.push_str(&drawing(curve, &ages, grace.grace_ms as f64 / 1000.0, width));
    text.push('\n');
    text.push_str(&kinds(grace, width));
    if !grace.workers.is_empty() {
        text.push('\n');
        text.push_str(&workers(grace, width));
    }
    text
}

fn age_s(task: &InHandView) -> f64 {
    task.age_ms as f64 / 1000.0
}

/// Time along the drawing, by the logarithm.
struct Axis {
    from: f64,
    to: f64,
    columns: usize,
}

impl Axis {
    fn of(curve: &CurveView, ages: &[f64], bound_s: f64, columns: usize) -> Self {
        let falling = curve.points.iter().find(|(_, share)| *share < 0.995).map_or(1.0, |(seconds, _)| *seconds);
        let finite = |seconds: &f64| seconds.is_finite() && *seconds > 0.0;
        let last = [curve.p99_s * 1.5, bound_s * 1.1].into_iter().chain(ages.iter().copied()).filter(finite);
        let from = ages.iter().copied().filter(finite).fold(falling / 1.5, f64::min).max(0.05);
        Self { from, to: last.fold(from * 4.0, f64::max), columns }
    }

    /// The column of a time; none when it lies outside.
    fn column(&self, seconds: f64) -> Option<usize> {
        let share = (seconds / self.from).ln() / (self.to / self.from).ln();
        (0.0..=1.0).contains(&share).then(|| ((share * self.columns as f64) as usize).min(self.columns - 1))
    }

    /// The time in the middle of a column.
    fn seconds(&self, column: usize) -> f64 {
        self.from * (self.to / self.from).powf((column as f64 + 0.5) / self.columns as f64)
    }
}

/// The curve, times under it, and where the tasks in hand and the bound are.
fn drawing(curve: &CurveView, ages: &[f64], bound_s: f64, width: Option<usize>) -> String {
    let columns = width.map_or(WIDTH, |width| width.saturating_sub(MARGIN)).clamp(20, WIDTH_MAX);
    let axis = Axis::of(curve, ages, bound_s, columns);
    let eighths: Vec<usize> = (0..columns)
        .map(|column| (share_at(curve, axis.seconds(column)) * (HEIGHT * 8) as f64).round() as usize)
        .collect();
    let mut text = String::new();
    let style = state::BUSY;
    for line in 0..HEIGHT {
        let below = (HEIGHT - 1 - line) * 8;
        let row: String = eighths.iter().map(|height| BLOCKS[height.saturating_sub(below).min(8)]).collect();
        let label = match line {
            0 => "100 %",
            5 => " 50 %",
            _ => "",
        };
        let _ = writeln!(text, "{label:<MARGIN$}{style}{}{style:#}", row.trim_end());
    }
    let mut marks = vec!['─'; columns];
    for seconds in TICKS_S {
        if let Some(column) = axis.column(seconds) {
            marks[column] = '┴';
        }
    }
    let _ = writeln!(text, "{:<MARGIN$}{}", "", marks.iter().collect::<String>());
    labels(&mut text, &axis, &TICKS_S.map(|seconds| (seconds, span(Duration::from_secs_f64(seconds)))));
    let named = [(curve.p50_s, "p50"), (curve.p90_s, "p90"), (curve.p99_s, "p99"), (bound_s, "◆ deadline")];
    labels(&mut text, &axis, &named.map(|(seconds, name)| (seconds, format!("↑{name}"))));
    tasks(&mut text, &axis, ages);
    text
}

/// A line of texts at their times; one that would touch its neighbour goes to a line of its own.
fn labels(text: &mut String, axis: &Axis, named: &[(f64, String)]) {
    let mut rest: Vec<(usize, &str)> =
        named.iter().filter_map(|(seconds, name)| Some((axis.column(*seconds)?, name.as_str()))).collect();
    rest.sort_by_key(|(column, _)| *column);
    while !rest.is_empty() {
        let (mut line, mut used, mut later) = (String::new(), 0, Vec::new());
        for (column, name) in rest {
            let length = name.chars().count();
            let column = column.min(axis.columns.saturating_sub(length));
            if used > 0 && column < used + 1 {
                later.push((column, name));
                continue;
            }
            let _ = write!(line, "{:1$}{name}", "", column - used);
            used = column + length;
        }
        let _ = writeln!(text, "{:<MARGIN$}{line}", "");
        rest = later;
    }
}

/// The tasks in hand at their ages; a digit where several fall together.
fn tasks(text: &mut String, axis: &Axis, ages: &[f64]) {
    if ages.is_empty() {
        return;
    }
    let mut counts = vec![0_u32; axis.columns];
    for age in ages {
        counts[axis.column(*age).unwrap_or(0)] += 1;
    }
    let mark = |count: &u32| match *count {
        0 => ' ',
        1 => '▲',
        2..=9 => char::from_digit(*count, 10).unwrap_or('+'),
        _ => '+',
    };
    let line: String = counts.iter().map(mark).collect();
    let style = state::WARN;
    let _ = writeln!(text, "{:<MARGIN$}{style}{}{style:#}", "now", line.trim_end());
}

/// The share that takes longer than a time, between two points of the curve by the logarithm.
fn share_at(curve: &CurveView, seconds: f64) -> f64 {
    let after = curve.points.partition_point(|(at, _)| *at <= seconds);
    let Some((from, here)) = after.checked_sub(1).map(|before| curve.points[before]) else { return 1.0 };
    let Some((to, next)) = curve.points.get(after) else { return 0.0 };
    let part = if from > 0.0 { (seconds / from).ln() / (to / from).ln() } else { seconds / to };
    here + (next - here) * part
}

fn kinds(grace: &GraceView, width: Option<usize>) -> String {
    let mut table = Table::new(COLUMNS, 0);
    let shown = |seconds: f64| Cell::plain(Duration::try_from_secs_f64(seconds).map_or(NOTHING.to_owned(), brief));
    for curve in grace.curves.iter().filter(|curve| !curve.gaps) {
        let of_kind = |task: &&InHandView| curve.kind.is_none() || task.kind == curve.kind;
        let in_hand = grace.tasks.iter().filter(of_kind);
        let oldest = in_hand.clone().map(|task| task.age_ms).max();
        let gaps = grace.curves.iter().find(|gaps| gaps.gaps && gaps.kind == curve.kind && gaps.seen > curve.seen);
        table.row(
            vec![
                Cell::styled(curve.kind.as_deref().unwrap_or("(all)"), state::STRONG),
                Cell::plain(curve.seen.to_string()),
                Cell::plain(curve.cut.to_string()),
                shown(curve.p50_s),
                shown(curve.p90_s),
                shown(curve.p99_s),
                gaps.map_or_else(|| Cell::plain(NOTHING), |gaps| shown(gaps.p99_s)),
                Cell::plain(in_hand.count().to_string()),
                Cell::plain(oldest.map_or_else(|| NOTHING.to_owned(), |ms| span(Duration::from_millis(ms)))),
            ],
            Vec::new(),
        );
    }
    table.render(width)
}

fn workers(grace: &GraceView, width: Option<usize>) -> String {
    let mut table = Table::new(WORKERS, 0);
    for worker in &grace.workers {
        let grace = brief(Duration::from_millis(worker.grace_ms));
        let why = vec![Cell::styled(&worker.why, state::FAINT)];
        table.row(vec![Cell::plain(&worker.worker), Cell::plain(grace)], why);
    }
    table.render(width)
}

/// A span that was estimated: two digits or whole seconds, never rounded to less.
fn brief(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if (1.0..10.0).contains(&seconds) {
        format!("{:.1}s", (seconds * 10.0).ceil() / 10.0)
    } else if seconds >= 10.0 {
        span(Duration::from_secs(seconds.ceil() as u64))
    } else {
        span(time)
    }
}

#[cfg(test)]
mod tests {
    use agentd_protocol::control::WorkerGrace;

    use super::super::fixture::plain;
    use super::*;

    fn view() -> GraceView {
        let curve = |kind: Option<&str>, gaps, scale: f64, seen| {
            let at = |k: i32| 0.0625 * (f64::from(k) / 8.0).exp2();
            let survives = |seconds: f64| if seconds < scale { 1.0 } else { (scale / seconds).powf(1.5) };
            CurveView {
                kind: kind.map(str::to_owned),
                gaps,
                points: std::iter::once((0.0, 1.0)).chain((0..193).map(|k| (at(k), survives(at(k))))).collect(),
                p50_s: scale * 1.59,
                p90_s: scale * 4.64,
                p99_s: scale * 21.5,
                seen,
                cut: 37,
            }
        };
        let task = |kind: &str, age_ms| InHandView {
            task: "t".into(),
            kind: Some(kind.into()),
            worker: "support.0.17".into(),
            age_ms,
            since_safe_ms: None,
            stuck: false,
        };
        GraceView {
            app: "support".into(),
            grace_ms: 312_000,
            why: "3 tasks, oldest 41 s; 99 % of such finish within 312 s; 37 of 512 observations censored".into(),
            target: 0.99,
            workers: vec![WorkerGrace {
                worker: "support.0.17".into(),
                grace_ms: 312_000,
                why: "3 tasks, oldest 41 s; 99 % of such finish within 312 s".into(),
            }],
            curves: vec![
                curve(None, false, 10.0, 512),
                curve(None, true, 2.0, 4000),
                curve(Some("chat"), false, 2.0, 400),
                curve(Some("research"), false, 60.0, 112),
            ],
            tasks: vec![task("research", 41_000), task("chat", 3000), task("chat", 3010)],
        }
    }

    #[test]
    fn eighty_columns_show_the_curve_the_tasks_and_the_reason() {
        let page = plain(&page(&view(), None, Some(80)));
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
        insta::assert_snapshot!("eighty", page);
    }

    #[test]
    fn forty_columns_show_less_of_it() {
        let page = plain(&page(&view(), Some("chat"), Some(40)));
        insta::assert_snapshot!("forty", page);
    }

    #[test]
    fn a_kind_that_was_never_seen_is_said_to_be() {
        assert!(page(&view(), Some("other"), Some(80)).contains("no curve of \"other\""));
    }

    #[test]
    fn an_app_without_tasks_and_observations_is_drawn_from_what_is_assumed() {
        let mut empty = view();
        (empty.tasks, empty.workers) = (Vec::new(), Vec::new());
        empty.curves.truncate(1);
        (empty.curves[0].p99_s, empty.curves[0].seen, empty.curves[0].cut) = (f64::INFINITY, 0, 0);
        empty.why = "no task in flight".into();
        let page = plain(&page(&empty, None, Some(80)));
        assert!(page.contains("(all)"));
        assert!(page.contains("no task in flight: it waits for connections, at most so long"), "{page}");
        assert!(page.contains("assumed to take longer: nothing was observed yet"), "{page}");
    }
}
