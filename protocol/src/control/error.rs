//! What the daemon refuses, and how it says so.
//!
//! | kind | code | exit | when |
//! |---|---|---|---|
//! | `parse` | -32700 | 2 | the line is no JSON |
//! | `invalid_request` | -32600 | 2 | it is no call, or the line is too long |
//! | `unknown_method` | -32601 | 2 | an older daemon, or a slip |
//! | `invalid_params` | -32602 | 2 | the parameters do not fit the method |
//! | `internal` | -32603 | 1 | the daemon failed at something that is its own |
//! | `usage` | -32001 | 2 | the configuration, a path or a value is wrong; `diagnostics` say where |
//! | `no_such_app` | -32002 | 3 | nobody has that name |
//! | `refused` | -32003 | 4 | it would do harm, or something stands against it |
//! | `rolled_back` | -32004 | 5 | it was tried and taken back |
//! | `timed_out` | -32005 | 7 | it did not end in time |
//! | `forbidden` | -32006 | 4 | the peer may not |
//! | `overloaded` | -32007 | 4 | too many clients or requests; try again |
//! | `shutting_down` | -32008 | 6 | the daemon is ending |
//! | `unsupported_protocol` | -32009 | 2 | the two sides have no control protocol in common |

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exit;

/// Why a call was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The line is no JSON.
    Parse,
    /// It is no call, or the line is too long.
    InvalidRequest,
    /// No such method.
    UnknownMethod,
    /// The parameters do not fit the method.
    InvalidParams,
    /// The daemon failed at something that is its own.
    Internal,
    /// The configuration, a path or a value is wrong.
    Usage,
    /// Nobody has that name.
    NoSuchApp,
    /// It would do harm, or something stands against it.
    Refused,
    /// It was tried and taken back.
    RolledBack,
    /// It did not end in time.
    TimedOut,
    /// The peer may not.
    Forbidden,
    /// Too many clients or requests.
    Overloaded,
    /// The daemon is ending.
    ShuttingDown,
    /// The two sides have no control protocol in common.
    UnsupportedProtocol,
    /// A kind newer than this reader.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl ErrorKind {
    /// The JSON-RPC code. Never changes for a kind.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Parse => -32700,
            Self::InvalidRequest => -32600,
            Self::UnknownMethod => -32601,
            Self::InvalidParams => -32602,
            Self::Internal | Self::Unknown => -32603,
            Self::Usage => -32001,
            Self::NoSuchApp => -32002,
            Self::Refused => -32003,
            Self::RolledBack => -32004,
            Self::TimedOut => -32005,
            Self::Forbidden => -32006,
            Self::Overloaded => -32007,
            Self::ShuttingDown => -32008,
            Self::UnsupportedProtocol => -32009,
        }
    }

    /// The exit code for a command that was answered so. See [`exit`].
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Parse
            | Self::InvalidRequest
            | Self::UnknownMethod
            | Self::InvalidParams
            | Self::Usage
            | Self::UnsupportedProtocol => exit::USAGE,
            Self::Internal | Self::Unknown => exit::FAILED,
            Self::NoSuchApp => exit::NO_SUCH_APP,
            Self::Refused | Self::Overloaded => exit::REFUSED,
            Self::Forbidden => exit::FORBIDDEN,
            Self::RolledBack => exit::ROLLED_BACK,
            Self::TimedOut => exit::TIMED_OUT,
            Self::ShuttingDown => exit::NO_DAEMON,
        }
    }
}

/// JSON-RPC's error object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorObject {
    /// [`ErrorKind::code`].
    pub code: i32,
    /// What is wrong, in a sentence with no end stop.
    pub message: String,
    /// The rest. None only from something that is not agentd.
    #[serde(default)]
    pub data: Option<ErrorData>,
}

/// What an error says beyond its message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorData {
    /// For programs.
    pub kind: ErrorKind,
    /// What `agentctl` exits with.
    pub exit: u8,
    /// What to do about it.
    #[serde(default)]
    pub help: Option<String>,
    /// Where in the configuration it is wrong.
    #[serde(default)]
    pub diagnostics: Vec<Diagnostic>,
    /// Further remarks, each a sentence: near names, what holds the port.
    #[serde(default)]
    pub advice: Vec<String>,
}

/// One mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostic {
    /// The file.
    pub file: String,
    /// Line, counted from 1; 0 when it is about the file as a whole.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// The first column after it.
    pub end_column: u32,
    /// The line as it is written.
    pub source_line: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    #[serde(default)]
    pub expected: Option<String>,
    /// What to do.
    #[serde(default)]
    pub help: Option<String>,
}

impl ErrorObject {
    /// An error of `kind`, with its code and exit code.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let data = ErrorData { kind, exit: kind.exit_code(), help: None, diagnostics: Vec::new(), advice: Vec::new() };
        Self { code: kind.code(), message: message.into(), data: Some(data) }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.data.get_or_insert_with(ErrorData::internal).help = Some(help.into());
        self
    }

    /// The same with one more remark.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.data.get_or_insert_with(ErrorData::internal).advice.push(advice.into());
        self
    }

    /// The same with where the configuration is wrong.
    #[must_use]
    pub fn with_diagnostics(mut self, diagnostics: Vec<Diagnostic>) -> Self {
        self.data.get_or_insert_with(ErrorData::internal).diagnostics = diagnostics;
        self
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.data.as_ref().map_or(ErrorKind::Unknown, |d| d.kind)
    }

    /// What `agentctl` exits with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.data.as_ref().map_or(exit::FAILED, |d| d.exit)
    }
}

impl ErrorData {
    const fn internal() -> Self {
        Self { kind: ErrorKind::Internal, exit: exit::FAILED, help: None, diagnostics: Vec::new(), advice: Vec::new() }
    }
}
