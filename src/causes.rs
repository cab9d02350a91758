//! An error as its reader wants it: what failed and everything behind it, in one line.
//!
//! Owns: [`in_full`], for whoever writes an error to a log, a status or a terminal.

use std::error::Error;

/// The error with all its causes, `outer: inner: innermost`. A cause that the words before it end with is not said twice.
#[must_use]
pub fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&cause| cause.source()) {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Step(&'static str, #[source] Option<Box<Step>>);

    #[test]
    fn every_cause_is_said_once() {
        let innermost = Step("no space left", None);
        let inner = Step("write /x: no space left", Some(Box::new(innermost)));
        assert_eq!(in_full(&Step("save", Some(Box::new(inner)))), "save: write /x: no space left");
    }
}
