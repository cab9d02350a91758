//! Serving `status.sock`.
//!
//! # The happy path
//! A client connects. If it closes its way, or sends its line, within `FIRST_WORD`, it is known what it wants;
//! otherwise it is taken for one that sends nothing. Either way it gets one document. Then:
//!
//! - it closed its way (`agentctl`), or asked for the document only: end of file;
//! - it asked to watch: events, each a line, for as long as it reads;
//! - it sent nothing (`socat`): a request to watch may still come for `LATE_WORD`, for a shell under load is slow;
//!   then end of file.
//!
//! # The unhappy paths
//! - A line that is no request, or too long: one error line, end of file.
//! - A watcher that falls behind the journal: one error line, end of file. It resumes with `since`.
//! - A client that reads nothing for `WRITE_STALL`: dropped.
//! - Somebody without a role, who is not of the daemon's group: one error line, end of file.
//! - More than `CLIENTS_MAX` clients: one error line, end of file.
//! - Another program takes the daemon's place: who has not said what it wants is served as one that says nothing;
//!   a watcher gets what there is; end of file.

use std::sync::Arc;
use std::time::Duration;

use agentd_protocol::frame::LineDecoder;
use agentd_protocol::status::{StatusError, StatusErrorBody, StatusErrorKind, StatusRequest};
use interprocess::local_socket::tokio::Stream;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::journal::Subscription;
use crate::control::access::{Access, Peer};
use crate::control::line::{hung_up, refuse, write_line};
use crate::control::socket::{BoundSocket, Doors};

/// Clients at a time.
const CLIENTS_MAX: usize = 256;

/// How long a client may take to say what it wants, before it is served as one that says nothing.
const FIRST_WORD: Duration = Duration::from_millis(20);

/// How long after its document a client that said nothing may still ask to watch.
const LATE_WORD: Duration = Duration::from_millis(200);

/// A client that has begun a line must end it this soon.
const LINE_WITHIN: Duration = Duration::from_secs(2);

/// A client that takes no byte for this long is dropped.
const WRITE_STALL: Duration = Duration::from_secs(10);

/// Longest request in bytes.
const REQUEST_MAX: usize = 4096;

/// Bytes of events that are written together, and the event with which they pass this.
const TOGETHER_MAX: usize = 16 << 10;

/// A question of a client, for the dispatcher. Dropping the reply closes the client.
#[derive(Debug)]
pub enum StatusQuery {
    /// How is everything?
    Document {
        /// The document as of now.
        reply: oneshot::Sender<Snapshot>,
    },
    /// What happens? See [`EventJournal::subscribe`](super::journal::EventJournal::subscribe).
    Events {
        /// After this event.
        since: u64,
        /// The events.
        reply: oneshot::Sender<Subscription>,
    },
}

/// A status document as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The document as one line of JSON, without its end.
    pub document: Arc<str>,
    /// Number of the newest event that it shows.
    pub seq: u64,
}

/// Serves clients until the socket's doors close and every client was answered; dropping the future drops every client.
pub async fn serve(socket: BoundSocket, access: Access, queries: mpsc::Sender<StatusQuery>) {
    serve_within(WRITE_STALL, socket, access, queries).await;
}

/// The same, with another patience for clients that read nothing.
pub(super) async fn serve_within(
    write_stall: Duration,
    socket: BoundSocket,
    access: Access,
    queries: mpsc::Sender<StatusQuery>,
) {
    let mut clients = JoinSet::new();
    let mut doors = socket.watch_doors();
    loop {
        tokio::select! {
            biased;
            () = doors.shut() => break,
            Some(ended) = clients.join_next(), if !clients.is_empty() => note_end(ended),
            stream = socket.accept() => {
                if !Peer::of(&stream).is_ok_and(|peer| access.may_read_status(&peer)) {
                    let why = "this user may not read the status: roles are given in daemon.toml";
                    refuse(stream, &error_line(StatusErrorKind::Forbidden, why));
                } else if clients.len() < CLIENTS_MAX {
                    let (queries, doors) = (queries.clone(), socket.watch_doors());
                    clients.spawn(Client { write_stall, stream, queries, doors }.run());
                } else {
                    refuse(stream, &error_line(StatusErrorKind::Overloaded, "too many clients are connected"));
                }
            }
        }
    }
    while let Some(ended) = clients.join_next().await {
        note_end(ended);
    }
}

fn note_end(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a status connection's task failed");
    }
}

/// What a client said so far.
#[derive(Clone, Copy, Debug)]
enum Word {
    /// Nothing yet.
    Silence,
    /// That it says nothing.
    Closed,
    /// This.
    Request(StatusRequest),
}

/// Why a client is not served to the end that it wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It is told this.
    Tell(StatusErrorKind, &'static str),
    /// It can be told nothing.
    Gone,
}

