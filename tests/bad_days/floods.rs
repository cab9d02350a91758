//! Too much of what comes in: lines, and clients.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use agentd_testkit::e2e::{Daemon, Home};

use crate::site::{AGENTD, memory_kib, serves, until, web};

/// Most that the daemon may grow by, in KiB.
const GROWTH_KIB: u64 = 24 * 1024;

fn flood(megabytes: u32, line: u32) -> (Daemon, u16, u64) {
    let home = Home::new();
    let port =
        web(&home, &format!("env = {{ FLOOD = {megabytes}, LINE = {line} }}\nlog = {{ max_size = \"8M\", keep = 2 }}"));
    let daemon = Daemon::start_in(AGENTD, home);
    let before = memory_kib(daemon.pid());
    daemon.ctl_ok(&["start", "./web.toml"]);
    until("all was printed", || daemon.ctl_ok(&["logs", "web", "-n", "1"]).stdout.contains("printed all"));
    (daemon, port, before)
}

fn on_disk(daemon: &Daemon) -> u64 {
    let files = std::fs::read_dir(daemon.home.path().join("logs/web")).expect("it is there").flatten();
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
}

#[test]
fn a_worker_that_logs_a_gigabyte_fills_no_disk_and_no_memory() {
    let (daemon, port, before) = flood(1024, 100);
    assert!(serves(port));
    let (kept, grown) = (on_disk(&daemon), memory_kib(daemon.pid()).saturating_sub(before));
    assert!(kept < 40 << 20, "{kept} bytes are kept of three files of 8 MiB");
    assert!(grown < GROWTH_KIB, "the daemon grew by {grown} KiB");
}

#[test]
fn a_line_of_a_hundred_megabytes_is_cut_into_pieces_and_costs_no_memory() {
    let (daemon, port, before) = flood(100, 0);
    assert!(serves(port));
    let (kept, grown) = (on_disk(&daemon), memory_kib(daemon.pid()).saturating_sub(before));
    assert!(kept < 40 << 20, "{kept} bytes are kept of three files of 8 MiB");
    assert!(grown < GROWTH_KIB, "the daemon grew by {grown} KiB");
    let shown = daemon.ctl_ok(&["logs", "web", "-n", "2"]);
    assert!(shown.stdout.len() < 8 << 20, "{} bytes are shown of two lines", shown.stdout.len());
}

#[test]
fn a_thousand_clients_that_say_nothing_are_told_or_let_go_and_the_next_one_is_served() {
    let home = Home::new();
    let port = web(&home, "");
    let daemon = Daemon::start_in(AGENTD, home);
    daemon.ctl_ok(&["start", "./web.toml"]);
    let mut silent = Vec::new();
    for _ in 0..500 {
        for socket in ["control.sock", "status.sock"] {
            silent.push(UnixStream::connect(daemon.home.socket(socket)).expect("they are taken in"));
        }
    }
    assert!(serves(port), "workers do not notice");
    // Whoever is beyond the room there is, is told so and closed at once.
    let told = silent.iter_mut().rev().take(20).filter_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout that is not zero");
        let mut text = String::new();
        stream.read_to_string(&mut text).ok().map(|_| text)
    });
    let told: Vec<String> = told.collect();
    assert!(told.iter().any(|text| text.contains("too many clients")), "{told:?}");
    // The status socket lets the silent go after their document; the control socket after ten seconds.
    until("a new client is served", || daemon.ctl(&["daemon", "status"]).code == Some(0));
    drop(silent);
    assert_eq!(daemon.app("web").ready, 1);
}
