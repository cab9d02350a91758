//! A single program: the only script of a folder, or the one with a usual name.

use std::os::unix::fs::PermissionsExt;

use camino::Utf8Path;

use super::{Finding, Listens, folder_name, node, source};

/// What runs a file with this ending.
const INTERPRETERS: [(&str, &str); 6] =
    [("py", "python3"), ("js", "node"), ("mjs", "node"), ("cjs", "node"), ("sh", "sh"), ("rb", "ruby")];

/// The stems of programs that are meant to be started.
const USUAL: [&str; 8] = ["agent", "main", "app", "server", "worker", "bot", "run", "index"];

/// The script, if it is clear which.
pub(super) fn find(folder: &Utf8Path, files: &[String]) -> Option<Finding> {
    let scripts: Vec<(&String, &str)> = files
        .iter()
        .filter(|name| !name.starts_with('.'))
        .filter_map(|name| Some((name, runs(folder, name)?)))
        .collect();
    let stem = |name: &str| Utf8Path::new(name).file_stem().map(str::to_owned).unwrap_or_default();
    let usual = USUAL.iter().find_map(|usual| scripts.iter().find(|(name, _)| stem(name) == *usual));
    let (name, interpreter) = usual.or_else(|| scripts.first().filter(|_| scripts.len() == 1))?;
    let mut finding = Finding { name: folder_name(folder), ..Finding::default() };
    finding.about.push(format!("a script: {name}"));
    finding.command = match *interpreter {
        "" => vec![folder.join(name).canonicalize_utf8().ok()?.into_string()],
        program => vec![program.to_owned(), (*name).clone()],
    };
    let code = source(&folder.join(name)).unwrap_or_default();
    if *interpreter == "node" {
        node::describe_here(&mut finding, &code);
    } else if ["LISTEN_FDS", "AGENTD_FD_", "fileno="].iter().any(|word| code.contains(word)) {
        finding.listens = Listens::Given;
    } else {
        finding.ideas.push(
            "restart = { policy = \"on-failure\" }       # for a script that ends when its work is done".to_owned(),
        );
    }
    Some(finding)
}

/// What runs the file: an interpreter, or nothing where it runs by itself. None for what is no program.
fn runs(folder: &Utf8Path, name: &str) -> Option<&'static str> {
    let extension = Utf8Path::new(name).extension().unwrap_or_default();
    if let Some((_, interpreter)) = INTERPRETERS.iter().find(|(known, _)| *known == extension) {
        return Some(interpreter);
    }
    let mode = std::fs::metadata(folder.join(name)).ok()?.permissions().mode();
    (extension.is_empty() && mode & 0o111 != 0).then_some("")
}
