//! What a release is made of, file by file: what it hashes to, where its links lead, how it differs from another.
//!
//! Pure: whoever reads folders or archives fills a [`Tree`]. The hash is over the paths in their order, what each of
//! them is, whether it may be executed, its content, or where it leads as a link. Times, owners and the other bits of a
//! mode are no part of it: the same sources are the same release wherever and whenever they are cut.

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::Refusal;

/// Deepest path, in folders.
const DEPTH_MAX: usize = 64;
/// Longest path, in bytes.
const PATH_MAX: usize = 1024;
/// Links followed on the way to where one leads; more is a circle.
const HOPS_MAX: usize = 40;
/// The first line of what is hashed.
const FORM: &[u8] = b"agentd release 1\n";

/// The hash of a file's content.
pub type ContentHash = [u8; 32];

/// One thing in a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// A folder.
    Folder,
    /// A regular file.
    File {
        /// Whether it may be executed.
        executable: bool,
        /// Its size.
        bytes: u64,
        /// What it holds.
        content: ContentHash,
    },
    /// A symbolic link.
    Link {
        /// Where it leads, as written.
        target: String,
    },
}

/// Everything in a release, by path; folders that hold nothing included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree(BTreeMap<Utf8PathBuf, Node>);

impl Tree {
    /// All of it, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Utf8Path, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_path(), node))
    }

    /// How many things it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is at a path.
    #[must_use]
    pub fn get(&self, path: &Utf8Path) -> Option<&Node> {
        self.0.get(path)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let size = |node: &Node| if let Node::File { bytes, .. } = node { *bytes } else { 0 };
        self.0.values().map(size).sum()
    }

    /// Adds a thing, and the folders that it lies in.
    ///
    /// # Errors
    /// Something else is in its place or on the way to it. A folder may be named twice.
    pub fn add(&mut self, path: &Utf8Path, node: Node) -> Result<(), Refusal> {
        let mut missing = Vec::new();
        for folder in path.ancestors().skip(1).filter(|folder| !folder.as_str().is_empty()) {
            match self.0.get(folder) {
                None => missing.push(folder.to_owned()),
                Some(Node::Folder) => break,
                Some(Node::File { .. } | Node::Link { .. }) => return Err(Refusal::BelowNoFolder),
            }
        }
        self.0.extend(missing.into_iter().map(|folder| (folder, Node::Folder)));
        match (self.0.get(path), &node) {
            (None, _) => drop(self.0.insert(path.to_owned(), node)),
            (Some(Node::Folder), Node::Folder) => {}
            (Some(Node::Folder | Node::File { .. } | Node::Link { .. }), _) => return Err(Refusal::Twice),
        }
        Ok(())
    }

    /// The one folder that holds everything, as archives often have it; none when there are several things at the top.
    #[must_use]
    pub fn only_folder(&self) -> Option<&Utf8Path> {
        let mut top = self.0.iter().filter(|(path, _)| path.components().count() == 1);
        match (top.next(), top.next()) {
            (Some((path, Node::Folder)), None) => Some(path),
            (_, _) => None,
        }
    }

    /// What is below one of its folders, seen from there.
    #[must_use]
    pub fn below(&self, folder: &Utf8Path) -> Self {
        let inside = |(path, node): (&Utf8PathBuf, &Node)| {
            let rest = path.strip_prefix(folder).ok().filter(|rest| !rest.as_str().is_empty())?;
            Some((rest.to_owned(), node.clone()))
        };
        Self(self.0.iter().filter_map(inside).collect())
    }

    /// What the release hashes to.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        let mut hasher = Sha256::new();
        hasher.update(FORM);
        let text = |hasher: &mut Sha256, text: &str| {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        };
        for (path, node) in &self.0 {
            text(&mut hasher, path.as_str());
            match node {
                Node::Folder => hasher.update(b"d"),
                Node::File { executable, content, bytes: _ } => {
                    hasher.update(if *executable { b"x" } else { b"f" });
                    hasher.update(content);
                }
                Node::Link { target } => {
                    hasher.update(b"l");
                    text(&mut hasher, target);
                }
            }
        }
        hasher.finalize().into()
    }

    /// That every link leads to somewhere within.
    ///
    /// # Errors
    /// The first that does not, and why.
    pub fn check_links(&self) -> Result<(), (Utf8PathBuf, Refusal)> {
        for (path, node) in &self.0 {
            let Node::Link { target } = node else { continue };
            self.follow(path, target).map_err(|refusal| (path.clone(), refusal))?;
        }
        Ok(())
    }

    /// Walks where a link leads as the kernel would, links on the way included: what a text like `a/../b` means depends
    /// on what `a` is.
    fn follow(&self, link: &Utf8Path, target: &str) -> Result<(), Refusal> {
        let leaves = || Refusal::Leaves { target: target.to_owned() };
        let mut at: Vec<String> = link.parent().into_iter().flat_map(Utf8Path::iter).map(str::to_owned).collect();
        let mut left: Vec<String> = words(target).ok_or_else(leaves)?;
        let mut hops = 1;
        while let Some(word) = left.pop() {
            if word == ".." {
                at.pop().ok_or_else(leaves)?;
                continue;
            }
            at.push(word);
            let here: Utf8PathBuf = at.iter().collect();
            if let Some(Node::Link { target: next }) = self.0.get(&here) {
                hops += 1;
                if hops > HOPS_MAX {
                    return Err(Refusal::Circle { target: target.to_owned() });
                }
                at.pop();
                left.extend(words(next).ok_or_else(leaves)?);
            }
        }
        Ok(())
    }

    /// What differs in `new`.
    #[must_use]
    pub fn difference(&self, new: &Self) -> Difference {
        let mut difference = Difference::default();
        let same = |one: &Node, two: &Node| match (one, two) {
            (Node::Folder, Node::Folder) => true,
            (Node::File { executable, content, .. }, Node::File { executable: other, content: its, .. }) => {
                executable == other && content == its
            }
            (Node::Link { target }, Node::Link { target: other }) => target == other,
            (Node::Folder | Node::File { .. } | Node::Link { .. }, _) => false,
        };
        for (path, node) in &new.0 {
            match self.0.get(path) {
                None => drop(difference.added.insert(path.clone())),
                Some(old) if !same(old, node) => drop(difference.changed.insert(path.clone())),
                Some(_) => {}
            }
        }
        difference.removed = self.0.keys().filter(|path| !new.0.contains_key(*path)).cloned().collect();
        // A folder that comes or goes is told by what is in it.
        let is_file = |tree: &Self, path: &Utf8PathBuf| !matches!(tree.0.get(path), Some(Node::Folder));
        difference.added.retain(|path| is_file(new, path));
        difference.removed.retain(|path| is_file(self, path));
        difference
    }
}

