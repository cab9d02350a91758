//! `ls`: the apps as they are, at once. One connection, one read, one write.

use agentd_protocol::exit;

use super::Context;
use crate::exit::Failure;
use crate::{render, status};

/// Lists the apps.
///
/// # Errors
/// When the status cannot be had or shown.
pub(crate) fn run(context: &Context) -> Result<u8, Failure> {
    let (document, raw) = status::document(&context.home)?;
    if context.json {
        // As it came: a newer daemon may say more than this program knows.
        render::raw_line(&raw)?;
    } else {
        // The process ends with it: to give each of its texts back would be a tenth of the command's work.
        let document = Box::leak(Box::new(document));
        render::print(&render::apps::table(document, render::width()))?;
    }
    Ok(exit::DONE)
}
