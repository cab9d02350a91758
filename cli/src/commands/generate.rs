//! `schema`, `completions`, `man`: what is made from the grammar and the keys themselves. None asks a daemon.

use std::io;
use std::path::Path;

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::exit::Failure;
use crate::render;

/// The schema as it is committed; a test of agentd keeps it that of its reader.
const SCHEMA: &str = include_str!("../../../docs/reference/config.schema.json");

/// Prints the JSON schema of configuration files.
///
/// # Errors
/// [`Failure::Output`].
pub(crate) fn schema() -> Result<u8, Failure> {
    render::print(SCHEMA)?;
    Ok(0)
}

/// Prints the completions for a shell.
///
/// # Errors
/// [`Failure::Output`].
pub(crate) fn completions(args: &CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "agentctl", &mut script);
    render::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// Prints the manual page of the whole, or writes one a command into a folder.
///
/// # Errors
/// [`Failure::Output`] and [`Failure::Write`].
pub(crate) fn man(args: &ManArgs) -> Result<u8, Failure> {
    let Some(folder) = &args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Failure::Output)?;
        render::print(&String::from_utf8_lossy(&page))?;
        return Ok(0);
    };
    let failed = |source: io::Error| Failure::Write { path: folder.clone(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), Path::new(folder)).map_err(failed)?;
    Ok(0)
}
