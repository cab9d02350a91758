//! What to do about a worker that failed, as far as its last lines tell.

use agentd_protocol::status::{AppView, WorkerState, WorkerView};

/// Restarts after which one of several workers is said not to stay.
const RESTARTS: u32 = 3;

/// Words of a bind that failed because somebody else has the address: Node's, libc's, Go's and Python's.
const TAKEN: [&str; 4] = ["EADDRINUSE", "ddress already in use", "AddrInUse", "Only one usage of each socket address"];

/// What the last lines of a worker ask for, if they are of a kind that is known.
pub(crate) fn of_lines(lines: &[String]) -> Option<&'static str> {
    let taken = lines.iter().any(|line| TAKEN.iter().any(|word| line.contains(word)));
    taken.then_some(
        "it binds its port itself, and another worker or program has it. Let agentd hold the port: start it with \
         --listen 127.0.0.1:PORT (in a file: listen.http), and let it take the socket, {fd:http} in its command or \
         AGENTD_FD_HTTP in its environment (docs/guides/express.md). For Node, `agentctl init` writes that",
    )
}

/// The same of an app: by what its workers printed last, and by how they end where none of them listens.
pub(crate) fn of_app(app: &AppView) -> Option<&'static str> {
    if let Some(hint) = app.workers.iter().find_map(|worker| of_lines(&worker.log_tail)) {
        return Some(hint);
    }
    let again_and_again = |worker: &WorkerView| {
        matches!(worker.state, WorkerState::Backoff | WorkerState::Failed) && worker.restarts >= RESTARTS
    };
    let one_stays = app.listen.is_empty() && app.ready > 0 && app.ready < app.desired;
    (one_stays && app.workers.iter().any(again_and_again)).then_some(
        "one of its workers stays and another does not. If it binds a port, only one can: start it with \
         --listen 127.0.0.1:PORT, and let it take that socket (docs/guides/express.md)",
    )
}

#[cfg(test)]
mod tests {
    use super::super::fixture::document;
    use super::*;

    #[test]
    fn of_workers_without_a_socket_of_which_only_some_stay_it_is_asked_whether_they_bind_a_port() {
        let mut app = document().apps.into_iter().find(|app| app.name == "support").expect("the fixture has it");
        app.listen.clear();
        assert_eq!(of_app(&app), None);
        (app.workers[1].state, app.workers[1].restarts) = (WorkerState::Backoff, RESTARTS);
        assert!(of_app(&app).is_some_and(|hint| hint.contains("only one can")));
        app.workers[1].log_tail = vec!["OSError: [Errno 98] Address already in use".to_owned()];
        assert!(of_app(&app).is_some_and(|hint| hint.contains("binds its port itself")));
    }

    #[test]
    fn a_taken_address_asks_for_the_socket() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let node = "node:net:1812\n\nError: listen EADDRINUSE: address already in use :::3000\n    at Server.setup";
        assert!(of_lines(&lines(node)).is_some_and(|hint| hint.contains("--listen")));
        assert!(of_lines(&lines("OSError: [Errno 98] Address already in use")).is_some());
        assert_eq!(of_lines(&lines("KeyError: 'MODEL'")), None);
    }
}
