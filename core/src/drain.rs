//! What a draining worker still has in hand, judged from outside, and when it may be told to end.
//!
//! No cooperation is needed: the kernel tells for each connection how many bytes went each way and how long ago
//! (`TCP_INFO`). A connection is
//!
//! - **busy** while work may be going on: the last word was the client's, or the answer is not yet sent, or the
//!   worker spoke last but may be in the middle of a stream;
//! - **idle** when it is kept alive between two requests. Ending the worker closes it, and no request is lost that
//!   a client may not safely repeat.
//!
//! A stream that pauses and a kept-alive connection look alike for a while, so silence must last
//! [`IDLE_AFTER`] to count. A connection that was seen to begin [`REUSES`] requests during the drain is a client that
//! reuses it and will never stop by itself; it counts as idle whenever its last word was the worker's.
//!
//! The kernel's times have the resolution of its tick. Where request and answer fall into one tick, a bare
//! acknowledgement by the client soon after shows that an answer was sent.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::InFlight;
use crate::policy::DrainBy;
use crate::time::Moment;

/// Silence after the worker's last word for a connection to count as idle.
pub const IDLE_AFTER: Duration = Duration::from_secs(10);

/// New requests seen on one connection during the drain after which it counts as reused without end.
pub const REUSES: u32 = 3;

/// Silence after an answer on a reused connection for it to be between two requests, in ms: one tick of a kernel at
/// 250 Hz, the least that can be told from none.
const BETWEEN_REQUESTS_MS: u32 = 4;

/// Longest time for which a client holds an acknowledgement back (RFC 9293: under 500 ms), with room.
const ACK_WITHIN_MS: u32 = 900;

/// One connection of a worker, as the kernel tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What tells it from others: the socket's inode.
    pub id: u64,
    /// Bytes from the client so far.
    pub received: u64,
    /// Bytes to the client so far.
    pub sent: u64,
    /// Bytes that wait to be sent, or to be read by the worker.
    pub pending: u32,
    /// Time since the client's last data, in ms.
    pub since_received_ms: u32,
    /// Time since the worker's last data, in ms.
    pub since_sent_ms: u32,
    /// Time since the client's last acknowledgement, in ms.
    pub since_ack_ms: u32,
}

/// The connections of one draining worker, from look to look.
#[derive(Debug, Default)]
pub struct Connections {
    seen: BTreeMap<u64, Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    received: u64,
    sent: u64,
    /// New requests since the drain began.
    requests: u32,
    /// Looks at which more had been sent since the last request: one for an answer, many for a stream.
    parts: u32,
}

impl Seen {
    fn first(sample: &Sample) -> Self {
        Self { received: sample.received, sent: sample.sent, requests: 0, parts: 0 }
    }

    fn again(self, sample: &Sample) -> Self {
        let asked = sample.received > self.received;
        let told = u32::from(sample.sent > self.sent);
        Self {
            received: sample.received,
            sent: sample.sent,
            requests: self.requests.saturating_add(u32::from(asked)),
            parts: if asked { told } else { self.parts.saturating_add(told) },
        }
    }

    /// A client that keeps asking on this connection, and whose last answer came in one piece.
    fn is_reused(self) -> bool {
        self.requests >= REUSES && self.parts <= 1
    }
}

impl Connections {
    /// Takes one look at all connections; forgets those that are gone. `queued` is passed through.
    pub fn look(&mut self, samples: &[Sample], queued: u32) -> InFlight {
        let mut now = BTreeMap::new();
        let mut in_flight = InFlight { queued, ..InFlight::default() };
        for sample in samples {
            let seen = self.seen.get(&sample.id).map_or_else(|| Seen::first(sample), |seen| seen.again(sample));
            now.insert(sample.id, seen);
            if is_idle(sample, false) {
                in_flight.idle += 1;
            } else if is_idle(sample, seen.is_reused()) {
                in_flight.idle += 1;
                in_flight.reused += 1;
            } else {
                in_flight.busy += 1;
            }
        }
        self.seen = now;
        in_flight
    }
}

fn is_idle(sample: &Sample, reused: bool) -> bool {
    if sample.pending > 0 {
        return false;
    }
    let silent_ms = sample.since_sent_ms.min(sample.since_received_ms);
    let silent = u128::from(silent_ms) >= IDLE_AFTER.as_millis();
    if sample.sent == 0 {
        return sample.received == 0 && silent;
    }
    // Head and body of one answer may be two writes.
    let reused = reused && sample.since_sent_ms >= BETWEEN_REQUESTS_MS;
    match sample.since_sent_ms.cmp(&sample.since_received_ms) {
        std::cmp::Ordering::Greater => false,
        std::cmp::Ordering::Less => silent || reused,
        std::cmp::Ordering::Equal => reused || (silent && acknowledged(sample)),
    }
}

/// Whether the client sent a bare acknowledgement soon after its last data, which it only does for an answer.
fn acknowledged(sample: &Sample) -> bool {
    let later = sample.since_received_ms.saturating_sub(sample.since_ack_ms);
    later > 0 && later <= ACK_WITHIN_MS
}

/// What to do with a draining worker now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again at `until` at the latest.
    Wait {
        /// Its deadline, or the end of the time that it is kept warm.
        until: Moment,
    },
    /// Send the stop signal.
    Terminate,
}

/// A drain, as far as its end depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// When the stop signal is sent if anything is still in hand.
    pub deadline: Moment,
    /// Not before this moment, so that it can still be taken back into service.
    pub warm_until: Option<Moment>,
    /// Whether connections are awaited or only the accept queue.
    pub by: DrainBy,
    /// What it was last seen to have; none before the first look.
    pub in_flight: Option<InFlight>,
    /// Tasks it told of that have not ended.
    pub tasks: usize,
}

