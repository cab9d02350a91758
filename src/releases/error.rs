//! Why no release could be cut. Every one of these leaves nothing behind.

use std::io;

use camino::Utf8PathBuf;
use thiserror::Error;

/// What is wrong with one thing in a source.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Its name begins at the root.
    #[error("its path is absolute")]
    Absolute,
    /// Its name leads to the folder above.
    #[error("its path leads out by \"..\"")]
    LeadsOut,
    /// Its name is longer or deeper than any sound one.
    #[error("its path is too long or too deep")]
    TooDeep,
    /// Its name would disturb a terminal.
    #[error("its name holds a control character")]
    Control,
    /// Its name is no text.
    #[error("its name is not UTF-8")]
    NotUtf8,
    /// It was there already.
    #[error("it is there twice")]
    Twice,
    /// A file or a link is where its folder should be.
    #[error("it lies below something that is no folder")]
    BelowNoFolder,
    /// A link that leads out.
    #[error("it is a link that leaves the source: {target}")]
    Leaves {
        /// Where to.
        target: String,
    },
    /// A link that leads to itself.
    #[error("it is a link that leads in a circle: {target}")]
    Circle {
        /// Where to.
        target: String,
    },
    /// A hard link to nothing.
    #[error("it is a hard link to {target:?}, which does not come before it")]
    HardLink {
        /// To what.
        target: String,
    },
    /// Neither file nor folder nor link.
    #[error("it is {0}")]
    Kind(&'static str),
    /// It would run as its owner.
    #[error("it has the setuid or setgid bit")]
    Setuid,
    /// It changed its kind between two looks.
    #[error("it became something else while it was read")]
    Replaced,
    /// A name that is ours.
    #[error("\".agentd\" is where agentd keeps what it knows of a release")]
    Ours,
}

/// Why no release could be cut.
#[derive(Debug, Error)]
pub enum CutError {
    /// What to do could not be read.
    #[error("read what to cut")]
    Order(#[source] serde_json::Error),
    /// Standard input failed.
    #[error("hear what to cut")]
    Hear(#[source] io::Error),
    /// The source is not there, or is something else.
    #[error("open {path}")]
    Open {
        /// What.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The source is of the wrong kind.
    #[error("cut from {path}: it is not {wanted}")]
    Kind {
        /// What.
        path: Utf8PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// Something of the source could not be read.
    #[error("read {path}")]
    Read {
        /// What.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something of the release could not be written.
    #[error("write {path}")]
    Write {
        /// What.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The source holds something that no release may hold.
    #[error("take {path:?}: {refusal}")]
    Refused {
        /// What.
        path: String,
        /// Why.
        refusal: Refusal,
    },
    /// The archive is damaged, or none.
    #[error("read the archive {path}")]
    Archive {
        /// Which.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive is not the one that was asked for.
    #[error("take the archive {path}: its SHA-256 is {found}, not {wanted}")]
    Checksum {
        /// Which.
        path: Utf8PathBuf,
        /// What it hashes to.
        found: String,
        /// What it should hash to.
        wanted: String,
    },
    /// There are too many bytes in it.
    #[error("take more than {max} bytes: the source is larger than `releases.max_size`")]
    TooLarge {
        /// How many there may be.
        max: u64,
    },
    /// There are too many things in it.
    #[error("take more than {max} files and folders: the source has more than `releases.max_files`")]
    TooMany {
        /// How many there may be.
        max: u64,
    },
    /// There is nothing in it.
    #[error("cut from {from}: it holds nothing")]
    Empty {
        /// From what.
        from: String,
    },
    /// The disk would be full.
    #[error("make room for {needed} bytes in {path}: {free} are free, and {reserve} of them are left to others")]
    NoRoom {
        /// Where.
        path: Utf8PathBuf,
        /// How much it takes.
        needed: u64,
        /// How much there is.
        free: u64,
        /// How much must stay.
        reserve: u64,
    },
    /// git did not do its part.
    #[error("{step} by git: {why}")]
    Git {
        /// Its part.
        step: &'static str,
        /// What came of it.
        why: String,
    },
    /// The manifest has mistakes.
    #[error("read {file}:\n{text}")]
    Manifest {
        /// Which.
        file: &'static str,
        /// All of them.
        text: String,
    },
    /// The manifest is another app's.
    #[error("cut a release of {app}: its {file} is that of {name:?}")]
    Another {
        /// Whose release was wanted.
        app: String,
        /// Which manifest.
        file: &'static str,
        /// Whose it is.
        name: String,
    },
    /// The build did not succeed.
    #[error("build it: {program} {why}")]
    Build {
        /// What was run.
        program: String,
        /// How it ended.
        why: String,
    },
    /// A program could not be run.
    #[error("run {program}")]
    Run {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// What was written could not be brought to the disk.
    #[error("bring {path} to the disk")]
    Sync {
        /// What.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Whoever asked for it is gone.
    #[error("go on: nobody waits for it any more")]
    Abandoned,
}

impl CutError {
    /// What to do about it, where that is known.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Refused { refusal: Refusal::Leaves { .. } | Refusal::Circle { .. }, .. } => {
                Some("leave it out by a line in .agentdignore, or make it in `build`, which may link to anything")
            }
            Self::Refused { refusal: Refusal::Kind(_) | Refusal::Setuid, .. } => {
                Some("leave it out by a line in .agentdignore")
            }
            Self::TooLarge { .. } | Self::TooMany { .. } => {
                Some("leave out what is not needed by .agentdignore, or raise it in the configuration")
            }
            Self::NoRoom { .. } => {
                Some("`agentctl releases NAME` tells how much the others take; `releases.keep` how many stay")
            }
            Self::Open { .. }
            | Self::Kind { .. }
            | Self::Order(_)
            | Self::Hear(_)
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Refused { .. }
            | Self::Archive { .. }
            | Self::Checksum { .. }
            | Self::Empty { .. }
            | Self::Git { .. }
            | Self::Manifest { .. }
            | Self::Another { .. }
            | Self::Build { .. }
            | Self::Run { .. }
            | Self::Sync { .. }
            | Self::Abandoned => None,
        }
    }
}
