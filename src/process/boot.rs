//! Which boot this is: processes, and moments since boot, mean nothing in another one.
//!
//! Two things make a boot: the kernel's boot id, and the first process of our process namespace. A container that is
//! started again has its host's boot id still, or one that a sandbox of systemd's hides; but with its first process every
//! other of its namespace was killed by the kernel.

use std::fs;
use std::io;

use agentd_core::id::Pid;

use super::stat::Stat;

/// The kernel's name for this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The first process of a namespace.
const FIRST: Pid = Pid(1);

/// One boot, as it is written down: the boot id and, where it may be seen, the first process's start in ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot(String);

impl Boot {
    /// This one.
    ///
    /// # Errors
    /// The boot id cannot be read.
    pub fn current() -> io::Result<Self> {
        let id = fs::read_to_string(BOOT_ID)?;
        let first = Stat::of(FIRST).map(|first| first.started.0);
        Ok(Self(first.map_or_else(|| id.trim().to_owned(), |started| format!("{} {started}", id.trim()))))
    }

    /// How it is written down.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether what was written down is this boot. Where one of the two could not see the first process, or was written
    /// before it counted, the boot id alone decides.
    #[must_use]
    pub fn is(&self, written: &str) -> bool {
        let (id, first) = parts(&self.0);
        let (written_id, written_first) = parts(written);
        id == written_id && (first.is_none() || written_first.is_none() || first == written_first)
    }
}

fn parts(text: &str) -> (&str, Option<&str>) {
    text.split_once(' ').map_or((text, None), |(id, first)| (id, Some(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_boot_is_itself_and_begins_with_what_the_kernel_calls_it() {
        let boot = Boot::current().unwrap();
        assert_eq!(boot, Boot::current().unwrap());
        assert!(boot.is(boot.as_str()));
        assert!(boot.as_str().starts_with(fs::read_to_string(BOOT_ID).unwrap().trim()));
    }

    #[test]
    fn another_boot_id_or_another_first_process_is_another_boot() {
        let boot = Boot("40f0 17".to_owned());
        for (written, same) in [("40f0 17", true), ("40f0", true), ("40f0 18", false), ("dead 17", false), ("", false)]
        {
            assert_eq!(boot.is(written), same, "{written:?}");
        }
        assert!(Boot("40f0".to_owned()).is("40f0 17"));
    }
}
