//! Processes with our mark that belong to no worker.

use std::process::{Child, Command, Stdio};

use crate::{PATIENCE, all_ready, fleet, pids, workers};

/// A process that carries the mark of `launch`, as a descendant of a worker would that nobody knows any more.
fn marked(instance: &str, launch: u64) -> Child {
    Command::new("sleep")
        .arg("1000")
        .envs([("AGENTD_INSTANCE", instance), ("AGENTD_LAUNCH", &launch.to_string())])
        .stdin(Stdio::null())
        .spawn()
        .expect("sleep is there")
}

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().expect("it is our child").is_some()
}

#[test]
fn what_no_worker_has_is_ended_and_who_is_born_meanwhile_is_not() {
    let (mut daemon, _) = fleet();
    daemon.ctl_ok(&["reload", "web"]);
    let before = pids(&daemon.status());
    let instance = daemon.instance().to_owned();
    daemon.kill();
    // Launches 2 and 3 were the servers before the reload; no launch has got so far as the last number.
    let (mut old, mut other) = (marked(&instance, 2), marked("another0000", 2));
    let mut new = marked(&instance, 1_000_000);
    daemon.start_again();
    workers::until(PATIENCE, || has_ended(&mut old));
    assert!(!has_ended(&mut other), "the mark of another instance");
    assert!(!has_ended(&mut new), "a start that came after the look is not judged by it");
    assert_eq!(pids(&daemon.wait_until(PATIENCE, all_ready)), before);
    for mut child in [other, new] {
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }
}

#[test]
fn what_a_worker_left_that_died_meanwhile_is_ended_before_it_is_started_again() {
    let (mut daemon, _) = fleet();
    // One that has ended, and that nobody has reaped yet, has no command line any more.
    let script = "import os, subprocess, time\n\
                  lives = os.path.exists('child') and os.path.exists(at := f'/proc/{open(\"child\").read()}/cmdline') \
                  and open(at).read()\n\
                  print('beside the one before' if lives else 'alone', flush=True)\n\
                  child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n\
                  open('child', 'w').write(str(child.pid))\n\
                  open('ready', 'w')\n\
                  time.sleep(1000)\n";
    daemon.config("parent.py", script);
    let config = daemon.config(
        "parent.toml",
        "[agent.parent]\ncommand = [\"python3\", \"parent.py\"]\nrestart = { backoff = \"1ms..1ms\" }\n",
    );
    daemon.ctl_ok(&["start", config.to_str().expect("a UTF-8 path")]);
    workers::until(PATIENCE, || daemon.home.path().join("ready").exists());
    let parent = daemon.app("parent").workers[0].pid.expect("it runs");
    daemon.kill();
    workers::kill_nine(parent);
    daemon.start_again();
    daemon.wait_until(PATIENCE, |document| {
        all_ready(document) && document.apps.iter().any(|app| app.name == "parent" && app.workers[0].restarts == 1)
    });
    workers::until(PATIENCE, || daemon.ctl_ok(&["logs", "parent"]).stdout.lines().count() >= 2);
    let printed = daemon.ctl_ok(&["logs", "parent"]).stdout;
    assert!(!printed.contains("beside"), "{printed}");
}
