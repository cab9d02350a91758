//! The floors of docs/adr/0001: which crate of the workspace may depend on what.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// The direct dependencies of one crate of the workspace, without those of its tests.
fn dependencies(of: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo runs this test, so it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == of).unwrap_or_else(|| panic!("no crate {of}"));
    let of_code = |dependency: &&Value| dependency["kind"].is_null();
    let dependencies = package["dependencies"].as_array().unwrap().iter().filter(of_code);
    dependencies.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn core_depends_on_nothing_that_does_io() {
    assert_eq!(dependencies("agentd-core"), set(&["serde", "thiserror"]));
}

#[test]
fn the_protocol_knows_neither_core_nor_anything_that_does_io() {
    let found = dependencies("agentd-protocol");
    let allowed = set(&["serde", "serde_json", "schemars", "jiff", "memchr", "thiserror"]);
    assert!(found.is_subset(&allowed), "{:?}", found.difference(&allowed));
}

#[test]
fn the_command_line_knows_the_protocol_only() {
    let ours = dependencies("agentctl").into_iter().filter(|name| name.starts_with("agentd")).collect::<BTreeSet<_>>();
    assert_eq!(ours, set(&["agentd-protocol"]));
}

#[test]
fn nothing_that_is_shipped_depends_on_the_testkit() {
    for shipped in ["agentd", "agentctl", "agentd-core", "agentd-protocol"] {
        assert!(!dependencies(shipped).contains("agentd-testkit"), "{shipped}");
    }
}
