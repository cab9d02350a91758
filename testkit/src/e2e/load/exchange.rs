//! One request and its answer: as much of HTTP/1.1 as tells a whole answer from one that broke off.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::client::is_timeout;

/// Longest head of an answer that is taken, in bytes.
const HEAD_MAX: usize = 64 * 1024;

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Whether the connection may be used again.
    pub(super) keeps_open: bool,
    pub(super) first_byte: Instant,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection ended first.
    BeforeFirstByte,
    /// It ended in the middle of the answer.
    Midway,
    /// Nothing more came in time.
    Silence,
    /// What came is not HTTP.
    Garbled,
}

/// What can be talked over, with bounded reads.
pub(super) trait Bounded: Read + Write {
    fn bound(&mut self, patience: Duration) -> io::Result<()>;
}

impl Bounded for super::target::Connection {
    fn bound(&mut self, patience: Duration) -> io::Result<()> {
        self.read_within(patience)
    }
}

/// Sends `GET path` and reads the answer, all of it within `patience`.
pub(super) fn exchange(
    connection: &mut impl Bounded,
    path: &str,
    keep: bool,
    patience: Duration,
) -> Result<Answer, Failure> {
    let deadline = Instant::now() + patience;
    let ending = if keep { "" } else { "Connection: close\r\n" };
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n{ending}\r\n");
    // A peer that closed may still have answered what we could not send: what it said decides.
    let _ = connection.write_all(request.as_bytes());
    let mut reader = Reader { connection, buffer: Vec::new(), patience, deadline, first_byte: None };
    let head = reader.head()?;
    let first_byte = reader.first_byte.expect("a head has a first byte");
    let (body, delimited) = match head.length {
        Length::Known(length) => (reader.exactly(length)?, true),
        Length::Chunked => (reader.chunks()?, true),
        Length::UntilClose => (reader.rest()?, false),
    };
    Ok(Answer { status: head.status, body, keeps_open: delimited && !head.close, first_byte })
}

#[derive(Debug)]
struct Head {
    status: u16,
    length: Length,
    close: bool,
}

#[derive(Clone, Copy, Debug)]
enum Length {
    Known(usize),
    Chunked,
    UntilClose,
}

struct Reader<'a, C> {
    connection: &'a mut C,
    buffer: Vec<u8>,
    patience: Duration,
    deadline: Instant,
    first_byte: Option<Instant>,
}

impl<C: Bounded> Reader<'_, C> {
    /// Reads some more; whether there was any.
    fn fill(&mut self) -> Result<bool, Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Silence);
        }
        let broken = if self.first_byte.is_some() { Failure::Midway } else { Failure::BeforeFirstByte };
        // Most answers come in one piece, and the whole time is theirs.
        let bound = if self.first_byte.is_some() { left } else { self.patience };
        self.connection.bound(bound).map_err(|_| broken)?;
        let mut chunk = [0; 8192];
        match self.connection.read(&mut chunk) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.first_byte.get_or_insert_with(Instant::now);
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if is_timeout(&error) => Err(Failure::Silence),
            Err(_) => Err(broken),
        }
    }

    /// Reads more, which must be there.
    fn more(&mut self) -> Result<(), Failure> {
        match self.fill()? {
            true => Ok(()),
            false if self.first_byte.is_none() => Err(Failure::BeforeFirstByte),
            false => Err(Failure::Midway),
        }
    }

    fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Ok(line);
            }
            if self.buffer.len() > HEAD_MAX {
                return Err(Failure::Garbled);
            }
            self.more()?;
        }
    }

    fn head(&mut self) -> Result<Head, Failure> {
        let status_line = self.line()?;
        let status = status_line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1))
            .and_then(|code| code.parse().ok())
            .ok_or(Failure::Garbled)?;
        let mut head = Head { status, length: Length::UntilClose, close: status_line.starts_with("HTTP/1.0") };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(head);
            }
            let (name, value) = line.split_once(':').ok_or(Failure::Garbled)?;
            let value = value.trim().to_ascii_lowercase();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = Length::Known(value.parse().map_err(|_| Failure::Garbled)?),
                "transfer-encoding" if value == "chunked" => head.length = Length::Chunked,
                "connection" => head.close = value.split(',').any(|word| word.trim() == "close"),
                _ => {}
            }
        }
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Failure> {
        while self.buffer.len() < length {
            self.more()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| Failure::Garbled)?;
            body.extend(self.exactly(size)?);
            if !self.line()?.is_empty() {
                return Err(Failure::Garbled);
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn rest(&mut self) -> Result<Vec<u8>, Failure> {
        while self.fill()? {}
        Ok(std::mem::take(&mut self.buffer))
    }
}
