//! Datagrams of workers.
//!
//! Promised: the parser is total, and keeps what it keeps within bounds and printable.

use agentd::notify::{ID_MAX, Notice, STATUS_MAX, parse};

pub(crate) fn run(datagram: &[u8]) {
    let notices = parse(datagram);
    assert!(notices.len() <= datagram.len(), "more is heard than was said");
    for notice in notices {
        match &notice {
            Notice::Status(text) => {
                assert!(text.len() <= STATUS_MAX && !text.chars().any(char::is_control), "{notice:?}");
            }
            Notice::TaskBegin { id, kind } => {
                assert!(id.as_str().len() <= ID_MAX && kind.as_ref().is_none_or(|kind| kind.as_str().len() <= ID_MAX));
            }
            Notice::TaskEnd { id, .. } | Notice::TaskSafe(id) => assert!((1..=ID_MAX).contains(&id.as_str().len())),
            Notice::StoreFds { name, .. } | Notice::RemoveFds(name) => {
                // It becomes one of the names in LISTEN_FDNAMES, which colons separate.
                let name = name.as_str();
                assert!(!name.is_empty() && !name.contains(':') && !name.chars().any(char::is_control), "{notice:?}");
            }
            Notice::Ready
            | Notice::Reloading { .. }
            | Notice::Stopping
            | Notice::Watchdog
            | Notice::WatchdogTrigger
            | Notice::WatchdogPeriod(_)
            | Notice::ExtendTimeout(_)
            | Notice::MainPid(_)
            | Notice::Barrier
            | Notice::Errno(_)
            | Notice::ExitStatus(_)
            | Notice::Drain => {}
        }
    }
}
