use super::*;
use crate::releases::budget::Limits;

fn place() -> (tempfile::TempDir, Utf8PathBuf, Utf8PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("a UTF-8 path");
    let (from, to) = (path.join("from"), path.join("to"));
    for path in [&from, &to] {
        fs::create_dir(path).expect("it is ours");
    }
    (folder, from, to)
}

fn budget() -> Budget {
    Budget::new(Limits::default())
}

#[test]
fn a_folder_is_copied_without_what_is_left_out_and_hashes_the_same_when_only_looked_at() {
    let (_folder, from, to) = place();
    for name in [".git", "app/deep", "node_modules/x", "empty"] {
        fs::create_dir_all(from.join(name)).expect("it is ours");
    }
    for (name, text) in [
        (".git/config", "no"),
        ("app/deep/a.py", "a"),
        ("app/a.log", "no"),
        ("node_modules/x/index.js", "yes"),
        (".gitignore", "node_modules\n"),
        (".agentdignore", "*.log\n"),
    ] {
        fs::write(from.join(name), text).expect("it is ours");
    }
    fs::set_permissions(from.join("app/deep/a.py"), fs::Permissions::from_mode(0o700)).expect("it is ours");
    std::os::unix::fs::symlink("app/deep", from.join("link")).expect("it is ours");
    let tree = take(&from, Into::Folder(&to), &budget()).expect("it is sound");
    let names: Vec<&str> = tree.iter().map(|(path, _)| path.as_str()).collect();
    let expected = [
        ".agentdignore",
        ".gitignore",
        "app",
        "app/deep",
        "app/deep/a.py",
        "empty",
        "link",
        "node_modules",
        "node_modules/x",
        "node_modules/x/index.js",
    ];
    assert_eq!(names, expected);
    assert_eq!(fs::read_to_string(to.join("link/a.py")).expect("it leads there"), "a");
    assert_eq!(fs::metadata(to.join("link/a.py")).expect("it is there").mode() & 0o777, 0o755);
    assert!(to.join("empty").is_dir() && !to.join("app/a.log").exists());
    assert_eq!(take(&from, Into::Nothing, &budget()).expect("it is sound").hash(), tree.hash());
    assert_eq!(take(&to, Into::Nothing, &budget()).expect("it is sound").hash(), tree.hash());
}

#[test]
fn many_files_on_several_threads_are_all_there() {
    let (_folder, from, to) = place();
    for number in 0..500 {
        fs::write(from.join(number.to_string()), vec![7; number]).expect("it is ours");
    }
    let tree = take(&from, Into::Folder(&to), &budget()).expect("it is sound");
    assert_eq!((tree.len(), tree.bytes()), (500, (0..500).sum()));
    for number in [0_usize, 1, 250, 499] {
        assert_eq!(fs::read(to.join(number.to_string())).expect("it is there"), vec![7; number]);
    }
}

#[test]
fn limits_hold_whatever_the_order_of_the_files() {
    let (_folder, from, to) = place();
    for number in 0..50 {
        fs::write(from.join(number.to_string()), vec![7; 1000]).expect("it is ours");
    }
    let bytes = Budget::new(Limits { bytes: 49_999, entries: 50 });
    assert!(matches!(take(&from, Into::Nothing, &bytes), Err(CutError::TooLarge { max: 49_999 })));
    let entries = Budget::new(Limits { bytes: 50_000, entries: 49 });
    assert!(matches!(take(&from, Into::Folder(&to), &entries), Err(CutError::TooMany { max: 49 })));
}
