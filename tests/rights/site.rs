//! A daemon whose home others may pass through, and programs that tell about themselves.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use agentd_testkit::e2e::{Daemon, Home, Output};
use serde_json::Value;

pub(crate) const AGENTD: &str = env!("CARGO_BIN_EXE_agentd");

/// Longest wait for anything that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A user and group that every Linux has and nobody is.
pub(crate) const NOBODY: u32 = 65534;

/// Whether the tests may become somebody else; says so where they may not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root becomes somebody else");
    }
    root
}

/// A home that every user may pass through, as `/var/lib/agentd`'s parents are.
pub(crate) fn open_home() -> Home {
    let home = Home::new();
    mode(home.path(), 0o755);
    home
}

pub(crate) fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .unwrap_or_else(|error| panic!("failed to set the mode of {}: {error}", path.display()));
}

/// Gives a file or folder to nobody.
pub(crate) fn give(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY))
        .unwrap_or_else(|error| panic!("failed to give {}: {error}", path.display()));
}

/// Runs `agentctl` as nobody.
pub(crate) fn ctl_as_nobody(daemon: &Daemon, groups: &str, arguments: &[&str]) -> Output {
    let plain = daemon.agentctl(arguments);
    let mut command = Command::new("setpriv");
    let id = NOBODY.to_string();
    command.args(["--reuid", &id, "--regid", &id]);
    match groups {
        "" => command.arg("--clear-groups"),
        groups => command.args(["--groups", groups]),
    };
    command.arg(plain.get_program()).args(plain.get_args()).env("AGENTD_HOME", daemon.home.path()).current_dir("/");
    let output = command.output().expect("setpriv runs");
    Output {
        command: arguments.join(" "),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The first line that a file holds, waited for.
pub(crate) fn written(path: &Path) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(text) = fs::read_to_string(path)
            && let Ok(value) = serde_json::from_str(&text)
        {
            return value;
        }
        assert!(Instant::now() < deadline, "{} was not written", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Writes what it finds about itself into the file `TELL`, whole, says that it is ready and stays.
pub(crate) const TELLER: &str = r#"
import json, os, resource, socket, sys, time
names = {name: os.environ.get(name) for name in ("HOME", "USER", "LOGNAME", "KEY", "KEY_FILE", "CRED", "OPEN")}
told = dict(uid=os.getresuid(), gid=os.getresgid(), groups=sorted(os.getgroups()), cwd=os.getcwd(), env=names,
            nproc=resource.getrlimit(resource.RLIMIT_NPROC)[0], files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            fsize=resource.getrlimit(resource.RLIMIT_FSIZE)[0], argv=sys.argv)
umask = os.umask(0)
os.umask(umask)
told["umask"] = umask
path = names["KEY_FILE"]
if path:
    status, folder = os.stat(path), os.stat(os.path.dirname(path))
    told["file"] = [open(path).read(), status.st_uid, status.st_mode & 0o777, folder.st_uid, folder.st_mode & 0o777]
try:
    open("/dev/stdout", "w").write("told by the name of the stream\n")
    told["stdout"] = True
except OSError as error:
    told["stdout"] = str(error)
with open(os.environ["TELL"] + ".new", "w") as out:
    json.dump(told, out)
os.rename(os.environ["TELL"] + ".new", os.environ["TELL"])
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.connect(os.environ["NOTIFY_SOCKET"])
    notify.send(b"READY=1\nSTATUS=told")
while True:
    time.sleep(60)
"#;

/// Writes the configuration of one app that tells about itself, as `teller.toml`; returns where it tells.
pub(crate) fn teller(home: &Home, keys: &str) -> PathBuf {
    let folder = home.path().join("told");
    fs::create_dir_all(&folder).expect("the home takes folders");
    mode(&folder, 0o777);
    let tell = folder.join("me.json");
    home.write("teller.py", TELLER);
    let text = format!(
        "[agent.teller]\ncommand = [\"python3\", \"teller.py\"]\nready = \"notify\"\nenv.TELL = {tell:?}\n{keys}\n"
    );
    home.write("teller.toml", &text);
    tell
}
