//! A server as Rust programmers write it: axum, the listener from `LISTEN_FDS`, graceful shutdown on SIGTERM. It knows
//! nothing of agentd.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use listenfd::ListenFd;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::{Stream, StreamExt};

/// Pause between two events of a stream.
const EVENT_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct Wait(Duration);

impl Wait {
    fn of(query: &Query<Vec<(String, f64)>>) -> Self {
        let seconds = query.iter().find(|(name, _)| name == "s").map_or(0.0, |(_, seconds)| *seconds);
        Self(Duration::from_secs_f64(seconds.clamp(0.0, 3600.0)))
    }
}

async fn who() -> String {
    let variable = |name| std::env::var(name).unwrap_or_else(|_| "-".to_owned());
    format!("{} {} {}\n", variable("VERSION"), variable("AGENTD_WORKER"), std::process::id())
}

async fn long(query: Query<Vec<(String, f64)>>) -> &'static str {
    tokio::time::sleep(Wait::of(&query).0).await;
    "done\n"
}

async fn sse(query: Query<Vec<(String, f64)>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let count = Wait::of(&query).0.as_millis() / EVENT_EVERY.as_millis();
    let ticks = tokio_stream::iter(0..count).throttle(EVENT_EVERY).map(|n| n.to_string());
    let events = ticks.chain(tokio_stream::once("end".to_owned()));
    Sse::new(events.map(|data| Ok(Event::default().data(data))))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = ListenFd::from_env()
        .take_tcp_listener(0)?
        .ok_or_else(|| std::io::Error::other("no listener was passed in LISTEN_FDS"))?;
    listener.set_nonblocking(true)?;
    let app = Router::new().route("/", get(who)).route("/long", get(long)).route("/sse", get(sse));
    let mut terminate = signal(SignalKind::terminate())?;
    axum::serve(TcpListener::from_std(listener)?, app)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await
}
