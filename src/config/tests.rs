//! The configuration as its users meet it: whole files in, apps or rendered diagnostics out.

use camino::{Utf8Path, Utf8PathBuf};
use proptest::prelude::*;

use super::{Diagnostic, load};

/// A folder of its own with these files in it.
pub(super) fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Utf8PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).expect("a temporary folder has a plain path");
    for (name, text) in files {
        std::fs::write(path.join(name), text).expect("the folder takes files");
    }
    (dir, path)
}

fn rendered(found: &[Diagnostic], folder: &Utf8Path) -> String {
    let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
    texts.join("\n").replace(&format!("{folder}/"), "")
}

/// What is said about an app with these keys.
fn wrong(keys: &str) -> String {
    wrong_file(&format!("[agent.a]\n{keys}"))
}

fn wrong_file(text: &str) -> String {
    let (_dir, path) = folder(&[("a.toml", text)]);
    rendered(&load(&path.join("a.toml")).expect_err("it is wrong"), &path)
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_the_nearest_known_key() {
    let expected = "\
error: unknown key `replcas` in `reload`
 --> a.toml:3:12
  |
3 | reload = { replcas = 1 }
  |            ^^^^^^^
  = expected: `strategy`, `max_surge`, `max_unavailable` or `settle`";
    assert_eq!(wrong("command = [\"a\"]\nreload = { replcas = 1 }"), expected);
    let near = "\
error: unknown key `work_ers` in an agent
 --> a.toml:3:1
  |
3 | work_ers = 1
  | ^^^^^^^^
";
    let text = wrong("command = [\"a\"]\nwork_ers = 1");
    assert!(text.starts_with(near) && text.ends_with("  = help: did you mean `workers`?"), "{text}");
}

proptest! {
    #[test]
    fn bytes_of_any_kind_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (_dir, path) = folder(&[]);
        std::fs::write(path.join("a.toml"), bytes).expect("the folder takes files");
        let _ = load(&path);
    }
}
