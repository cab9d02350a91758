//! The daemon's own servers on a socket, and a client that says any bytes to them.
//!
//! Owns what both sockets promise to whoever speaks: every line that comes back is a JSON object, the connection ends, and
//! nothing in the server has panicked.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, mpsc};
use std::time::Duration;

use agentd::control::{BoundSocket, bind_private};
use camino::Utf8PathBuf;

/// How long a client that has said everything may wait for the end.
const PATIENCE: Duration = Duration::from_secs(20);

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Starts a server on a thread of its own, for the rest of this process; returns its socket.
pub(crate) fn start<F: Future<Output = ()>>(
    name: &str,
    serve: impl FnOnce(BoundSocket) -> F + Send + 'static,
) -> Utf8PathBuf {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // A connection's panic ends its task alone, so it is noted here.
            PANICKED.store(true, Ordering::SeqCst);
            usual(info);
        }));
    });
    let folder = tempfile::Builder::new().prefix("agentd-fuzz-").tempdir().expect("a temporary folder").keep();
    let path = Utf8PathBuf::from_path_buf(folder).expect("a UTF-8 temporary folder").join(name);
    let (listening, listens) = mpsc::channel();
    let at = path.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let socket = bind_private(&at, 0o600).expect("bind");
            listening.send(()).expect("somebody waits");
            serve(socket).await;
        });
    });
    listens.recv().expect("it listens");
    path
}

/// Says all of it, reads to the end, and looks at what came.
pub(crate) fn say(socket: &Utf8PathBuf, words: &[u8]) {
    let mut stream = UnixStream::connect(socket).expect("it is served");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
    let mut speaker = stream.try_clone().expect("a second descriptor");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // It may have been told to go before it said everything.
            let _ = speaker.write_all(words);
            let _ = speaker.shutdown(Shutdown::Write);
        });
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("no end within {PATIENCE:?}: {error}"),
        }
        for line in answer.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let parsed: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(line);
            assert!(parsed.is_ok(), "no JSON object: {:?}", String::from_utf8_lossy(line));
        }
    });
    assert!(!PANICKED.load(Ordering::SeqCst), "the server has panicked");
}
