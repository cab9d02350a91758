//! How a command ends: the exit code that a script reads and the words that a person reads.
//!
//! Owns the mapping from what went wrong to one of the documented codes (`docs/reference/exit-codes.md`), and the
//! telling of it: words on stderr, and under `--json` one object `{"error":{…}}` on stdout. The codes themselves are
//! the protocol's, and never change.

use std::io::{self, IsTerminal};

use agentd_protocol::control::{ErrorKind, ErrorObject, OperationView};
use agentd_protocol::exit;
use agentd_protocol::status::StatusErrorKind;
use camino::Utf8PathBuf;
use serde_json::{Value, json};
use thiserror::Error;

use crate::client::ClientError;
use crate::commands::start::TargetError;
use crate::commands::startup::StartupError;
use crate::home::HomeError;
use crate::launch::LaunchError;
use crate::render::{self, diagnostic};
use crate::scan::ScanError;
use crate::status::StatusError;

/// Ctrl-C while waiting: the command ended, what it had begun goes on. 128 and the number of SIGINT, as shells have it.
pub(crate) const DETACHED: u8 = 130;

/// What kept a command from its end.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The instance's folders or sockets.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The daemon could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The conversation with the daemon, or its refusal.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The status socket.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// What is to be started makes no sense.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// agentd as a service.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// Named to a command that only reads the status.
    #[error("no app is called {name:?}")]
    NoSuchApp {
        /// The name.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// `--timeout` passed.
    #[error("not finished within the given time: {}", going_on(.operations))]
    TimedOut {
        /// What goes on.
        operations: Vec<OperationView>,
    },
    /// The daemon is gone, or has dropped us.
    #[error("the daemon closed the connection: {}, under the next one if it ended", going_on(.operations))]
    Orphaned {
        /// What goes on.
        operations: Vec<OperationView>,
    },
    /// Ctrl-C.
    #[error("detached: {}", going_on(.operations))]
    Detached {
        /// What goes on.
        operations: Vec<OperationView>,
    },
    /// Ctrl-C could not be held back.
    #[error("holding back SIGINT: {0}")]
    Interrupt(nix::Error),
    /// Nothing was found that a configuration could be written for.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A file that is not to be written over.
    #[error("{path} is there already")]
    Exists {
        /// Which.
        path: Utf8PathBuf,
    },
    /// A file could not be written.
    #[error("writing {path}: {source}")]
    Write {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Standard output took nothing.
    #[error("writing to standard output: {0}")]
    Output(io::Error),
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Home(error) | Self::Client(ClientError::Home(error)) | Self::Status(StatusError::Home(error)) => {
                home_code(error)
            }
            Self::Launch(LaunchError::Home(error)) => home_code(error),
            Self::Launch(_) => exit::NO_DAEMON,
            Self::Client(ClientError::Refused(error)) => error.exit_code(),
            Self::Client(ClientError::Closed | ClientError::Silent) => exit::NO_DAEMON,
            Self::Status(StatusError::Closed | StatusError::Silent) => exit::NO_DAEMON,
            Self::Status(StatusError::Refused(error)) => match error.kind {
                StatusErrorKind::ShuttingDown => exit::NO_DAEMON,
                StatusErrorKind::Overloaded => exit::REFUSED,
                StatusErrorKind::Forbidden => exit::FORBIDDEN,
                StatusErrorKind::Malformed | StatusErrorKind::TooSlow | StatusErrorKind::Unknown => exit::FAILED,
            },
            Self::Target(_) | Self::Scan(ScanError::Nothing { .. } | ScanError::Pm2 { .. }) => exit::USAGE,
            Self::Exists { .. } => exit::REFUSED,
            Self::Startup(error) => error.code(),
            Self::NoSuchApp { .. } => exit::NO_SUCH_APP,
            Self::TimedOut { .. } => exit::TIMED_OUT,
            Self::Orphaned { .. } => exit::NO_DAEMON,
            Self::Detached { .. } => DETACHED,
            Self::Client(ClientError::OutputClosed) | Self::Status(StatusError::OutputClosed) => exit::DONE,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::DONE,
            Self::Client(ClientError::Line(_) | ClientError::Message(_) | ClientError::Answer { .. })
            | Self::Status(StatusError::Line(_) | StatusError::Document { .. } | StatusError::Order)
            | Self::Interrupt(_)
            | Self::Write { .. }
            | Self::Scan(ScanError::Folder { .. })
            | Self::Output(_) => exit::FAILED,
        }
    }

    /// What to do about it.
    fn help(&self) -> Option<String> {
        match self {
            Self::Home(error) | Self::Client(ClientError::Home(error)) | Self::Status(StatusError::Home(error)) => {
                home_help(error)
            }
            Self::Launch(error) => match error {
                LaunchError::Home(error) => home_help(error),
                LaunchError::NoProgram => Some("put agentd beside agentctl, or its folder on PATH".to_owned()),
                LaunchError::Silent { .. } => Some("look again with: agentctl daemon status".to_owned()),
                LaunchError::Service(_) => {
                    Some("what it said is in the journal: journalctl -u agentd -n 20".to_owned())
                }
                LaunchError::StateFolder { .. }
                | LaunchError::Log { .. }
                | LaunchError::Spawn(_)
                | LaunchError::Exec { .. }
                | LaunchError::Session(_)
                | LaunchError::Ended { .. } => None,
            },
            Self::Client(ClientError::Refused(error)) => error.data.as_ref()?.help.clone(),
            Self::Client(ClientError::Closed | ClientError::Silent)
            | Self::Status(StatusError::Closed | StatusError::Silent) => {
                Some("look at it with: agentctl daemon status".to_owned())
            }
            Self::Status(StatusError::Document { .. } | StatusError::Order)
            | Self::Client(ClientError::Message(_) | ClientError::Answer { .. }) => {
                Some("agentctl and agentd may be of different versions; install both from one release".to_owned())
            }
            Self::Target(error) => error.help(),
            Self::Exists { .. } => {
                Some("write over it with --force, or look at what would be written with --print".to_owned())
            }
            Self::Scan(ScanError::Nothing { .. }) => {
                Some("it looks for FastAPI and Flask apps, package.json, a PM2 file or a script".to_owned())
            }
            Self::Startup(error) => error.help(),
            Self::NoSuchApp { known, .. } if known.is_empty() => {
                Some("no app is known yet; start one with: agentctl start FILE".to_owned())
            }
            Self::NoSuchApp { known, .. } => Some(format!("known apps: {}", known.join(", "))),
            Self::TimedOut { operations } | Self::Detached { operations } => Some(follow(operations)),
            Self::Orphaned { operations } => {
                Some(format!("see whether it runs with: agentctl daemon status; {}", follow(operations)))
            }
            Self::Status(StatusError::Line(_) | StatusError::Refused(_) | StatusError::OutputClosed)
            | Self::Client(ClientError::Line(_) | ClientError::OutputClosed)
            | Self::Interrupt(_)
            | Self::Write { .. }
            | Self::Scan(ScanError::Folder { .. } | ScanError::Pm2 { .. })
            | Self::Output(_) => None,
        }
    }

    /// Whether the end is one that nobody needs to hear of: the reader of our output has what it wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Self::Client(ClientError::OutputClosed) | Self::Status(StatusError::OutputClosed) => true,
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Home(_)
            | Self::Launch(_)
            | Self::Client(_)
            | Self::Status(_)
            | Self::Target(_)
            | Self::Startup(_)
            | Self::NoSuchApp { .. }
            | Self::TimedOut { .. }
            | Self::Orphaned { .. }
            | Self::Detached { .. }
            | Self::Write { .. }
            | Self::Scan(_)
            | Self::Exists { .. }
            | Self::Interrupt(_) => false,
        }
    }

    /// Tells it, in words on stderr and under `--json` as one object on stdout.
    pub(crate) fn tell(&self, json: bool) {
        if self.is_quiet() {
            return;
        }
        match self {
            Self::Client(ClientError::Refused(error)) => tell_refusal(error),
            Self::Detached { .. } => {
                // Behind the ^C that the terminal echoes.
                let gap = if io::stderr().is_terminal() { "\n" } else { "" };
                render::note(&format!("{gap}{self}"));
                self.help().iter().for_each(|help| render::help(help));
            }
            Self::Home(_)
            | Self::Launch(_)
            | Self::Client(_)
            | Self::Status(_)
            | Self::Target(_)
            | Self::Startup(_)
            | Self::NoSuchApp { .. }
            | Self::TimedOut { .. }
            | Self::Orphaned { .. }
            | Self::Interrupt(_)
            | Self::Write { .. }
            | Self::Scan(_)
            | Self::Exists { .. }
            | Self::Output(_) => {
                render::error(&self.to_string());
                self.help().iter().for_each(|help| render::help(help));
            }
        }
        if json {
            // The exit code says it too; a standard output that takes nothing changes nothing about that.
            let _ = render::json(&self.document());
        }
    }

    fn document(&self) -> Value {
        let mut error = json!({ "message": self.to_string(), "exit": self.code(), "help": self.help() });
        if let Self::Client(ClientError::Refused(refusal)) = self
            && let Some(data) = &refusal.data
        {
            error["kind"] = json!(data.kind);
            error["diagnostics"] = json!(data.diagnostics);
            error["advice"] = json!(data.advice);
        }
        match self {
            Self::TimedOut { operations } | Self::Detached { operations } | Self::Orphaned { operations } => {
                json!({ "error": error, "operations": operations })
            }
            Self::Home(_)
            | Self::Launch(_)
            | Self::Client(_)
            | Self::Status(_)
            | Self::Target(_)
            | Self::Startup(_)
            | Self::NoSuchApp { .. }
            | Self::Interrupt(_)
            | Self::Write { .. }
            | Self::Scan(_)
            | Self::Exists { .. }
            | Self::Output(_) => json!({ "error": error }),
        }
    }
}

