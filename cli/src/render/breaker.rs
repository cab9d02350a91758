//! A circuit breaker in a few words, where it is not closed.

use agentd_protocol::Timestamp;
use agentd_protocol::status::{BreakerState, BreakerView};

use super::bytes_time::{between, span};

/// What is to be said of it at `now`; nothing of one that is closed.
pub(crate) fn words(breaker: &BreakerView, now: Timestamp) -> Option<String> {
    let crashes = match breaker.crashes {
        1 => "1 crash".to_owned(),
        crashes => format!("{crashes} crashes"),
    };
    match (breaker.state, breaker.until) {
        (BreakerState::Closed | BreakerState::Unknown, _) => None,
        (BreakerState::HalfOpen, Some(until)) => {
            Some(format!("breaker half-open after {crashes}: closes in {} if it serves on", span(between(now, until))))
        }
        (BreakerState::HalfOpen, None) => Some(format!("breaker half-open after {crashes}: it is being tried")),
        (BreakerState::Open, Some(until)) => {
            Some(format!("breaker open after {crashes}: tried again in {}", span(between(now, until))))
        }
        (BreakerState::Open, None) => Some("breaker open: nothing more is tried until somebody starts it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_says_what_comes_next_and_when() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let said = |state, secs: Option<i64>, crashes| {
            let until = secs.map(|secs| now + jiff::SignedDuration::from_secs(secs));
            words(&BreakerView { state, until, crashes }, now)
        };
        assert_eq!(said(BreakerState::Closed, None, 0), None);
        assert_eq!(said(BreakerState::Open, Some(4), 2).unwrap(), "breaker open after 2 crashes: tried again in 4s");
        let half = said(BreakerState::HalfOpen, Some(20), 1).unwrap();
        assert_eq!(half, "breaker half-open after 1 crash: closes in 20s if it serves on");
        assert!(said(BreakerState::Open, None, 3).unwrap().contains("until somebody starts it"));
    }
}
