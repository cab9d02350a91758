//! An agent that takes its listening socket from whoever started it.

use axum::{Router, routing::get};
use listenfd::ListenFd;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = match ListenFd::from_env().take_tcp_listener(0)? {
        Some(given) => {
            // All descriptors that agentd hands over are non-blocking already; other supervisors' may not be.
            given.set_nonblocking(true)?;
            TcpListener::from_std(given)?
        }
        None => TcpListener::bind("127.0.0.1:3000").await?,
    };
    let who = || async { format!("{}\n", std::env::var("AGENTD_WORKER").unwrap_or_default()) };
    let app = Router::new().route("/", get(who)).route("/health", get(|| async { "well" }));
    let mut terminate = signal(SignalKind::terminate())?;
    let asked = async move {
        terminate.recv().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(asked).await
}
