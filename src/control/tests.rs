//! The server against real sockets, with a dispatcher that does as its calls' names say.

use std::future::{Future, pending};
use std::os::fd::OwnedFd;
use std::time::Duration;

use agentd_protocol::control::{
    Accepted, Call, Changed, DescribeParams, ErrorKind, HelloParams, LogLine, LogStream, LogsEnd, LogsParams, Notice,
    OperationKind, OperationView, ReloadParams, Reply, Request, RequestId, Role, ServerMessage, Signalled, StopParams,
};
use agentd_protocol::frame::REQUEST_MAX;
use camino::Utf8PathBuf;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::access::Access;
use super::reply::{ControlCall, ReplySink};
use super::server::{Identity, Limits, serve_within};
use super::socket::bind_private;

/// Longest wait of a test for anything.
const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("it happens before the deadline")
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// A served socket and its dispatcher; both end with it.
struct Served {
    path: Utf8PathBuf,
    /// What the dispatcher wants to tell the test.
    told: mpsc::UnboundedReceiver<Told>,
    end: Option<oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<Vec<OwnedFd>>,
    doors: watch::Sender<bool>,
    dispatcher: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Flooded { taken: usize },
    Read { taken: usize },
    Stopped(Vec<String>),
}

impl Served {
    fn new(limits: Limits, access: Access) -> Self {
        Self::after(Vec::new(), limits, access)
    }

    /// One that serves on whom a server before it left.
    fn after(handed: Vec<OwnedFd>, limits: Limits, access: Access) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::from_path_buf(folder.path().join("control.sock")).expect("a folder named in UTF-8");
        let socket = bind_private(&path, 0o600).expect("bound");
        let (calls, received) = mpsc::channel(16);
        let (tell, told) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let identity = Identity { instance: "test".to_owned(), version: "0.1.0".to_owned(), pid: 7 };
        let shutdown = async {
            if ended.await.is_err() {
                pending::<()>().await;
            }
        };
        let doors = socket.doors();
        let server = tokio::spawn(serve_within(limits, socket, handed, access, identity, calls, shutdown));
        let dispatcher = tokio::spawn(dispatch(received, tell));
        Self { path, told, end: Some(end), server, doors, dispatcher, _folder: folder }
    }

    fn ordinary() -> Self {
        Self::new(Limits::default(), Access::owner_only(own_uid()))
    }

    async fn connect(&self) -> Client {
        let stream = soon(UnixStream::connect(&self.path)).await.expect("connected");
        Client { stream: BufReader::new(stream), calls: 0 }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
        self.dispatcher.abort();
    }
}

async fn dispatch(mut calls: mpsc::Receiver<ControlCall>, tell: mpsc::UnboundedSender<Told>) {
    let mut held: Vec<ReplySink> = Vec::new();
    while let Some(ControlCall { request, peer, reply }) = calls.recv().await {
        assert_eq!((peer.uid, peer.pid), (own_uid(), Some(std::process::id())));
        match request {
            Request::Logs(LogsParams { follow: true, lines, .. }) => {
                let taken = (0..lines).take_while(|n| reply.notify(log(*n)).is_ok()).count();
                reply.has_no_end();
                held.push(reply);
                tell.send(Told::Flooded { taken }).expect("the test listens");
            }
            Request::Logs(LogsParams { follow: false, lines, .. }) => {
                let tell = tell.clone();
                tokio::spawn(read_back(reply, lines, tell));
            }
            Request::Reload(ReloadParams { names, .. }) => {
                let app = names.concat();
                let operations =
                    vec![OperationView { id: 5, app, kind: OperationKind::Reload, already: false, note: None }];
                let notice = Notice::Accepted(Accepted { operations: operations.clone() });
                reply.notify(notice).expect("the client is there");
                reply.finish(Ok(Reply::Changed(Changed { operations, results: Vec::new() })));
            }
            Request::Stop(StopParams { names, .. }) => {
                tell.send(Told::Stopped(names)).expect("the test listens");
                reply.finish(Ok(Reply::Changed(Changed::default())));
            }
            Request::Describe(_) => drop(reply),
            Request::DaemonStop(_) => held.push(reply),
            Request::Hello(_) => panic!("hello is the server's own"),
            Request::Start(_)
            | Request::Restart(_)
            | Request::Refresh(_)
            | Request::Delete(_)
            | Request::Scale(_)
            | Request::Upgrade(_)
            | Request::Rollback(_)
            | Request::Promote(_)
            | Request::Pause(_)
            | Request::Resume(_)
            | Request::Abort(_)
            | Request::Signal(_)
            | Request::Status(_)
            | Request::Apply(_)
            | Request::Tasks(_)
            | Request::TaskChange(_)
            | Request::Effects(_)
            | Request::Sessions(_)
            | Request::Grace(_)
            | Request::TasksUsage(_)
            | Request::TasksPrune(_)
            | Request::DaemonUpgrade(_)
            | Request::Releases(_)
            | Request::Deployments(_)
            | Request::Deployment(_)
            | Request::DaemonStatus(_) => reply.finish(Ok(Reply::Signalled(Signalled::default()))),
        }
    }
    for reply in held {
        reply.finish(Ok(Reply::LogsEnd(LogsEnd::default())));
    }
}

