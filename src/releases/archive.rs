//! Taking in an archive: tar, plain or compressed by gzip or zstd, from anybody.
//!
//! Nothing of it is believed. Names are checked before anything is made (`tree`), bytes and things are counted while
//! they come (`budget`), and links are made last, when all of them are known to stay inside, so nothing is ever written
//! through one. Devices, pipes and setuid bits are refused.
//!
//! Many archives hold one folder with everything in it; then that folder is the release.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write as _};

use camino::{Utf8Path, Utf8PathBuf};
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

use super::budget::{Budget, check_room};
use super::error::{CutError, Refusal};
use super::folder::{OURS, create, make_folders, make_links, pour};
use super::tree::{Node, Tree, inner_path};

/// How gzip begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How zstd begins.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Largest window that is granted to a zstd archive, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Bits that make a program run as somebody else.
const SETUID: u32 = 0o6000;
const EXECUTABLE: u32 = 0o111;

/// What an archive held.
#[derive(Debug)]
pub struct Unpacked {
    /// All of it.
    pub tree: Tree,
    /// The folder that it was unpacked to, or the one in it that holds everything.
    pub root: Utf8PathBuf,
}

/// Unpacks the archive at `path` into the folder `to`, which is there and empty, once it is known to hash to `sha256`.
///
/// # Errors
/// What is wrong with it; what was unpacked until then stays for the caller to remove.
pub fn unpack(path: &Utf8Path, sha256: Option<&str>, to: &Utf8Path, budget: &Budget) -> Result<Unpacked, CutError> {
    let opened = |source| CutError::Open { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(opened)?;
    let metadata = file.metadata().map_err(opened)?;
    if !metadata.is_file() {
        return Err(CutError::Kind { path: path.to_owned(), wanted: "a file" });
    }
    if let Some(wanted) = sha256 {
        check_hash(&mut file, path, wanted)?;
    }
    // No more is known of its size before it is unpacked.
    check_room(to, metadata.len())?;
    let broken = |source| CutError::Archive { path: path.to_owned(), source };
    let stream = decompressed(file).map_err(broken)?.take(budget.readable());
    let mut unpacking = Unpacking { path, to, budget, tree: Tree::default(), buffer: vec![0; CHUNK] };
    let mut archive = Archive::new(stream);
    for entry in archive.entries().map_err(broken)? {
        unpacking.take(entry.map_err(broken)?)?;
    }
    unpacking.finish()
}

fn check_hash(file: &mut File, path: &Utf8Path, wanted: &str) -> Result<(), CutError> {
    let read = |source| CutError::Archive { path: path.to_owned(), source };
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            length => hasher.update(&buffer[..length]),
        }
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if !found.eq_ignore_ascii_case(wanted) {
        return Err(CutError::Checksum { path: path.to_owned(), found, wanted: wanted.to_owned() });
    }
    file.rewind().map_err(read)
}

/// The tar stream in a file, however it is compressed.
fn decompressed(mut file: File) -> io::Result<Box<dyn Read>> {
    let mut magic = Vec::with_capacity(ZSTD.len());
    (&mut file).take(ZSTD.len() as u64).read_to_end(&mut magic)?;
    file.rewind()?;
    let file = BufReader::with_capacity(CHUNK, file);
    if magic.starts_with(&GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(file)));
    }
    if magic.starts_with(&ZSTD) {
        let mut decoder = zstd::Decoder::with_buffer(file)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(file))
}

struct Unpacking<'a> {
    path: &'a Utf8Path,
    to: &'a Utf8Path,
    budget: &'a Budget,
    tree: Tree,
    buffer: Vec<u8>,
}

