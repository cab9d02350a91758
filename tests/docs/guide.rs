//! A page of docs/guides, followed as it stands: each of its blocks is typed, written or compared, in the order of the page.
//!
//! | behind the fence | then |
//! |---|---|
//! | `sh` | typed, and must succeed |
//! | `sh fails` | typed, and must fail |
//! | `sh prepared` | what it would have installed is there: `tests/prepare` did it |
//! | `LANGUAGE /path` | written there |
//! | `text` | the commands before it printed these lines, in this order; `…` stands for any text |
//!
//! Whatever else stands there is for the test of that page. Where it is typed is a [`Place`]: it knows nothing of agentd.

use crate::blocks::{Block, blocks};

/// Where a page is followed: a machine, or something that looks like one.
pub(crate) trait Place {
    /// Writes a file, with the folders above it.
    fn write(&mut self, path: &str, text: &str);

    /// Types commands in a shell that stops at the first failure; whether they succeeded, and what they printed.
    fn type_in(&mut self, commands: &str) -> (bool, String);

    /// A command that succeeds where this package of the system is installed.
    fn has_package(&self, name: &str) -> String;
}

/// How much of a page was followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Followed {
    pub(crate) typed: usize,
    pub(crate) written: usize,
    pub(crate) compared: usize,
}

/// Follows `page`. Blocks that are none of the above go to `other`, and so does the last of `sh` before it is typed.
pub(crate) fn follow<P: Place>(
    place: &mut P,
    name: &str,
    page: &str,
    mut other: impl FnMut(&mut P, &Block),
) -> Followed {
    let found = blocks(page);
    let last = found.iter().rposition(|block| block.info == "sh");
    let (mut followed, mut printed) = (Followed::default(), String::new());
    for (number, block) in found.iter().enumerate() {
        let at = format!("{name}, line {}", block.line);
        match block.info.split_once(' ') {
            None if block.info == "sh" => {
                if Some(number) == last {
                    other(place, block);
                }
                printed = typed(place, &at, block, true);
                followed.typed += 1;
            }
            Some(("sh", "fails")) => {
                printed = typed(place, &at, block, false);
                followed.typed += 1;
            }
            Some(("sh", "prepared")) => {
                let checks: Vec<String> = block.text.lines().flat_map(|line| checks(place, line)).collect();
                let folder = block.text.lines().find_map(|line| line.strip_prefix("cd "));
                for check in checks {
                    let (there, said) = place.type_in(&format!("cd {}; {check}", folder.unwrap_or(".")));
                    assert!(there, "{at}: {check} says that it is not prepared (tests/prepare): {said}");
                }
            }
            None if block.info == "text" => {
                assert_holds(&at, &printed, &block.text);
                followed.compared += 1;
            }
            Some((_, path)) if path.starts_with('/') => {
                place.write(path, &block.text);
                followed.written += 1;
            }
            Some(_) | None => other(place, block),
        }
    }
    println!("{name}: {followed:?}");
    followed
}

fn typed<P: Place>(place: &mut P, at: &str, block: &Block, succeeds: bool) -> String {
    let began = std::time::Instant::now();
    let (succeeded, said) = place.type_in(&block.text);
    println!("{at}: typed in {:?}", began.elapsed());
    assert_eq!(succeeded, succeeds, "{at}:\n{}\n{said}", block.text);
    said
}

/// Commands that succeed when what this line would have installed is there.
fn checks<P: Place>(place: &P, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().skip_while(|word| *word == "sudo").collect();
    match words.as_slice() {
        [] | ["cd", ..] => Vec::new(),
        ["mkdir", "-p", folder] => vec![format!("test -d {folder}")],
        ["apt-get", "install", "-y", packages @ ..] => packages.iter().map(|name| place.has_package(name)).collect(),
        ["install", "-m", "755", programs @ .., folder] => {
            programs.iter().map(|program| format!("test -x {folder}{}", last_name(program))).collect()
        }
        ["python3", "-m", "venv", folder] => vec![format!("test -x {folder}/bin/python")],
        [pip, "install", packages @ ..] if pip.ends_with("pip") => {
            let python = pip.strip_suffix("pip").unwrap_or_default();
            let one =
                |name: &&str| format!("{python}python -c 'import importlib.metadata as m; m.version(\"{name}\")'");
            packages.iter().map(one).collect()
        }
        ["npm", "install", "-g", packages @ ..] => packages.iter().map(|name| format!("command -v {name}")).collect(),
        ["npm", "install", packages @ ..] => {
            packages.iter().map(|name| format!("test -d node_modules/{name}")).collect()
        }
        ["cargo", "build", "--release"] => vec!["test -d target/release".to_owned()],
        other => panic!("how is {other:?} prepared?"),
    }
}

fn last_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Each line of `shown` in a line of `printed`, in this order; `…` stands for any text.
fn assert_holds(at: &str, printed: &str, shown: &str) {
    let mut lines = printed.lines();
    for wanted in shown.lines().filter(|line| !line.trim().is_empty()) {
        let parts: Vec<&str> = wanted.split('…').map(str::trim).collect();
        let found = lines.any(|line| {
            let mut rest = Some(line);
            for part in &parts {
                rest = rest.and_then(|rest| rest.split_once(part)).map(|(_, behind)| behind);
            }
            rest.is_some()
        });
        assert!(found, "{at}: {wanted:?} is not in, or not behind the line before it in:\n{printed}");
    }
}

#[test]
fn what_a_page_shows_may_leave_out_text_and_lines_but_not_their_order() {
    let printed = "● web: start done in 12ms\nb\nNAME   STATE\n";
    assert_holds("here", printed, "● web: start done in …\nNAME … STATE\n");
    let wrong_order = std::panic::catch_unwind(|| assert_holds("here", printed, "NAME\nb\n"));
    assert!(wrong_order.is_err());
}
