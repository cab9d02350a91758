//! `agentd cut`: the process that cuts one release.
//!
//! A process of its own, because what it reads may be hostile and what it runs may be anything: a bomb, a hang or
//! exhausted memory cost this process and nobody else. It is bounded in memory, chosen first when the machine runs out,
//! and lets others have the processor.
//!
//! ```text
//! order ─► take in (folder │ archive │ git) ─► manifest ─► name ─┬─ there already ─► report
//!              │ everything is checked and hashed                 └─► build ─► listing ─► disk ─► report
//!              └─ any failure, or nobody waits any more ─► all of it is ended and removed
//! ```
//!
//! It writes below its staging folder and to the build's log, nowhere else. Giving the release its name is the
//! daemon's: one rename, after the release was recorded.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::process::ExitCode;
use std::sync::{Arc, atomic};
use std::time::{Duration, Instant};

use agentd_core::release::ReleaseId;
use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::archive;
use super::budget::Budget;
use super::error::{CutError, Refusal};
use super::folder::{self, Into};
use super::git;
use super::listing::Listing;
use super::order::{Cut, Failed, Looked, Order, Report, Wanted};
use super::parts::Parts;
use super::program::Program;
use super::source::Source;
use super::tree::Tree;
use crate::causes::in_full;
use crate::config::Manifest;
use crate::process::{INSTANCE_VARIABLE, LAUNCH_VARIABLE, descendants, reaper};

/// Memory that this process may have of its own; a build may have what it likes.
const MEMORY: u64 = 512 << 20;
/// Longest manifest, in bytes.
const MANIFEST_MAX: u64 = 1 << 20;
/// Largest `oom_score_adj`: whoever cuts is ended before whoever serves.
const FIRST_TO_GO: &str = "1000";
/// Added to the niceness.
const NICE: i32 = 10;

/// Runs as `agentd cut`: reads an order from the standard input, writes a report to the standard output.
#[must_use]
pub fn run() -> ExitCode {
    let memory = modest();
    let mut input = io::BufReader::new(io::stdin());
    let mut line = String::new();
    let order = input
        .read_line(&mut line)
        .map_err(CutError::Hear)
        .and_then(|_| serde_json::from_str::<Order>(&line).map_err(CutError::Order));
    let order = match order {
        Ok(order) => order,
        Err(error) => return tell(&Report::Failed(failed(&error, Vec::new()))),
    };
    let abandoned = Arc::new(atomic::AtomicBool::new(false));
    let (seen, staging) = (Arc::clone(&abandoned), order.staging.clone());
    // Detached: it lives as long as the process.
    std::thread::spawn(move || await_end(input, &seen, &staging));
    let mut cutting = Cutting { order: &order, memory, tail: Vec::new() };
    let report = match cutting.cut() {
        Ok(cut) => Report::Cut(Box::new(cut)),
        Err(error) => {
            let error = if abandoned.load(atomic::Ordering::Relaxed) { CutError::Abandoned } else { error };
            let failed = failed(&error, std::mem::take(&mut cutting.tail));
            // What a build has left running would go on writing.
            let _ = descendants::end_all();
            remove(&order.staging);
            Report::Failed(failed)
        }
    };
    if matches!(&report, Report::Cut(cut) if cut.folder.is_none()) {
        remove(&order.staging);
    }
    tell(&report)
}

/// Keeps this process from harming others; says what memory builds may have.
fn modest() -> Option<(u64, u64)> {
    // Each of these is a kindness to others: one that is refused changes nothing about what is cut.
    let _ = reaper::adopt_orphans();
    let _ = fs::write("/proc/self/oom_score_adj", FIRST_TO_GO);
    let _ = rustix::process::nice(NICE);
    let quiet = Arc::new(atomic::AtomicBool::new(false));
    // A file size limit that is met is an error to be told, not an end.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, quiet);
    let before = getrlimit(Resource::RLIMIT_DATA).ok()?;
    setrlimit(Resource::RLIMIT_DATA, MEMORY.min(before.1), before.1).ok()?;
    Some(before)
}

