//! Rust servers.

use agentd_testkit::e2e::{Mix, free_port};

use crate::apps::{Sample, built};

#[test]
fn axum_with_listenfd_loses_nothing() {
    let port = free_port();
    let config = format!("command = [{:?}]\nlisten = \"127.0.0.1:{port}\"\nworkers = 2", built("agentd-sample-axum"));
    let sample = Sample::start("axum", &config);
    sample.reload_under_load(3, port, Mix::default()).assert_none_lost_in_service();
}
