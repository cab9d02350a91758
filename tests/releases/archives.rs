//! Archives that somebody made to do harm, given to the real daemon.

use std::fs::File;
use std::io::Write;

use tar::{Builder, EntryType, Header};

use crate::site::Site;

/// An archive of entries that no sound archiver would write.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        let mut archive = Self(Builder::new(Vec::new()));
        archive.add("skill.toml", EntryType::Regular, 0o644, "", b"name = \"search\"\nversion = \"6.6.6\"\n");
        archive
    }

    /// Adds an entry, whatever its name is.
    fn add(&mut self, name: &str, kind: EntryType, mode: u32, link: &str, content: &[u8]) -> &mut Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).expect("memory takes it");
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("memory takes it")
    }
}

fn refused(site: &Site, bytes: &[u8], words: &str) {
    std::fs::write(site.path("bad.tar.gz"), bytes).expect("it is ours");
    let said = site.assert_refused(&["--from", "bad.tar.gz"]);
    assert!(said.contains(words), "{words:?} is not in {said}");
}

#[test]
fn entries_that_lead_out_and_entries_that_are_no_files_are_refused() {
    let site = Site::started();
    let outside = site.path("outside");
    std::fs::create_dir(&outside).expect("it is ours");
    let outside = outside.to_str().expect("a text");
    let one = |name: &str, kind: EntryType, mode: u32, link: &str| {
        let mut archive = Archive::new();
        archive.add(name, kind, mode, link, b"");
        archive.bytes()
    };
    for (bytes, words) in [
        (one("../evil", EntryType::Regular, 0o644, ""), "leads out"),
        (one("a/../../evil", EntryType::Regular, 0o644, ""), "leads out"),
        (one("/evil", EntryType::Regular, 0o644, ""), "absolute"),
        (one("a\u{1b}[31m", EntryType::Regular, 0o644, ""), "control character"),
        (one("l", EntryType::Symlink, 0o777, "/etc/passwd"), "link that leaves"),
        (one("l", EntryType::Symlink, 0o777, "../../x"), "link that leaves"),
        (one("l", EntryType::Link, 0o644, "/etc/passwd"), "absolute"),
        (one("l", EntryType::Link, 0o644, "../x"), "leads out"),
        (one("l", EntryType::Link, 0o644, "nothing"), "hard link"),
        (one("d", EntryType::Char, 0o644, ""), "a device"),
        (one("d", EntryType::Block, 0o644, ""), "a device"),
        (one("d", EntryType::Fifo, 0o644, ""), "a pipe"),
        (one("p", EntryType::Regular, 0o4755, ""), "setuid"),
        (one("p", EntryType::Regular, 0o2755, ""), "setuid"),
        (one("skill.toml", EntryType::Regular, 0o644, ""), "twice"),
        (one("skill.toml/x", EntryType::Regular, 0o644, ""), "no folder"),
        (one(".agentd/release.json", EntryType::Regular, 0o644, ""), "where agentd keeps"),
    ] {
        refused(&site, &bytes, words);
    }
    let mut through = Archive::new();
    through.add("door", EntryType::Symlink, 0o777, outside, b"").add("door/evil", EntryType::Regular, 0o644, "", b"x");
    refused(&site, &through.bytes(), "no folder");
    let mut detour = Archive::new();
    detour.add("a/b/d", EntryType::Symlink, 0o777, "../..", b"").add("e", EntryType::Symlink, 0o777, "a/b/d/../x", b"");
    refused(&site, &detour.bytes(), "link that leaves");
    assert_eq!(std::fs::read_dir(outside).expect("it is there").count(), 0);
}

#[test]
fn bombs_are_stopped_by_what_comes_out_of_them() {
    let site = Site::new();
    site.configure("releases = { max_size = \"2M\", max_files = 500 }");
    site.daemon.ctl_ok(&["start", "./site.toml"]);
    // 64 MiB of nothing.
    let zeros = || std::io::Read::take(std::io::repeat(0), 64 << 20);
    let mut header = Header::new_gnu();
    header.set_path("zeros").expect("a short path");
    header.set_size(64 << 20);
    header.set_mode(0o644);
    header.set_cksum();
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = Builder::new(gzip);
    archive.append(&header, zeros()).expect("memory takes it");
    refused(
        &site,
        &archive.into_inner().and_then(flate2::write::GzEncoder::finish).expect("memory"),
        "releases.max_size",
    );
    let zstd = zstd::Encoder::new(Vec::new(), 1).expect("zstd is there");
    let mut archive = Builder::new(zstd);
    archive.append(&header, zeros()).expect("memory takes it");
    refused(&site, &archive.into_inner().and_then(zstd::Encoder::finish).expect("memory"), "releases.max_size");
    let mut many = Archive::new();
    for number in 0..600 {
        many.add(&format!("f{number}"), EntryType::Regular, 0o644, "", b"");
    }
    refused(&site, &many.bytes(), "releases.max_files");
    let mut linked = Archive::new();
    linked.add("one", EntryType::Regular, 0o644, "", &[7; 1 << 20]);
    for number in 0..100 {
        linked.add(&format!("l{number}"), EntryType::Link, 0o644, "one", b"");
    }
    refused(&site, &linked.bytes(), "releases.max_size");
    // 7 GiB of hole, of which the archive holds no byte.
    let mut header = Header::new_gnu();
    header.set_path("holes").expect("a short path");
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(0);
    let gnu = header.as_gnu_mut().expect("it is GNU's");
    gnu.set_real_size(7 << 30);
    gnu.sparse[0].set_offset(7 << 30);
    gnu.sparse[0].set_length(0);
    header.set_cksum();
    let mut sparse = Archive::new();
    sparse.0.append(&header, &[][..]).expect("memory takes it");
    refused(&site, &sparse.bytes(), "releases.max_size");
    // The name of an entry may come as an entry of its own, as long as it says that it is.
    let mut header = Header::new_gnu();
    header.set_path("././@LongLink").expect("a short path");
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(64 << 20);
    header.set_cksum();
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = Builder::new(gzip);
    archive.append(&header, std::io::Read::take(std::io::repeat(b'a'), 64 << 20)).expect("memory takes it");
    refused(&site, &archive.into_inner().and_then(flate2::write::GzEncoder::finish).expect("memory"), "no release");
}

#[test]
fn what_is_damaged_or_another_than_asked_for_is_refused() {
    let site = Site::started();
    refused(&site, b"this is no archive at all, though it is as long as one", "read the archive");
    refused(&site, b"", "holds nothing");
    let whole = Archive::new().bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&whole).expect("memory takes it");
    let packed = gzip.finish().expect("memory takes it");
    refused(&site, &packed[..packed.len() / 2], "read");
    File::create(site.path("bad.tar.gz")).and_then(|mut file| file.write_all(&packed)).expect("it is ours");
    let said = site.assert_refused(&["--from", "bad.tar.gz", "--sha256", &"0".repeat(64)]);
    assert!(said.contains("SHA-256"), "{said}");
}
