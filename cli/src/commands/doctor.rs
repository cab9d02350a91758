//! `doctor`: what on this machine keeps agentd from keeping its promises, each with what to do.
//!
//! Reads and asks; changes nothing. Exit code 0 when nothing is in the way, 4 when something is. A daemon that does not
//! run is a finding too, because nothing is supervised then.

use agentd_protocol::exit;

use super::Context;
use crate::examine::{self, Weight};
use crate::exit::Failure;
use crate::render::{self, examination};

/// Looks, and tells.
///
/// # Errors
/// [`Failure::Output`].
pub(crate) fn run(context: &Context) -> Result<u8, Failure> {
    let findings = examine::all(&context.home);
    let bad = findings.iter().any(|finding| finding.weight == Weight::Broken);
    if context.json {
        render::json(&serde_json::json!({ "findings": findings, "healthy": !bad }))?;
    } else {
        render::print(&examination::page(&findings, render::width()))?;
    }
    Ok(if bad { exit::REFUSED } else { exit::DONE })
}
