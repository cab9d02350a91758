//! What must hold after every death.
//!
//! 1. The new supervisor's status is true within a second: every process it names is there and carries the instance's
//!    mark.
//! 2. Everything comes to where it was wanted.
//! 3. The same processes serve, except those that were due to be replaced.
//! 4. No process of the instance is unaccounted for.
//! 5. Connections go to ready workers, and to no other.
//!
//! That no request and no line was lost is counted over the whole run (`mod.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use agentd_protocol::status::{StatusDocument, WorkerState};

use super::fleet::{Fleet, pids};
use super::{Action, Death};

const TRUE_WITHIN: Duration = Duration::from_secs(1);
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// Asserts all of them; how long it took to settle.
pub(super) fn hold(fleet: &mut Fleet, action: Action, death: Death) -> Duration {
    let started = Instant::now();
    let context = format!("{death:?} during {action:?}");
    status_is_true(fleet, &context);
    let document = fleet.daemon.wait_until(SETTLED_WITHIN, |document| settled(fleet, document));
    let took = started.elapsed();
    same_processes(fleet, &document, action, &context);
    all_accounted_for(fleet, &context);
    for app in &document.apps {
        let ready: u32 =
            app.workers.iter().filter(|worker| worker.state == WorkerState::Ready).map(|w| u32::from(w.weight)).sum();
        let all: u32 = app.workers.iter().map(|worker| u32::from(worker.weight)).sum();
        assert_eq!(ready, all, "{context}: weight is where nobody is ready: {app:#?}");
    }
    fleet.before = pids(&document);
    fleet.touched.clear();
    fleet.crashed = None;
    took
}

fn settled(fleet: &Fleet, document: &StatusDocument) -> bool {
    document.apps.iter().all(|app| {
        let wanted = fleet.count(&app.name).unwrap_or(app.desired);
        app.ready == wanted
            && app.desired == wanted
            && app.deployment.is_none()
            && app.workers.len() == wanted as usize
            && app.workers.iter().all(|worker| worker.state == WorkerState::Ready)
    })
}

/// A document of at most a second ago names only processes that are there.
fn status_is_true(fleet: &Fleet, context: &str) {
    let until = Instant::now() + TRUE_WITHIN;
    loop {
        let document = fleet.daemon.status();
        let named: Vec<u32> = pids(&document).into_values().flatten().collect();
        let ghost = named.iter().find(|pid| !is_marked(**pid, fleet.daemon.instance()));
        let Some(ghost) = ghost else { return };
        // It may have ended between the two looks.
        assert!(
            Instant::now() < until,
            "{context}: the status names process {ghost}, which is not there: {document:#?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_marked(pid: u32, instance: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mark = format!("AGENTD_INSTANCE={instance}");
    environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
}

/// Only the server to which something was done has other processes; of a crash, the one that crashed.
fn same_processes(fleet: &Fleet, document: &StatusDocument, action: Action, context: &str) {
    for (app, now) in pids(document) {
        let Some(before) = fleet.before.get(&app) else { continue };
        if !fleet.touched.contains(&*app) {
            assert_eq!(&now, before, "{context}: other processes serve {app}");
        } else if action == Action::Crash {
            let lost: BTreeSet<u32> = before.difference(&now).copied().collect();
            let due: BTreeSet<u32> = fleet.crashed.into_iter().collect();
            assert_eq!(lost, due, "{context}: others of {app} than the one that crashed were replaced");
        }
    }
}

/// Every process with the mark belongs to a worker's session, whose leader the status names.
fn all_accounted_for(fleet: &Fleet, context: &str) {
    let until = Instant::now() + TRUE_WITHIN;
    loop {
        let named: BTreeSet<u32> = pids(&fleet.daemon.status()).into_values().flatten().collect();
        let marked = crate::e2e::processes_with("AGENTD_INSTANCE", fleet.daemon.instance());
        let stray = marked.into_iter().find(|pid| session(*pid).is_some_and(|session| !named.contains(&session)));
        let Some(stray) = stray else { return };
        if Instant::now() >= until {
            let told = |file: &str| fs::read_to_string(format!("/proc/{stray}/{file}")).unwrap_or_default();
            let (command, environment) = (told("cmdline").replace('\0', " "), told("environ").replace('\0', " "));
            panic!(
                "{context}: process {stray} is nobody's: {command}\n{environment}\n{}\n{}\nthe status names {named:?}",
                told("stat"),
                told("cgroup")
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The session of a living process.
fn session(pid: u32) -> Option<u32> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(2)?.parse().ok()).flatten()
}
