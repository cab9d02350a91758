//! `agentctl refresh` under the real daemon: real uvicorn by HTTP, programs by signal, the Python SDK by its protocol; and
//! workers that refuse, hang, or would die of it.

mod site;

use std::time::{Duration, Instant};

use agentd_protocol::control::{Changed, OperationKind};
use agentd_protocol::status::{RefreshOutcome, RefreshState};

use site::{PATIENCE, Site};

#[test]
fn uvicorn_reads_its_knowledge_anew_by_a_request_to_each_worker_and_keeps_its_processes() {
    let site = Site::start("http", "refresh = { http = \"POST /admin/reindex\" }");
    let before = site.pids();
    site.learn("two");
    let whole: Changed = site.daemon.ctl_ok(&["refresh", "web", "--json"]).json();
    assert_eq!(whole.results[0].kind, OperationKind::Refresh);
    let outcomes: Vec<_> = whole.results[0].refreshed.iter().map(|worker| worker.outcome).collect();
    assert_eq!(outcomes, [RefreshOutcome::Renewed; 2]);
    assert_eq!(site.known(), ["two", "two"]);
    assert_eq!(site.pids(), before);
    let view = site.daemon.app("web").refresh.expect("it is shown");
    assert_eq!((view.state, view.n), (RefreshState::Done, 2));
    let shown = site.daemon.ctl_ok(&["describe", "web"]).stdout;
    assert!(shown.contains("renewed in"), "{shown}");
}

#[test]
fn the_first_worker_that_refuses_ends_it_and_the_other_keeps_what_it_knows() {
    let site = Site::start("http", "refresh = { http = \"POST /admin/reindex\" }");
    site.learn("broken");
    let refused = site.daemon.ctl(&["refresh", "web"]);
    assert_eq!(refused.code, Some(1), "{}{}", refused.stdout, refused.stderr);
    assert!(refused.stderr.contains("web.0.1 answered 500"), "{}", refused.stderr);
    let workers = site.daemon.app("web").refresh.expect("it is shown").workers;
    let outcomes: Vec<_> = workers.iter().map(|worker| worker.outcome).collect();
    assert_eq!(outcomes, [RefreshOutcome::Failed, RefreshOutcome::Spared]);
    assert_eq!(site.known(), ["one", "one"]);
}

#[test]
fn a_worker_that_hangs_is_given_up_in_time_and_a_reload_is_refused_by_number_meanwhile() {
    let site = Site::start("http", "refresh = { http = \"POST /admin/reindex\", timeout = \"3s\" }");
    site.learn("hangs");
    site.daemon.ctl_ok(&["refresh", "web", "--no-wait"]);
    let id = site.daemon.app("web").refresh.expect("it runs").id;
    let denied = site.daemon.ctl(&["reload", "web"]);
    assert_eq!(denied.code, Some(4), "{}", denied.stderr);
    assert!(denied.stderr.contains(&format!("refresh {id} of web is running")), "{}", denied.stderr);
    let ended = site.await_refresh(|view| view.state != RefreshState::Running);
    assert_eq!(ended.state, RefreshState::Failed);
    assert!(ended.why.as_deref().is_some_and(|why| why.contains("did not answer within 3s")), "{ended:?}");
    site.daemon.ctl_ok(&["reload", "web"]);
}

#[test]
fn a_change_of_a_watched_folder_refreshes_and_reloads_nobody() {
    let site = Site::start("http", "refresh = { http = \"/admin/reindex\", watch = [\"knowledge/**\"] }");
    let before = site.pids();
    site.learn("three");
    site.await_refresh(|view| view.state == RefreshState::Done);
    assert_eq!(site.known(), ["three", "three"]);
    assert_eq!(site.pids(), before);
}

#[test]
fn the_next_supervisor_ends_a_refresh_that_its_predecessor_began() {
    let mut site = Site::start("http", "refresh = { http = \"POST /admin/reindex\", timeout = \"1m\" }");
    site.learn("hangs");
    site.daemon.ctl_ok(&["refresh", "web", "--no-wait"]);
    let begun = site.await_refresh(|view| view.asking.is_some());
    site.daemon.kill();
    site.learn("four");
    site.daemon.start_again();
    let ended = site.await_refresh(|view| view.state != RefreshState::Running);
    assert_eq!((ended.id, ended.state), (begun.id, RefreshState::Done), "{ended:?}");
    assert_eq!(site.known(), ["four", "four"]);
}

#[test]
fn a_signal_is_told_and_one_that_is_awaited_is_timed() {
    for (refresh, outcome) in [
        ("refresh = { signal = \"SIGHUP\" }", RefreshOutcome::Told),
        ("refresh = { signal = \"SIGHUP\", notify = true }", RefreshOutcome::Renewed),
    ] {
        let site = Site::start("signal", refresh);
        site.learn("two");
        let whole: Changed = site.daemon.ctl_ok(&["refresh", "web", "--json"]).json();
        assert!(whole.results[0].refreshed.iter().all(|worker| worker.outcome == outcome), "{refresh}: {whole:?}");
        let deadline = Instant::now() + PATIENCE;
        while site.printed("knows two") < 2 {
            assert!(Instant::now() < deadline, "they do not print it: {}", site.daemon.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_signal_that_would_end_the_worker_is_not_sent() {
    let site = Site::start("signal", "refresh = { signal = \"SIGUSR2\" }");
    let before = site.pids();
    let refused = site.daemon.ctl(&["refresh", "web"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("does not handle SIGUSR2"), "{}", refused.stderr);
    assert_eq!(site.pids(), before);
}

#[test]
fn a_worker_of_the_protocol_is_told_what_changed_and_says_whether_it_knows_it() {
    let site = Site::start("protocol", "refresh = { protocol = \"knowledge\" }\nready = \"protocol\"");
    site.learn("two");
    site.daemon.ctl_ok(&["refresh", "web"]);
    assert_eq!(site.printed("knows two"), 2);
    site.learn("broken");
    let refused = site.daemon.ctl(&["refresh", "web"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("the knowledge is broken"), "{}", refused.stderr);
}

#[test]
fn an_app_that_does_not_say_how_is_refused_with_what_to_do() {
    let site = Site::start("signal", "");
    let refused = site.daemon.ctl(&["refresh", "web"]);
    assert_eq!(refused.code, Some(4));
    assert!(refused.stderr.contains("agentctl reload web"), "{}", refused.stderr);
}