/// Decides whether a draining worker may be told to end.
#[must_use]
pub fn verdict(drain: &Drain, now: Moment) -> Verdict {
    let quiet = drain.in_flight.is_some_and(|seen| {
        let connections_done = match drain.by {
            DrainBy::Connections => seen.busy == 0 && drain.tasks == 0,
            DrainBy::Signal => true,
        };
        seen.queued == 0 && connections_done
    });
    match drain.warm_until {
        // Its deadline is for what it has in hand.
        Some(warm_until) if quiet && now < warm_until => Verdict::Wait { until: warm_until },
        Some(_) | None if quiet || now >= drain.deadline => Verdict::Terminate,
        Some(_) | None => Verdict::Wait { until: drain.deadline },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERED: Sample = Sample {
        id: 1,
        received: 100,
        sent: 200,
        pending: 0,
        since_received_ms: 60,
        since_sent_ms: 40,
        since_ack_ms: 40,
    };

    fn look(sample: Sample) -> InFlight {
        Connections::default().look(&[sample], 0)
    }

    #[test]
    fn a_request_without_an_answer_is_busy_however_long_it_takes() {
        let waiting = Sample { since_received_ms: 900_000, since_sent_ms: 900_100, ..ANSWERED };
        assert_eq!(look(waiting).busy, 1);
        let first = Sample { sent: 0, since_received_ms: 900_000, since_sent_ms: 900_000, ..ANSWERED };
        assert_eq!(look(first).busy, 1);
    }

    #[test]
    fn a_stream_that_pauses_is_busy_until_the_silence_is_long() {
        assert_eq!(look(Sample { since_sent_ms: 9_999, since_received_ms: 60_000, ..ANSWERED }).busy, 1);
        assert_eq!(look(Sample { since_sent_ms: 10_000, since_received_ms: 60_000, ..ANSWERED }).idle, 1);
    }

    #[test]
    fn a_connection_that_keeps_being_reused_counts_as_idle_between_its_requests() {
        let mut connections = Connections::default();
        let mut sample = ANSWERED;
        for n in 0..REUSES {
            assert_eq!(connections.look(&[sample], 0).busy, 1, "after {n} requests");
            sample.received += 50;
            sample.sent += 70;
        }
        assert_eq!(connections.look(&[sample], 0).idle, 1);
        let halfway = Sample { since_sent_ms: 0, ..sample };
        assert_eq!(connections.look(&[halfway], 0).busy, 1, "the rest of an answer may follow at once");
        let asked = Sample { since_received_ms: 5, since_sent_ms: 30, received: sample.received + 50, ..sample };
        assert_eq!(connections.look(&[asked], 0).busy, 1, "a request in progress is busy on any connection");
    }

    #[test]
    fn a_stream_on_a_reused_connection_is_busy() {
        let mut connections = Connections::default();
        let mut sample = ANSWERED;
        for _ in 0..=REUSES {
            connections.look(&[sample], 0);
            sample.received += 50;
            sample.sent += 70;
        }
        assert_eq!(connections.look(&[sample], 0).idle, 1);
        for _ in 0..2 {
            sample.sent += 10;
            connections.look(&[sample], 0);
        }
        assert_eq!(connections.look(&[sample], 0).busy, 1, "more was sent, again and again, for one request");
    }

    #[test]
    fn one_tick_for_request_and_answer_is_resolved_by_the_clients_acknowledgement() {
        let same = Sample { since_received_ms: 20_000, since_sent_ms: 20_000, ..ANSWERED };
        assert_eq!(look(Sample { since_ack_ms: 19_960, ..same }).idle, 1);
        assert_eq!(look(Sample { since_ack_ms: 20_000, ..same }).busy, 1, "no acknowledgement of its own");
        assert_eq!(look(Sample { since_ack_ms: 3, ..same }).busy, 1, "a keep-alive probe is no answer");
    }

    #[test]
    fn a_drain_ends_when_nothing_is_left_but_not_while_the_worker_is_kept_warm() {
        let at = Moment::from_micros;
        let drain = Drain {
            deadline: at(1_000),
            warm_until: Some(at(100)),
            by: DrainBy::Connections,
            in_flight: Some(InFlight::default()),
            tasks: 0,
        };
        assert_eq!(verdict(&drain, at(50)), Verdict::Wait { until: at(100) });
        assert_eq!(verdict(&drain, at(100)), Verdict::Terminate);
        let late = Drain { deadline: at(70), ..drain };
        assert_eq!(verdict(&late, at(80)), Verdict::Wait { until: at(100) }, "nothing is held up by it");
        assert_eq!(verdict(&Drain { tasks: 1, ..late }, at(80)), Verdict::Terminate);
        let busy = Drain { in_flight: Some(InFlight { busy: 1, ..InFlight::default() }), ..drain };
        assert_eq!(verdict(&busy, at(100)), Verdict::Wait { until: at(1_000) });
        assert_eq!(verdict(&busy, at(1_000)), Verdict::Terminate, "grace is a bound");
        assert_eq!(verdict(&Drain { by: DrainBy::Signal, ..busy }, at(100)), Verdict::Terminate);
        assert_eq!(verdict(&Drain { in_flight: None, ..drain }, at(100)), Verdict::Wait { until: at(1_000) });
        assert_eq!(verdict(&Drain { tasks: 1, ..drain }, at(100)), Verdict::Wait { until: at(1_000) });
    }
}
