//! Deaths at chosen moments, for tests. Nothing of it is in a release build.
//!
//! `AGENTD_FAULT=committed:3` kills a debug build's daemon, by SIGKILL, when it passes the point `committed` for the third
//! time; `AGENTD_FAULT=getfd:denied` refuses what the point `getfd` stands for, as a kernel would that does not allow it.
//! [`POINTS`] are all there are: each between two things that must not be torn apart.

/// Every point at which the daemon can be made to die, in the order of a worker's life.
pub const POINTS: [&str; 11] = [
    "took",      // what the keeper held is ours, and nothing else is
    "adopted",   // one more worker is taken over, others are not yet
    "resumed",   // core goes on, and nobody is served yet
    "decided",   // a step was taken, and nothing of it written
    "committed", // it is written, and nothing of it done
    "spawned",   // a process runs, and nobody recorded it
    "kept",      // the keeper has what it needs
    "weighed",   // connections are shared out anew
    "told",      // a stop signal was sent
    "recorded",  // a release is written down, and has no name yet
    "named",     // it has its name, and nothing runs it
];

/// Passes a point: the end of this process, if it was chosen.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static PASSED: AtomicU32 = AtomicU32::new(0);
    debug_assert!(POINTS.contains(&name), "{name} is listed");
    let Ok(chosen) = std::env::var("AGENTD_FAULT") else { return };
    let Some((_, count)) = chosen.split_once(':').filter(|(point, _)| *point == name) else { return };
    let passed = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
    if count.parse() == Ok(passed) {
        // Nothing comes after it: no destructor, no buffered line.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Passes a point: nothing, in a release build.
#[cfg(not(debug_assertions))]
pub const fn point(_: &str) {}

/// Whether what `name` stands for is to be refused.
#[cfg(debug_assertions)]
#[must_use]
pub fn is_denied(name: &str) -> bool {
    std::env::var("AGENTD_FAULT").is_ok_and(|chosen| chosen.strip_prefix(name) == Some(":denied"))
}

/// Whether what `name` stands for is to be refused: never, in a release build.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn is_denied(_: &str) -> bool {
    false
}