async fn read_back(reply: ReplySink, lines: u32, tell: mpsc::UnboundedSender<Told>) {
    for n in 0..lines {
        if reply.notify_when_room(log(n)).await.is_err() {
            tell.send(Told::Read { taken: n as usize }).expect("the test listens");
            return;
        }
    }
    reply.finish(Ok(Reply::LogsEnd(LogsEnd { lines: u64::from(lines), ..LogsEnd::default() })));
}

fn log(n: u32) -> Notice {
    let text = format!("{n} {}", "x".repeat(1000));
    Notice::Log(LogLine { app: "web".to_owned(), worker: None, stream: LogStream::Stdout, at: None, text })
}

struct Client {
    stream: BufReader<UnixStream>,
    calls: u64,
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.get_mut().write_all(bytes)).await.expect("sent");
    }

    async fn call(&mut self, request: impl Into<Request>) {
        self.calls += 1;
        let call = Call { id: RequestId::Number(self.calls), request: request.into() };
        self.send(format!("{}\n", call.encode()).as_bytes()).await;
    }

    /// The next message; none at the end of file, or where the daemon closed on what it would not read.
    async fn next(&mut self) -> Option<ServerMessage> {
        let mut line = Vec::new();
        match soon(self.stream.read_until(b'\n', &mut line)).await {
            Ok(0) => None,
            Ok(_) => Some(ServerMessage::decode(&line).expect("the daemon's line is understood")),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(e) => panic!("read: {e}"),
        }
    }

    async fn answer(&mut self) -> Result<serde_json::Value, ErrorKind> {
        loop {
            match self.next().await.expect("an answer comes before the end") {
                ServerMessage::Answer { result, .. } => return result.map_err(|e| e.kind()),
                ServerMessage::Notice { .. } => {}
                ServerMessage::UnknownNotice { method } => panic!("{method}"),
            }
        }
    }

    async fn is_served(&mut self) {
        self.call(StopParams { names: vec!["web".to_owned()], wait: false }).await;
        self.answer().await.expect("served");
    }
}

fn hello() -> HelloParams {
    HelloParams { protocol: 9, version: "0.1.0".to_owned() }
}

fn never_answered() -> Request {
    Request::DaemonStop(Default::default())
}

#[tokio::test]
async fn a_newer_client_learns_which_protocol_both_speak() {
    let served = Served::ordinary();
    let mut client = served.connect().await;
    client.call(hello()).await;
    let reply = client.answer().await.expect("greeted");
    assert_eq!(
        reply,
        serde_json::json!({ "protocol": 1, "version": "0.1.0", "instance": "test", "pid": 7, "role": "operate" })
    );
    client.call(HelloParams { protocol: 0, ..hello() }).await;
    assert_eq!(client.answer().await, Err(ErrorKind::UnsupportedProtocol));
}

#[tokio::test]
async fn notices_come_before_the_answer_and_name_their_call() {
    let served = Served::ordinary();
    let mut client = served.connect().await;
    client.call(ReloadParams { names: vec!["web".to_owned()], changed: false, task: None, wait: true }).await;
    let ServerMessage::Notice { call, notice: Notice::Accepted(accepted) } = client.next().await.expect("a notice")
    else {
        panic!("no notice first");
    };
    assert_eq!((call, accepted.operations[0].id), (RequestId::Number(1), 5));
    let ServerMessage::Answer { id, result: Ok(result) } = client.next().await.expect("an answer") else {
        panic!("no answer after it");
    };
    assert_eq!((id, &result["operations"][0]["app"]), (Some(RequestId::Number(1)), &"web".into()));
}

