//! Reading `status.sock`: the document, and a watch that brings every event.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use agentd_protocol::events::Event;
use agentd_protocol::frame::{LineDecoder, RESPONSE_MAX};
use agentd_protocol::status::{StatusDocument, StatusLine, StatusRequest};

/// How long the daemon may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A watched `status.sock`.
#[derive(Debug)]
pub struct Watch {
    stream: UnixStream,
    lines: LineDecoder,
    /// The document that came first.
    pub document: StatusDocument,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Panics
    /// When the daemon does not answer as it must.
    pub(super) fn begin(socket: &Path) -> Self {
        let mut stream = connect(socket);
        let request = StatusRequest { watch: true, since: None };
        let line = serde_json::to_string(&request).expect("a request of two plain fields") + "\n";
        stream.write_all(line.as_bytes()).unwrap_or_else(|error| panic!("failed to ask for a watch: {error}"));
        let mut lines = LineDecoder::new(RESPONSE_MAX);
        let document = first(&mut stream, &mut lines);
        Self { stream, lines, document }
    }

    /// The next event; none when nothing happens before the deadline.
    ///
    /// # Panics
    /// When the daemon closes the connection or sends something else.
    pub fn next(&mut self, deadline: Instant) -> Option<Event> {
        match read_line(&mut self.stream, &mut self.lines, deadline)? {
            StatusLine::Event(event) => Some(event),
            other @ (StatusLine::Document(_) | StatusLine::Error(_)) => {
                panic!("an event was expected on the status socket, not {other:?}")
            }
        }
    }
}

/// The document of now.
pub(super) fn document(socket: &Path) -> StatusDocument {
    let mut stream = connect(socket);
    stream.shutdown(Shutdown::Write).unwrap_or_else(|error| panic!("failed to end sending: {error}"));
    first(&mut stream, &mut LineDecoder::new(RESPONSE_MAX))
}

/// The process that answers at the socket; none while nobody does. That a connection comes about is no answer: a child
/// that a killed daemon had begun to start holds its listening sockets until it becomes another program.
pub(super) fn who_answers(socket: &Path) -> Option<u32> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).ok()?;
    let mut line = String::new();
    BufReader::new(&mut stream).read_line(&mut line).ok()?;
    match StatusLine::decode(line.trim_end().as_bytes()).ok()? {
        StatusLine::Document(document) => Some(document.pid),
        StatusLine::Event(_) | StatusLine::Error(_) => None,
    }
}

fn connect(socket: &Path) -> UnixStream {
    UnixStream::connect(socket).unwrap_or_else(|error| panic!("failed to connect to {}: {error}", socket.display()))
}

fn first(stream: &mut UnixStream, lines: &mut LineDecoder) -> StatusDocument {
    match read_line(stream, lines, Instant::now() + ANSWER_WITHIN) {
        Some(StatusLine::Document(document)) => *document,
        other => panic!("a document was expected on the status socket, not {other:?}"),
    }
}

fn read_line(stream: &mut UnixStream, lines: &mut LineDecoder, deadline: Instant) -> Option<StatusLine> {
    let mut chunk = [0; 16 * 1024];
    loop {
        if let Some(line) = lines.next_line().unwrap_or_else(|error| panic!("failed to read the status: {error}")) {
            return Some(StatusLine::decode(line).unwrap_or_else(|error| panic!("failed to read the status: {error}")));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        stream.set_read_timeout(Some(left)).expect("a timeout that is not zero");
        match stream.read(&mut chunk) {
            Ok(0) => panic!("the daemon closed the status socket"),
            Ok(count) => lines.feed(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("failed to read the status: {error}"),
        }
    }
}
