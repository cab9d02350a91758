//! Connections that were on their way to a worker when its share was taken.
//!
//! A connection belongs to a lane from its first packet on, and comes into the lane's queue with its third: as much later as
//! the client is away, or where the worker had its socket wait for the request (`TCP_DEFER_ACCEPT`), with the request. Whoever
//! looked at queue and connections alone would end the worker before it comes.
//!
//! ```text
//!  Unseen ── first look ──► Settling ── second look ──► Awaited { left, until } ──► left is empty, or its time is over
//!              packets that the last program         of what is left, what the
//!              has steered are in the table          kernel still has stays
//! ```
//! The kernel tells of the address, not of the lane: what was on its way to other workers is awaited, too. What begins later
//! cannot be this worker's. One that never ends (a client that went away, a flood) is given up at `until`.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use agentd_core::time::Moment;

/// How long they are awaited: the kernel repeats its answer to a lost first packet after 1 s and after 3 s (RFC 6298).
const COME_WITHIN: Duration = Duration::from_secs(4);

/// Who is on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Handshakes {
    /// Nobody has looked.
    #[default]
    Unseen,
    /// The share was taken a look ago.
    Settling,
    /// They were on their way then, and have not come.
    Awaited {
        /// Clients' ends.
        left: BTreeSet<SocketAddr>,
        /// Until when they may come.
        until: Moment,
    },
}

impl Handshakes {
    /// Takes a look at who is on the way to the address by what `ask` tells; how many of them may still come to this worker.
    /// At the first look that is not known yet.
    ///
    /// # Errors
    /// Those of `ask`.
    pub(super) fn look(
        &mut self,
        now: Moment,
        ask: impl FnOnce() -> io::Result<BTreeSet<SocketAddr>>,
    ) -> io::Result<u32> {
        match self {
            Self::Unseen => *self = Self::Settling,
            Self::Settling => *self = Self::Awaited { left: ask()?, until: now + COME_WITHIN },
            Self::Awaited { left, .. } if left.is_empty() => {}
            Self::Awaited { left, until } if *until <= now => left.clear(),
            Self::Awaited { left, .. } => {
                let present = ask()?;
                left.retain(|client| present.contains(client));
            }
        }
        Ok(match self {
            Self::Unseen | Self::Settling => 0,
            Self::Awaited { left, .. } => u32::try_from(left.len()).unwrap_or(u32::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(ports: &[u16]) -> BTreeSet<SocketAddr> {
        ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    #[test]
    fn who_was_on_the_way_is_awaited_and_who_comes_later_is_not() {
        let now = Moment::from_micros(0);
        let mut handshakes = Handshakes::default();
        let mut look = |ports: &[u16]| handshakes.look(now, || Ok(clients(ports))).expect("the kernel answers");
        assert_eq!(look(&[1, 2, 9]), 0, "not known yet");
        assert_eq!(look(&[1, 2]), 2);
        assert_eq!(look(&[2, 3]), 1, "one has come; another is not this worker's");
        assert_eq!(look(&[3]), 0);
        assert_eq!(look(&[1, 2, 3]), 0, "the same ports again are others");
    }

    #[test]
    fn who_never_comes_is_given_up() {
        let at = |seconds: u64| Moment::from_micros(seconds * 1_000_000);
        let mut handshakes = Handshakes::default();
        let mut look = |now| handshakes.look(now, || Ok(clients(&[1]))).expect("the kernel answers");
        assert_eq!([look(at(0)), look(at(0)), look(at(3)), look(at(4)), look(at(5))], [0, 1, 1, 0, 0]);
    }

    #[test]
    fn a_kernel_that_does_not_answer_leaves_the_question_open() {
        let mut handshakes = Handshakes::Settling;
        let now = Moment::from_micros(0);
        handshakes.look(now, || Err(io::ErrorKind::TimedOut.into())).expect_err("told");
        assert_eq!(handshakes, Handshakes::Settling);
    }
}
