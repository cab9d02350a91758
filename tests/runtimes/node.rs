//! Node servers.

use agentd_testkit::e2e::{Mix, free_port};

use crate::apps::{Sample, node_modules};

#[test]
fn node_that_dies_at_sigterm_loses_nothing() {
    let port = free_port();
    let config = format!("command = [\"node\", \"node_http.js\"]\nlisten = \"0.0.0.0:{port}\"\nworkers = 2");
    let sample = Sample::start("node:http", &config);
    sample.reload_under_load(3, port, Mix::default()).assert_none_lost_in_service();
}

#[test]
fn express_with_a_graceful_shutdown_loses_nothing() {
    let port = free_port();
    let config = format!(
        "command = [\"node\", \"express_app.js\"]\nlisten = \"127.0.0.1:{port}\"\nworkers = 2\n\
         env = {{ NODE_PATH = {:?} }}\nready = {{ http = \"/\" }}",
        node_modules()
    );
    let sample = Sample::start("express", &config);
    sample.reload_under_load(3, port, Mix::default()).assert_none_lost_in_service();
}
