//! The reaper waits for any child, so it has a test process to itself, with one test.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use agentd::process::reaper::{Exit, adopt_orphans, reap};
use agentd_core::id::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

/// Starts a child that prints the ids of its `orphans`, ends its input, which ends them all, and reaps.
#[expect(clippy::zombie_processes, reason = "the reaper under test is to wait for it")]
fn ends_of(line: &str, orphans: usize) -> Vec<(Pid, Exit)> {
    let mut child =
        Command::new("/bin/sh").args(["-c", line]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    let mut output = child.stdout.take().unwrap();
    while told.lines().count() < orphans || (orphans > 0 && !told.ends_with('\n')) {
        let mut chunk = [0; 64];
        let length = output.read(&mut chunk).unwrap();
        assert!(length > 0, "the orphans told their ids");
        told.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }
    let mut awaited = vec![child.id()];
    awaited.extend(told.lines().map(|line| line.parse::<u32>().unwrap()));
    let holds = awaited
        .iter()
        .map(|&pid| {
            pidfd_open(rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), PidfdFlags::empty())
                .unwrap()
        })
        .collect::<Vec<_>>();
    drop(child.stdin.take());
    let limit = Timespec::try_from(Duration::from_secs(20)).unwrap();
    for hold in &holds {
        assert_eq!(poll(&mut [PollFd::new(hold, PollFlags::IN)], Some(&limit)).unwrap(), 1, "it ended in time");
    }
    let mut ended = reap();
    ended.sort_by_key(|(pid, _)| awaited.iter().position(|&awaited| awaited == pid.0));
    assert_eq!(ended.len(), awaited.len());
    ended
}

#[test]
fn every_end_is_reaped_with_its_cause_and_orphans_become_ours() {
    assert_eq!(reap(), [], "there is no child yet");
    adopt_orphans().unwrap();
    assert_eq!(ends_of("read x; exit 3", 0)[0].1, Exit::Code(3));
    assert_eq!(ends_of("read x; kill -TERM $$", 0)[0].1, Exit::Signal { number: 15, core_dumped: false });
    // A real-time signal, which has no name.
    assert_eq!(ends_of("read x; kill -40 $$", 0)[0].1, Exit::Signal { number: 40, core_dumped: false });
    let ended = ends_of("exec 5<&0; (sh -c 'echo $$; read x; exit 5' <&5 &); read x; exit 4", 1);
    assert_eq!(ended.iter().map(|(_, exit)| *exit).collect::<Vec<_>>(), [Exit::Code(4), Exit::Code(5)]);
    assert_eq!(reap(), []);
}
