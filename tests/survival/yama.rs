//! Who is not root, under a kernel with Yama (`ptrace_scope` 1, as Debian and Ubuntu have it): nobody may look into another
//! process that is not its child, and workers of an earlier daemon are not.

use agentd_testkit::e2e::Kernel;

use crate::AGENTD;

/// What holds without that right. Beyond it, two things are lost: the sockets, when keeper and supervisor die at once
/// (`both` has what is said then), and before Linux 6.15 the exit code of a worker that an earlier daemon started.
const HOLDS: [&str; 3] = [
    "keeper::a_keeper_that_dies_is_replaced_and_the_next_death_of_the_daemon_costs_nothing",
    "a_reload_goes_on_under_the_next_supervisor",
    "both::where_the_kernel_refuses_that_the_workers_serve_on_and_the_operator_is_told",
];

#[test]
fn as_an_ordinary_user_under_yama_the_death_of_the_supervisor_costs_nothing() {
    let Some(kernel) = Kernel::find(AGENTD) else { return };
    let tests = std::env::current_exe().expect("this program");
    let tests = tests.to_str().expect("a path in UTF-8");
    let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let may = std::process::Command::new(user[0]).args(&user[1..]).args(["test", "-x", tests]).status();
    if !may.is_ok_and(|status| status.success()) {
        return eprintln!("not tested as an ordinary user: {tests} is closed to others");
    }
    let home = ["env", "HOME=/tmp/home", "TMPDIR=/tmp/home", tests, "--test-threads", "1", "--exact"];
    let kernel =
        kernel.after("echo 1 >/proc/sys/kernel/yama/ptrace_scope\nmkdir /tmp/home\nchown 65534:65534 /tmp/home\n");
    let output = kernel.run(&[&user[..], &home[..], &HOLDS[..]].concat());
    assert_eq!(output.code, Some(0), "{}\n{}", output.stdout, output.stderr);
    assert!(output.stdout.contains("test result: ok. 3 passed"), "{}", output.stdout);
}
