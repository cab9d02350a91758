//! Files that are put aside, packed and removed while a worker prints.

use agentd_testkit::e2e::Daemon;

use crate::site::{AGENTD, BETWEEN_LOOKS, PATIENCE, await_printed, files, numbers, printer, texts};

#[test]
fn no_line_is_lost_or_doubled_while_files_are_put_aside_and_packed_and_the_daemon_is_killed() {
    const LINES: usize = 150_000;
    let mut daemon = Daemon::start(AGENTD);
    printer(&daemon, LINES, "log = { max_size = \"1M\", keep = 100 }");
    daemon.ctl_ok(&["start", "./web.toml"]);
    for _ in 0..4 {
        daemon.kill();
        daemon.start_again();
    }
    await_printed(&daemon, LINES);
    let seen = numbers(&texts(&daemon, &["--since", "1d"]));
    let (lost, doubled) = (LINES.saturating_sub(seen.len()), seen.len().saturating_sub(LINES));
    assert!(seen.iter().copied().eq(0..LINES), "lost {lost}, doubled {doubled}");
    let deadline = std::time::Instant::now() + PATIENCE;
    let unpacked = |name: &String| {
        name.strip_prefix("0.out.log.").is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    while files(&daemon).iter().any(unpacked) {
        assert!(std::time::Instant::now() < deadline, "what was put aside is packed: {:?}", files(&daemon));
        std::thread::sleep(BETWEEN_LOOKS);
    }
    let packed = files(&daemon).iter().filter(|name| name.ends_with(".zst")).count();
    assert!(packed >= 7, "{packed} packed files");
    assert_eq!(numbers(&texts(&daemon, &["--since", "1d"])).len(), LINES, "packed, it reads the same");
}

#[test]
fn what_is_kept_is_bounded_by_bytes_and_the_newest_stays() {
    let daemon = Daemon::start(AGENTD);
    printer(&daemon, 100_000, "log = { max_size = \"1M\", keep = 100, keep_bytes = \"3M\", compress = false }");
    daemon.ctl_ok(&["start", "./web.toml"]);
    await_printed(&daemon, 100_000);
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let folder = std::fs::read_dir(daemon.home.path().join("logs/web")).expect("it has logged");
        let bytes: u64 = folder.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
        // Looked at whenever a file is put aside; the live one goes on growing, by a file's size at most.
        if bytes <= (3 << 20) + (1 << 20) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{bytes} bytes are kept");
        std::thread::sleep(BETWEEN_LOOKS);
    }
    let seen = numbers(&texts(&daemon, &["--since", "1d"]));
    assert!(seen.len() > 10_000 && seen.iter().copied().eq(seen[0]..100_000), "the newest, in order");
}

#[test]
fn limits_that_change_in_place_hold_for_the_workers_that_run() {
    let daemon = Daemon::start(AGENTD);
    printer(&daemon, 20_000, "log = { max_size = \"64M\" }");
    daemon.ctl_ok(&["start", "./web.toml"]);
    await_printed(&daemon, 20_000);
    let before = daemon.app("web").workers[0].pid;
    assert!(!files(&daemon).iter().any(|name| name.starts_with("0.out.log.0")));
    printer(&daemon, 20_000, "log = { max_size = \"1M\" }");
    daemon.ctl_ok(&["apply", "./web.toml"]);
    std::fs::write(daemon.home.path().join("again"), "").expect("it is ours");
    let deadline = std::time::Instant::now() + PATIENCE;
    while !files(&daemon).iter().any(|name| name.starts_with("0.out.log.0")) {
        assert!(std::time::Instant::now() < deadline, "the new size holds");
    }
    assert_eq!(daemon.app("web").workers[0].pid, before);
}