/// Waits until nobody waits for the report any more, then ends and removes everything.
fn await_end(mut input: impl Read, abandoned: &atomic::AtomicBool, staging: &Utf8Path) {
    let mut byte = [0];
    while matches!(input.read(&mut byte), Ok(1)) {}
    abandoned.store(true, atomic::Ordering::Relaxed);
    let _ = descendants::end_all();
    remove(staging);
    std::process::exit(1);
}

/// Removes a folder that somebody may still be writing to for a moment.
fn remove(folder: &Utf8Path) {
    for _ in 0..100 {
        match fs::remove_dir_all(folder) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            // What stays is removed by the daemon, at its next start at the latest.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn tell(report: &Report) -> ExitCode {
    let line = serde_json::to_string(report).expect("a report is plain data");
    let mut output = io::stdout().lock();
    match writeln!(output, "{line}").and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn failed(error: &CutError, tail: Vec<String>) -> Failed {
    Failed { why: in_full(error), help: error.help().map(str::to_owned), tail }
}

/// One cut under way.
struct Cutting<'o> {
    order: &'o Order,
    /// The memory limits that builds get back.
    memory: Option<(u64, u64)>,
    /// The last lines of the build.
    tail: Vec<String>,
}

/// What was taken in.
struct Taken {
    tree: Tree,
    root: Utf8PathBuf,
    origin: String,
}

impl Cutting<'_> {
    fn cut(&mut self) -> Result<Cut, CutError> {
        let started = self.take_in()?;
        let Taken { tree, root, origin } = started;
        let manifest = self.manifest(&root)?;
        let hash = tree.hash();
        let id = ReleaseId::new(&manifest.version, &hash);
        let mut cut = Cut {
            id: id.clone(),
            hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            manifest,
            origin,
            folder: None,
            entries: tree.len() as u64,
            bytes: tree.bytes(),
            build: None,
            difference: None,
        };
        match &self.order.wanted {
            Wanted::Look { before, parts } => {
                let before = before.as_ref().map(|folder| Listing::read(folder)).transpose()?;
                let (old, manifest) =
                    before.map_or((Tree::default(), None), |listing| (listing.tree, Some(listing.manifest)));
                let difference = old.difference(&tree);
                let parts = Parts::new(parts).of(difference.all());
                cut.difference = Some(Looked::of(&difference, parts, manifest));
            }
            Wanted::Release { have, .. } if have.contains(&id) => {}
            Wanted::Release { build_log, .. } => {
                if let Some(build) = cut.manifest.build.clone() {
                    let began = Instant::now();
                    self.build(&build, &id, &root, build_log)?;
                    cut.build = Some(began.elapsed());
                    cut.bytes = size_of(&root)?;
                }
                Listing { tree, manifest: cut.manifest.clone() }.write(&root)?;
                sync(&root)?;
                cut.folder = Some(root);
            }
        }
        Ok(cut)
    }

    fn take_in(&self) -> Result<Taken, CutError> {
        let budget = Budget::new(self.order.limits);
        let order = self.order;
        let look = matches!(order.wanted, Wanted::Look { .. });
        let to = order.staging.join("tree");
        match &order.source {
            Source::Folder(from) if look => {
                let tree = folder::take(from, Into::Nothing, &budget)?;
                Ok(Taken { tree, root: from.clone(), origin: order.source.to_string() })
            }
            Source::Folder(from) => {
                make(&to)?;
                let tree = folder::take(from, Into::Folder(&to), &budget)?;
                if tree.is_empty() {
                    return Err(CutError::Empty { from: from.to_string() });
                }
                Ok(Taken { tree, root: to, origin: order.source.to_string() })
            }
            Source::Archive(path) => {
                make(&to)?;
                let unpacked = archive::unpack(path, order.sha256.as_deref(), &to, &budget)?;
                Ok(Taken { tree: unpacked.tree, root: unpacked.root, origin: order.source.to_string() })
            }
            Source::Git { repository, reference } => {
                make(&to)?;
                let aside = order.staging.join("git");
                make(&aside)?;
                let env = self.environment();
                let fetched = git::take(repository, reference.as_deref(), &aside, &to, &env, &budget)?;
                remove(&aside);
                let origin = format!("{} ({})", order.source, &fetched.commit[..12]);
                Ok(Taken { tree: fetched.unpacked.tree, root: fetched.unpacked.root, origin })
            }
        }
    }

    /// The environment of foreign programs, with the mark that a successor of the daemon would find them by.
    fn environment(&self) -> BTreeMap<String, String> {
        let mut env = self.order.env.clone();
        for name in [INSTANCE_VARIABLE, LAUNCH_VARIABLE] {
            env.extend(std::env::var(name).ok().map(|value| (name.to_owned(), value)));
        }
        env
    }

    /// What the release says of itself. One that says nothing has no version.
    fn manifest(&self, root: &Utf8Path) -> Result<Manifest, CutError> {
        let name: &'static str = if self.order.manifest == "skill.toml" { "skill.toml" } else { "agent.toml" };
        let path = root.join(name);
        let read = |source| CutError::Read { path: path.clone(), source };
        // It was taken in as a file, or is a link that stays inside.
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Manifest::default()),
            Err(source) => return Err(read(source)),
        };
        let mut text = String::new();
        file.take(MANIFEST_MAX + 1).read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > MANIFEST_MAX {
            return Err(CutError::TooLarge { max: MANIFEST_MAX });
        }
        let manifest = Manifest::read(name, text).map_err(|found| CutError::Manifest {
            file: name,
            text: found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        })?;
        if let Some(own) = manifest.name.as_ref().filter(|own| **own != self.order.app) {
            return Err(CutError::Another { app: self.order.app.clone(), file: name, name: own.clone() });
        }
        Ok(manifest)
    }

    fn build(
        &mut self,
        build: &crate::config::Build,
        id: &ReleaseId,
        root: &Utf8Path,
        log: &Utf8Path,
    ) -> Result<(), CutError> {
        let mut env = self.environment();
        env.extend([("AGENTD_APP".to_owned(), self.order.app.clone()), ("AGENTD_RELEASE".to_owned(), id.to_string())]);
        env.extend(build.env.clone());
        let written = |source| CutError::Write { path: log.to_owned(), source };
        let mut file = File::create(log).map_err(written)?;
        writeln!(file, "{id}: {}", build.command.join(" ")).map_err(written)?;
        if let Some((soft, hard)) = self.memory {
            // What was allowed a moment ago cannot be refused now.
            let _ = setrlimit(Resource::RLIMIT_DATA, soft, hard);
        }
        let program = Program { argv: &build.command, cwd: root, env: &env, timeout: build.timeout };
        let ran = program.run(Some(&mut file))?;
        self.tail = ran.tail;
        match ran.failure {
            None => Ok(()),
            Some(why) => {
                let program = build.command.join(" ");
                Err(CutError::Build { program, why: format!("{why}; its output is in {log}") })
            }
        }
    }
}

fn make(folder: &Utf8Path) -> Result<(), CutError> {
    let failed = |source| CutError::Write { path: folder.to_owned(), source };
    let parent = folder.parent().unwrap_or(folder);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    fs::DirBuilder::new().mode(0o755).create(folder).map_err(failed)
}

/// Bytes of all files below a folder.
fn size_of(root: &Utf8Path) -> Result<u64, CutError> {
    let (mut bytes, mut folders) = (0, vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        let read = |source| CutError::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            let metadata = entry.metadata().map_err(read)?;
            if metadata.is_dir() {
                let path = Utf8PathBuf::from_path_buf(entry.path()).map_err(|path| CutError::Refused {
                    path: path.display().to_string(),
                    refusal: Refusal::NotUtf8,
                })?;
                folders.push(path);
            } else {
                bytes += metadata.len();
            }
        }
    }
    Ok(bytes)
}

/// Brings everything to the disk: the whole file system at once, which costs one wait instead of one a file.
fn sync(folder: &Utf8Path) -> Result<(), CutError> {
    let failed = |source: io::Error| CutError::Sync { path: folder.to_owned(), source };
    let handle = File::open(folder).map_err(failed)?;
    rustix::fs::syncfs(&handle).map_err(|errno| failed(errno.into()))
}
