//! Requests on the status socket.
//!
//! Promised: whatever a client says, or whether it says nothing, it gets JSON or its end, and the server goes on.

use std::sync::OnceLock;

use agentd::control::Access;
use agentd::status::server::{Snapshot, StatusQuery, serve};
use camino::Utf8PathBuf;
use tokio::sync::mpsc;

use crate::served;

pub(crate) fn run(words: &[u8]) {
    static SOCKET: OnceLock<Utf8PathBuf> = OnceLock::new();
    let socket = SOCKET.get_or_init(|| {
        served::start("status.sock", |socket| async {
            let (queries, mut asked) = mpsc::channel(16);
            tokio::spawn(async move {
                while let Some(query) = asked.recv().await {
                    match query {
                        // Whoever asked may be gone by now.
                        StatusQuery::Document { reply, .. } => {
                            drop(reply.send(Snapshot { document: "{}".into(), seq: 0 }));
                        }
                        // Nothing happens here: the watcher is let go.
                        StatusQuery::Events { reply, .. } => drop(reply),
                    }
                }
            });
            let own = std::fs::metadata("/proc/self").expect("/proc is there");
            let own = std::os::unix::fs::MetadataExt::uid(&own);
            serve(socket, Access::owner_only(own), queries).await;
        })
    });
    served::say(socket, words);
}
