//! A small HTTP service that records what was done in the world, by idempotency key: the judge of "once".

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// What was posted so far: keys with how often each came.
type Posted = Arc<Mutex<BTreeMap<String, u32>>>;

/// The running service. Each `POST /KEY` is recorded and answered with how often the key has come.
#[derive(Debug, Clone)]
pub struct Outside {
    url: String,
    posted: Posted,
}

impl Outside {
    /// Starts it on a free port of the loopback; it ends with the process.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let posted = Posted::default();
        let record = Arc::clone(&posted);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let record = Arc::clone(&record);
                // A client that goes away in the middle is recorded when its request was whole.
                thread::spawn(move || drop(serve(&stream, &record)));
            }
        });
        Self { url, posted }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Every key with how often it came.
    #[must_use]
    pub fn posted(&self) -> BTreeMap<String, u32> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(stream: &TcpStream, posted: &Posted) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut first = String::new();
    lines.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    lines.take(length).read_to_end(&mut Vec::new())?;
    let key = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let count = {
        let mut posted = posted.lock().unwrap_or_else(PoisonError::into_inner);
        let count = posted.entry(key).or_default();
        *count += 1;
        *count
    };
    let body = format!("{{\"count\":{count}}}");
    let mut out = stream;
    write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
