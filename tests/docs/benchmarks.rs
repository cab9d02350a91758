//! The figures that docs/benchmarks.md names are those that the script measures.

use std::collections::BTreeSet;
use std::process::Command;

use crate::text;

#[test]
fn each_figure_of_the_page_is_one_of_the_script_and_has_help() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/bench.py");
    let help = |arguments: &[&str]| {
        let output =
            Command::new("python3").arg(script).args(arguments).arg("--help").output().expect("python3 is there");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let all = help(&[]);
    let page = text("docs/benchmarks.md");
    let lines = page.lines().filter_map(|line| line.strip_prefix("python3 benches/bench.py "));
    let named: BTreeSet<&str> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(named.len() > 10, "{named:?}");
    for figure in named {
        assert!(all.lines().any(|line| line.split_whitespace().next() == Some(figure)), "{figure}: {all}");
        help(&[figure]);
    }
}