const fn home_code(error: &HomeError) -> u8 {
    match error {
        HomeError::NoDaemon { .. } => exit::NO_DAEMON,
        HomeError::Forbidden { .. } => exit::FORBIDDEN,
        HomeError::ForeignFolder { .. } => exit::REFUSED,
        HomeError::Absolute { .. } | HomeError::NoText => exit::USAGE,
        HomeError::Connect { .. } => exit::FAILED,
    }
}

fn home_help(error: &HomeError) -> Option<String> {
    let help = match error {
        HomeError::NoDaemon { stale: false, .. } => {
            "start it with: agentctl daemon start; or name another instance with --home DIR"
        }
        HomeError::NoDaemon { stale: true, .. } => {
            "a daemon died and left its socket behind; start it again with: agentctl daemon start"
        }
        HomeError::Forbidden { .. } => "ask its owner for access, or run agentctl as that user",
        HomeError::ForeignFolder { .. } => "remove that folder, or set XDG_RUNTIME_DIR or AGENTD_HOME",
        HomeError::Absolute { .. } | HomeError::NoText => "name the instance with an absolute path: --home DIR",
        HomeError::Connect { .. } => return None,
    };
    Some(help.to_owned())
}

/// What a refusal has to say: each mistake with its line of the configuration, or one sentence.
pub(crate) fn tell_refusal(error: &ErrorObject) {
    let data = error.data.as_ref();
    let diagnostics = data.map(|data| data.diagnostics.as_slice()).unwrap_or_default();
    for diagnostic in diagnostics {
        render::note(&diagnostic::render(diagnostic, &render::Canvas::stderr()));
    }
    let forbidden = if error.kind() == ErrorKind::Forbidden { "not allowed: " } else { "" };
    render::error(&format!("{forbidden}{}", error.message));
    for text in data.iter().flat_map(|data| data.advice.iter()) {
        render::note(&format!("  {text}"));
    }
    data.and_then(|data| data.help.as_deref()).iter().for_each(|help| render::help(help));
}

/// `reload of support goes on as operation 17`.
fn going_on(operations: &[OperationView]) -> String {
    let each: Vec<String> = operations
        .iter()
        .map(|operation| {
            let kind = render::event::operation(operation.kind);
            format!("{kind} of {} goes on as operation {}", operation.app, operation.id)
        })
        .collect();
    if each.is_empty() { "what was asked for goes on".to_owned() } else { each.join(", ") }
}

fn follow(operations: &[OperationView]) -> String {
    let names: Vec<&str> = operations.iter().map(|operation| operation.app.as_str()).collect();
    format!("look at it with: agentctl status {} --watch", names.join(" ")).replace("  ", " ")
}