#[tokio::test]
async fn a_call_that_the_daemon_forgets_is_answered_all_the_same() {
    let served = Served::ordinary();
    let mut client = served.connect().await;
    client.call(DescribeParams { name: "web".to_owned() }).await;
    assert_eq!(client.answer().await, Err(ErrorKind::Internal));
    client.is_served().await;
}

#[tokio::test]
async fn garbage_is_answered_and_the_connection_stays() {
    let served = Served::ordinary();
    let mut client = served.connect().await;
    for (line, kind) in [
        (&b"GET / HTTP/1.1\r\n"[..], ErrorKind::Parse),
        (b"\xff\xfe\x00\n", ErrorKind::Parse),
        (b"[1,2]\n", ErrorKind::InvalidRequest),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"fly\"}\n", ErrorKind::UnknownMethod),
    ] {
        client.send(line).await;
        assert_eq!(client.answer().await, Err(kind));
    }
    client.is_served().await;
}

#[tokio::test]
async fn an_oversized_line_is_answered_with_an_error_and_the_end() {
    let served = Served::ordinary();
    let mut client = served.connect().await;
    let long = vec![b'x'; REQUEST_MAX + 64 * 1024];
    // The daemon may close before it has read all of it.
    let _ = soon(client.stream.get_mut().write_all(&long)).await;
    assert_eq!(client.answer().await, Err(ErrorKind::InvalidRequest));
    assert_eq!(client.next().await, None);
    served.connect().await.is_served().await;
}

