//! The soak in its short form: what is leaked at each reload or crash shows in a few of them. The long one is `bench.py soak`.

use agentd_testkit::e2e::{Daemon, Home};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::site::{AGENTD, memory_kib, until, web};

const ROUNDS: u32 = 8;

/// Most that the daemon may grow by in all of them, in KiB: twice what the long one allows.
const GROWTH_KIB: u64 = 512;

#[test]
fn reloads_and_crashes_leave_no_descriptor_no_process_and_little_memory_behind() {
    let home = Home::new();
    web(&home, "workers = 2\nrestart = { backoff = \"1ms..1ms\", max = \"1000 in 1m\" }");
    let daemon = Daemon::start_in(AGENTD, home);
    daemon.ctl_ok(&["start", "./web.toml"]);
    let pids = || daemon.app("web").workers.into_iter().filter_map(|worker| worker.pid).collect::<Vec<u32>>();
    let round = || {
        daemon.ctl_ok(&["reload", "web"]);
        let victim = pids()[0];
        kill(Pid::from_raw(i32::try_from(victim).expect("a pid")), Signal::SIGKILL).expect("it is ours");
        until("another serves in its place", || {
            let app = daemon.app("web");
            app.ready == 2 && app.workers.len() == 2 && app.workers.iter().all(|worker| worker.pid != Some(victim))
        });
    };
    let open = || {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it lives");
        entries.count()
    };
    round();
    let (memory, descriptors, processes) = (memory_kib(daemon.pid()), open(), daemon.processes().len());
    for _ in 0..ROUNDS {
        round();
    }
    // Clients that are just leaving, and workers' last descriptors.
    until("as many descriptors as before", || open() <= descriptors);
    until("as many processes as before", || daemon.processes().len() <= processes);
    let grown = memory_kib(daemon.pid()).saturating_sub(memory);
    assert!(grown < GROWTH_KIB, "the daemon grew by {grown} KiB in {ROUNDS} rounds");
}
