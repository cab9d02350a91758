//! Where a release is cut from: a folder, an archive, a git reference.

use std::fmt;
use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How a git source begins.
const GIT: &str = "git:";

/// Endings of archives.
const ARCHIVES: [&str; 5] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"];

/// A text that names no source.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SourceError {
    /// Nothing is named.
    #[error("it is empty")]
    Empty,
    /// No repository is named.
    #[error("it names no repository: git:REPOSITORY[#REFERENCE]")]
    NoRepository,
    /// git would take it for an option.
    #[error("a repository or reference that begins with '-' would be an option to git")]
    Option,
    /// It could not be passed on.
    #[error("it holds a control character")]
    Control,
}

/// Where a release is cut from. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// A folder, as it is.
    Folder(Utf8PathBuf),
    /// A tar archive; how it is compressed is told by its first bytes.
    Archive(Utf8PathBuf),
    /// What a git repository holds.
    Git {
        /// A path or a URL.
        repository: String,
        /// A branch, a tag or a commit; what the repository calls HEAD without one.
        reference: Option<String>,
    },
}

impl Source {
    /// Reads a source, relative paths being taken from `folder`.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn parse_in(text: &str, folder: &Utf8Path) -> Result<Self, SourceError> {
        if text.trim().is_empty() {
            return Err(SourceError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(SourceError::Control);
        }
        let Some(git) = text.strip_prefix(GIT) else {
            let path: Utf8PathBuf = folder.join(text).components().collect();
            let archive = ARCHIVES.iter().any(|ending| path.as_str().ends_with(ending));
            return Ok(if archive { Self::Archive(path) } else { Self::Folder(path) });
        };
        let (repository, reference) = match git.rsplit_once('#') {
            Some((repository, reference)) => (repository, Some(reference).filter(|name| !name.is_empty())),
            None => (git, None),
        };
        if repository.is_empty() {
            return Err(SourceError::NoRepository);
        }
        if repository.starts_with('-') || reference.is_some_and(|reference| reference.starts_with('-')) {
            return Err(SourceError::Option);
        }
        // What has no colon is a path: URLs have one, and so has HOST:PATH.
        let repository = if repository.contains(':') { repository.to_owned() } else { folder.join(repository).into() };
        Ok(Self::Git { repository, reference: reference.map(str::to_owned) })
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        Self::parse_in(text, Utf8Path::new("/"))
    }
}

impl TryFrom<String> for Source {
    type Error = SourceError;

    fn try_from(text: String) -> Result<Self, SourceError> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) | Self::Archive(path) => f.write_str(path.as_str()),
            Self::Git { repository, reference: None } => write!(f, "{GIT}{repository}"),
            Self::Git { repository, reference: Some(reference) } => write!(f, "{GIT}{repository}#{reference}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Source, SourceError> {
        Source::parse_in(text, Utf8Path::new("/srv/x"))
    }

    #[test]
    fn folders_archives_and_repositories_are_told_apart_and_read_back_as_written() {
        let git = |repository: &str, reference: Option<&str>| Source::Git {
            repository: repository.to_owned(),
            reference: reference.map(str::to_owned),
        };
        for (text, expected) in [
            ("skills/a", Source::Folder("/srv/x/skills/a".into())),
            ("./", Source::Folder("/srv/x".into())),
            ("/a/b.tar.zst", Source::Archive("/a/b.tar.zst".into())),
            ("b.tgz", Source::Archive("/srv/x/b.tgz".into())),
            ("git:repo", git("/srv/x/repo", None)),
            ("git:/r#v1", git("/r", Some("v1"))),
            ("git:https://h/r.git#main", git("https://h/r.git", Some("main"))),
            ("git:me@h:r.git#", git("me@h:r.git", None)),
        ] {
            let source = read(text).expect(text);
            assert_eq!(source, expected);
            assert_eq!(source.to_string().parse(), Ok(source));
        }
    }

    #[test]
    fn what_git_would_take_for_an_option_is_refused() {
        assert_eq!(read("git:--upload-pack=x"), Err(SourceError::Option));
        assert_eq!(read("git:/r#--x"), Err(SourceError::Option));
        assert_eq!(read("git:#x"), Err(SourceError::NoRepository));
        assert_eq!(read(" "), Err(SourceError::Empty));
        assert_eq!(read("a\nb"), Err(SourceError::Control));
    }
}
