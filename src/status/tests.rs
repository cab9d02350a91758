//! The server against real sockets, with a dispatcher that owns a journal and a document.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use agentd_protocol::Timestamp;
use agentd_protocol::events::{Event, EventKind};
use agentd_protocol::status::{SCHEMA, StatusDocument, StatusErrorKind, StatusLine};
use camino::Utf8PathBuf;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::journal::{BEHIND_MAX, EventJournal};
use super::server::{Snapshot, StatusQuery, serve_within};
use crate::control::access::Access;
use crate::control::socket::bind_private;

/// Longest wait of a test for anything.
const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("it happens before the deadline")
}

/// What the test wants of the dispatcher.
#[derive(Debug)]
enum Wish {
    /// Record this many events, and say how many there are now.
    Events(usize, oneshot::Sender<u64>),
    /// Forget the journal and every query.
    End,
}

struct Served {
    path: Utf8PathBuf,
    wishes: mpsc::Sender<Wish>,
    server: tokio::task::JoinHandle<()>,
    doors: watch::Sender<bool>,
    dispatcher: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Served {
    fn new(write_stall: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::from_path_buf(folder.path().join("status.sock")).expect("a folder named in UTF-8");
        let socket = bind_private(&path, 0o660).expect("bound");
        let (queries, asked) = mpsc::channel(4);
        let (wishes, wished) = mpsc::channel(4);
        let doors = socket.doors();
        let server = tokio::spawn(serve_within(
            write_stall,
            socket,
            Access::owner_only(nix::unistd::geteuid().as_raw()),
            queries,
        ));
        let dispatcher = tokio::spawn(dispatch(asked, wished));
        Self { path, wishes, server, doors, dispatcher, _folder: folder }
    }

    fn ordinary() -> Self {
        Self::new(DEADLINE)
    }

    async fn events(&self, count: usize) -> u64 {
        let (done, seq) = oneshot::channel();
        self.wishes.send(Wish::Events(count, done)).await.expect("the dispatcher runs");
        soon(seq).await.expect("the dispatcher runs")
    }

    async fn connect(&self) -> Client {
        Client(BufReader::new(soon(UnixStream::connect(&self.path)).await.expect("connected")))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
        self.dispatcher.abort();
    }
}

async fn dispatch(mut queries: mpsc::Receiver<StatusQuery>, mut wishes: mpsc::Receiver<Wish>) {
    let mut journal = EventJournal::after(0);
    loop {
        tokio::select! {
            Some(query) = queries.recv() => match query {
                StatusQuery::Document { reply } => {
                    let document = serde_json::to_string(&document(journal.seq())).expect("written").into();
                    // The client may be gone.
                    let _ = reply.send(Snapshot { document, seq: journal.seq() });
                }
                StatusQuery::Events { since, reply } => {
                    let _ = reply.send(journal.subscribe(since, Timestamp::UNIX_EPOCH));
                }
            },
            wish = wishes.recv() => match wish {
                Some(Wish::Events(count, done)) => {
                    for _ in 0..count {
                        let why = "x".repeat(200);
                        journal.record(Timestamp::UNIX_EPOCH, Some("web"), None, EventKind::DaemonStopping { why });
                    }
                    done.send(journal.seq()).expect("the test waits");
                }
                Some(Wish::End) | None => return,
            },
        }
    }
}

fn document(seq: u64) -> StatusDocument {
    StatusDocument {
        schema: SCHEMA,
        instance: "test".to_owned(),
        pid: 7,
        version: "0.1.0".to_owned(),
        started_at: Timestamp::UNIX_EPOCH,
        now: Timestamp::UNIX_EPOCH,
        seq,
        apps: Vec::new(),
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        soon(self.0.get_mut().write_all(bytes)).await.expect("sent");
    }

    async fn half_close(&mut self) {
        soon(self.0.get_mut().shutdown()).await.expect("half closed");
    }

    /// The next line; none at the end of file, or where the server closed on what it would not read.
    async fn next(&mut self) -> Option<StatusLine> {
        let mut line = Vec::new();
        match soon(self.0.read_until(b'\n', &mut line)).await {
            Ok(0) => None,
            Ok(_) => Some(StatusLine::decode(&line).expect("the line is understood")),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => None,
            Err(e) => panic!("read: {e}"),
        }
    }

    async fn document(&mut self) -> StatusDocument {
        match self.next().await {
            Some(StatusLine::Document(document)) => *document,
            other => panic!("no document: {other:?}"),
        }
    }

    async fn event(&mut self) -> Event {
        match self.next().await {
            Some(StatusLine::Event(event)) => event,
            other => panic!("no event: {other:?}"),
        }
    }

    async fn error(&mut self) -> StatusErrorKind {
        match self.next().await {
            Some(StatusLine::Error(error)) => error.kind,
            other => panic!("no error: {other:?}"),
        }
    }
}

#[tokio::test]
async fn who_sends_nothing_reads_one_document_and_the_end() {
    let served = Served::ordinary();
    let mut client = served.connect().await;
    let mut all = String::new();
    soon(client.0.read_to_string(&mut all)).await.expect("read to the end");
    assert_eq!(all.lines().count(), 1);
    assert_eq!(serde_json::from_str::<StatusDocument>(&all).expect("a document"), document(0));
}

#[tokio::test]
async fn who_closes_its_way_at_once_waits_for_nothing() {
    let served = Served::ordinary();
    let mut quickest = DEADLINE;
    for _ in 0..50 {
        let begun = Instant::now();
        let mut client = served.connect().await;
        client.half_close().await;
        client.document().await;
        assert_eq!(client.next().await, None);
        quickest = quickest.min(begun.elapsed());
    }
    // The server's shortest wait is 20 ms. One of fifty without it shows that it is not waited for.
    assert!(quickest < Duration::from_millis(15), "{quickest:?}");
}

#[tokio::test]
async fn a_watcher_reads_the_document_then_every_event_in_order() {
    let served = Served::ordinary();
    served.events(3).await;
    let mut client = served.connect().await;
    client.send(b"{\"watch\":true}\n").await;
    assert_eq!(client.document().await.seq, 3);
    served.events(5).await;
    for seq in 4..=8 {
        assert_eq!(client.event().await.seq, seq);
    }
}

#[tokio::test]
async fn a_watcher_may_ask_after_it_has_read_the_document_and_may_close_its_way() {
    let served = Served::ordinary();
    let mut client = served.connect().await;
    client.document().await;
    client.send(b"{\"watch\":true}").await;
    client.half_close().await;
    served.events(1).await;
    assert_eq!(client.event().await.seq, 1);
}

#[tokio::test]
async fn a_watcher_resumes_where_it_was() {
    let served = Served::ordinary();
    served.events(6).await;
    let mut client = served.connect().await;
    client.send(b"{\"watch\":true,\"since\":4,\"colour\":\"red\"}\n").await;
    assert_eq!(client.document().await.seq, 6);
    assert_eq!(client.event().await.seq, 5);
    assert_eq!(client.event().await.seq, 6);
    served.events(1).await;
    assert_eq!(client.event().await.seq, 7);
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_an_error_and_the_end() {
    let served = Served::ordinary();
    for line in [&b"watch\n"[..], b"[true]\n", b"\xff\n", b"{\"watch\":1}\n", &[b'x'; 8000]] {
        let mut client = served.connect().await;
        client.send(line).await;
        assert_eq!(client.error().await, StatusErrorKind::Malformed);
        assert_eq!(client.next().await, None);
    }
    let mut client = served.connect().await;
    client.send(b"{\"watch\":").await;
    assert_eq!(client.error().await, StatusErrorKind::Malformed);
}

#[tokio::test]
async fn a_watcher_that_reads_too_slowly_is_told_so_and_others_miss_nothing() {
    let served = Served::ordinary();
    let (mut slow, mut quick) = (served.connect().await, served.connect().await);
    for client in [&mut slow, &mut quick] {
        client.send(b"{\"watch\":true}\n").await;
        client.document().await;
        served.events(1).await;
        client.event().await;
    }
    // Far more than the slow one's socket and its place in the journal hold together.
    let mut last = served.events(0).await;
    let first = last;
    for _ in 0..20 {
        last = served.events(BEHIND_MAX / 2).await;
        let mut seen = quick.event().await.seq;
        while seen < last {
            seen = quick.event().await.seq;
        }
    }
    let (mut seen, mut kind) = (first - 1, None);
    while let Some(line) = slow.next().await {
        match line {
            StatusLine::Event(event) => {
                assert_eq!(event.seq, seen + 1, "no gap before the end");
                seen = event.seq;
            }
            StatusLine::Error(error) => kind = Some(error.kind),
            StatusLine::Document(_) => panic!("a second document"),
        }
    }
    assert_eq!(kind, Some(StatusErrorKind::TooSlow));
    assert!(seen < last);
}

#[tokio::test]
async fn a_watcher_that_reads_nothing_is_dropped() {
    let served = Served::new(Duration::from_millis(100));
    let mut deaf = served.connect().await;
    deaf.send(b"{\"watch\":true}\n").await;
    deaf.document().await;
    served.events(1).await;
    deaf.event().await;
    served.events(BEHIND_MAX).await;
    served.events(BEHIND_MAX).await;
    // What was in its socket, then the end, and no endless wait: the server let go of it.
    let dropped = async {
        while !matches!(deaf.0.get_ref().ready(tokio::io::Interest::WRITABLE).await, Ok(r) if r.is_write_closed()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(dropped).await;
}

#[tokio::test]
async fn three_hundred_watchers_at_once_are_served_or_told_why_not() {
    let served = Served::ordinary();
    let mut watchers = Vec::new();
    for _ in 0..300 {
        let mut client = served.connect().await;
        // Who was refused may not be able to send any more.
        let _ = client.0.get_mut().write_all(b"{\"watch\":true}\n").await;
        watchers.push(client);
    }
    let (mut admitted, mut refused) = (Vec::new(), 0);
    for mut client in watchers {
        match client.next().await {
            Some(StatusLine::Document(_)) => admitted.push(client),
            Some(StatusLine::Error(error)) if error.kind == StatusErrorKind::Overloaded => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((admitted.len(), refused), (256, 44));
    served.events(1).await;
    for client in &mut admitted {
        assert_eq!(client.event().await.seq, 1);
    }
}

#[tokio::test]
async fn at_the_end_watchers_are_told() {
    let served = Served::ordinary();
    let mut client = served.connect().await;
    client.send(b"{\"watch\":true}\n").await;
    client.document().await;
    served.events(1).await;
    client.event().await;
    served.wishes.send(Wish::End).await.expect("the dispatcher runs");
    assert_eq!(client.error().await, StatusErrorKind::ShuttingDown);
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn when_another_program_takes_over_who_is_there_is_answered_at_once_and_who_comes_waits() {
    let mut served = Served::ordinary();
    let mut watcher = served.connect().await;
    watcher.send(b"{\"watch\":true}\n").await;
    watcher.document().await;
    let last = served.events(3).await;
    let mut silent = served.connect().await;
    // Whoever connected before is known to the server once this one is answered.
    let mut third = served.connect().await;
    third.half_close().await;
    third.document().await;
    served.doors.send_replace(true);
    assert_eq!(silent.document().await.seq, last);
    assert!(silent.next().await.is_none());
    for seq in 1..=last {
        assert_eq!(watcher.event().await.seq, seq, "what there is");
    }
    assert!(watcher.next().await.is_none());
    soon(&mut served.server).await.expect("everybody is answered");
    assert!(served.path.exists(), "the next program listens there");
}
