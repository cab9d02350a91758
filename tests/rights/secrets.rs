//! Secrets reach their worker and nobody else: everything that the daemon and agentctl say or keep is looked through.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agentd_testkit::e2e::{Daemon, Home, Output};

use crate::site::{AGENTD, NOBODY, PATIENCE, is_root, mode, open_home, teller, written};

/// What must be found nowhere. Unlike anything else on the machine.
const BY_ENV: &str = "s3cr3t-by-env-4b1d";
const BY_FILE: &str = "s3cr3t-by-file-9c2e";
const BY_CREDENTIAL: &str = "s3cr3t-by-credential-7f3a";
const BY_ENV_FILE: &str = "s3cr3t-by-env-file-5d8c";
const NEW: &str = "s3cr3t-rotated-1e6b";
const ALL: [&str; 5] = [BY_ENV, BY_FILE, BY_CREDENTIAL, BY_ENV_FILE, NEW];

fn keep(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("the folder takes files");
    mode(&path, 0o600);
    path
}

/// Which of the secrets a text holds.
fn leaks(what: &str, bytes: &[u8]) -> Vec<String> {
    let holds = |secret: &&&str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    ALL.iter().filter(holds).map(|secret| format!("{secret} in {what}")).collect()
}

fn leaks_of(output: &Output) -> Vec<String> {
    let text = format!("{}{}", output.stdout, output.stderr);
    leaks(&format!("the output {output:?}"), text.as_bytes())
}

/// Every file below a folder but those that hold secrets on purpose.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("it tells its kind");
        if kind.is_dir() && !path.ends_with("vault") && !path.ends_with("run/secrets") && !path.ends_with("told") {
            files(&path, found);
        } else if kind.is_file() && path.file_name().is_none_or(|name| name != ".env") {
            found.push(path);
        }
    }
}

/// All that is kept, said, and shown by process lists.
fn leaks_everywhere(daemon: &Daemon) -> Vec<String> {
    let mut found = Vec::new();
    for command in [
        &["status", "--json"][..],
        &["describe", "teller"],
        &["describe", "teller", "--json"],
        &["events", "--json"],
        &["logs", "teller"],
        &["doctor", "--json"],
        &["daemon", "status", "--json"],
        &["apply", "--dry-run", "--json", "./teller.toml"],
    ] {
        found.extend(leaks_of(&daemon.ctl(command)));
    }
    found.extend(leaks("the status document", format!("{:?}", daemon.status()).as_bytes()));
    let mut kept = Vec::new();
    files(daemon.home.path(), &mut kept);
    assert!(kept.iter().any(|path| path.ends_with("agentd.db")), "the store is among {kept:?}");
    for path in kept {
        found.extend(leaks(&path.display().to_string(), &fs::read(&path).unwrap_or_default()));
    }
    for process in daemon.processes().into_iter().chain([daemon.pid()]) {
        let list = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        found.extend(leaks(&format!("the process list, {process}"), &list));
    }
    // The daemon itself never had them: not in its environment, nor anywhere in its memory that is its own.
    let daemons = format!("/proc/{}/environ", daemon.pid());
    found.extend(leaks("the daemon's environment", &fs::read(daemons).unwrap_or_default()));
    found
}

/// The memory that a process wrote, as a dump of it would hold.
fn memory(pid: u32) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it is ours");
    let file = fs::File::open(format!("/proc/{pid}/mem")).expect("it is ours");
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let (range, _) = line.split_once(' ').expect("a range comes first");
        let (start, end) = range.split_once('-').expect("a range has two ends");
        let parse = |text| u64::from_str_radix(text, 16).expect("a number");
        let (start, end) = (parse(start), parse(end));
        let mut part = vec![0; usize::try_from(end - start).expect("it fits")];
        if file.read_exact_at(&mut part, start).is_ok() {
            all.extend(part);
        }
    }
    all
}

fn vault(home: &Home) -> PathBuf {
    let vault = home.path().join("vault");
    fs::create_dir_all(vault.join("credentials")).expect("the home takes folders");
    keep(&vault, "env-key", &format!("{BY_ENV}\n"));
    keep(&vault, "file-key", &format!("{BY_FILE}\n"));
    keep(&vault.join("credentials"), "cred", BY_CREDENTIAL);
    keep(home.path(), ".env", &format!("OPEN={BY_ENV_FILE}\n"));
    vault
}

const SECRETS: &str = "env_file = \".env\"\n\
    secret.KEY = { file = \"vault/file-key\", as = \"file\" }\n\
    secret.CRED = { credential = \"cred\" }\n";

fn start(keys: &str) -> (Daemon, PathBuf) {
    let home = open_home();
    let vault = vault(&home);
    let tell = teller(&home, &format!("{SECRETS}{keys}"));
    let credentials = format!("CREDENTIALS_DIRECTORY={}", vault.join("credentials").display());
    (Daemon::start_by(AGENTD, home, &["env", &credentials]), tell)
}

