//! Taking in a folder: a copy beside it, hashed while it is written, so that what is named is what was copied even
//! when somebody writes in the source meanwhile.
//!
//! `.git` is left out, and what `.agentdignore` files name (the syntax of .gitignore). `.gitignore` is not heeded: what
//! git ignores is what a program needs to run, mostly.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::sync::atomic::{AtomicUsize, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use ignore::WalkBuilder;
use nix::libc;
use sha2::{Digest, Sha256};

use super::budget::{Budget, check_room};
use super::error::{CutError, Refusal};
use super::tree::{ContentHash, Node, Tree, inner_path};

/// The file that names what is left out.
pub const IGNORE: &str = ".agentdignore";
/// The folder in which agentd keeps what it knows of a release.
pub const OURS: &str = ".agentd";
/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Threads that copy; the machine has work of its own.
const THREADS_MAX: usize = 4;
/// Bits that make a program run as somebody else.
const SETUID: u32 = 0o6000;
const EXECUTABLE: u32 = 0o111;

/// What is done with the files of a source.
#[derive(Clone, Copy, Debug)]
pub enum Into<'p> {
    /// They are copied to this folder, which is there and empty.
    Folder(&'p Utf8Path),
    /// They are only looked at.
    Nothing,
}

/// A file that is to be taken in.
struct Wanted {
    path: Utf8PathBuf,
    bytes: u64,
    executable: bool,
}

/// Takes in the folder `from`.
///
/// # Errors
/// What is in the way; what was copied until then stays for the caller to remove.
pub fn take(from: &Utf8Path, into: Into<'_>, budget: &Budget) -> Result<Tree, CutError> {
    let metadata = fs::metadata(from).map_err(|source| CutError::Open { path: from.to_owned(), source })?;
    if !metadata.is_dir() {
        return Err(CutError::Kind { path: from.to_owned(), wanted: "a folder" });
    }
    let (mut tree, files) = walk(from, budget)?;
    if let Into::Folder(to) = into {
        check_room(to, files.iter().map(|file| file.bytes).sum())?;
        make_folders(&tree, to)?;
    }
    for (file, (bytes, content)) in copy_all(from, into, &files, budget)? {
        let node = Node::File { executable: file.executable, bytes, content };
        tree.add(&file.path, node).map_err(|refusal| refused(&file.path, refusal))?;
    }
    tree.check_links().map_err(|(path, refusal)| refused(&path, refusal))?;
    if let Into::Folder(to) = into {
        make_links(&tree, to)?;
    }
    Ok(tree)
}

fn refused(path: &Utf8Path, refusal: Refusal) -> CutError {
    CutError::Refused { path: path.to_string(), refusal }
}

