//! The tables of an app that are plain amounts: restart, stop, grace, reload, limits, log.

use std::time::Duration;

use agentd_core::policy::{DrainBy, GracePolicy, ReloadPolicy, RestartPolicy, RestartWhen};
use agentd_core::task::{Doubt, Kind, OnDeadline};

use super::app::{AppConfig, Ipc, Stop, Tasks};
use super::reader::{Field, TableReader};
use super::{gates, limits, logs, quantity, upgrade};

/// A beat comes every third of a lease.
const SHORTEST_LEASE: Duration = Duration::from_millis(300);

/// Reads them all; what the user left out keeps its default.
pub(super) fn fill(app: &mut AppConfig, table: &TableReader<'_>) {
    let section = |name| table.get(name).and_then(|field| Some((field.table()?, field)));
    if let Some((restart, _)) = section("restart") {
        fill_restart(&mut app.restart, &restart);
    }
    if let Some((stop, _)) = section("stop") {
        fill_stop(&mut app.stop, &stop, app.ipc);
    }
    if let Some((grace, field)) = section("grace") {
        fill_grace(&mut app.grace, &grace, &field);
        app.tasks.policy.on_deadline = match grace.get("on_deadline").and_then(|field| field.word()) {
            Some("extend") => OnDeadline::Extend,
            Some("kill") => OnDeadline::Kill,
            Some(_) | None => OnDeadline::Checkpoint,
        };
    }
    if let Some((reload, field)) = section("reload") {
        fill_reload(&mut app.reload, &reload, &field);
    }
    if let Some((upgrade, _)) = section("upgrade") {
        upgrade::fill(&mut app.upgrade, &upgrade);
    }
    if let Some((table, _)) = section("gates") {
        upgrade::fill_eval(&mut app.upgrade, &table, &app.listen);
        gates::fill(&mut app.gates, &table);
    }
    if let Some((tasks, _)) = section("tasks") {
        fill_tasks(&mut app.tasks, &tasks);
    }
    if let Some((table, _)) = section("limits") {
        app.limits = limits::read(&table);
    }
    if let Some((log, _)) = section("log") {
        app.log = logs::read(&log);
    }
}

/// A duration of any length.
pub(super) fn duration(table: &TableReader<'_>, name: &'static str) -> Option<Duration> {
    table.get(name)?.parsed(quantity::parse_duration)
}

/// A duration that has to be longer than nothing.
pub(super) fn pause(table: &TableReader<'_>, name: &'static str) -> Option<Duration> {
    let field = table.get(name)?;
    let duration = field.parsed(quantity::parse_duration)?;
    if duration.is_zero() {
        field.refuse(format!("`{name}` cannot be no time at all"));
        return None;
    }
    Some(duration)
}

fn fill_restart(restart: &mut RestartPolicy, table: &TableReader<'_>) {
    match table.get("policy").and_then(|field| field.word()) {
        Some("always") => restart.when = RestartWhen::Always,
        Some("on-failure") => restart.when = RestartWhen::OnFailure,
        Some(_) => restart.when = RestartWhen::Never,
        None => {}
    }
    if let Some(field) = table.get("backoff")
        && let Some((min, max)) = field.parsed(quantity::parse_range)
    {
        if min.is_zero() {
            field.refuse(
                "`backoff` cannot start at no time at all: a worker that crashes at once would be started without end",
            );
        }
        (restart.backoff_min, restart.backoff_max) = (min, max);
    }
    if let Some(field) = table.get("max")
        && let Some((max, period)) = field.parsed(quantity::parse_rate)
    {
        if period.is_zero() {
            field.refuse("`max` cannot count in no time at all");
        }
        (restart.max, restart.period) = (max, period);
    }
}

