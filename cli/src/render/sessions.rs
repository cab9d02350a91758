//! The table of `sessions`.

use agentd_protocol::Timestamp;
use agentd_protocol::control::SessionList;

use super::bytes_time::{between, span};
use super::state;
use super::table::{Align, Cell, Column, Table};

const COLUMNS: &[Column] = &[
    Column { title: "SESSION", align: Align::Left, rank: 0 },
    Column { title: "OPEN", align: Align::Right, rank: 0 },
    Column { title: "PARKED", align: Align::Right, rank: 0 },
    Column { title: "ENDED", align: Align::Right, rank: 1 },
    Column { title: "LAST", align: Align::Right, rank: 0 },
    Column { title: "RELEASE", align: Align::Left, rank: 2 },
];

/// The sessions at `width`.
pub(crate) fn table(list: &SessionList, now: Timestamp, width: Option<usize>) -> String {
    if list.sessions.is_empty() {
        return "no sessions\n".to_owned();
    }
    let mut table = Table::new(COLUMNS, 0);
    for session in &list.sessions {
        let parked = session.parked.to_string();
        let cells = vec![
            Cell::plain(&session.session),
            Cell::plain(session.open.to_string()),
            if session.parked > 0 { Cell::styled(parked, state::WARN) } else { Cell::plain(parked) },
            Cell::plain(session.ended.to_string()),
            Cell::plain(format!("{} ago", span(between(session.last_at, now)))),
            Cell::plain(&session.release),
        ];
        table.row(cells, Vec::new());
    }
    let more = if list.more { "there are more: ask for them with --limit\n" } else { "" };
    table.render(width) + more
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::plain;
    use super::*;

    #[test]
    fn sessions_say_what_is_open_and_what_waits_for_a_person() {
        let session = |name: &str, parked: u64| {
            json!({"session": name, "open": 2, "parked": parked, "ended": 41, "release": "1.4.0+ab12cd34",
                   "last_at": "2026-01-02T11:59:00Z"})
        };
        let list = json!({"sessions": [session("s-12", 0), session("customer 7", 1)], "more": true});
        let list: SessionList = serde_json::from_value(list).expect("sessions");
        let now = "2026-01-02T12:00:00Z".parse().expect("a time");
        insta::assert_snapshot!("eighty", plain(&table(&list, now, Some(80))));
    }
}
