//! What a program finds when it starts, and what is said when it cannot.

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::Command;

use agentd::process::plan::{ExecPlan, Limit, StageFailure};
use agentd::process::spawn::Launcher;
use camino::{Utf8Path, Utf8PathBuf};

use crate::stage::{plan, python, run, shell, start, start_by, start_with};

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
    (dir, path)
}

/// Writes a script from another process: a descriptor open for writing here could pass to the child of a test that runs
/// beside this one for a moment, and make the kernel refuse the script as busy.
fn script(path: &Utf8Path, text: &str, mode: &str) {
    let line = r#"printf %s "$1" > "$0" && chmod "$2" "$0""#;
    let status = Command::new("/bin/sh").args(["-c", line, path.as_str(), text, mode]).status().unwrap();
    assert!(status.success());
}

async fn failure(plan: &ExecPlan) -> StageFailure {
    match start(plan).await {
        Ok(mut started) => panic!("it was started, ended with {} and said {}", started.ending(), started.output()),
        Err(failure) => failure,
    }
}

#[tokio::test]
async fn a_program_runs_and_its_status_and_both_streams_come_back() {
    assert_eq!(run(&plan(&["true"])).await.unwrap(), (0, String::new()));
    let (ending, output) = run(&shell("echo out; echo err >&2; exit 7")).await.unwrap();
    assert_eq!((ending, output.as_str()), (7, "out\nerr\n"));
    assert_eq!(run(&shell("kill -9 $$")).await.unwrap().0, -9);
}

#[tokio::test]
async fn a_program_has_the_directory_umask_and_environment_of_its_plan_and_no_other() {
    let (_keep, dir) = folder();
    let mut plan = shell("pwd; umask; env -u PWD -u OLDPWD -u SHLVL -u _ -u PATH; cat");
    plan.cwd = dir.canonicalize_utf8().unwrap();
    plan.umask = 0o027;
    plan.env.push(("GREETING".into(), "good day = fine".into()));
    let (ending, output) = run(&plan).await.unwrap();
    assert_eq!((ending, output), (0, format!("{}\n0027\nGREETING=good day = fine\n", plan.cwd)));
}

#[tokio::test]
async fn a_program_leads_its_own_session_and_group() {
    let program = "import os; p=os.getpid(); print(os.getsid(0)==p, os.getpgrp()==p)";
    assert_eq!(run(&python(program)).await.unwrap().1, "True True\n");
}

#[tokio::test]
async fn a_program_finds_the_standard_streams_and_its_listeners_and_no_other_descriptor() {
    // Noise that must not pass on: one that leaks by default, and our own sockets.
    let noise = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::io::fcntl_setfd(&noise, rustix::io::FdFlags::empty()).unwrap();
    let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let ports = listeners.iter().map(|l| l.local_addr().unwrap().port().to_string()).collect::<Vec<_>>().join(" ");
    let mut plan = python(
        "import os,socket\n\
         alive=lambda n: os.path.exists(f'/proc/self/fd/{n}')\n\
         print([n for n in sorted(map(int, os.listdir('/proc/self/fd'))) if alive(n)], os.readlink('/proc/self/fd/0'))\n\
         print(*(socket.socket(fileno=n).getsockname()[1] for n in (3,4)))\n\
         e=os.environ\n\
         print(e['LISTEN_FDS'], e['LISTEN_FDNAMES'], int(e['LISTEN_PID'])==os.getpid(), e['AGENTD_FD_ADMIN_UI'])",
    );
    plan.listen_names = vec!["http".into(), "admin-ui".into()];
    let mut started = start_with(&plan, listeners.iter().map(AsFd::as_fd).collect()).await.unwrap();
    assert_eq!(started.ending(), 0);
    assert_eq!(started.output(), format!("[0, 1, 2, 3, 4] /dev/null\n{ports}\n2 http:admin-ui True 4\n"));
}

#[tokio::test]
async fn many_listeners_arrive_in_their_order() {
    let files = (0..200).map(|_| tempfile::tempfile().unwrap()).collect::<Vec<_>>();
    for (n, file) in files.iter().enumerate() {
        file.set_len(n as u64).unwrap();
    }
    let mut plan = python("import os; print(all(os.fstat(n+3).st_size==n for n in range(200)))");
    plan.listen_names = (0..200).map(|n| format!("f{n}")).collect();
    let mut started = start_with(&plan, files.iter().map(AsFd::as_fd).collect()).await.unwrap();
    assert_eq!((started.ending(), started.output().as_str()), (0, "True\n"));
}

