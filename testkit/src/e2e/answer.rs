//! One question over HTTP, for tests that want to know who answers rather than how many are lost.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// Longest wait for an answer; on an idle machine it takes milliseconds.
const WITHIN: Duration = Duration::from_secs(60);

/// The body of what the program on this port of the loopback interface answers to `GET /`.
///
/// # Errors
/// Nobody takes the connection, nobody answers in time, or what comes is no HTTP.
pub fn answer(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no answer of HTTP: {text:?}")))
}