#[tokio::test]
async fn who_says_nothing_and_who_never_ends_a_line_are_told_and_closed() {
    let limits = Limits { line_within: Duration::from_millis(300), ..Limits::default() };
    let served = Served::new(limits, Access::owner_only(own_uid()));
    let mut silent = served.connect().await;
    let mut dribbler = served.connect().await;
    dribbler.is_served().await;
    let dribble = async {
        loop {
            // One byte at a time, sooner than the limit each: what counts is the line.
            if dribbler.stream.get_mut().write_all(b"x").await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(dribble).await;
    assert_eq!(dribbler.answer().await, Err(ErrorKind::InvalidRequest));
    assert_eq!(dribbler.next().await, None);
    assert_eq!(silent.answer().await, Err(ErrorKind::InvalidRequest));
    assert_eq!(silent.next().await, None);
}

#[tokio::test]
async fn an_idle_client_is_let_go_and_a_waiting_one_is_not() {
    let limits = Limits { idle: Duration::from_millis(50), ..Limits::default() };
    let served = Served::new(limits, Access::owner_only(own_uid()));
    let mut waiting = served.connect().await;
    waiting.call(never_answered()).await;
    let mut idle = served.connect().await;
    idle.is_served().await;
    assert_eq!(idle.next().await, None);
    waiting.call(hello()).await;
    waiting.answer().await.expect("still there");
}

#[tokio::test]
async fn a_half_closed_client_is_answered_and_one_that_ends_its_line_by_closing_is_understood() {
    let mut served = Served::ordinary();
    let mut client = served.connect().await;
    let call = Call { id: RequestId::Number(1), request: StopParams { names: vec![], wait: false }.into() };
    client.send(call.encode().as_bytes()).await;
    soon(client.stream.get_mut().shutdown()).await.expect("half closed");
    client.answer().await.expect("answered");
    assert_eq!(client.next().await, None);
    assert_eq!(soon(served.told.recv()).await, Some(Told::Stopped(vec![])));
}

#[tokio::test]
async fn what_a_client_asked_for_before_it_went_away_is_done() {
    let mut served = Served::ordinary();
    let mut client = served.connect().await;
    client.call(StopParams { names: vec!["web".to_owned()], wait: true }).await;
    drop(client);
    assert_eq!(soon(served.told.recv()).await, Some(Told::Stopped(vec!["web".to_owned()])));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_while_others_proceed() {
    let mut served = Served::ordinary();
    let mut deaf = served.connect().await;
    deaf.call(LogsParams { follow: true, lines: 1_000_000, ..Default::default() }).await;
    let Some(Told::Flooded { taken }) = soon(served.told.recv()).await else { panic!("no flood") };
    assert!(taken < 10_000, "{taken} lines of 1 kB were queued for a client that reads none");
    served.connect().await.is_served().await;
    // It was cut off: what was in the socket, then the end.
    let mut rest = Vec::new();
    let _ = soon(deaf.stream.read_to_end(&mut rest)).await;
    assert!(rest.len() < 8 * 1024 * 1024);
}

#[tokio::test]
async fn a_log_is_read_back_at_the_clients_pace_and_whole() {
    let served = Served::ordinary();
    let mut client = served.connect().await;
    client.call(LogsParams { lines: 20_000, ..Default::default() }).await;
    for n in 0..20_000 {
        let ServerMessage::Notice { notice: Notice::Log(line), .. } = client.next().await.expect("a line") else {
            panic!("no line");
        };
        assert!(line.text.starts_with(&format!("{n} ")), "{}", &line.text[..8]);
    }
    assert_eq!(client.answer().await.expect("the end")["lines"], 20_000);
}

#[tokio::test]
async fn who_reads_a_log_back_may_turn_its_pages_for_longer_than_others_may_be_silent() {
    let limits = Limits { write_stall: Duration::from_millis(10), ..Limits::default() };
    let mut served = Served::new(limits, Access::owner_only(own_uid()));
    let mut reader = served.connect().await;
    reader.call(LogsParams { lines: 20_000, ..Default::default() }).await;
    reader.next().await.expect("it began");
    // One that is no reader of a log, and takes nothing, is dropped meanwhile.
    let mut deaf = served.connect().await;
    deaf.call(LogsParams { follow: true, lines: 3_000, ..Default::default() }).await;
    assert!(matches!(soon(served.told.recv()).await, Some(Told::Flooded { taken: 3_000 })));
    let is_dropped = async {
        while !deaf.stream.get_ref().ready(Interest::WRITABLE).await.expect("it is watched").is_write_closed() {
            yield_now().await;
        }
    };
    soon(is_dropped).await;
    let mut rest = Vec::new();
    // What was in its socket may be followed by a reset.
    let _ = soon(deaf.stream.read_to_end(&mut rest)).await;
    assert!(rest.len() < 3_000_000, "{} bytes came to one who took none for longer than it may", rest.len());
    assert_eq!(reader.answer().await.expect("the end")["lines"], 20_000);
}

#[tokio::test]
async fn reading_a_log_back_ends_when_its_reader_stalls_or_goes() {
    let limits = Limits { reading_stall: Duration::from_millis(100), ..Limits::default() };
    let mut served = Served::new(limits, Access::owner_only(own_uid()));
    let mut stalled = served.connect().await;
    stalled.call(LogsParams { lines: 100_000, ..Default::default() }).await;
    assert!(matches!(soon(served.told.recv()).await, Some(Told::Read { .. })));
    let mut gone = served.connect().await;
    gone.call(LogsParams { lines: 100_000, ..Default::default() }).await;
    gone.next().await.expect("it began");
    drop(gone);
    assert!(matches!(soon(served.told.recv()).await, Some(Told::Read { .. })));
}

#[tokio::test]
async fn three_hundred_clients_at_once_are_served_or_told_why_not() {
    let served = Served::ordinary();
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(served.connect().await);
    }
    let (mut greeted, mut refused) = (0, 0);
    for client in &mut clients {
        // Who was refused may not be able to send any more.
        let call = Call { id: RequestId::Number(1), request: hello().into() };
        let _ = soon(client.stream.get_mut().write_all(format!("{}\n", call.encode()).as_bytes())).await;
        match client.answer().await {
            Ok(_) => greeted += 1,
            Err(kind) => {
                assert_eq!(kind, ErrorKind::Overloaded);
                refused += 1;
            }
        }
    }
    assert_eq!((greeted, refused), (256, 44));
    drop(clients);
    // Their places are free again once the server has seen them go.
    let free_again = async {
        loop {
            let mut client = served.connect().await;
            let call = Call { id: RequestId::Number(1), request: hello().into() };
            let _ = client.stream.get_mut().write_all(format!("{}\n", call.encode()).as_bytes()).await;
            if client.answer().await.is_ok() {
                break;
            }
        }
    };
    soon(free_again).await;
}

#[tokio::test]
async fn calls_beyond_the_bound_of_one_connection_are_refused_one_by_one() {
    let served = Served::ordinary();
    let mut client = served.connect().await;
    for _ in 0..65 {
        client.call(never_answered()).await;
    }
    assert_eq!(client.answer().await, Err(ErrorKind::Overloaded));
}

#[tokio::test]
async fn a_stranger_is_refused_before_it_is_heard_and_a_viewer_when_it_would_change_something() {
    let served = Served::new(Limits::default(), Access::default());
    let mut stranger = served.connect().await;
    assert_eq!(stranger.answer().await, Err(ErrorKind::Forbidden));
    assert_eq!(stranger.next().await, None);

    let served = Served::new(Limits::default(), Access::default().with_viewer(own_uid()));
    let mut viewer = served.connect().await;
    viewer.call(hello()).await;
    assert_eq!(viewer.answer().await.expect("greeted")["role"], serde_json::json!(Role::View));
    viewer.call(StopParams { names: vec![], wait: false }).await;
    assert_eq!(viewer.answer().await, Err(ErrorKind::Forbidden));
    viewer.call(LogsParams { lines: 1, ..Default::default() }).await;
    viewer.answer().await.expect("it may look");
}

#[tokio::test]
async fn at_the_end_answers_that_are_owed_are_still_read() {
    let mut served = Served::ordinary();
    let mut client = served.connect().await;
    client.call(never_answered()).await;
    client.is_served_beside().await;
    served.end.take().expect("not ended").send(()).expect("the server runs");
    // The dispatcher answers what it held when no call can come any more.
    client.answer().await.expect("the owed answer");
    assert_eq!(client.next().await, None);
    soon(&mut served.server).await.expect("the server ended");
    assert!(!served.path.exists(), "its file is gone");
}

#[tokio::test]
async fn when_another_program_takes_over_who_waits_is_answered_and_nobody_is_closed() {
    let limits = Limits { parting_stall: DEADLINE, ..Limits::default() };
    let mut served = Served::new(limits, Access::owner_only(own_uid()));
    let mut silent = served.connect().await;
    let mut resting = served.connect().await;
    resting.is_served().await;
    let mut reading = served.connect().await;
    reading.call(LogsParams { lines: 20_000, ..Default::default() }).await;
    reading.next().await.expect("it began");
    let mut writing = served.connect().await;
    writing.is_served().await;
    let call = Call { id: RequestId::Number(7), request: hello().into() }.encode();
    let (begun, rest) = call.as_bytes().split_at(9);
    writing.send(begun).await;
    // Whoever connected before is known to the server, and its bytes are read.
    let mut last = served.connect().await;
    last.is_served().await;
    served.doors.send_replace(true);
    let mut late = served.connect().await;
    late.send(b"{}\n").await;
    assert_eq!(reading.answer().await.expect("the end")["lines"], 20_000);
    writing.send(&[rest, b"\n"].concat()).await;
    writing.answer().await.expect("a line that had begun is answered");
    let handed = soon(&mut served.server).await.expect("everybody is answered");
    assert_eq!(handed.len(), 5, "who came late waits in the queue");
    assert!(served.path.exists(), "the next program listens there");
    let _next = Served::after(
        handed,
        Limits { line_within: Duration::ZERO, ..Limits::default() },
        Access::owner_only(own_uid()),
    );
    for client in [&mut silent, &mut resting, &mut reading, &mut writing, &mut last] {
        client.is_served().await;
    }
}

#[tokio::test]
async fn when_another_program_takes_over_who_follows_without_an_end_is_let_go() {
    let mut served = Served::ordinary();
    let mut follower = served.connect().await;
    follower.call(LogsParams { follow: true, lines: 0, ..Default::default() }).await;
    assert_eq!(soon(served.told.recv()).await, Some(Told::Flooded { taken: 0 }));
    served.doors.send_replace(true);
    assert!(soon(&mut served.server).await.expect("nobody is waited for").is_empty());
    assert_eq!(follower.next().await, None);
}

#[tokio::test]
async fn when_another_program_takes_over_who_has_paused_in_a_log_is_let_go() {
    let mut served = Served::ordinary();
    let mut paused = served.connect().await;
    paused.call(LogsParams { lines: 20_000, ..Default::default() }).await;
    paused.next().await.expect("it began");
    served.doors.send_replace(true);
    assert!(soon(&mut served.server).await.expect("nobody is waited for").is_empty());
    let mut read = 1;
    while let Some(message) = paused.next().await {
        assert!(matches!(message, ServerMessage::Notice { .. }), "no answer, and no line cut in two");
        read += 1;
    }
    assert!(read < 20_000, "what the kernel held for it, then the end: {read}");
}

impl Client {
    /// Sees that the daemon has taken every earlier call, whose answer is still owed.
    async fn is_served_beside(&mut self) {
        self.call(hello()).await;
        self.answer().await.expect("greeted");
    }
}
