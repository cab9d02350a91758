//! The modes and owners of everything in a home, by the table of docs/reference/paths.md.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agentd_testkit::e2e::Daemon;

use crate::site::{AGENTD, NOBODY, is_root, open_home, teller, written};

const PAGE: &str = include_str!("../../docs/reference/paths.md");

/// The rows of the page's table: path, mode, owner.
fn rows() -> Vec<(&'static str, u32, &'static str)> {
    let cell = |text: &'static str| text.trim().trim_matches('`');
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&'static str> = line.trim_matches('|').split('|').map(cell).collect();
        let mode = u32::from_str_radix(cells[1], 8).unwrap_or_else(|_| panic!("{line} has a mode"));
        (cells[0], mode, cells[2])
    })
    .collect()
}

/// Whether a row's path, in which `*` stands for one name or part of it, means this one.
fn means(row: &str, path: &str) -> bool {
    let (row, path): (Vec<&str>, Vec<&str>) = (row.split('/').collect(), path.split('/').collect());
    let fits = |(pattern, name): (&&str, &&str)| match pattern.split_once('*') {
        Some((before, after)) => {
            name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        }
        None => pattern == name,
    };
    row.len() == path.len() && row.iter().zip(&path).all(fits)
}

fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, (u32, u32)>) {
    for entry in fs::read_dir(folder).expect("it can be read").flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        found.insert(entry.path(), (meta.mode() & 0o7777, meta.uid()));
        if meta.is_dir() {
            walk(&entry.path(), found);
        }
    }
}

#[test]
fn every_path_of_a_home_is_in_the_table_with_its_mode_and_owner() {
    let root = is_root();
    let home = open_home();
    let key = home.path().join("key");
    fs::write(&key, "hush").expect("the home takes files");
    crate::site::mode(&key, 0o600);
    let user = if root { "user = \"nobody\"" } else { "" };
    let tell = teller(&home, &format!("{user}\nsecret.KEY = {{ file = \"key\", as = \"file\" }}"));
    let daemon = Daemon::start_in(AGENTD, home);
    daemon.ctl_ok(&["start", "./teller.toml"]);
    written(&tell);
    let us = nix::unistd::geteuid().as_raw();
    let mut found = BTreeMap::new();
    for folder in ["state", "run", "logs"] {
        let path = daemon.home.path().join(folder);
        let meta = fs::metadata(&path).expect("it is there");
        found.insert(path.clone(), (meta.mode() & 0o7777, meta.uid()));
        walk(&path, &mut found);
    }
    let (rows, mut wrong) = (rows(), Vec::new());
    for (path, (mode, uid)) in &found {
        let name = path.strip_prefix(daemon.home.path()).expect("below the home").to_str().expect("UTF-8");
        let Some((_, wanted, owner)) = rows.iter().find(|(row, ..)| means(row, name)) else {
            wrong.push(format!("{name} ({mode:04o}) is not in the table"));
            continue;
        };
        let owner = if *owner == "worker" && root { NOBODY } else { us };
        // Nobody has a user of their own under a daemon that is not root.
        let wanted = &if *wanted == 0o711 && !root { 0o710 } else { *wanted };
        if mode != wanted || *uid != owner {
            wrong.push(format!("{name} is {mode:04o} of {uid}, and in the table {wanted:04o} of {owner}"));
        }
    }
    for (row, ..) in &rows {
        let there = found
            .keys()
            .any(|path| means(row, &path.strip_prefix(daemon.home.path()).expect("below").to_string_lossy()));
        if !there {
            wrong.push(format!("{row} is in the table and not there"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
