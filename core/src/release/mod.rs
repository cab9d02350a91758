//! Releases: what one is called, which are kept, and by which road a change should go.
//!
//! Owns the names ([`Version`], [`ReleaseId`]) and two judgements: [`retention`] says which releases nobody needs any
//! more, [`advice`] which strategy a change asks for. Pure; cutting, installing and removing are the shell's.

pub mod advice;
pub mod retention;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of a hash that are part of a release's name.
const HASH_SHOWN: usize = 4;

/// Longest version, in bytes.
const VERSION_MAX: usize = 64;

/// A text that is no version or no release.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// A version is part of a folder's name.
    #[error("a version is a letter or digit, then up to {max} of a-z, A-Z, 0-9, '.', '-', '_' and '+'", max = VERSION_MAX - 1)]
    Version,
    /// A release is a version and a hash.
    #[error("a release is called VERSION+HASH, such as 1.4.0+ab12cd34")]
    Release,
}

/// The version of an agent or a skill, as its author wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

/// How far two versions are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leap {
    /// The first number differs, or they cannot be compared.
    Major,
    /// It does not.
    Minor,
}

impl Version {
    /// What stands for the version of something that has none.
    #[must_use]
    pub fn none() -> Self {
        Self("0.0.0".to_owned())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How far it is to another, by the first number of each (<https://semver.org>: the major version).
    #[must_use]
    pub fn leap(&self, other: &Self) -> Leap {
        let major = |version: &Self| {
            let text = version.0.trim_start_matches('v');
            text.split(['.', '-', '+']).next().and_then(|number| number.parse::<u64>().ok())
        };
        match (major(self), major(other)) {
            (Some(one), Some(two)) if one == two => Leap::Minor,
            (Some(_), Some(_)) | (None, _) | (_, None) if self == other => Leap::Minor,
            (Some(_), Some(_)) | (None, _) | (_, None) => Leap::Major,
        }
    }
}

impl FromStr for Version {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
        let sound = text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.len() <= VERSION_MAX
            && text.bytes().all(allowed);
        if sound { Ok(Self(text.to_owned())) } else { Err(NameError::Version) }
    }
}

impl TryFrom<String> for Version {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One release of an app: its version and the beginning of the hash of what it was cut from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseId(String);

impl ReleaseId {
    /// The name of what has this version and hashes to this.
    #[must_use]
    pub fn new(version: &Version, hash: &[u8; 32]) -> Self {
        let hash: String = hash[..HASH_SHOWN].iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("{version}+{hash}"))
    }

    /// As text; it can be the name of a folder.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The version in it.
    #[must_use]
    pub fn version(&self) -> Version {
        let version = self.0.rsplit_once('+').map_or(self.0.as_str(), |(version, _)| version);
        Version(version.to_owned())
    }
}

impl FromStr for ReleaseId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (version, hash) = text.rsplit_once('+').ok_or(NameError::Release)?;
        version.parse::<Version>().map_err(|_| NameError::Release)?;
        let sound =
            hash.len() == 2 * HASH_SHOWN && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if sound { Ok(Self(text.to_owned())) } else { Err(NameError::Release) }
    }
}

impl TryFrom<String> for ReleaseId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> Self {
        id.0
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_called_by_its_version_and_the_beginning_of_its_hash() {
        let version: Version = "1.4.0".parse().expect("a version");
        let id = ReleaseId::new(&version, &[0xab; 32]);
        assert_eq!(id.as_str(), "1.4.0+abababab");
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_eq!(id.version(), version);
    }

    #[test]
    fn what_could_lead_out_of_a_folder_is_no_version_and_no_release() {
        for text in ["", ".", "..", "../1", "1/2", "-1", "1 2", "1\n", "ü", &"1".repeat(65)] {
            assert_eq!(text.parse::<Version>(), Err(NameError::Version), "{text:?}");
        }
        for text in ["1.0", "1.0+", "1.0+abc", "1.0+ABCDEF01", "../x+abababab", "+abababab"] {
            assert_eq!(text.parse::<ReleaseId>(), Err(NameError::Release), "{text:?}");
        }
    }

    #[test]
    fn another_first_number_is_a_major_leap() {
        let leap =
            |one: &str, two: &str| one.parse::<Version>().expect("a version").leap(&two.parse().expect("a version"));
        assert_eq!(leap("1.2.3", "1.9.0"), Leap::Minor);
        assert_eq!(leap("1.2.3", "2.0.0"), Leap::Major);
        assert_eq!(leap("v1", "1.5"), Leap::Minor);
        assert_eq!(leap("spring", "summer"), Leap::Major);
        assert_eq!(leap("spring", "spring"), Leap::Minor);
    }
}
