//! Which file a command means, and why the kernel did not take it.
//!
//! Owns the search through `PATH` as `execvp` does it, with reasons instead of a bare error number. Changes nothing.

use std::fs::File;
use std::io::Read;

use camino::{Utf8Path, Utf8PathBuf};
use nix::errno::Errno as Words;
use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use super::plan::{Stage, StageFailure};

/// Where commands are looked for when the plan sets no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As much of a file as the kernel itself looks at for a `#!` line.
const SHEBANG_MAX: u64 = 256;

/// The file that `command` means, given the value of `PATH`. Relative results are relative to the working directory.
///
/// # Errors
/// A [`Stage::FindingProgram`] failure: no such file, or the first one found cannot be executed.
pub(super) fn find(command: &str, path: Option<&str>) -> Result<Utf8PathBuf, StageFailure> {
    let failed = |errno, detail| StageFailure::explained(Stage::FindingProgram(command.to_owned()), errno, detail);
    if command.is_empty() {
        return Err(failed(None, "the command is empty".to_owned()));
    }
    if command.contains('/') {
        let file = Utf8PathBuf::from(command);
        return match executable(&file) {
            Ok(()) => Ok(file),
            Err(errno) => Err(failed(Some(errno), refusal(&file, errno))),
        };
    }
    let path = path.unwrap_or(DEFAULT_PATH);
    let mut unusable = None;
    for folder in path.split(':') {
        // An empty entry is the working directory, as POSIX has it.
        let file = Utf8Path::new(if folder.is_empty() { "." } else { folder }).join(command);
        match executable(&file) {
            Ok(()) => return Ok(file),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => {
                unusable.get_or_insert((file, errno));
            }
        }
    }
    Err(match unusable {
        Some((file, errno)) => failed(Some(errno), refusal(&file, errno)),
        None => failed(Some(Errno::NOENT), format!("no such command in PATH ({})", shortened(path))),
    })
}

/// Whether the kernel would let us execute `file`.
fn executable(file: &Utf8Path) -> Result<(), Errno> {
    let found = stat(file.as_str())?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => Err(Errno::ISDIR),
        FileType::RegularFile => accessat(CWD, file.as_str(), Access::EXEC_OK, AtFlags::EACCESS),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::ACCESS),
    }
}

fn refusal(file: &Utf8Path, errno: Errno) -> String {
    if errno == Errno::NOENT {
        format!("{file} does not exist")
    } else if errno == Errno::ISDIR {
        format!("{file} is a directory")
    } else if errno == Errno::ACCESS && stat(file.as_str()).is_ok() {
        format!("{file} is not executable")
    } else {
        format!("{file}: {}", Words::from_raw(errno.raw_os_error()).desc())
    }
}

/// Why `execve` of an existing `file` failed: the kernel's `ENOENT` means the interpreter, not the file.
pub(super) fn exec_failure(file: &Utf8Path, errno: Errno) -> StageFailure {
    let head = read_head(file);
    let interpreter = interpreter(&head);
    let detail = match (errno, interpreter) {
        (Errno::NOENT, Some(program)) if program.ends_with('\r') => format!(
            "its interpreter {:?} does not exist: its first line ends in a carriage return (Windows line ends)",
            program
        ),
        (Errno::NOENT, Some(program)) => format!("its interpreter {program} (first line of the file) does not exist"),
        (Errno::NOENT, None) if head.starts_with(b"\x7fELF") => {
            "the loader that it names does not exist: it was built for another C library or machine".to_owned()
        }
        (Errno::ACCESS, Some(program)) => format!("its interpreter {program} (first line of the file) cannot be run"),
        (Errno::NOEXEC, _) if head.starts_with(b"\x7fELF") => "it was built for another kind of machine".to_owned(),
        (Errno::NOEXEC, _) => "it is neither a program nor a script with a #! line".to_owned(),
        (Errno::TOOBIG, _) => "its arguments and environment are too long for the kernel".to_owned(),
        (other, _) => Words::from_raw(other.raw_os_error()).desc().to_owned(),
    };
    StageFailure::explained(Stage::Executing(file.to_owned()), Some(errno), detail)
}

fn read_head(file: &Utf8Path) -> Vec<u8> {
    let mut head = Vec::new();
    // A file that may be executed but not read stays unexplained.
    if let Ok(file) = File::open(file) {
        drop(file.take(SHEBANG_MAX).read_to_end(&mut head));
    }
    head
}

/// The program that a script's `#!` line names, with the carriage return that may wrongly be part of it.
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let program = line.trim_start_matches([' ', '\t']).split([' ', '\t']).next()?;
    (!program.is_empty()).then(|| program.to_owned())
}

/// A search path as it fits a sentence: its first folders, each once.
fn shortened(path: &str) -> String {
    const SHOWN: usize = 48;
    let mut folders: Vec<&str> = Vec::new();
    for folder in path.split(':') {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    let all = folders.len();
    let mut left = SHOWN;
    // The first is shown however long it is.
    let fit = folders.iter().skip(1).take_while(|folder| {
        let fits = folder.len() < left;
        left = left.saturating_sub(folder.len() + 1);
        fits
    });
    let shown = 1 + fit.count();
    folders.truncate(shown);
    let more = all.saturating_sub(shown);
    let shown = folders.join(":");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    fn file(path: &Utf8Path, mode: u32) {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_command_is_the_first_executable_file_of_that_name_in_path() {
        let (_keep, dir) = folder();
        for sub in ["a", "b", "c"] {
            fs::create_dir(dir.join(sub)).unwrap();
        }
        file(&dir.join("a/tool"), 0o644);
        file(&dir.join("b/tool"), 0o755);
        file(&dir.join("c/tool"), 0o755);
        let path = format!("{dir}/none:{dir}/a:{dir}/b:{dir}/c");
        assert_eq!(find("tool", Some(&path)).unwrap(), dir.join("b/tool"));
    }

    #[test]
    fn a_command_that_is_there_but_cannot_be_run_is_told_from_one_that_is_missing() {
        let (_keep, dir) = folder();
        file(&dir.join("tool"), 0o644);
        fs::create_dir(dir.join("sub")).unwrap();
        let words = |command: &str| find(command, Some(dir.as_str())).unwrap_err().to_string();
        assert_eq!(words("tool"), format!("finding the program tool: {dir}/tool is not executable"));
        assert_eq!(words("nope"), format!("finding the program nope: no such command in PATH ({dir})"));
        assert_eq!(words("sub"), format!("finding the program sub: {dir}/sub is a directory"));
        assert_eq!(words(""), "finding the program : the command is empty");
        let missing = dir.join("x/y");
        assert!(words(missing.as_str()).ends_with("does not exist"));
    }

    #[test]
    fn an_interpreter_is_read_from_the_first_line_alone() {
        assert_eq!(interpreter(b"#!/bin/sh -e\nrm"), Some("/bin/sh".to_owned()));
        assert_eq!(interpreter(b"#! \t/usr/bin/env python3\n"), Some("/usr/bin/env".to_owned()));
        assert_eq!(interpreter(b"#!/bin/sh\r\n"), Some("/bin/sh\r".to_owned()));
        assert_eq!(interpreter(b"#!\n/bin/sh"), None);
        assert_eq!(interpreter(b"\x7fELF"), None);
    }
}
