//! Limits: held, met, and named.

use agentd_protocol::events::EventKind;
use agentd_protocol::status::ExitReason;
use agentd_testkit::e2e::{Daemon, Home, Kernel, answer, free_port};

use crate::site::{AGENTD, PATIENCE, is_root, mode, open_home, written};

/// Answers on descriptor 3, and takes `GROW` MiB more for each SIGUSR1.
const GROWING: &str = r#"
import os, signal, socket, threading
kept = []
signal.signal(signal.SIGUSR1, lambda *_: kept.append(bytearray(os.urandom(1 << 20)) * int(os.environ["GROW"])))
body = str(os.getpid()).encode()
answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
def serve(connection):
    with connection:
        if connection.recv(65536):
            connection.sendall(answer)
listener = socket.socket(fileno=3)
listener.setblocking(True)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
"#;

/// A worker that outgrows its ceiling is replaced while requests go on; returns what was said of its end.
fn outgrow(keys: &str) -> (ExitReason, String) {
    let home = open_home();
    let port = free_port();
    home.write("growing.py", GROWING);
    let held = agentd::process::cgroup::Cgroups::open("rights-test").is_ok_and(|cgroups| {
        let held = cgroups.controllers().memory;
        cgroups.close();
        held
    });
    // Where the kernel holds it: beyond nine tenths, from where on it is slowed down, and short of the limit, where it ends.
    let grow = if held { 112 } else { 160 };
    home.write(
        "growing.toml",
        &format!(
            "[agent.growing]\ncommand = [\"python3\", \"growing.py\"]\nlisten = \"127.0.0.1:{port}\"\nworkers = 2\n\
             env.GROW = {grow}\nlimits = {{ memory = \"128M\" }}\nrestart = {{ backoff = \"10ms..200ms\" }}\n{keys}\n"
        ),
    );
    let daemon = Daemon::start_in(AGENTD, home);
    let told = daemon.ctl_ok(&["start", "./growing.toml"]);
    assert_eq!(told.stderr.contains("limits.memory is measured"), !held, "{told:#?}");
    let before: Vec<u32> = daemon.app("growing").workers.iter().filter_map(|worker| worker.pid).collect();
    let grows: u32 = answer(port).expect("it serves").parse().expect("a process id");
    let mut watch = daemon.watch();
    let signalled = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(grows).expect("a pid")),
        nix::sys::signal::Signal::SIGUSR1,
    );
    signalled.expect("it is ours");
    // Beyond nine tenths the kernel puts it to sleep for up to 2 s each 256 KiB, of which it takes some more; and where the
    // app is to be reloaded, it is measured twice, 5 s apart.
    let deadline = std::time::Instant::now() + 3 * PATIENCE;
    let (reason, why) = loop {
        let event = watch.next(deadline).expect("it ends in time");
        // Somebody serves all the while.
        assert!(answer(port).is_ok(), "a request was lost at {event:?}");
        if let EventKind::WorkerExited { reason, why: Some(why), .. } = event.event {
            break (reason, why);
        }
    };
    let after =
        daemon.wait_until(PATIENCE, |document| document.apps[0].ready == 2 && document.apps[0].workers.len() == 2);
    let after: Vec<u32> = after.apps[0].workers.iter().filter_map(|worker| worker.pid).collect();
    assert!(!after.contains(&grows), "{grows} is among {after:?}");
    let stayed = before.iter().any(|pid| *pid != grows && after.contains(pid));
    assert_eq!(
        stayed,
        !keys.contains("shared"),
        "only the outgrown one is replaced where that can be: {before:?} {after:?}"
    );
    (reason, why)
}

#[test]
fn a_worker_beyond_its_ceiling_of_memory_is_replaced_by_another_that_is_ready_first() {
    let (reason, why) = outgrow("");
    assert_eq!(reason, ExitReason::MemoryCeiling);
    assert_ceiling(&why);
}

#[test]
fn where_workers_share_a_queue_the_app_is_reloaded() {
    let (reason, why) = outgrow("balance = \"shared\"");
    assert_eq!(reason, ExitReason::MemoryCeiling);
    assert_ceiling(&why);
}

fn assert_ceiling(why: &str) {
    let ceilings = ["over its ceiling of 128 MiB", "over its ceiling of 115.2 MiB"];
    assert!(why.starts_with("used 1") && ceilings.iter().any(|ceiling| why.ends_with(ceiling)), "{why}");
}

/// How the one process of a command ends, and what is said of it.
fn end(home: Home, command: &str, keys: &str) -> (Option<String>, ExitReason, Option<String>) {
    home.write(
        "once.toml",
        &format!("[skill.once]\nkind = \"worker\"\ncommand = {command}\nrestart = {{ policy = \"never\" }}\n{keys}\n"),
    );
    let daemon = Daemon::start_in(AGENTD, home);
    let mut watch = daemon.watch();
    drop(daemon.ctl(&["start", "./once.toml", "--no-wait"]));
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let event = watch.next(deadline).expect("it ends in time");
        if let EventKind::WorkerExited { signal, reason, why, .. } = event.event {
            let shown = daemon.ctl_ok(&["events"]).stdout;
            assert!(why.as_ref().is_none_or(|why| shown.contains(why.as_str())), "{shown}");
            return (signal, reason, why);
        }
    }
}

