//! What a worker's environment tells OpenTelemetry of it.

use agentd_testkit::e2e::Daemon;

use crate::silent;

/// The resource attributes of the silent worker, in its own environment.
fn attributes(daemon: &Daemon) -> Vec<String> {
    let environment = std::fs::read_to_string(daemon.home.path().join("environment")).expect("it wrote it");
    let line = environment.lines().find_map(|line| line.strip_prefix("OTEL_RESOURCE_ATTRIBUTES="));
    line.expect("it is there").split(',').map(Into::into).collect()
}

#[test]
fn a_workers_spans_tell_its_app_release_worker_and_deployment() {
    let (daemon, _) = silent("");
    let worker = daemon.app("silent").workers.remove(0);
    let wanted = [
        "service.name=silent".to_owned(),
        format!("service.version={}", worker.release),
        format!("service.instance.id={}", worker.id),
        format!("deployment.id={}", worker.generation),
    ];
    assert_eq!(attributes(&daemon), wanted);
}

#[test]
fn a_workers_spans_keep_what_their_operator_says_of_them() {
    let (daemon, _) = silent("env = { OTEL_RESOURCE_ATTRIBUTES = \"service.name=shop,region=eu\" }");
    let seen = attributes(&daemon);
    assert_eq!(seen[..2], ["service.name=shop", "region=eu"], "{seen:?}");
    assert_eq!(seen.iter().filter(|pair| pair.starts_with("service.name=")).count(), 1, "{seen:?}");
    let worker = daemon.app("silent").workers.remove(0);
    assert!(seen.contains(&format!("service.instance.id={}", worker.id)), "{seen:?}");
}
