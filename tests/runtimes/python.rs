//! Python servers.

use agentd_testkit::e2e::{Mix, free_port};

use crate::apps::{Sample, python};

#[test]
fn uvicorn_with_fastapi_loses_nothing() {
    let port = free_port();
    let config = format!(
        "command = [{:?}, \"asgi:app\", \"--fd\", \"{{fd:http}}\", \"--log-level\", \"warning\"]\n\
         listen = \"127.0.0.1:{port}\"\nworkers = 2\nready = {{ http = \"/\" }}",
        python("uvicorn")
    );
    let sample = Sample::start("uvicorn", port, &config);
    sample.reload_under_load(3, Mix::default()).assert_none_lost_in_service();
}