const MALFORMED: Trouble = Trouble::Tell(
    StatusErrorKind::Malformed,
    "send nothing, or one line: {\"watch\":true} or {\"watch\":true,\"since\":7}",
);
const TOO_LONG: Trouble = Trouble::Tell(StatusErrorKind::Malformed, "the line is longer than 4096 bytes");
const UNFINISHED: Trouble = Trouble::Tell(StatusErrorKind::Malformed, "the line did not end in time");
const TOO_SLOW: Trouble =
    Trouble::Tell(StatusErrorKind::TooSlow, "you read too slowly and missed events; connect again with \"since\"");
const ENDING: Trouble = Trouble::Tell(StatusErrorKind::ShuttingDown, "the daemon is ending");

struct Client {
    write_stall: Duration,
    stream: Stream,
    queries: mpsc::Sender<StatusQuery>,
    doors: Doors,
}

impl Client {
    async fn run(self) {
        let outcome = self.serve().await;
        if let Err(Trouble::Tell(kind, message)) = outcome {
            // Who does not read even this is gone.
            let _ = self.write(&error_line(kind, message)).await;
        }
    }

    async fn serve(&self) -> Result<(), Trouble> {
        let mut decoder = LineDecoder::new(REQUEST_MAX);
        let first = self.listen(&mut decoder, FIRST_WORD).await?;
        let snapshot = self.ask(|reply| StatusQuery::Document { reply }).await?;
        self.write(&snapshot.document).await?;
        let word = match first {
            Word::Silence => self.listen(&mut decoder, LATE_WORD).await?,
            Word::Closed | Word::Request(_) => first,
        };
        match word {
            Word::Request(StatusRequest { watch: true, since }) => self.watch(since.unwrap_or(snapshot.seq)).await,
            Word::Request(StatusRequest { watch: false, .. }) | Word::Silence | Word::Closed => Ok(()),
        }
    }

    /// Waits for the client's line. A line that has begun is waited for longer.
    async fn listen(&self, decoder: &mut LineDecoder, patience: Duration) -> Result<Word, Trouble> {
        let begun = Instant::now();
        let mut chunk = [0; 512];
        let mut doors = self.doors.clone();
        loop {
            let partial = decoder.partial() > 0;
            let until = begun + if partial { LINE_WITHIN } else { patience };
            let mut stream = &self.stream;
            let read = tokio::select! {
                biased;
                read = timeout_at(until, stream.read(&mut chunk)) => read,
                () = doors.shut(), if !partial => return Ok(Word::Silence),
            };
            match read {
                Err(_) if partial => return Err(UNFINISHED),
                Err(_) => return Ok(Word::Silence),
                Ok(Err(_)) => return Err(Trouble::Gone),
                Ok(Ok(0)) => return decoder.take_rest().map_or(Ok(Word::Closed), |line| read_request(&line)),
                Ok(Ok(count)) => decoder.feed(&chunk[..count]),
            }
            if let Some(line) = decoder.next_line().map_err(|_| TOO_LONG)? {
                return read_request(line);
            }
        }
    }

    async fn watch(&self, since: u64) -> Result<(), Trouble> {
        let mut events = self.ask(|reply| StatusQuery::Events { since, reply }).await?;
        let mut hung_up = std::pin::pin!(self.hung_up());
        let mut doors = self.doors.clone();
        loop {
            let line = tokio::select! {
                biased;
                () = &mut hung_up => return Err(Trouble::Gone),
                next = events.next() => next.map_err(|_| TOO_SLOW)?.ok_or(ENDING)?,
                () = doors.shut() => return Ok(()),
            };
            let mut lines = String::from(&*line);
            // What happened together is written together: a call each would make fifty watchers wait for one another.
            while lines.len() < TOGETHER_MAX
                && let Some(line) = events.next_at_once().map_err(|_| TOO_SLOW)?
            {
                lines.push('\n');
                lines.push_str(&line);
            }
            self.write(&lines).await?;
        }
    }

    /// Ends when the client has closed both ways. A watcher has no more to say, and may close its own way early.
    async fn hung_up(&self) {
        let mut chunk = [0; 512];
        while matches!((&self.stream).read(&mut chunk).await, Ok(1..)) {}
        hung_up(&self.stream).await;
    }

    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> StatusQuery) -> Result<T, Trouble> {
        let (reply, answer) = oneshot::channel();
        self.queries.send(query(reply)).await.map_err(|_| ENDING)?;
        answer.await.map_err(|_| ENDING)
    }

    /// Writes a line and its end, as long as the client makes headway.
    async fn write(&self, line: &str) -> Result<(), Trouble> {
        write_line(&self.stream, line, self.write_stall).await.map_err(|_| Trouble::Gone)
    }
}

fn read_request(line: &[u8]) -> Result<Word, Trouble> {
    // Serde would take an array for an object's fields by position.
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err(MALFORMED);
    }
    serde_json::from_slice(line).map(Word::Request).map_err(|_| MALFORMED)
}

fn error_line(kind: StatusErrorKind, message: &str) -> String {
    let error = StatusError { error: StatusErrorBody { kind, message: message.to_owned() } };
    serde_json::to_string(&error).expect("an error has text keys and no failing serializer")
}