#[tokio::test]
async fn a_program_finds_no_signal_blocked_or_ignored_though_the_supervisor_ignores_some() {
    // The test harness, like the daemon, ignores SIGPIPE; block one in this thread as well.
    let mut blocked = nix::sys::signal::SigSet::empty();
    blocked.add(nix::sys::signal::Signal::SIGUSR2);
    blocked.thread_block().unwrap();
    let program = plan(&["/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
    let seen = run(&program).await;
    blocked.thread_unblock().unwrap();
    assert_eq!(seen.unwrap().1, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[tokio::test]
async fn limits_are_in_force() {
    let mut plan = shell("ulimit -n; ulimit -Hn; ulimit -c");
    plan.limits = vec![(Limit::Files, 64), (Limit::Core, 0)];
    assert_eq!(run(&plan).await.unwrap().1, "64\n64\n0\n");
}

#[tokio::test]
async fn an_environment_larger_than_a_socket_buffer_arrives_whole() {
    let mut plan = shell("echo ${#BIG0} ${#BIG9}");
    plan.env.extend((0..10).map(|n| (format!("BIG{n}"), "x".repeat(100_000))));
    assert_eq!(run(&plan).await.unwrap().1, "100000 100000\n");
}

#[tokio::test]
async fn processes_are_started_by_the_binary_that_was_there_first_when_its_file_is_gone() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().join("agentd")).unwrap();
    fs::hard_link(env!("CARGO_BIN_EXE_agentd"), &path).unwrap();
    let mut launcher = Launcher::of_binary_at(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mut started = start_by(&mut launcher, &shell("echo old"), vec![]).await.unwrap();
    assert_eq!((started.ending(), started.output().as_str()), (0, "old\n"));
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_named_with_the_path_that_was_searched() {
    let mut plan = plan(&["no-such-command-here"]);
    plan.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    let failure = failure(&plan).await;
    assert_eq!(failure.exit_code(), 127);
    assert_eq!(
        failure.to_string(),
        "finding the program no-such-command-here: no such command in PATH (/usr/bin:/bin)"
    );
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let mut plan = plan(&["true"]);
    plan.cwd = "/no/such/dir".into();
    let failure = failure(&plan).await;
    assert_eq!(failure.to_string(), "changing to directory /no/such/dir: No such file or directory");
    assert_eq!(failure.errno, Some(nix::libc::ENOENT));
}

#[tokio::test]
async fn a_program_with_a_slash_is_relative_to_the_directory_and_must_be_executable() {
    let (_keep, dir) = folder();
    script(&dir.join("run"), "#!/bin/sh\necho here\n", "755");
    script(&dir.join("plain"), "#!/bin/sh\n", "644");
    let at = |argv| ExecPlan { cwd: dir.clone(), ..plan(argv) };
    assert_eq!(run(&at(&["./run"])).await.unwrap().1, "here\n");
    let failure = failure(&at(&["./plain"])).await;
    assert_eq!(failure.to_string(), "finding the program ./plain: ./plain is not executable");
}

#[tokio::test]
async fn a_missing_interpreter_is_named_and_not_the_script() {
    let (_keep, dir) = folder();
    let file = dir.join("run");
    script(&file, "#!/opt/none/python9 -u\nprint()\n", "755");
    let words = failure(&plan(&[file.as_str()])).await.to_string();
    let expected = "its interpreter /opt/none/python9 (first line of the file) does not exist";
    assert_eq!(words, format!("executing {file}: {expected}"));
    script(&file, "#!/bin/sh\r\nexit 0\r\n", "755");
    assert!(failure(&plan(&[file.as_str()])).await.to_string().ends_with("(Windows line ends)"));
    script(&file, "just text\n", "755");
    assert!(
        failure(&plan(&[file.as_str()])).await.to_string().ends_with("neither a program nor a script with a #! line")
    );
}

#[tokio::test]
async fn a_limit_that_the_kernel_refuses_is_named_with_its_value() {
    let mut plan = plan(&["true"]);
    // More than fs.nr_open, which even root may not have.
    plan.limits = vec![(Limit::Files, 1 << 40)];
    let failure = failure(&plan).await;
    let said = failure.to_string();
    assert!(said.starts_with("setting limit files: 1099511627776: Operation not permitted (the supervisor's own hard"));
    assert!(said.contains("fs.nr_open"), "{said}");
}

#[tokio::test]
async fn a_cgroup_that_is_not_there_is_named() {
    let mut plan = plan(&["true"]);
    plan.cgroup = Some("/no/such/cgroup".into());
    assert_eq!(failure(&plan).await.to_string(), "entering cgroup /no/such/cgroup: No such file or directory");
}

#[tokio::test]
async fn a_zero_byte_in_an_argument_is_refused() {
    let words = failure(&plan(&["true", "a\0b"])).await.to_string();
    assert_eq!(words, r#"reading the plan: "a\0b" holds a zero byte"#);
}

#[tokio::test]
async fn arguments_that_are_too_long_for_the_kernel_are_refused_as_such() {
    let words = failure(&plan(&["true", &"x".repeat(1 << 20)])).await.to_string();
    assert!(words.ends_with("true: its arguments and environment are too long for the kernel"), "{words}");
}

#[tokio::test]
async fn a_failure_is_told_in_full_measure_however_long_what_failed_is() {
    let mut long = plan(&["no-such-command-here"]);
    long.cwd = format!("/{}", "x\u{1}".repeat(200_000)).into();
    let words = failure(&long).await.to_string();
    assert!(
        words.starts_with("changing to directory /x") && words.ends_with("…: File name too long"),
        "{}",
        words.len()
    );
    assert!(words.len() < 2000);
    long.cwd = "/".into();
    long.env = vec![("PATH".into(), "/nowhere:".repeat(10_000))];
    let words = failure(&long).await.to_string();
    assert!(words.contains("no such command in PATH (/nowhere:") && words.len() < 2000, "{}", words.len());
}
