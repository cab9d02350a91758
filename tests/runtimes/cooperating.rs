//! Servers that cooperate: not even a kept-alive connection is cut.

use agentd_testkit::e2e::{Mix, free_port};

use crate::apps::{Sample, python};

#[test]
fn a_cooperating_python_server_cuts_no_kept_connection() {
    let port = free_port();
    let config = format!(
        "command = [{:?}, \"coop.py\"]\nlisten = \"127.0.0.1:{port}\"\nworkers = 2\nready = \"notify\"",
        python("python")
    );
    let sample = Sample::start("cooperating Python", &config);
    sample.reload_under_load(3, port, Mix { keepalive: 6, ..Mix::default() }).assert_none_lost();
}

#[test]
fn a_cooperating_node_server_cuts_no_kept_connection() {
    let port = free_port();
    let config = format!(
        "command = [\"node\", \"coop.js\"]\nlisten = \"127.0.0.1:{port}\"\nworkers = 2\nready = {{ http = \"/\" }}\n\
         stop = {{ drain = \"signal\" }}"
    );
    let sample = Sample::start("cooperating Node", &config);
    sample.reload_under_load(3, port, Mix { keepalive: 6, ..Mix::default() }).assert_none_lost();
}
