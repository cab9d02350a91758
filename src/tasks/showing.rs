//! When what others look at is brought up to date: not more often than they look, and not while there is nothing new.

use std::time::{Duration, Instant};

/// How often.
const EVERY: Duration = Duration::from_millis(100);

/// The moment of the next look.
#[derive(Debug, Default)]
pub(super) struct Showing {
    at: Option<Instant>,
}

impl Showing {
    /// When [`is_due`](Self::is_due) has to be asked again; none for as long as there is nothing new.
    pub(super) fn next(&self) -> Option<Instant> {
        self.at
    }

    /// Whether it is time, given whether there is something to be shown.
    pub(super) fn is_due(&mut self, news: bool, now: Instant) -> bool {
        match (news, self.at) {
            // Whoever had news may be gone: a moment that is kept would be over for ever, and waited for in vain.
            (false, _) => {
                self.at = None;
                false
            }
            (true, None) => {
                self.at = Some(now + EVERY);
                false
            }
            (true, Some(at)) => {
                let due = at <= now;
                self.at = self.at.filter(|_| !due);
                due
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_shown_a_moment_later_and_once() {
        let (mut showing, now) = (Showing::default(), Instant::now());
        assert!(!showing.is_due(true, now));
        assert!(!showing.is_due(true, now + EVERY / 2));
        assert_eq!(showing.next(), Some(now + EVERY));
        assert!(showing.is_due(true, now + EVERY));
        assert_eq!(showing.next(), None);
    }

    #[test]
    fn nothing_is_waited_for_when_the_one_with_news_is_gone() {
        let (mut showing, now) = (Showing::default(), Instant::now());
        assert!(!showing.is_due(true, now));
        assert!(!showing.is_due(false, now + 2 * EVERY));
        assert_eq!(showing.next(), None);
    }
}