#[test]
fn processor_time_that_is_used_up_is_named() {
    let (signal, reason, why) =
        end(Home::new(), "[\"sh\", \"-c\", \"while :; do :; done\"]", "limits.cpu_time = \"1s\"");
    assert_eq!((signal.as_deref(), reason), (Some("SIGXCPU"), ExitReason::CpuTimeLimit));
    assert_eq!(why.as_deref(), Some("used up its processor time: limits.cpu_time = 1s (SIGXCPU)"));
}

#[test]
fn a_file_beyond_its_limit_is_named() {
    let command = "[\"dd\", \"if=/dev/zero\", \"of=big\", \"bs=64k\", \"count=100\"]";
    let (signal, reason, why) = end(Home::new(), command, "limits.file_size = \"1M\"");
    assert_eq!((signal.as_deref(), reason), (Some("SIGXFSZ"), ExitReason::FileSizeLimit));
    assert_eq!(why.as_deref(), Some("wrote a file beyond limits.file_size = 1 MiB (SIGXFSZ)"));
}

/// Forks until it is refused, 300 times at most; tells how often it was not, and ends its children.
const FORKING: &str = r#"
import json, os, resource, signal, time
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
children = []
try:
    while len(children) < 300:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
except OSError as error:
    why = error.strerror
else:
    why = None
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
with open(os.environ["TELL"] + ".new", "w") as out:
    json.dump(dict(forked=len(children), why=why), out)
os.rename(os.environ["TELL"] + ".new", os.environ["TELL"])
time.sleep(60)
"#;

#[test]
fn a_worker_that_forks_without_end_is_refused_at_its_limit_and_nobody_else_is() {
    if !is_root() {
        return;
    }
    let home = open_home();
    home.write("forking.py", FORKING);
    let folder = home.path().join("told");
    std::fs::create_dir_all(&folder).expect("the home takes folders");
    mode(&folder, 0o777);
    let tell = folder.join("forked.json");
    // Nobody else's user: the fallback counts all processes of one.
    let user = 2_000_000_000 + std::process::id();
    home.write(
        "forking.toml",
        &format!(
            "[agent.forking]\ncommand = [\"python3\", \"forking.py\"]\nenv.TELL = {tell:?}\nuser = \"{user}\"\n\
             group = \"{user}\"\nlimits.pids = 16\n"
        ),
    );
    let daemon = Daemon::start_in(AGENTD, home);
    let told = daemon.ctl_ok(&["start", "./forking.toml"]);
    let result = written(&tell);
    let forked = result["forked"].as_u64().expect("a number");
    // Room for a worker of a reload beside it, where RLIMIT_NPROC stands in for the controller.
    let most = if told.stderr.contains("RLIMIT_NPROC") { 32 } else { 16 };
    assert!(forked > 4 && forked < most, "{result} {told:#?}");
    assert_eq!(result["why"], "Resource temporarily unavailable");
    assert_eq!(daemon.app("forking").ready, 1, "the worker itself goes on");
}

#[test]
fn the_kernel_holds_memory_and_processes_where_controllers_are_delegated() {
    let cgroups = match agentd::process::cgroup::Cgroups::open(&format!("rights-{}", std::process::id())) {
        Ok(cgroups) => cgroups,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let controllers = cgroups.controllers();
    if !(controllers.memory && controllers.pids) {
        cgroups.close();
        return eprintln!("skipped: cgroup v2 has not both controllers here: {controllers:?}");
    }
    cgroups.close();
    // In one call: one that grows step by step is slowed down at memory.high, and replaced.
    let eats = "[\"python3\", \"-c\", \"import mmap as m; m.mmap(-1, 200 << 20, m.MAP_PRIVATE | m.MAP_ANON | m.MAP_POPULATE)\"]";
    let (signal, reason, why) = end(Home::new(), eats, "limits.memory = \"64M\"");
    assert_eq!((signal.as_deref(), reason), (Some("SIGKILL"), ExitReason::OutOfMemory));
    assert_eq!(why.as_deref(), Some("ran out of memory: the kernel killed it at limits.memory = 64 MiB"));
    let forks = "[\"python3\", \"-c\", \"import os, time\\nfor _ in range(99): os.fork() or time.sleep(9)\"]";
    let (_, reason, why) = end(Home::new(), forks, "limits.pids = 8");
    assert_eq!(reason, ExitReason::PidsLimit);
    assert_eq!(why.as_deref(), Some("was refused another process at limits.pids = 8"));
}

#[test]
fn under_a_kernel_that_has_all_controllers_every_limit_is_held_by_it_and_named() {
    let Some(kernel) = Kernel::find(AGENTD) else { return };
    let tests = std::env::current_exe().expect("this program");
    let tests = tests.to_str().expect("a path in UTF-8");
    let words = ["--test-threads", "1", "--nocapture", "limits::a_worker", "limits::the_kernel", "limits::where"];
    let output = kernel.run(&[&[tests], &words[..]].concat());
    assert_eq!(output.code, Some(0), "{}\n{}", output.stdout, output.stderr);
    assert!(!output.stderr.contains("skipped"), "{}", output.stderr);
    assert!(output.stdout.contains("test result: ok. 4 passed"), "{}", output.stdout);
}
