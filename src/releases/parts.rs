//! Which files belong to which part of an app: the patterns of `changes`.

use std::collections::BTreeSet;

use agentd_core::release::advice::Part;
use camino::Utf8PathBuf;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The patterns, ready to be asked.
#[derive(Debug)]
pub(super) struct Parts(Vec<(Part, Gitignore)>);

impl Parts {
    /// Of these patterns. One that is none names no file; the configuration refuses those.
    #[must_use]
    pub(super) fn new(patterns: &[(Part, Vec<String>)]) -> Self {
        let matcher = |patterns: &Vec<String>| {
            let mut builder = GitignoreBuilder::new("/");
            for pattern in patterns {
                let _ = builder.add_line(None, pattern);
            }
            builder.build().unwrap_or_else(|_| Gitignore::empty())
        };
        Self(patterns.iter().map(|(part, patterns)| (*part, matcher(patterns))).collect())
    }

    /// The parts that these files belong to; what no pattern names is code.
    pub(super) fn of<'p>(&self, paths: impl Iterator<Item = &'p Utf8PathBuf>) -> BTreeSet<Part> {
        let mut parts = BTreeSet::new();
        for path in paths {
            let named = self
                .0
                .iter()
                .filter(|(_, matcher)| matcher.matched_path_or_any_parents(path.as_std_path(), false).is_ignore());
            let before = parts.len();
            let named: Vec<Part> = named.map(|(part, _)| *part).collect();
            parts.extend(named.iter().copied());
            if named.is_empty() && before == parts.len() {
                parts.insert(Part::Code);
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_the_parts_that_name_them_and_else_to_the_code() {
        let parts = Parts::new(&[
            (Part::Prompt, vec!["prompts/**".to_owned(), "*.prompt".to_owned(), "MODEL".to_owned()]),
            (Part::Knowledge, vec!["knowledge/**".to_owned()]),
        ]);
        let of = |paths: &[&str]| -> Vec<Part> {
            let paths: Vec<Utf8PathBuf> = paths.iter().map(Utf8PathBuf::from).collect();
            parts.of(paths.iter()).into_iter().collect()
        };
        assert_eq!(of(&["prompts/a/b.txt"]), [Part::Prompt]);
        assert_eq!(of(&["x/y.prompt", "knowledge/1.md"]), [Part::Knowledge, Part::Prompt]);
        assert_eq!(of(&["knowledge/1.md", "main.py"]), [Part::Knowledge, Part::Code]);
        assert_eq!(of(&[]), []);
    }
}
