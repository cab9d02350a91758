//! A disk that is full.

use std::time::Instant;

use agentd_protocol::events::EventKind;
use agentd_testkit::e2e::{Daemon, Home};

use crate::site::{AGENTD, PATIENCE, printer, texts};

#[test]
fn a_full_disk_costs_lines_that_are_counted_and_announced_and_stops_no_worker() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: mounting needs root");
        return;
    }
    let home = Home::new();
    let logs = home.path().join("logs");
    std::fs::create_dir(&logs).expect("the home takes folders");
    let disk = Disk::mount(&logs);
    let daemon = Daemon::start_in(AGENTD, home);
    let mut watch = daemon.watch();
    std::fs::write(logs.join("ballast"), vec![0; 256 << 10]).expect("fill the disk in part");
    printer(&daemon, 50_000, "log = { max_size = \"64M\" }");
    daemon.ctl_ok(&["start", "./web.toml"]);
    let deadline = Instant::now() + PATIENCE;
    let mut await_event = |wanted: fn(&EventKind) -> bool| loop {
        let event = watch.next(deadline).expect("the event comes in time");
        if wanted(&event.event) {
            return event;
        }
    };
    let event = await_event(|event| matches!(event, EventKind::LogsDropping { .. }));
    assert_eq!(event.app.as_deref(), Some("web"));
    let why = daemon.wait_until(PATIENCE, |document| document.apps[0].why.is_some()).apps[0].why.clone();
    assert!(why.is_some_and(|why| why.contains("log lines are being dropped: no space left on device")));
    let status = daemon.ctl_ok(&["daemon", "status"]).stdout;
    assert!(status.contains("log lines are being dropped"), "{status}");
    while !daemon.home.path().join("printed").exists() {
        assert!(Instant::now() < deadline, "the worker prints to its end");
    }
    std::fs::remove_file(logs.join("ballast")).expect("make room");
    std::fs::write(daemon.home.path().join("again"), "").expect("it is ours");
    let event = await_event(|event| matches!(event, EventKind::LogsResumed { .. }));
    let EventKind::LogsResumed { lines, bytes, .. } = event.event else { unreachable!("it was waited for") };
    assert!(lines > 1_000 && bytes.div_ceil(100).abs_diff(lines) <= 1, "{lines} lines, {bytes} bytes");
    let shown = texts(&daemon, &["--grep", "agentd", "-n", "5"]);
    let told = format!("[agentd] {lines} lines dropped ({bytes} bytes): no space left on device");
    assert!(shown.contains(&told), "{shown:?}");
    assert_eq!(daemon.app("web").workers[0].restarts, 0);
    drop(watch);
    drop(daemon);
    drop(disk);
}

/// A file system of 512 KiB.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(at: &std::path::Path) -> Self {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("size=512k,mode=700")).expect("root may mount");
        Self(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).expect("unmount");
    }
}