impl Unpacking<'_> {
    fn take<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), CutError> {
        let broken = |source| CutError::Archive { path: self.path.to_owned(), source };
        let raw = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&raw).into_owned();
        let refused = |refusal| CutError::Refused { path: shown.clone(), refusal };
        self.budget.entry()?;
        let kind = entry.header().entry_type();
        // Says something of all entries, and is none itself.
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let name = std::str::from_utf8(&raw).map_err(|_| refused(Refusal::NotUtf8))?;
        let Some(path) = inner_path(name).map_err(refused)? else { return Ok(()) };
        let mode = entry.header().mode().map_err(broken)?;
        match kind {
            EntryType::Directory => self.tree.add(&path, Node::Folder).map_err(refused),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                if mode & SETUID != 0 {
                    return Err(refused(Refusal::Setuid));
                }
                // In its place before anything is written: what is there twice is never written twice.
                self.make_room_for(&path).map_err(refused)?;
                self.write(&path, mode & EXECUTABLE != 0, &mut entry)
            }
            EntryType::Symlink => {
                let target = link_name(&entry).map_err(refused)?;
                self.tree.add(&path, Node::Link { target }).map_err(refused)
            }
            EntryType::Link => {
                let target = link_name(&entry).map_err(refused)?;
                let of = inner_path(&target).map_err(refused)?.unwrap_or_default();
                let Some(Node::File { executable, .. }) = self.tree.get(&of) else {
                    return Err(refused(Refusal::HardLink { target }));
                };
                let executable = *executable;
                self.make_room_for(&path).map_err(refused)?;
                let same = self.to.join(of);
                let file = File::open(&same).map_err(|source| CutError::Read { path: same, source })?;
                self.write(&path, executable, file)
            }
            EntryType::Char | EntryType::Block => Err(refused(Refusal::Kind("a device"))),
            EntryType::Fifo => Err(refused(Refusal::Kind("a pipe"))),
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XGlobalHeader | EntryType::XHeader => {
                Err(refused(Refusal::Kind("a header that belongs to no entry")))
            }
            // The crate's list of types is not ours to finish.
            _ => Err(refused(Refusal::Kind("of a type that only some archivers know"))),
        }
    }

    /// That a file may come to `path`, and that its folders are there.
    fn make_room_for(&mut self, path: &Utf8Path) -> Result<(), Refusal> {
        if self.tree.get(path).is_some() {
            return Err(Refusal::Twice);
        }
        match path.parent().filter(|parent| !parent.as_str().is_empty()) {
            Some(parent) => match self.tree.get(parent) {
                Some(Node::File { .. } | Node::Link { .. }) => Err(Refusal::BelowNoFolder),
                Some(Node::Folder) | None => self.tree.add(parent, Node::Folder),
            },
            None => Ok(()),
        }
    }

    fn write(&mut self, path: &Utf8Path, executable: bool, from: impl Read) -> Result<(), CutError> {
        let to = self.to.join(path);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(|source| CutError::Write { path: parent.to_owned(), source })?;
        }
        let mut file = create(&to, executable)?;
        let (bytes, content) = pour(from, self.path, Some((&mut file, &to)), self.budget, &mut self.buffer)?;
        file.flush().map_err(|source| CutError::Write { path: to, source })?;
        let node = Node::File { executable, bytes, content };
        self.tree.add(path, node).map_err(|refusal| CutError::Refused { path: path.to_string(), refusal })
    }

    fn finish(self) -> Result<Unpacked, CutError> {
        let (tree, root) = match self.tree.only_folder() {
            Some(folder) => (self.tree.below(folder), self.to.join(folder)),
            None => (self.tree, self.to.to_owned()),
        };
        if tree.is_empty() {
            return Err(CutError::Empty { from: self.path.to_string() });
        }
        let refused = |path: &Utf8Path, refusal| CutError::Refused { path: path.to_string(), refusal };
        if tree.get(Utf8Path::new(OURS)).is_some() {
            return Err(refused(Utf8Path::new(OURS), Refusal::Ours));
        }
        tree.check_links().map_err(|(path, refusal)| refused(&path, refusal))?;
        make_folders(&tree, &root)?;
        make_links(&tree, &root)?;
        Ok(Unpacked { tree, root })
    }
}

fn link_name<R: Read>(entry: &Entry<'_, R>) -> Result<String, Refusal> {
    let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
    String::from_utf8(target).map_err(|_| Refusal::NotUtf8)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
