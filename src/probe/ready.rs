//! Readiness: the proof that a connection was accepted by this worker.
//!
//! Owns the decision from a steered probe. The kernel completes a connection as soon as it has queued it, so being
//! connected proves nothing; only the worker's lane, an inode among its descriptors, or its answer does.
//!
//! Happy path: connected; the accepted socket's inode is found among the worker's; done within a millisecond or two.
//! Unhappy: nobody accepts by the deadline, and where the worker listens instead is looked up for the message; somebody
//! else holds the lane and accepts (a child of the worker before); the worker closes at once, which says nothing of
//! who it was. With an HTTP check the answer is the proof, since nobody but the lane's holder can have given it.

use std::io;
use std::time::Duration;

use agentd_core::id::Pid;
use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::http::{self, HttpCheck, HttpError, Seconds, Status};
use crate::sockets::{Acceptance, ListenAddr, ProbeConnection, ProbeEnds, ProbeStream, SockDiag};

/// Pause after the first look that finds nothing; each doubles the one before.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Longest pause between looks.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// What is asked of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyCheck {
    /// That it accepts.
    Accepts,
    /// That it answers.
    Http(HttpCheck),
}

/// Why a worker counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The probe's connection is among its descriptors.
    Accepted,
    /// It gave this answer on its own lane.
    Answered(Status),
}

/// Why a worker does not count as ready yet.
#[derive(Debug, Error)]
pub enum NotReady {
    /// The probe's connection failed.
    #[error("could not be connected to")]
    Connect(#[source] io::Error),
    /// The kernel had no room to queue the connection, or its answer was lost.
    #[error("has a full accept queue: no connection within {}", Seconds(*.0))]
    QueueFull(Duration),
    /// The connection stayed in the queue. How long does not matter: one of many tries is not what the user configured.
    #[error("did not accept from its socket{}", listens_at(.elsewhere))]
    NotAccepted {
        /// What it listens on instead of the app's sockets, if anything.
        elsewhere: Vec<ListenAddr>,
    },
    /// The connection is a process's that is not this worker's.
    #[error("did not accept, but another process that holds its socket did")]
    AcceptedElsewhere,
    /// The connection was closed before it was seen who had it.
    #[error("closed the connection at once, so that who accepted it cannot be told")]
    ClosedAtOnce,
    /// It accepted, and its answer is not the one that was wanted.
    #[error(transparent)]
    Http(HttpError),
    /// The kernel does not say who holds the connection.
    #[error("could not be looked into")]
    Look(#[source] io::Error),
}

fn listens_at(elsewhere: &[ListenAddr]) -> String {
    if elsewhere.is_empty() {
        return String::new();
    }
    let addrs: Vec<String> = elsewhere.iter().map(ListenAddr::to_string).collect();
    format!("; it listens on {} instead", addrs.join(" and "))
}

/// Decides by one steered connection, at the latest at `deadline`. `pids` gives the worker's processes as they are
/// now. The caller ends the probe at its listeners afterwards.
///
/// # Errors
/// Why this connection is no proof; another may be. Nothing is proof that was not seen.
pub async fn steered(
    probe: ProbeConnection,
    check: &ReadyCheck,
    pids: impl Fn() -> Vec<Pid>,
    deadline: Instant,
) -> Result<Proof, NotReady> {
    let within = deadline.saturating_duration_since(Instant::now());
    let (ends, app_sockets) = (probe.ends.clone(), probe.app_sockets.clone());
    let mut stream = match timeout_at(deadline, probe.connected()).await {
        Ok(connected) => connected.map_err(NotReady::Connect)?,
        Err(_) => return Err(NotReady::QueueFull(within)),
    };
    let mut diag = SockDiag::open().map_err(NotReady::Look)?;
    let proven = match check {
        ReadyCheck::Accepts => accepted(&mut diag, &ends, &pids, deadline).await,
        ReadyCheck::Http(check) => answered(&mut stream, check, deadline).await,
    };
    let not_ready = match proven {
        Ok(proof) => return Ok(proof),
        Err(not_ready) => not_ready,
    };
    // The stream is still open here: of a connection that the prober has closed nothing could be found out.
    let queued = diag.acceptance(&ends, Vec::new).is_ok_and(|acceptance| acceptance == Acceptance::Queued);
    drop(stream);
    let waited = matches!(not_ready, NotReady::NotAccepted { .. } | NotReady::Http(HttpError::Timeout(_)));
    if !(waited && queued) {
        return Err(not_ready);
    }
    let elsewhere = diag.listening(&pids(), &app_sockets).map_err(NotReady::Look)?;
    Err(NotReady::NotAccepted { elsewhere })
}

/// Looks until one of `pids` has the connection.
async fn accepted(
    diag: &mut SockDiag,
    ends: &ProbeEnds,
    pids: impl Fn() -> Vec<Pid>,
    deadline: Instant,
) -> Result<Proof, NotReady> {
    let mut pause = PAUSE_MIN;
    loop {
        match diag.acceptance(ends, &pids).map_err(NotReady::Look)? {
            Acceptance::Held => return Ok(Proof::Accepted),
            Acceptance::HeldElsewhere => return Err(NotReady::AcceptedElsewhere),
            Acceptance::Gone => return Err(NotReady::ClosedAtOnce),
            Acceptance::Queued => {}
        }
        let now = Instant::now();
        if now >= deadline {
            // Where it listens is looked up by the caller.
            return Err(NotReady::NotAccepted { elsewhere: Vec::new() });
        }
        sleep_until((now + pause).min(deadline)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn answered(stream: &mut ProbeStream, check: &HttpCheck, deadline: Instant) -> Result<Proof, NotReady> {
    let answer = match stream {
        ProbeStream::Tcp(stream) => http::get(stream, check, deadline).await,
        ProbeStream::Unix(stream) => http::get(stream, check, deadline).await,
    };
    answer.map(Proof::Answered).map_err(NotReady::Http)
}

#[cfg(test)]
mod tests;
