//! A hook's process, from its start to its end: what it says last, and that nothing of it is left.
//!
//! Owns the wait beside the loop: until it ends, is late, or is called off. Its whole tree is ended in any case, because what
//! it started is of no use to anybody. What follows from its end is `hooks`' and `before`'s.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use agentd_protocol::control::HookState;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::causes::in_full;
use crate::process::reaper::Exit;
use crate::process::spawn::Report;
use crate::process::tree::Tree;

/// Bytes of a hook's output that are kept, the last ones.
const OUTPUT_MAX: usize = 4096;

/// Lines of them.
const OUTPUT_LINES: usize = 20;

/// How long what a hook printed is read after its end.
const OUTPUT_WITHIN: Duration = Duration::from_millis(200);

/// How a hook ended.
#[derive(Debug)]
pub struct HookEnd {
    /// What became of it.
    pub(super) state: HookState,
    /// Why it counts as failed, if it does.
    pub(super) why: Option<String>,
    /// Its last lines.
    pub(super) output: Vec<String>,
}

/// A hook that runs.
pub(super) struct Watch {
    /// What it prints.
    pub(super) output: pipe::Receiver,
    /// Its end, as the reaper tells it.
    pub(super) ended: oneshot::Receiver<Result<Exit, String>>,
    /// Dropped at the other end when nothing waits for it any more; nothing is ever sent.
    pub(super) called_off: oneshot::Receiver<Infallible>,
    /// Whether its program runs.
    pub(super) report: Report,
    /// It, and what it started.
    pub(super) tree: Tree,
    /// How long it may take.
    pub(super) within: Duration,
}

impl Watch {
    /// Waits for its end, and ends what is late or called off.
    pub(super) async fn run(self) -> HookEnd {
        let Self { mut output, ended, mut called_off, report, tree, within } = self;
        let mut last = VecDeque::new();
        let by = tokio::time::Instant::now() + within;
        let outcome = {
            let whole = async {
                report.outcome().await.map_err(|failure| failure.to_string())?;
                ended.await.map_err(|_| "the daemon is ending".to_owned())?
            };
            let heard = async {
                tokio::pin!(whole);
                tokio::select! {
                    outcome = tokio::time::timeout_at(by, &mut whole) => outcome,
                    // A pipe that ended, or failed: what is left is to wait.
                    () = listen(&mut output, &mut last) => tokio::time::timeout_at(by, whole).await,
                }
            };
            tokio::select! {
                outcome = heard => Some(outcome),
                // Nothing is ever sent: it was dropped.
                _ = &mut called_off => None,
            }
        };
        // What it started is of no use to anybody after its end, and must not hold the pipe.
        if let Err(error) = tree.kill() {
            tracing::warn!(error = in_full(&error), "what a hook left behind may live on");
        }
        let _ = tokio::time::timeout(OUTPUT_WITHIN, listen(&mut output, &mut last)).await;
        let failed = |why: String| (HookState::Failed, Some(why));
        let (state, why) = match outcome {
            Some(Ok(Ok(Exit::Code(0)))) => (HookState::Done, None),
            Some(Ok(Ok(exit))) => failed(exit.to_string()),
            Some(Ok(Err(why))) => failed(format!("could not be run: {why}")),
            Some(Err(_)) => failed(format!("did not end within {within:?} and was killed")),
            None => (HookState::Cut, Some("was killed, because nothing waits for it any more".to_owned())),
        };
        HookEnd { state, why, output: lines(last) }
    }
}

/// Reads until the end, keeping the last bytes.
async fn listen(output: &mut pipe::Receiver, last: &mut VecDeque<u8>) {
    let mut block = [0; 1024];
    while let Ok(got @ 1..) = output.read(&mut block).await {
        last.extend(&block[..got]);
        last.drain(..last.len().saturating_sub(OUTPUT_MAX));
    }
}

fn lines(bytes: VecDeque<u8>) -> Vec<String> {
    let bytes = Vec::from(bytes);
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(OUTPUT_LINES)..].iter().map(|line| (*line).to_owned()).collect()
}
