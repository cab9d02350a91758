//! Everything about one app, in sections.

use std::fmt::Write as _;
use std::time::Duration;

use agentd_protocol::Timestamp;
use agentd_protocol::control::{AppDetails, ListenerView, LogFileView, LogStream};
use agentd_protocol::status::{AppKind, DeploymentView};

use super::bytes_time::{between, bytes, span};
use super::log::LogView;
use super::state::{self, STRONG};
use super::{apps, worker};

/// Width of the names at the left.
const NAME_WIDTH: usize = 12;

/// The app as text.
pub(crate) fn page(details: &AppDetails, now: Timestamp, width: Option<usize>) -> String {
    let mut text = String::new();
    head(&mut text, details, now);
    section(&mut text, "listeners", details.listeners.iter().map(listener));
    if let Some(deployment) = &details.app.deployment {
        heading(&mut text, "deployment");
        deploying(&mut text, deployment, now);
    }
    if !details.app.workers.is_empty() {
        heading(&mut text, "workers");
        text.push_str(&worker::table(&details.app, now, width));
    }
    if let Some(refresh) = &details.app.refresh {
        heading(&mut text, "refresh");
        text.push_str(&super::refresh::section(refresh, now));
    }
    let policy = details.policy.iter().map(|(key, value)| (key.clone(), value.clone()));
    section(&mut text, "policy", policy);
    if !details.env.is_empty() {
        heading(&mut text, "environment (names only)");
        for line in super::table::wrap(&details.env.join(" "), width.map(|width| width.saturating_sub(2).max(20))) {
            let _ = writeln!(text, "  {line}");
        }
    }
    section(&mut text, "log files", details.log_files.iter().map(log_file));
    if !details.last_lines.is_empty() {
        heading(&mut text, "last lines");
        let mut view = LogView::new(false);
        for line in &details.last_lines {
            let _ = write!(text, "  {}", view.line(line));
        }
    }
    text
}

fn head(text: &mut String, details: &AppDetails, now: Timestamp) {
    let app = &details.app;
    let kind = match app.kind {
        AppKind::Agent => "agent",
        AppKind::Skill => "skill",
        AppKind::Unknown => "app",
    };
    let _ = writeln!(text, "{STRONG}{}{STRONG:#}  {kind}  {}", app.name, state::app(app.state).text());
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {name:NAME_WIDTH$}  {value}");
        }
    };
    field("why", app.why.as_deref().unwrap_or_default());
    field("breaker", &super::breaker::words(&app.breaker, now).unwrap_or_else(|| "closed".to_owned()));
    field("help", super::hint::of_app(app).unwrap_or_default());
    field("ready", &format!("{} of {}", app.ready, app.desired));
    field("in flight", &app.in_flight.to_string());
    field("grace", &span(Duration::from_millis(app.grace_ms)));
    field("release", &app.release);
    field("revision", &details.revision.to_string());
    field("generation", &apps::generations(app));
    field("memory", &apps::memory(app).map(bytes).unwrap_or_default());
    field("command", &command(&details.command));
    field("directory", &details.cwd);
    field("configured", details.config_file.as_deref().unwrap_or("by hand, with agentctl start"));
}

fn heading(text: &mut String, title: &str) {
    let _ = writeln!(text, "\n{STRONG}{title}{STRONG:#}");
}

fn section(text: &mut String, title: &str, rows: impl Iterator<Item = (String, String)>) {
    let mut rows = rows.peekable();
    if rows.peek().is_some() {
        heading(text, title);
    }
    for (name, value) in rows {
        let _ = writeln!(text, "  {name:NAME_WIDTH$}  {value}");
    }
}

fn listener(listener: &ListenerView) -> (String, String) {
    let address = match &listener.address {
        Some(bound) if *bound == listener.configured => bound.clone(),
        Some(bound) => format!("{bound} (configured as {})", listener.configured),
        None => format!("{} (not bound)", listener.configured),
    };
    (listener.name.clone(), address)
}

fn log_file(file: &LogFileView) -> (String, String) {
    let stream = match file.stream {
        Some(LogStream::Stdout) => "stdout",
        Some(LogStream::Stderr) => "stderr",
        Some(LogStream::Unknown) | None => "both",
    };
    let size = file.bytes.map(|count| format!(" ({})", bytes(count))).unwrap_or_default();
    (stream.to_owned(), format!("{}{size}", file.path))
}

fn deploying(text: &mut String, deployment: &DeploymentView, now: Timestamp) {
    let _ = writeln!(
        text,
        "  {} {}  {}  step {} of {}  {} → {}  since {}",
        state::strategy(deployment.strategy),
        deployment.id,
        state::deployment(deployment.state).text(),
        deployment.step,
        deployment.steps,
        deployment.from,
        deployment.to,
        span(between(deployment.started_at, now)),
    );
    text.push_str(&super::deployment::gates(&deployment.gates, super::width()));
    if let Some(why) = &deployment.why {
        let _ = writeln!(text, "  {why}");
    }
}

/// The command so that a shell would take it as it is.
fn command(words: &[String]) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,{}".contains(c);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(bare) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let words = ["sh", "-c", "echo it's", "--fd={fd:http}", ""].map(str::to_owned);
        assert_eq!(command(&words), r"sh -c 'echo it'\''s' --fd={fd:http} ''");
    }
}
