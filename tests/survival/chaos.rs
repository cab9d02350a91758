//! The chaos runner, in the short form; the long one is `cargo run -p agentd-testkit --bin chaos`.

use agentd_testkit::chaos::{self, Loads, POINTS, Plan, Servers};
use agentd_testkit::e2e::Mix;

use crate::AGENTD;

#[test]
fn deaths_at_every_fault_point_and_at_random_moments_cost_nothing() {
    let mix = Mix { fresh: 2, keepalive: 1, long: 0, sse: 0, ..Mix::default() };
    let loads = Loads { web: mix.clone(), node: mix.clone(), quick: mix };
    let servers = Servers { burst: 20, ..Servers::default() };
    let summary = chaos::run(AGENTD, &Plan { kills: 8, passes: 1, seed: 20_261_121, servers, loads, verbose: true });
    println!("{summary}");
    for (point, _) in POINTS {
        assert_eq!(summary.at_point(point), 1, "nobody died at the point {point}\n{summary}");
    }
    assert_eq!(summary.lost, 0, "requests failed\n{summary}");
}
