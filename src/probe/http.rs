//! A minimal HTTP/1.1 client: one request without a body, and the status of the answer.
//!
//! Owns the request's text and the reading of the answer's head. Does not connect, follow redirects or read bodies: the
//! caller closes the connection after the head. A server that answers slowly, badly or too much costs 16 KiB and the time
//! given.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// Most bytes that heads of an answer may have, interim ones included.
const HEAD_MAX: usize = 16 * 1024;

/// What to ask for, and which answer is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// `GET`, or another method, in capitals.
    pub method: String,
    /// Path and query; starts with `/`.
    pub path: String,
    /// The `Host` header.
    pub host: String,
    /// The statuses that count as good, as 200 to 399.
    pub expect: RangeInclusive<u16>,
}

/// Why an HTTP check failed.
#[derive(Debug, Error)]
pub enum HttpError {
    /// A path or host that would break the request's lines.
    #[error("cannot be asked for {0:?}: a request's path and host hold no blanks or control characters")]
    Request(String),
    /// The answer has another status.
    #[error("answered {0}")]
    Status(Status),
    /// The connection ended before any answer.
    #[error("closed the connection before answering")]
    ClosedBeforeAnswer,
    /// The connection ended in the middle of the head.
    #[error("closed the connection in the middle of its answer's headers")]
    ClosedInHead,
    /// What came is no HTTP/1.
    #[error("answered something that is not HTTP/1: {0:?}")]
    NotHttp(String),
    /// The head does not end within 16 KiB.
    #[error("answered with more than 16 KiB of headers")]
    HeadTooLong,
    /// Nothing, or no whole head, came in time.
    #[error("did not answer within {}", Seconds(*.0))]
    Timeout(Duration),
    /// The connection broke.
    #[error("broke the connection")]
    Broken(#[source] io::Error),
}

/// A status line's code and phrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code, 100 to 999.
    pub code: u16,
    /// The server's words for it; may be empty.
    pub reason: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason.is_empty() { write!(f, "{}", self.code) } else { write!(f, "{} {}", self.code, self.reason) }
    }
}

/// A duration as a person writes it: `2s`, `1.5s`, `300ms`.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(f, "{}ms", self.0.as_millis())
        } else {
            write!(f, "{}s", self.0.as_millis() as f64 / 1000.0)
        }
    }
}

/// Asks over `stream` and gives the status, which is one that the check expects.
///
/// # Errors
/// Any other answer, none, or none by `deadline`.
pub async fn get<S>(mut stream: S, check: &HttpCheck, deadline: Instant) -> Result<Status, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let given = deadline.saturating_duration_since(Instant::now());
    let status =
        tokio::time::timeout_at(deadline, ask(&mut stream, check)).await.unwrap_or(Err(HttpError::Timeout(given)))?;
    if check.expect.contains(&status.code) { Ok(status) } else { Err(HttpError::Status(status)) }
}

async fn ask<S>(stream: &mut S, check: &HttpCheck) -> Result<Status, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for part in [&check.method, &check.path, &check.host] {
        if part.is_empty() || part.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(HttpError::Request(part.clone()));
        }
    }
    let request = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: agentd-probe/{}\r\nAccept: */*\r\n{}Connection: close\r\n\r\n",
        check.method,
        check.path,
        check.host,
        env!("CARGO_PKG_VERSION"),
        if check.method == "GET" { "" } else { "Content-Length: 0\r\n" },
    );
    // A server may answer without reading and close; what it said counts, so a failed write is not the end.
    let written = stream.write_all(request.as_bytes()).await;
    match read_status(stream).await {
        Err(HttpError::ClosedBeforeAnswer) => Err(written.map_or_else(broken, |()| HttpError::ClosedBeforeAnswer)),
        done => done,
    }
}

/// The first status that is final, with its whole head read.
async fn read_status<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Status, HttpError> {
    let mut head = Vec::with_capacity(1024);
    let mut start = 0;
    loop {
        while let Some(end) = end_of_head(&head[start..]) {
            let status = status_line(&head[start..start + end])?;
            // 100 to 199 announce an answer; 101 is one, though we did not ask for it.
            if !(100..200).contains(&status.code) || status.code == 101 {
                return Ok(status);
            }
            start += end;
        }
        if head.len() >= 5 && !head.starts_with(b"HTTP/") {
            return Err(not_http(&head));
        }
        if head.len() >= HEAD_MAX {
            return Err(HttpError::HeadTooLong);
        }
        let room = (HEAD_MAX - head.len()) as u64;
        let got = (&mut *stream).take(room).read_buf(&mut head).await.map_err(broken)?;
        if got == 0 {
            return Err(if head.len() == start { HttpError::ClosedBeforeAnswer } else { HttpError::ClosedInHead });
        }
    }
}

/// A reset is how a kernel says that a server closed without reading.
fn broken(error: io::Error) -> HttpError {
    if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
        HttpError::ClosedBeforeAnswer
    } else {
        HttpError::Broken(error)
    }
}

/// One past the empty line that ends a head. Lines may end without a carriage return (RFC 9112, 2.2).
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        let line = &bytes[line_start..at];
        if line.strip_suffix(b"\r").unwrap_or(line).is_empty() && line_start > 0 {
            return Some(at + 1);
        }
        line_start = at + 1;
    }
    None
}

/// `HTTP/1.1 200 OK`, where the phrase, and the blank before it, may be missing.
fn status_line(head: &[u8]) -> Result<Status, HttpError> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let parsed = || {
        let text = String::from_utf8_lossy(line);
        let (minor, rest) = text.strip_prefix("HTTP/1.")?.split_once(' ')?;
        let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let is_digits = |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
        let code = Some(code).filter(|code| is_digits(code, 3) && is_digits(minor, 1))?.parse().ok()?;
        (100..=999).contains(&code).then(|| Status { code, reason: printable(reason.trim()) })
    };
    parsed().ok_or_else(|| not_http(head))
}

fn not_http(bytes: &[u8]) -> HttpError {
    HttpError::NotHttp(printable(&String::from_utf8_lossy(&bytes[..bytes.len().min(60)])))
}

/// A server's words, short and without what would drive a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests;
