//! Something that looks like a fresh machine to whoever types: a network, process ids and folders of its own.
//!
//! ```text
//! unshare --mount --net --pid          loopback up, /etc /usr /var /srv below an overlay, /run and /tmp empty
//!    └─ bash, its process 1            types what it is told, a block at a time, in the folder where the last one ended
//!          └─ agentd, nginx, pm2, …    end with it, whatever becomes of the test
//! ```
//!
//! So ports and paths of a page are typed as they stand, and pages are followed at the same time. It needs root: where
//! it cannot be, [`Look::fresh`] says so and there is none.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use crate::guide::Place;

/// How long the commands of one block may take together, in seconds.
const BLOCK_WITHIN: u32 = 90;

/// What comes first on a fresh machine's `PATH`; what this machine has beside it comes last.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the folders, then types each script that it is told of: a line with its number, answered by the number and the
/// exit code.
const LIFE: &str = r#"
set -e
ip link set lo up
mount -t tmpfs stage "$STAGE/upper"
for folder in etc usr var srv; do
    mkdir -p "$STAGE/upper/$folder" "$STAGE/upper/$folder.work"
    lower=/$folder
    if [ -d "$PROXIES/$folder" ]; then lower=$PROXIES/$folder:/$folder; fi
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$STAGE/upper/$folder,workdir=$STAGE/upper/$folder.work" "/$folder"
done
mount -t tmpfs run /run
printf '#!/bin/sh\nexec "$@"\n' >/usr/local/bin/sudo
cp "$PROGRAMS/agentd" "$PROGRAMS/agentctl" /usr/local/bin/
chmod 755 /usr/local/bin/sudo
mkdir -p /srv/app
echo /srv/app >"$STAGE/folder"
set +e
echo ready
while read -r number; do
    timeout "$WITHIN" bash -c 'cd "$(cat "$STAGE/folder")"; trap "pwd >$STAGE/folder" EXIT; set -euo pipefail; . "$1"' \
        bash "$STAGE/$number.sh" >"$STAGE/$number.out" 2>&1 </dev/null
    echo "$number $?"
done
"#;

/// A place that looks like a machine.
pub(crate) struct Look {
    stage: TempDir,
    life: Child,
    tell: Option<ChildStdin>,
    told: BufReader<ChildStdout>,
    number: u32,
    test_env: PathBuf,
}

impl Look {
    /// A fresh one with agentd installed; none, and the reason printed, where there can be none.
    pub(crate) fn fresh() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("not tested: it needs root to have a network and folders of its own");
            return None;
        }
        let agentd = fs::canonicalize(env!("CARGO_BIN_EXE_agentd")).expect("it was built");
        let programs = agentd.parent().expect("a file lies in a folder").to_owned();
        assert!(programs.join("agentctl").is_file(), "build it first: cargo build --workspace --bins");
        let test_env = programs.parent().expect("target/<profile>").join("test-env");
        let stage = tempfile::Builder::new().prefix("agentd-guide-").tempdir().expect("a folder");
        fs::create_dir(stage.path().join("upper")).expect("it is ours");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", LIFE])
            .env_remove("AGENTD_HOME")
            .env("PATH", format!("{PATH}:{}", std::env::var("PATH").unwrap_or_default()))
            .envs([("HOME", "/root"), ("WITHIN", &BLOCK_WITHIN.to_string()), ("TMPDIR", "/tmp")])
            .env("STAGE", stage.path())
            .env("PROXIES", test_env.join("proxies/root"))
            .env("PROGRAMS", &programs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(stage.path().join("life")).expect("it is ours"));
        let mut life = command.spawn().expect("unshare is a part of util-linux");
        let mut told = BufReader::new(life.stdout.take().expect("it was asked for"));
        let tell = life.stdin.take();
        let mut line = String::new();
        told.read_line(&mut line).expect("a pipe");
        if line.trim() != "ready" {
            let why = fs::read_to_string(stage.path().join("life")).unwrap_or_default();
            println!("not tested: no namespaces and overlays here: {why}");
            let _ = life.wait();
            return None;
        }
        Some(Self { stage, life, tell, told, number: 0, test_env })
    }

    /// What `tests/prepare` installed, by its path below `target/test-env`.
    pub(crate) fn prepared(&self, below: &str) -> PathBuf {
        let path = self.test_env.join(below);
        assert!(path.exists(), "{} is missing: run tests/prepare", path.display());
        path
    }

    /// Puts a link to what was prepared where a page's reader would have installed it.
    pub(crate) fn link(&mut self, path: &str, below: &str) {
        let target = self.prepared(below);
        self.link_to(path, &target);
    }

    /// The same for any file.
    pub(crate) fn link_to(&mut self, path: &str, target: &Path) {
        let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
        self.ok(&format!("mkdir -p {folder} && ln -s {} {path}", target.display()));
    }

    /// Types commands that must succeed.
    pub(crate) fn ok(&mut self, commands: &str) -> String {
        let (succeeded, said) = self.type_in(commands);
        assert!(succeeded, "{commands}\n{said}");
        said
    }
}

impl Place for Look {
    fn write(&mut self, path: &str, text: &str) {
        let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
        let beside = self.stage.path().join("file");
        fs::write(&beside, text).expect("it is ours");
        self.ok(&format!("mkdir -p {folder} && cp {} {path}", beside.display()));
    }

    fn type_in(&mut self, commands: &str) -> (bool, String) {
        self.number += 1;
        let number = self.number;
        fs::write(self.stage.path().join(format!("{number}.sh")), commands).expect("it is ours");
        let tell = self.tell.as_mut().expect("it is taken at the end");
        writeln!(tell, "{number}").expect("it reads while it lives");
        let mut line = String::new();
        self.told.read_line(&mut line).expect("a pipe");
        let said = fs::read(self.stage.path().join(format!("{number}.out"))).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let code = line.trim().strip_prefix(&format!("{number} ")).map(str::to_owned);
        let code = code.unwrap_or_else(|| panic!("its shell ended at:\n{commands}\n{said}"));
        assert_ne!(code, "124", "not over after {BLOCK_WITHIN} s:\n{commands}\n{said}");
        (code == "0", said)
    }

    fn has_package(&self, name: &str) -> String {
        let program = name.strip_prefix("python3-").unwrap_or(name);
        let program = if name == "nodejs" { "node" } else { program };
        format!("command -v {program}")
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        // Its shell ends with what it reads, and as process 1 takes everything along that was started in it.
        self.tell = None;
        let ended = self.life.wait();
        if !std::thread::panicking() {
            assert!(ended.is_ok_and(|status| status.success()), "its shell failed at its end");
        }
    }
}
