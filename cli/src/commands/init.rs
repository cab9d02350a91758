//! `init`: a commented configuration for what is found in a folder. It starts as it is written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use super::Context;
use crate::args::InitArgs;
use crate::exit::Failure;
use crate::render;
use crate::scan::{self, Finding, Listens, PRELOAD, PRELOAD_NAME, list};

/// What is written.
const NAME: &str = "agentd.toml";

/// The first port that is tried for an app.
const FIRST_PORT: u16 = 8080;

const HEAD: &str = "\
# Written by `agentctl init`. Start it with: agentctl start ./agentd.toml
# After a change: agentctl apply ./agentd.toml
# Every key: docs/reference/configuration.md. For an editor that knows them: agentctl schema > agentd.schema.json, and
# as the first line of this file: #:schema ./agentd.schema.json
";

/// Looks at the folder and writes the configuration.
///
/// # Errors
/// [`Failure::Scan`], [`Failure::Exists`], [`Failure::Write`].
pub(crate) fn run(context: &Context, args: &InitArgs) -> Result<u8, Failure> {
    let folder: Utf8PathBuf = super::start::working_directory()?.join(&args.folder).components().collect();
    let path = folder.join(NAME);
    if path.exists() && !args.force && !args.print {
        return Err(Failure::Exists { path });
    }
    let found = scan::scan(&folder)?;
    let text = page(&found);
    let preload = found.iter().any(|finding| finding.preload);
    if args.print {
        render::print(&text)?;
        tell_lost(&found);
        if preload {
            render::note(&format!("{PRELOAD_NAME}, which it names, is written beside it without --print"));
        }
        return Ok(0);
    }
    let private = found.iter().any(|finding| finding.private);
    let mut files = vec![(path.clone(), text.as_str(), private)];
    if preload {
        files.push((folder.join(PRELOAD_NAME), PRELOAD, false));
    }
    for (path, text, private) in files.iter().rev() {
        write(path, text, *private).map_err(|source| Failure::Write { path: path.clone(), source })?;
    }
    tell_lost(&found);
    if context.json {
        let names: Vec<&str> = found.iter().map(|finding| finding.name.as_str()).collect();
        let lost: BTreeMap<&str, &[String]> = found
            .iter()
            .filter(|finding| !finding.lost.is_empty())
            .map(|finding| (finding.name.as_str(), finding.lost.as_slice()))
            .collect();
        let files: Vec<&Utf8PathBuf> = files.iter().map(|(path, ..)| path).collect();
        render::json(&json!({ "path": path, "files": files, "apps": names, "not_carried_over": lost }))?;
        return Ok(0);
    }
    let mut said = String::new();
    for (path, ..) in &files {
        let _ = writeln!(said, "wrote {path}");
    }
    for finding in &found {
        let _ = writeln!(said, "  {}: {}", finding.name, finding.about.first().map_or("", String::as_str));
    }
    let _ = writeln!(said, "start it with: agentctl start {path}");
    render::print(&said)?;
    Ok(0)
}

/// What whoever starts this has to know, beside the comments in the file.
fn tell_lost(found: &[Finding]) {
    for finding in found {
        for lost in &finding.lost {
            render::note(&format!("{}: not carried over: {lost}", finding.name));
        }
        if let Listens::GivenAt { host, port } = finding.listens
            && TcpListener::bind((host, port)).is_err()
        {
            render::note(&format!("{}: port {port} is in use: end what has it first (pm2 delete …)", finding.name));
        }
    }
}

/// Whole or not at all, and readable by its owner alone where it holds somebody's environment.
fn write(path: &Utf8Path, text: &str, private: bool) -> std::io::Result<()> {
    let beside = path.with_extension("toml.new");
    let mode = if private { 0o600 } else { 0o644 };
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

fn page(found: &[Finding]) -> String {
    let mut text = HEAD.to_owned();
    let mut port = FIRST_PORT;
    for finding in found {
        let _ = write!(text, "\n[agent.{}]\n", finding.name);
        for line in &finding.about {
            let _ = writeln!(text, "# {line}");
        }
        for lost in &finding.lost {
            let _ = writeln!(text, "# NOT CARRIED OVER: {lost}");
        }
        let _ = writeln!(text, "command = {}", list(&finding.command));
        let address = match finding.listens {
            Listens::Given => {
                port = free_from(port);
                port = port.saturating_add(1);
                Some(("127.0.0.1", port - 1))
            }
            Listens::GivenAt { host, port } => Some((host, port)),
            Listens::Itself => None,
        };
        if let Some((host, port)) = address {
            let whom = if host == "0.0.0.0" { "127.0.0.1 behind a proxy" } else { "0.0.0.0 for everybody" };
            let _ = writeln!(
                text,
                "listen.http = \"{host}:{port}\"        # the daemon binds it and hands it over; {whom}"
            );
            if !finding.keys.iter().any(|(key, _)| key.starts_with("workers = ")) {
                text.push_str("# workers = 2                         # how many serve; each is replaced on its own\n");
            }
        }
        for (key, why) in &finding.keys {
            let why = why.map_or_else(String::new, |why| format!("  # {why}"));
            let _ = writeln!(text, "{key}{why}");
        }
        for idea in &finding.ideas {
            let _ = writeln!(text, "# {idea}");
        }
        text.push_str("# grace = { default = \"5m\" }            # how long a worker may finish what it has when it is replaced\n");
        text.push_str("# env_file = [\".env\"]                  # NAME=value lines, read at every start\n");
    }
    text
}

/// The first port from here on that nobody has.
fn free_from(port: u16) -> u16 {
    (port..=u16::MAX).find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok()).unwrap_or(port)
}
