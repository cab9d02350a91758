//! A worker that was to be told to end when the supervisor died: nobody knows whether it was.

use agentd_testkit::e2e::Daemon;

use crate::{AGENTD, PATIENCE};

/// Hears the first signal and stays, as if it had never been sent; ends at the second.
const DEAF_ONCE: &str = r#"
import signal, time
heard = []
def hear(*_):
    heard.append(1)
    open("heard", "a").write("x")
    if len(heard) == 2:
        raise SystemExit(9)
signal.signal(signal.SIGTERM, hear)
open("listens", "w").close()
while True:
    time.sleep(1000)
"#;

#[test]
fn a_worker_that_may_never_have_been_told_to_end_is_told_by_the_next_supervisor() {
    let mut daemon = Daemon::start(AGENTD);
    daemon.config("deaf.py", DEAF_ONCE);
    // No `stop.timeout`: it would have all of its grace.
    daemon.config(
        "deaf.toml",
        "[agent.deaf]\ncommand = [\"python3\", \"deaf.py\"]\nready = { command = [\"test\", \"-e\", \"listens\"] }\n",
    );
    daemon.ctl_ok(&["start", "./deaf.toml"]);
    daemon.ctl_ok(&["stop", "deaf", "--no-wait"]);
    let heard = daemon.home.path().join("heard");
    let told = |times: usize| std::fs::read(&heard).is_ok_and(|marks| marks.len() == times);
    let deadline = std::time::Instant::now() + PATIENCE;
    while !told(1) {
        assert!(std::time::Instant::now() < deadline, "it is told: {}", daemon.log());
        std::thread::yield_now();
    }
    daemon.kill();
    daemon.start_again();
    let stopped =
        daemon.wait_until(PATIENCE, |document| document.apps[0].workers.iter().all(|worker| worker.pid.is_none()));
    assert!(told(2), "by the second signal, and not by SIGKILL: {stopped:?}");
}
