//! The chaos runner, in the short form; the long one is `cargo run -p agentd-testkit --bin chaos`.

use std::path::Path;

use agentd_testkit::chaos::{self, POINTS, Plan, Servers};
use agentd_testkit::e2e::Mix;

use crate::AGENTD;

#[test]
fn deaths_at_every_fault_point_and_at_random_moments_cost_nothing() {
    let mix = Mix { fresh: 2, keepalive: 1, long: 0, sse: 0, ..Mix::default() };
    // Real servers where tests/prepare put them.
    let uvicorn = Path::new(AGENTD).ancestors().nth(2).expect("a target folder").join("test-env/venv/bin/uvicorn");
    let uvicorn = uvicorn.exists().then(|| uvicorn.to_string_lossy().into_owned());
    let node = std::process::Command::new("node").arg("--version").output().is_ok().then(|| "node".to_owned());
    let servers = Servers { uvicorn, node, burst: 20 };
    let summary = chaos::run(AGENTD, &Plan { kills: 8, passes: 1, seed: 20_261_121, servers, mix, verbose: true });
    println!("{summary}");
    for (point, _) in POINTS {
        assert_eq!(summary.at_point(point), 1, "nobody died at the point {point}\n{summary}");
    }
    assert!(summary.tasks > 0, "no task was begun\n{summary}");
    assert_eq!(summary.lost, 0, "requests failed\n{summary}");
}
