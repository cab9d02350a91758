use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;
use crate::releases::budget::Limits;

/// A folder with a folder to unpack to, deep within it, and something beside that must stay as it is.
fn place() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let to = Utf8PathBuf::from_path_buf(folder.path().join("a/b/to")).expect("a UTF-8 path");
    std::fs::create_dir_all(&to).expect("it is ours");
    (folder, to)
}

fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Utf8PathBuf, Result<Unpacked, CutError>) {
    let (folder, to) = place();
    let path = Utf8PathBuf::from_path_buf(folder.path().join("x.tar")).expect("a UTF-8 path");
    std::fs::write(&path, bytes).expect("it is ours");
    let result = unpack(&path, None, &to, &Budget::new(Limits { bytes: 1 << 20, entries: 100 }));
    (folder, to, result)
}

/// Everything outside of the folder that was unpacked to.
fn outside(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let names = |path: &std::path::Path| -> Vec<std::path::PathBuf> {
        std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    [folder.to_owned(), folder.join("a"), folder.join("a/b")].iter().flat_map(|path| names(path)).collect()
}

#[derive(Clone, Debug)]
struct Given {
    name: String,
    kind: u8,
    mode: u32,
    link: String,
    content: Vec<u8>,
}

fn any_entry() -> impl Strategy<Value = Given> {
    let name = "(\\.\\./|/|\\./)?[ab](/([ab]|\\.\\.)){0,3}";
    let kind = prop_oneof![5 => Just(b'0'), 2 => Just(b'5'), 2 => Just(b'1'), 3 => Just(b'2'), 1 => any::<u8>()];
    let mode = prop_oneof![9 => Just(0o644_u32), 1 => Just(0o755), 1 => 0..0o10000_u32];
    (name, kind, mode, "(/|\\.\\./)?[ab](/([ab]|\\.\\.)){0,3}", proptest::collection::vec(any::<u8>(), 0..9))
        .prop_map(|(name, kind, mode, link, content)| Given { name, kind, mode, link, content })
}

fn archive(entries: &[Given]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(entry.kind));
        header.set_mode(entry.mode);
        header.set_size(entry.content.len() as u64);
        let old = header.as_old_mut();
        old.name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        old.linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_cksum();
        builder.append(&header, &*entry.content).expect("memory takes it");
    }
    builder.into_inner().expect("memory takes it")
}

/// That what is on the disk is the tree that was told, with no link that leads out.
fn assert_sound(unpacked: &Unpacked) {
    let real = unpacked.root.canonicalize().expect("it is there");
    for (path, node) in unpacked.tree.iter() {
        let full = unpacked.root.join(path);
        let metadata = std::fs::symlink_metadata(&full).unwrap_or_else(|error| panic!("{path} is told of: {error}"));
        match node {
            Node::Folder => assert!(metadata.is_dir(), "{path}"),
            Node::File { bytes, .. } => assert!(metadata.is_file() && metadata.len() == *bytes, "{path}"),
            Node::Link { .. } => {
                assert!(metadata.is_symlink(), "{path}");
                assert!(full.canonicalize().is_err() || full.canonicalize().is_ok_and(|end| end.starts_with(&real)));
            }
        }
    }
}

#[test]
fn an_archive_comes_out_as_it_went_in() {
    let entry = |name: &str, kind: u8, mode, link: &str, content: &[u8]| Given {
        name: name.to_owned(),
        kind,
        mode,
        link: link.to_owned(),
        content: content.to_vec(),
    };
    let entries = [
        entry("top/", b'5', 0o755, "", b""),
        entry("top/run", b'0', 0o755, "", b"#!"),
        entry("top/deep/data", b'0', 0o600, "", b"data"),
        entry("top/same", b'1', 0o644, "top/deep/data", b""),
        entry("top/link", b'2', 0o777, "deep/data", b""),
    ];
    let (_folder, to, result) = unpacked(&archive(&entries));
    let unpacked = result.expect("it is sound");
    assert_eq!(unpacked.root, to.join("top"));
    assert_sound(&unpacked);
    let names: Vec<&str> = unpacked.tree.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, ["deep", "deep/data", "link", "run", "same"]);
    assert_eq!(std::fs::read_to_string(unpacked.root.join("link")).expect("it leads to the data"), "data");
    assert!(matches!(unpacked.tree.get(Utf8Path::new("run")), Some(Node::File { executable: true, .. })));
}

proptest! {
    #[test]
    fn no_archive_writes_outside_of_its_folder(entries in proptest::collection::vec(any_entry(), 1..12)) {
        let (folder, _to, result) = unpacked(&archive(&entries));
        prop_assert_eq!(outside(folder.path()).len(), 4, "{:?}", outside(folder.path()));
        if let Ok(unpacked) = &result {
            assert_sound(unpacked);
        }
    }

    #[test]
    fn no_bytes_at_all_do_harm(
        mut bytes in any_entry().prop_map(|entry| archive(&[entry.clone(), entry])),
        wrong in proptest::collection::vec((0..1536_usize, any::<u8>()), 0..40),
        magic in proptest::option::of(prop_oneof![Just(&GZIP[..]), Just(&ZSTD[..])]),
    ) {
        for (at, byte) in wrong {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        if let Some(magic) = magic {
            bytes[..magic.len()].copy_from_slice(magic);
        }
        let (folder, _to, result) = unpacked(&bytes);
        prop_assert_eq!(outside(folder.path()).len(), 4);
        if let Ok(unpacked) = &result {
            assert_sound(unpacked);
        }
    }
}
