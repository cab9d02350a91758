//! A kernel of its own for a program of a test: User-Mode Linux, which is Linux as a process, as Debian packages it. It has
//! what the kernel of the machine may lack: every controller in the one hierarchy of cgroups, and Yama.
//!
//! ```text
//! target/test-env/kernel/linux.uml      unpacked by tests/prepare
//!        └─ root: this machine's files, read-only; /tmp and /run of its own
//!              └─ init: a delegated cgroup ─► the program ─► what it printed and its exit code ─► off
//! ```
//!
//! It is there in a second, and ends with its program. It needs root and what `tests/prepare` unpacked: where one of them
//! is missing, [`Kernel::run`] says so and does nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::command::{self, Output};

/// How long the kernel and its program may take, beside other tests.
const ENDS_WITHIN: Duration = Duration::from_secs(300);

/// Mounts what each Linux has, delegates a cgroup as `DelegateSubgroup=supervisor` of a systemd unit does, and runs the
/// program there. `FOLDER` is the host's, for what comes out.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t hostfs -o FOLDER none /mnt
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
ip link set lo up
mkdir -p /sys/fs/cgroup/delegated/supervisor
echo $$ >/sys/fs/cgroup/delegated/supervisor/cgroup.procs
for folder in /sys/fs/cgroup /sys/fs/cgroup/delegated; do
    echo "+memory +pids +cpu" >$folder/cgroup.subtree_control
done
BEFORE
WORDS >/mnt/stdout 2>/mnt/stderr
echo $? >/mnt/code
echo o >/proc/sysrq-trigger
wait
"#;

/// Linux as a process.
#[derive(Debug)]
pub struct Kernel {
    program: PathBuf,
    before: String,
}

impl Kernel {
    /// The kernel beside what was built as `agentd` (`env!("CARGO_BIN_EXE_agentd")`); none, and the reason printed, where
    /// there can be none.
    #[must_use]
    pub fn find(agentd: impl AsRef<Path>) -> Option<Self> {
        let target = agentd.as_ref().ancestors().nth(2).unwrap_or(Path::new("/"));
        let program = target.join("test-env/kernel/linux.uml");
        let missing = if !nix::unistd::geteuid().is_root() {
            Some("it needs root".to_owned())
        } else if !program.exists() {
            Some(format!("there is no {}: run tests/prepare", program.display()))
        } else {
            None
        };
        if let Some(why) = missing {
            eprintln!("not tested under a kernel of its own: {why}");
            return None;
        }
        Some(Self { program, before: String::new() })
    }

    /// Has its root run these commands of a shell before the program.
    #[must_use]
    pub fn after(mut self, commands: &str) -> Self {
        self.before.push_str(commands);
        self
    }

    /// Runs a program of this machine under it, as root, to its end.
    ///
    /// # Panics
    /// When the kernel does not start, or the program does not end in time.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Output {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let init = folder.path().join("init");
        let quoted =
            words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ");
        let script = INIT.replace("FOLDER", &folder.path().to_string_lossy());
        fs::write(&init, script.replace("BEFORE", &self.before).replace("WORDS", &quoted))
            .expect("its init is written");
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("its init is made a program");
        // Ends with the test, should the test be killed.
        let mut kernel = Command::new("setpriv");
        kernel.args(["--pdeathsig", "KILL"]).arg(&self.program);
        kernel.args(["rootfstype=hostfs", "rootflags=/", "ro", "mem=1G", "quiet", "con=null", "con0=null,fd:1"]);
        let console = command::run(kernel.arg(format!("init={}", init.display())), ENDS_WITHIN);
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        let code = read("code").trim().parse().ok();
        assert!(code.is_some(), "nothing was run: {console:#?}");
        Output { command: words.join(" "), code, stdout: read("stdout"), stderr: read("stderr") }
    }
}