/// Paths that differ between two releases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Only in the new one.
    pub added: BTreeSet<Utf8PathBuf>,
    /// In both, and not the same.
    pub changed: BTreeSet<Utf8PathBuf>,
    /// Only in the old one.
    pub removed: BTreeSet<Utf8PathBuf>,
}

impl Difference {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Utf8PathBuf> {
        self.changed.iter().chain(&self.added).chain(&self.removed)
    }
}

/// The parts of a link's text, last one first; none when it is absolute.
fn words(target: &str) -> Option<Vec<String>> {
    if target.is_empty() || target.starts_with('/') {
        return None;
    }
    let parts = target.split('/').filter(|part| !part.is_empty() && *part != ".");
    Some(parts.rev().map(str::to_owned).collect())
}

/// The path of a thing within a release, from what an archive calls it. None for the whole.
///
/// # Errors
/// It is absolute, leads out, or is longer or deeper than any sound one.
pub fn inner_path(name: &str) -> Result<Option<Utf8PathBuf>, Refusal> {
    let mut path = Utf8PathBuf::new();
    for component in Utf8Path::new(name).components() {
        match component {
            Utf8Component::Normal(part) => path.push(part),
            Utf8Component::CurDir => {}
            Utf8Component::RootDir | Utf8Component::Prefix(_) => return Err(Refusal::Absolute),
            Utf8Component::ParentDir => return Err(Refusal::LeadsOut),
        }
    }
    if path.as_str().len() > PATH_MAX || path.components().count() > DEPTH_MAX {
        return Err(Refusal::TooDeep);
    }
    if path.as_str().chars().any(char::is_control) {
        return Err(Refusal::Control);
    }
    Ok((!path.as_str().is_empty()).then_some(path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(content: u8) -> Node {
        Node::File { executable: false, bytes: 1, content: [content; 32] }
    }

    fn link(target: &str) -> Node {
        Node::Link { target: target.to_owned() }
    }

    fn tree(nodes: &[(&str, Node)]) -> Tree {
        let mut tree = Tree::default();
        for (path, node) in nodes {
            tree.add(Utf8Path::new(path), node.clone()).expect("a sound tree");
        }
        tree
    }

    #[test]
    fn links_are_followed_as_the_kernel_does() {
        let inside = [("a/b/x", file(1)), ("l", link("a/b/x")), ("a/up", link("../l")), ("a/gone", link("b/none"))];
        assert_eq!(tree(&inside).check_links(), Ok(()));
        for (path, target) in [
            ("l", "/etc/passwd"),
            ("l", ".."),
            ("a/l", "../../x"),
            ("l", "a/../../x"),
            ("l", ""),
            ("a/b/l", "../../../x"),
        ] {
            let escapes = tree(&[("a/b/x", file(1)), (path, link(target))]);
            assert!(matches!(escapes.check_links(), Err((_, Refusal::Leaves { .. }))), "{path} -> {target}");
        }
        // By its text alone `a/b/d/../../x` stays inside.
        let by_detour = tree(&[("a/b/d", link("../..")), ("e", link("a/b/d/../x"))]);
        assert!(matches!(by_detour.check_links(), Err((_, Refusal::Leaves { .. }))));
        let circle = tree(&[("a", link("b")), ("b", link("a"))]);
        assert!(matches!(circle.check_links(), Err((_, Refusal::Circle { .. }))));
    }

    #[test]
    fn nothing_lies_below_a_file_or_a_link_and_nothing_is_there_twice() {
        let mut tree = tree(&[("a/b", file(1)), ("l", link("a"))]);
        assert_eq!(tree.add(Utf8Path::new("a/b/c"), file(2)), Err(Refusal::BelowNoFolder));
        assert_eq!(tree.add(Utf8Path::new("l/c"), file(2)), Err(Refusal::BelowNoFolder));
        assert_eq!(tree.add(Utf8Path::new("a/b"), file(2)), Err(Refusal::Twice));
        assert_eq!(tree.add(Utf8Path::new("a"), Node::Folder), Ok(()));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        assert_eq!(inner_path("./a//b/./c"), Ok(Some("a/b/c".into())));
        assert_eq!(inner_path("./"), Ok(None));
        assert_eq!(inner_path("/a"), Err(Refusal::Absolute));
        assert_eq!(inner_path("a/../b"), Err(Refusal::LeadsOut));
        assert_eq!(inner_path(&"a/".repeat(65)), Err(Refusal::TooDeep));
        assert_eq!(inner_path("a\u{1b}[31m"), Err(Refusal::Control));
    }

    #[test]
    fn the_hash_tells_content_mode_links_and_paths_apart_and_nothing_else() {
        let base = tree(&[("a/b", file(1)), ("l", link("a"))]);
        let executable = Node::File { executable: true, bytes: 1, content: [1; 32] };
        for other in [
            tree(&[("a/b", file(2)), ("l", link("a"))]),
            tree(&[("a/b", executable), ("l", link("a"))]),
            tree(&[("a/b", file(1)), ("l", link("a/b"))]),
            tree(&[("a/c", file(1)), ("l", link("a"))]),
            tree(&[("a/b", file(1)), ("l", link("a")), ("empty", Node::Folder)]),
        ] {
            assert_ne!(other.hash(), base.hash());
        }
        assert_eq!(tree(&[("l", link("a")), ("a/b", file(1))]).hash(), base.hash(), "the order does not matter");
    }

    #[test]
    fn a_difference_tells_files_and_not_the_folders_they_lie_in() {
        let old = tree(&[("a/b", file(1)), ("c", file(1)), ("old/x", file(1))]);
        let new = tree(&[("a/b", file(2)), ("c", file(1)), ("new/x", file(1))]);
        let difference = old.difference(&new);
        let all: Vec<&str> = difference.all().map(|path| path.as_str()).collect();
        assert_eq!(all, ["a/b", "new/x", "old/x"]);
    }

    proptest! {
        #[test]
        fn whatever_an_archive_names_is_refused_or_stays_inside(name in "[a-c./\\x00\\n]{0,40}") {
            if let Ok(Some(path)) = inner_path(&name) {
                prop_assert!(path.components().all(|part| matches!(part, Utf8Component::Normal(_))));
            }
        }

        #[test]
        fn a_tree_whose_links_pass_has_none_that_leaves_a_real_folder(
            links in proptest::collection::vec(("[ab](/[ab]){0,2}", "([ab.]|\\.\\.)(/([ab.]|\\.\\.)){0,3}"), 0..6),
        ) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let root = folder.path().join("one/two/root");
            std::fs::create_dir_all(&root).expect("it is ours");
            let mut tree = Tree::default();
            for (path, target) in links {
                if tree.add(Utf8Path::new(&path), link(&target)).is_ok() {
                    let place = root.join(&path);
                    std::fs::create_dir_all(place.parent().expect("it has one")).expect("its folders are folders");
                    std::os::unix::fs::symlink(&target, place).expect("nothing is there");
                }
            }
            if tree.check_links().is_ok() {
                let real = root.canonicalize().expect("it is there");
                for (path, node) in tree.iter().filter(|(_, node)| matches!(node, Node::Link { .. })) {
                    // One that leads nowhere leads nowhere outside either.
                    if let Ok(end) = root.join(path).canonicalize() {
                        prop_assert!(end.starts_with(&real), "{path} {node:?} leads to {end:?}");
                    }
                }
            }
        }
    }
}
