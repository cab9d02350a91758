//! Frames on the control socket.
//!
//! Promised: what is no call is answered as such or ends the connection, every call is answered, and the server goes on.

use std::sync::OnceLock;

use agentd::control::{Access, ControlCall, Identity, serve};
use agentd_protocol::control::{ErrorKind, ErrorObject};
use camino::Utf8PathBuf;
use tokio::sync::mpsc;

use crate::served;

pub(crate) fn run(words: &[u8]) {
    static SOCKET: OnceLock<Utf8PathBuf> = OnceLock::new();
    let socket = SOCKET.get_or_init(|| {
        served::start("control.sock", |socket| async {
            let (calls, mut asked) = mpsc::channel::<ControlCall>(16);
            tokio::spawn(async move {
                while let Some(call) = asked.recv().await {
                    call.reply.finish(Err(ErrorObject::new(ErrorKind::Internal, "nobody is there")));
                }
            });
            let identity = Identity { instance: "fuzz".to_owned(), version: "0".to_owned(), pid: std::process::id() };
            let own = std::fs::metadata("/proc/self").expect("/proc is there");
            let own = std::os::unix::fs::MetadataExt::uid(&own);
            drop(serve(socket, Vec::new(), Access::owner_only(own), identity, calls, std::future::pending()).await);
        })
    });
    served::say(socket, words);
}
