//! A kernel of its own for a program of a test: User-Mode Linux, which is Linux as a process, as Debian packages it. It has
//! what the kernel of the machine may lack: every controller in the one hierarchy of cgroups, and Yama.
//!
//! ```text
//! target/test-env/kernel/linux.uml      unpacked by tests/prepare, with xstate.so, for processors that it does not know
//!        ├─ run: root is this machine's files, read-only; /tmp and /run of its own
//!        │     └─ init: a delegated cgroup ─► the program ─► what it printed and its exit code ─► off
//!        └─ boot: root is a Debian of `tests/prepare`, its changes aside
//!              └─ init: systemd ─► a script as a unit, likewise ─► off
//! ```
//!
//! It is there in a second, a booted one in ten, and ends with its program. It needs root and what `tests/prepare` unpacked: where one of them
//! is missing, [`Kernel::run`] says so and does nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

use super::command::{self, Output};
use super::machine::{Debian, PROGRAMS, overlay};

/// How long the kernel and its program may take, beside other tests.
const ENDS_WITHIN: Duration = Duration::from_secs(300);

/// Mounts what each Linux has, delegates a cgroup as `DelegateSubgroup=supervisor` of a systemd unit does, and runs the
/// program there. `FOLDER` is the host's, for what comes out; `KEPT` are folders that stay where they are, should they lie
/// in `/tmp`.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t hostfs -o FOLDER none /mnt
mount -t tmpfs tmpfs /run
number=0
for folder in KEPT; do
    number=$((number + 1))
    mkdir /run/kept$number
    mount --bind "$folder" /run/kept$number
done
mount -t tmpfs tmpfs /tmp
number=0
for folder in KEPT; do
    number=$((number + 1))
    mkdir -p "$folder"
    mount --bind /run/kept$number "$folder"
done
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

/// Runs a script once a systemd is up. It is a root's file system of the host's, where a user of the guest owns nothing:
/// what services write is in memory.
const UNIT: &str = "[Unit]
After=multi-user.target
[Service]
Type=oneshot
Environment=HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/bin/sh -c 'sh /script >/stdout 2>/stderr; echo $$? >/code; systemctl poweroff'
";
const IN_MEMORY: &str = "tmpfs /var/lib tmpfs defaults 0 0\ntmpfs /var/log tmpfs defaults 0 0\n";

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
        let quoted = |words: &[&str]| {
            words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ")
        };
        let target = self.program.ancestors().nth(3).unwrap_or(Path::new("/")).to_string_lossy();
        let script = INIT
            .replace("FOLDER", &folder.path().to_string_lossy())
            .replace("KEPT", &quoted(&[concat!(env!("CARGO_MANIFEST_DIR"), "/.."), &target]));
        fs::write(&init, script.replace("BEFORE", &self.before).replace("WORDS", &quoted(words)))
            .expect("its init is written");
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("its init is made a program");
        let console = self.start(Path::new("/"), &["ro", &format!("init={}", init.display())]);
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        let code = read("code").trim().parse().ok();
        assert!(code.is_some(), "nothing was run: {console:#?}");
        Output { command: words.join(" "), code, stdout: read("stdout"), stderr: read("stderr") }
    }

    /// Boots a Debian with its systemd and the programs that lie beside `agentd`, and has its root run a script to its end;
    /// none, and the reason printed, where that Debian is missing.
    ///
    /// # Panics
    /// When it does not boot, or the script does not end in time.
    #[must_use]
    pub fn boot(&self, debian: Debian, agentd: impl AsRef<Path>, script: &str) -> Option<Output> {
        let test_env = self.program.ancestors().nth(2).unwrap_or(Path::new("/"));
        let base = test_env.join(debian.folder());
        if !base.join(".stamp").exists() {
            eprintln!("not tested under a kernel of its own: there is no {}: run tests/prepare", base.display());
            return None;
        }
        let folder = tempfile::tempdir_in(test_env).expect("a folder beside the base");
        overlay(&base, folder.path());
        let root = folder.path().join("root");
        let wanted = root.join("etc/systemd/system/multi-user.target.wants/script.service");
        let write = |path: &str, text: &str| fs::write(root.join(path), text);
        let prepared = write("script", script)
            .and_then(|()| write("etc/fstab", IN_MEMORY))
            .and_then(|()| write("etc/systemd/system/script.service", UNIT))
            .and_then(|()| fs::create_dir_all(wanted.parent().unwrap_or(&root)))
            .and_then(|()| symlink("../script.service", &wanted))
            .and_then(|()| {
                let programs = agentd.as_ref().parent().unwrap_or(Path::new("/"));
                PROGRAMS.iter().try_for_each(|program| {
                    fs::copy(programs.join(program), root.join("usr/local/bin").join(program)).map(drop)
                })
            });
        prepared.unwrap_or_else(|error| panic!("failed to prepare {}: {error}", root.display()));
        let console = self.start(&root, &["rw", "init=/sbin/init"]);
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap_or_default();
        let output = Output {
            command: script.to_owned(),
            code: read("code").trim().parse().ok(),
            stdout: read("stdout"),
            stderr: read("stderr"),
        };
        if let Err(error) = umount2(&root, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", root.display());
        }
        assert!(output.code.is_some(), "nothing was run: {console:#?}");
        Some(output)
    }

    /// Runs it to its end. It ends with the test, should the test be killed.
    fn start(&self, root: &Path, words: &[&str]) -> Output {
        let mut kernel = Command::new("setpriv");
        kernel.args(["--pdeathsig", "KILL"]).arg(&self.program);
        kernel.env("LD_PRELOAD", self.program.with_file_name("xstate.so"));
        kernel.args(["rootfstype=hostfs", "mem=1G", "quiet", "con=null", "con0=null,fd:1"]);
        command::run(kernel.arg(format!("rootflags={}", root.display())).args(words), ENDS_WITHIN)
    }
}
