//! `status.sock`: the whole document in one read, or the document and then every event.
//!
//! Whoever connects and says nothing gets the document: the fast way of `ls`, with no greeting and no round trip.

use std::time::Instant;

use agentd_protocol::events::Event;
use agentd_protocol::status::{
    StatusDocument, StatusErrorBody, StatusErrorKind, StatusLine, StatusLineError, StatusRequest,
};
use thiserror::Error;

use crate::client::ANSWER_WITHIN;
use crate::home::{Home, HomeError, STATUS_SOCKET};
use crate::line::{Arrival, LineError, LineStream};

/// Why the status cannot be shown.
#[derive(Debug, Error)]
pub(crate) enum StatusError {
    /// No connection came about.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// It broke off.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The daemon sent what this program cannot read.
    #[error("{error}{}", cause(.error))]
    Document {
        /// What is wrong with it.
        #[from]
        error: StatusLineError,
    },
    /// The first line was an event.
    #[error("the daemon sent an event where the status document belongs")]
    Order,
    /// The daemon would not.
    #[error("{}", .0.message)]
    Refused(StatusErrorBody),
    /// The daemon ended or dropped us.
    #[error("the daemon closed the connection")]
    Closed,
    /// The daemon is there and says nothing.
    #[error("the daemon did not answer within {}s", ANSWER_WITHIN.as_secs())]
    Silent,
    /// Nobody reads our output: no reason to go on, and none to complain.
    #[error("nobody reads the output")]
    OutputClosed,
}

/// The document, and the bytes that it was read from.
///
/// # Errors
/// See [`StatusError`].
pub(crate) fn document(home: &Home) -> Result<(StatusDocument, Vec<u8>), StatusError> {
    let mut lines = LineStream::new(home.connect(STATUS_SOCKET)?);
    lines.end_sending()?;
    first(&mut lines)
}

fn first(lines: &mut LineStream) -> Result<(StatusDocument, Vec<u8>), StatusError> {
    let line = match lines.next(Some(Instant::now() + ANSWER_WITHIN))? {
        Arrival::Line(line) => line,
        Arrival::Elapsed => return Err(StatusError::Silent),
        Arrival::OutputClosed => return Err(StatusError::OutputClosed),
        Arrival::Closed | Arrival::Interrupted => return Err(StatusError::Closed),
    };
    // Reading the shape that it almost always has at once is half the work of finding out which it has; and to see once
    // that all of it is text is less than to see it of each word.
    let text = std::str::from_utf8(&line).ok();
    let document = match text.map(serde_json::from_str::<StatusDocument>) {
        Some(Ok(document)) if document.schema <= agentd_protocol::status::SCHEMA => document,
        None | Some(Ok(_) | Err(_)) => match StatusLine::decode(&line)? {
            StatusLine::Document(document) => *document,
            StatusLine::Event(_) => return Err(StatusError::Order),
            StatusLine::Error(error) => return Err(StatusError::Refused(error)),
        },
    };
    Ok((document, line))
}

/// What a watch brought.
#[derive(Debug)]
pub(crate) enum Watched {
    /// Something happened; with the bytes that it was read from.
    Event(Box<Event>, Vec<u8>),
    /// The deadline passed.
    Elapsed,
}

/// A watched `status.sock`.
#[derive(Debug)]
pub(crate) struct Watch {
    home: Home,
    lines: LineStream,
    /// Number of the newest event seen: where to resume.
    seen: u64,
}

impl Watch {
    /// Begins to watch, after the event `since` when given, else with what happens from now on. Also returns the
    /// document.
    ///
    /// # Errors
    /// See [`StatusError`].
    pub(crate) fn begin(home: &Home, since: Option<u64>) -> Result<(Self, StatusDocument, Vec<u8>), StatusError> {
        let mut lines = LineStream::new(home.connect(STATUS_SOCKET)?);
        let request = StatusRequest { watch: true, since };
        lines.send(&serde_json::to_string(&request).expect("a request of two plain fields"))?;
        let (document, raw) = first(&mut lines)?;
        lines.ends_with_reader();
        let seen = since.unwrap_or(document.seq);
        Ok((Self { home: home.clone(), lines, seen }, document, raw))
    }

    /// The next event. One who read too slowly is taken up again where it was.
    ///
    /// # Errors
    /// See [`StatusError`].
    pub(crate) fn next(&mut self, until: Option<Instant>) -> Result<Watched, StatusError> {
        loop {
            let line = match self.lines.next(until)? {
                Arrival::Line(line) => line,
                Arrival::Elapsed => return Ok(Watched::Elapsed),
                Arrival::OutputClosed => return Err(StatusError::OutputClosed),
                Arrival::Closed | Arrival::Interrupted => return Err(StatusError::Closed),
            };
            match StatusLine::decode(&line)? {
                StatusLine::Event(event) => {
                    self.seen = event.seq;
                    return Ok(Watched::Event(Box::new(event), line));
                }
                StatusLine::Error(error) if error.kind == StatusErrorKind::TooSlow => {
                    *self = Self::begin(&self.home, Some(self.seen))?.0;
                }
                StatusLine::Error(error) => return Err(StatusError::Refused(error)),
                StatusLine::Document(_) => {}
            }
        }
    }
}

fn cause(error: &StatusLineError) -> String {
    std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default()
}