#[test]
fn secrets_reach_their_worker_by_each_road_and_are_found_nowhere_else() {
    let (daemon, tell) = start("");
    let mut found = leaks_of(&daemon.ctl_ok(&["apply", "./teller.toml"]));
    let told = written(&tell);
    let own = nix::unistd::geteuid().as_raw();
    assert_eq!(told["env"]["CRED"], BY_CREDENTIAL);
    assert_eq!(told["env"]["OPEN"], BY_ENV_FILE);
    assert_eq!(told["file"], serde_json::json!([format!("{BY_FILE}\n"), own, 0o400, own, 0o700]));
    assert_eq!(told["env"]["KEY"], serde_json::Value::Null, "what goes by file is no variable");
    found.extend(leaks_everywhere(&daemon));

    // Another value is taken up by a reload, and the file of the old worker goes with it.
    let old = PathBuf::from(told["env"]["KEY_FILE"].as_str().expect("a path"));
    fs::remove_file(&tell).expect("it was told");
    keep(&daemon.home.path().join("vault"), "file-key", NEW);
    found.extend(leaks_of(&daemon.ctl_ok(&["reload", "teller"])));
    assert_eq!(written(&tell)["file"][0], NEW);
    assert!(!old.exists(), "{} is left", old.display());
    let shown = daemon.ctl_ok(&["describe", "teller"]).stdout;
    assert!(shown.contains("secret.KEY") && shown.contains("vault/file-key"), "{shown}");

    // A change of a secret's place is shown as a place.
    let text = fs::read_to_string(daemon.home.path().join("teller.toml")).expect("it was written");
    daemon.config("teller.toml", &text.replace("vault/file-key", "vault/env-key"));
    let plan = daemon.ctl_ok(&["apply", "--dry-run", "./teller.toml"]);
    assert!(plan.stdout.contains("secret.KEY.file"), "{plan:#?}");
    found.extend(leaks_of(&plan));
    found.extend(leaks_of(&daemon.ctl_ok(&["apply", "./teller.toml"])));

    // Starts that fail, for want of the secret and by the worker's own doing.
    fs::remove_file(daemon.home.path().join("vault/env-key")).expect("it is there");
    let failed = daemon.ctl(&["reload", "teller"]);
    assert_ne!(failed.code, Some(0), "{failed:#?}");
    found.extend(leaks_of(&failed));
    daemon.config("teller.py", "import sys; sys.exit(3)");
    keep(&daemon.home.path().join("vault"), "env-key", BY_ENV);
    let failed = daemon.ctl(&["reload", "teller"]);
    assert_eq!(failed.code, Some(5), "{failed:#?}");
    found.extend(leaks_of(&failed));
    found.extend(leaks_everywhere(&daemon));
    found.extend(leaks("the daemon's log", daemon.log().as_bytes()));
    // A dump of the daemon holds none that it never read. (An `env_file` is read by the daemon itself.)
    let dumped = leaks("a dump of the daemon", &memory(daemon.pid()));
    found.extend(dumped.into_iter().filter(|leak| !leak.starts_with(BY_ENV_FILE)));
    assert!(found.is_empty(), "{}", found.join("\n"));
    // What a stop leaves behind holds nothing either.
    daemon.ctl_ok(&["stop", "teller"]);
    let left: Vec<_> = fs::read_dir(daemon.home.path().join("run/secrets")).expect("it is there").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_secret_by_file_belongs_to_the_workers_user_alone() {
    if !is_root() {
        return;
    }
    let (daemon, tell) = start("user = \"nobody\"");
    daemon.ctl_ok(&["start", "./teller.toml"]);
    let told = written(&tell);
    assert_eq!(told["file"], serde_json::json!([format!("{BY_FILE}\n"), NOBODY, 0o400, NOBODY, 0o700]));
    let path = told["env"]["KEY_FILE"].as_str().expect("a path");
    let stranger = Command::new("setpriv")
        .args(["--reuid", "1", "--regid", "1", "--clear-groups", "cat", path])
        .output()
        .expect("setpriv runs");
    assert!(!stranger.status.success(), "{stranger:?}");
}

#[test]
fn a_start_without_its_secret_is_no_start() {
    let (daemon, _) = start("");
    daemon.ctl_ok(&["start", "./teller.toml"]);
    daemon.ctl_ok(&["stop", "teller"]);
    let path = daemon.home.path().join("vault/file-key");
    let toml = daemon.home.path().join("teller.toml");
    for (spoil, words) in [(0o644, "mode 0644 lets others"), (0o600, "it is empty"), (0, "No such file")] {
        match spoil {
            0 => fs::remove_file(&path).expect("it is there"),
            bits => {
                fs::write(&path, if bits == 0o600 { "" } else { "x" }).expect("it is written");
                mode(&path, bits);
            }
        }
        // Read anew with its file it is refused with its line, and nothing is started.
        let output = daemon.ctl(&["start", toml.to_str().expect("UTF-8")]);
        assert_eq!(output.code, Some(2), "{output:#?}");
        assert!(output.stderr.contains(words) && output.stderr.contains("secret.KEY"), "{output:#?}");
    }
    let running = daemon.wait_until(PATIENCE, |document| {
        document.apps.iter().all(|app| app.workers.is_empty() || app.workers.iter().all(|worker| worker.pid.is_none()))
    });
    assert_eq!(running.apps.len(), 1);
    // A worker that has to be started again without its secret is parked, and says why.
    fs::write(&path, "x").expect("it is written");
    mode(&path, 0o600);
    daemon.ctl_ok(&["start", "teller"]);
    let pid = daemon.app("teller").workers[0].pid.expect("it runs");
    fs::remove_file(&path).expect("it is there");
    let killed = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid")),
        nix::sys::signal::Signal::SIGKILL,
    );
    killed.expect("it is ours");
    let failed = daemon.wait_until(PATIENCE, |document| {
        document.apps[0]
            .workers
            .iter()
            .any(|worker| worker.why.as_ref().is_some_and(|why| why.contains("delivering secret KEY")))
    });
    let why = failed.apps[0].workers[0].why.clone().expect("it says why");
    assert!(why.contains("vault/file-key: No such file"), "{why}");
}