/// Folders and links of a source, and the files that are to be read.
fn walk(from: &Utf8Path, budget: &Budget) -> Result<(Tree, Vec<Wanted>), CutError> {
    let (mut tree, mut files) = (Tree::default(), Vec::new());
    let walk = WalkBuilder::new(from)
        .standard_filters(false)
        .add_custom_ignore_filename(IGNORE)
        .follow_links(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build();
    for entry in walk {
        let entry = entry.map_err(|error| CutError::Read {
            path: from.to_owned(),
            source: error.into_io_error().unwrap_or_else(|| io::Error::other("it cannot be walked")),
        })?;
        let Ok(inside) = entry.path().strip_prefix(from) else { continue };
        let not_utf8 = || CutError::Refused { path: inside.display().to_string(), refusal: Refusal::NotUtf8 };
        let name = Utf8Path::from_path(inside).ok_or_else(not_utf8)?;
        let Some(path) = inner_path(name.as_str()).map_err(|refusal| refused(name, refusal))? else { continue };
        if path == OURS {
            return Err(refused(&path, Refusal::Ours));
        }
        budget.entry()?;
        let full = from.join(&path);
        let metadata = fs::symlink_metadata(&full).map_err(|source| CutError::Read { path: full.clone(), source })?;
        let kind = metadata.file_type();
        let node = if kind.is_dir() {
            Node::Folder
        } else if kind.is_symlink() {
            let target = full.read_link_utf8().map_err(|source| CutError::Read { path: full, source })?;
            Node::Link { target: target.into_string() }
        } else if kind.is_file() {
            if metadata.mode() & SETUID != 0 {
                return Err(refused(&path, Refusal::Setuid));
            }
            let executable = metadata.mode() & EXECUTABLE != 0;
            files.push(Wanted { path, bytes: metadata.len(), executable });
            continue;
        } else {
            return Err(refused(&path, Refusal::Kind("a device, a pipe or a socket")));
        };
        tree.add(&path, node).map_err(|refusal| refused(&path, refusal))?;
    }
    Ok((tree, files))
}

/// Makes the folders of a tree below `to`.
///
/// # Errors
/// One cannot be made.
pub fn make_folders(tree: &Tree, to: &Utf8Path) -> Result<(), CutError> {
    for (path, _) in tree.iter().filter(|(_, node)| matches!(node, Node::Folder)) {
        let path = to.join(path);
        fs::create_dir_all(&path).map_err(|source| CutError::Write { path, source })?;
    }
    Ok(())
}

/// Makes the links of a tree below `to`: last of all, so that nothing is ever written through one.
///
/// # Errors
/// One cannot be made.
pub fn make_links(tree: &Tree, to: &Utf8Path) -> Result<(), CutError> {
    for (path, node) in tree.iter() {
        let Node::Link { target } = node else { continue };
        let path = to.join(path);
        std::os::unix::fs::symlink(target, &path).map_err(|source| CutError::Write { path, source })?;
    }
    Ok(())
}

type Copied = (u64, ContentHash);

/// Copies and hashes all files on several threads; in their order.
fn copy_all<'f>(
    from: &Utf8Path,
    into: Into<'_>,
    files: &'f [Wanted],
    budget: &Budget,
) -> Result<Vec<(&'f Wanted, Copied)>, CutError> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS_MAX);
    let work = || -> Result<Vec<(usize, Copied)>, CutError> {
        let (mut done, mut buffer) = (Vec::new(), vec![0; CHUNK]);
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(index) else { return Ok(done) };
            match copy(from, into, file, budget, &mut buffer) {
                Ok(copied) => done.push((index, copied)),
                Err(error) => {
                    // The others need not go on.
                    next.store(files.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let results: Vec<Result<Vec<(usize, Copied)>, CutError>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.min(files.len())).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|handle| handle.join().expect("copying does not panic")).collect()
    });
    let mut copied = Vec::with_capacity(files.len());
    for result in results {
        copied.extend(result?);
    }
    copied.sort_by_key(|(index, _)| *index);
    Ok(copied.into_iter().map(|(index, copied)| (&files[index], copied)).collect())
}

fn copy(
    from: &Utf8Path,
    into: Into<'_>,
    file: &Wanted,
    budget: &Budget,
    buffer: &mut [u8],
) -> Result<Copied, CutError> {
    let path = from.join(&file.path);
    let read = |source| CutError::Read { path: path.clone(), source };
    // A name that became a pipe or a link since it was looked at is neither waited for nor followed.
    let source =
        File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path).map_err(read)?;
    if !source.metadata().map_err(read)?.is_file() {
        return Err(refused(&file.path, Refusal::Replaced));
    }
    match into {
        Into::Folder(to) => {
            let to = to.join(&file.path);
            let mut target = create(&to, file.executable)?;
            pour(source, &path, Some((&mut target, &to)), budget, buffer)
        }
        Into::Nothing => pour(source, &path, None, budget, buffer),
    }
}

/// Makes a new file; nothing may be in its place.
pub(super) fn create(path: &Utf8Path, executable: bool) -> Result<File, CutError> {
    let failed = |source| CutError::Write { path: path.to_owned(), source };
    let mode = if executable { 0o755 } else { 0o644 };
    let file = File::options().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    // Whatever the umask of whoever started the daemon.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(file)
}

/// Reads to the end, counting and hashing, and writes what is read.
pub(super) fn pour(
    mut from: impl Read,
    name: &Utf8Path,
    mut to: Option<(&mut File, &Utf8Path)>,
    budget: &Budget,
    buffer: &mut [u8],
) -> Result<Copied, CutError> {
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    loop {
        let length = match from.read(buffer) {
            Ok(0) => return Ok((bytes, hasher.finalize().into())),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(CutError::Read { path: name.to_owned(), source }),
        };
        budget.spend(length as u64)?;
        bytes += length as u64;
        hasher.update(&buffer[..length]);
        if let Some((file, path)) = &mut to {
            let failed = |source| CutError::Write { path: path.to_owned(), source };
            file.write_all(&buffer[..length]).map_err(failed)?;
        }
    }
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
