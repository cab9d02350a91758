//! Messages of workers (agentd/1).
//!
//! Promised: a line is a request or is rejected, with the number to answer to where it has one.

use agentd_protocol::worker::Line;

pub(crate) fn run(lines: &[u8]) {
    for line in lines.split(|&byte| byte == b'\n') {
        match Line::decode(line) {
            Ok(request) => assert!(!format!("{request:?}").is_empty()),
            Err(rejected) => assert!(!format!("{rejected:?}").is_empty()),
        }
    }
}
