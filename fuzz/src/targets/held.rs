//! Names under which another process holds descriptors for the next daemon: what it is given back is taken up by them.
//!
//! Promised: a name that is understood is said again in the same words, or in others that mean the same.

use agentd::keeper::Held;

pub(crate) fn run(names: &[u8]) {
    let Ok(text) = std::str::from_utf8(names) else { return };
    for name in text.split('\n') {
        if let Ok(held) = name.parse::<Held>() {
            assert_eq!(held.to_string().parse(), Ok(held.clone()), "{name:?}");
        }
    }
}
