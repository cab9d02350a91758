//! The configurations that README.md shows, and the example in etc/.

use agentd::config;
use camino::Utf8Path;

use crate::blocks::blocks;
use crate::text;

#[test]
fn every_configuration_in_the_readme_is_one() {
    let found: Vec<_> = blocks(&text("README.md")).into_iter().filter(|block| block.info == "toml").collect();
    assert!(found.len() >= 2, "the README shows an agent and a skill");
    for block in found {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("agents.toml");
        std::fs::write(&path, &block.text).unwrap();
        let loaded = config::load(&path);
        assert!(loaded.is_ok(), "README.md, line {}: {:?}", block.line, loaded.err());
    }
}

#[test]
fn the_example_in_etc_is_a_configuration() {
    let path = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/agentd.toml");
    let loaded = config::load(&path);
    assert!(loaded.is_ok(), "{:?}", loaded.err());
}