fn fill_stop(stop: &mut Stop, table: &TableReader<'_>, ipc: Option<Ipc>) {
    if let Some(signal) = table.get("signal").and_then(|field| field.parsed(str::parse)) {
        stop.signal = signal;
    }
    match table.get("drain").and_then(|field| field.word()) {
        Some("connections") => stop.drain = DrainBy::Connections,
        Some(_) => stop.drain = DrainBy::Signal,
        None => {}
    }
    if let Some(field) = table.get("message") {
        stop.message = field.flag().unwrap_or(false);
        if stop.message && ipc.is_none() {
            field.refuse("`message` means nothing without `ipc = \"node\"`");
        }
    }
    if let Some(timeout) = duration(table, "timeout") {
        stop.timeout = Some(timeout);
    }
}

fn fill_grace(grace: &mut GracePolicy, table: &TableReader<'_>, whole: &Field<'_>) {
    if let Some(target) = table.get("target").and_then(|field| field.fraction()) {
        grace.target = target;
    }
    let given = ["min", "default", "max"].map(|name| duration(table, name));
    let [min, default, max] = given;
    // Bounds that the user did not write give way to those that were written.
    grace.default = default.unwrap_or_else(|| {
        let low = grace.default.max(min.unwrap_or_default());
        max.map_or(low, |max| low.min(max))
    });
    grace.min = min.unwrap_or(grace.min.min(grace.default));
    grace.max = max.unwrap_or(grace.max.max(grace.default));
    if grace.min > grace.max || grace.default < grace.min || grace.default > grace.max {
        let [min, default, max] = [grace.min, grace.default, grace.max].map(quantity::format_duration);
        let message = format!("`grace` has min = {min}, default = {default}, max = {max}");
        whole.report.add(whole.diagnostic(message).expected("min ≤ default ≤ max"));
    }
}

fn fill_reload(reload: &mut ReloadPolicy, table: &TableReader<'_>, whole: &Field<'_>) {
    if let Some(field) = table.get("strategy") {
        field.word();
    }
    if let Some(max_surge) = table.get("max_surge").and_then(|field| field.count()) {
        reload.max_surge = max_surge;
    }
    if let Some(max_unavailable) = table.get("max_unavailable").and_then(|field| field.count()) {
        reload.max_unavailable = max_unavailable;
    }
    if let Some(settle) = duration(table, "settle") {
        reload.settle = settle;
    }
    if reload.max_surge == 0 && reload.max_unavailable == 0 {
        let message = "with max_surge = 0 and max_unavailable = 0 no worker could ever be replaced";
        let help = "let one worker be above (max_surge = 1) or missing (max_unavailable = 1)";
        whole.report.add(whole.diagnostic(message).help(help));
    }
}

fn fill_tasks(tasks: &mut Tasks, table: &TableReader<'_>) {
    if let Some(field) = table.get("lease")
        && let Some(lease) = field.parsed(quantity::parse_duration)
    {
        if lease < SHORTEST_LEASE {
            let message = format!("a lease of {} would be over between two beats", quantity::format_duration(lease));
            field.report.add(field.diagnostic(message).expected("at least \"300ms\""));
        }
        tasks.policy.lease = lease;
    }
    tasks.state_version = table.get("state_version").and_then(|field| field.count());
    if let Some(open) = table.get("max_open").and_then(|field| field.count()) {
        tasks.policy.max_open = open as usize;
    }
    if let Some(keep) = table.get("keep").and_then(|field| field.count()) {
        tasks.retention.count = keep.into();
    }
    if let Some(age) = duration(table, "keep_for") {
        tasks.retention.age = age;
    }
    if let Some(bytes) = table.get("keep_bytes").and_then(|field| field.parsed(quantity::parse_size)) {
        tasks.retention.bytes = bytes;
    }
    for (name, field) in table.get("effects").and_then(|field| field.entries()).unwrap_or_default() {
        let doubt = match field.word() {
            Some("retry") => Doubt::Retry,
            Some("skip") => Doubt::Skip,
            Some(_) => Doubt::Ask,
            None => continue,
        };
        match Kind::new(name) {
            Ok(kind) => drop(tasks.policy.doubts.insert(kind, doubt)),
            Err(error) => field.report.add(field.report.at(&field.key_span, error.to_string())),
        }
    }
}
