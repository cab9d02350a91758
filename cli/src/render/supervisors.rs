//! The history of supervisors: a row each, the latest first.

use std::time::Duration;

use agentd_protocol::Timestamp;
use agentd_protocol::control::{SocketOrigins, SupervisorEnd, SupervisorView};

use super::bytes_time::{between, span};
use super::table::{Align, Cell, Column, NOTHING, Table};

/// Rows that are shown; JSON has all of them.
const SHOWN: usize = 8;

const COLUMNS: [Column; 7] = [
    Column { title: "supervisor", align: Align::Right, rank: 0 },
    Column { title: "version", align: Align::Left, rank: 3 },
    Column { title: "began", align: Align::Right, rank: 1 },
    Column { title: "took over", align: Align::Right, rank: 2 },
    Column { title: "unwatched", align: Align::Right, rank: 2 },
    Column { title: "sockets", align: Align::Left, rank: 4 },
    Column { title: "ended", align: Align::Left, rank: 1 },
];

/// The table, for a terminal of any width.
pub(crate) fn table(supervisors: &[SupervisorView]) -> String {
    render(supervisors, Timestamp::now(), super::width())
}

fn render(supervisors: &[SupervisorView], now: Timestamp, width: Option<usize>) -> String {
    let mut table = Table::new(&COLUMNS, 0);
    for supervisor in supervisors.iter().rev().take(SHOWN) {
        let cells = vec![
            Cell::plain(supervisor.pid.to_string()),
            Cell::plain(&supervisor.version),
            Cell::plain(format!("{} ago", span(between(supervisor.started_at, now)))),
            Cell::plain(supervisor.adopted.to_string()),
            Cell::plain(supervisor.unwatched_us.map_or_else(|| NOTHING.to_owned(), gap)),
            Cell::plain(sockets(supervisor.sockets)),
            Cell::plain(end(supervisor, now)),
        ];
        table.row(cells, Vec::new());
    }
    table.render(width)
}

/// `850us`, `2.4ms`, `41s`.
pub(crate) fn gap(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..100_000 => format!("{}.{}ms", us / 1_000, us % 1_000 / 100),
        _ => span(Duration::from_micros(us)),
    }
}

fn end(supervisor: &SupervisorView, now: Timestamp) -> String {
    let how = match supervisor.end {
        None => return "runs".to_owned(),
        Some(SupervisorEnd::Stopped) => "stopped",
        Some(SupervisorEnd::Signalled) => "by a signal",
        Some(SupervisorEnd::Upgraded) => "upgraded",
        Some(SupervisorEnd::Unknown) => "killed or crashed",
        Some(SupervisorEnd::Other) => "otherwise",
    };
    let ago = supervisor.ended_at.map(|at| format!(" {} ago", span(between(at, now))));
    format!("{how}{}", ago.unwrap_or_default())
}

fn sockets(origins: SocketOrigins) -> String {
    let SocketOrigins { keeper, store, workers, fresh } = origins;
    let named = [(keeper, "kept"), (store, "stored"), (workers, "from workers"), (fresh, "fresh")];
    let told: Vec<String> =
        named.into_iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    if told.is_empty() { NOTHING.to_owned() } else { told.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::plain;
    use super::*;

    #[test]
    fn the_history_fits_a_terminal_and_tells_how_each_ended() {
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
        let supervisor = |pid, began, unwatched_us, end: Option<SupervisorEnd>| SupervisorView {
            pid,
            version: "0.1.0".to_owned(),
            started_at: at(began),
            adopted: 12,
            sockets: SocketOrigins { keeper: 6, workers: 2, ..SocketOrigins::default() },
            unwatched_us,
            end,
            ended_at: end.map(|_| at(began + 50)),
        };
        let all = [
            supervisor(4_194_301, 0, None, Some(SupervisorEnd::Unknown)),
            supervisor(4_194_302, 60, Some(2_431), Some(SupervisorEnd::Upgraded)),
            supervisor(4_194_302, 120, Some(850), None),
        ];
        let text = plain(&render(&all, at(200), Some(80)));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("killed or crashed 2m30s ago") && text.contains("2.4ms"), "{text}");
        let wide = plain(&render(&all, at(200), None));
        assert!(wide.contains("6 kept, 2 from workers"), "{wide}");
        assert!(wide.lines().nth(1).unwrap().contains("runs"), "the latest comes first: {wide}");
    }
}
