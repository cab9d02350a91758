//! The table of `releases`.

use agentd_protocol::Timestamp;
use agentd_protocol::control::{ReleaseState, ReleaseView, Releases};
use agentd_protocol::status::CuttingView;

use super::bytes_time::{between, bytes, span};
use super::state;
use super::table::{Align, Cell, Column, NOTHING, Table};

const COLUMNS: &[Column] = &[
    Column { title: "RELEASE", align: Align::Left, rank: 0 },
    Column { title: "STATE", align: Align::Left, rank: 0 },
    Column { title: "WORKERS", align: Align::Right, rank: 1 },
    Column { title: "SERVING", align: Align::Right, rank: 2 },
    Column { title: "CUT", align: Align::Right, rank: 4 },
    Column { title: "SIZE", align: Align::Right, rank: 3 },
];

/// The releases at `width`.
pub(crate) fn table(list: &Releases, now: Timestamp, width: Option<usize>) -> String {
    let cutting = list.cutting.as_ref().map_or_else(String::new, |view| cutting(view, now) + "\n");
    if list.releases.is_empty() && !cutting.is_empty() {
        return cutting;
    }
    if list.releases.is_empty() {
        let serves = list.serves.as_ref().map(|label| format!(", deployed as {label}")).unwrap_or_default();
        return format!("{} runs in place{serves}: releases are cut where it has a `source`\n", list.app);
    }
    let mut table = Table::new(COLUMNS, 0);
    for release in &list.releases {
        let workers = release.workers.len();
        let cells = vec![
            Cell::plain(&release.id),
            standing(release),
            Cell::plain(if workers == 0 { NOTHING.to_owned() } else { workers.to_string() }),
            match release.served_at {
                Some(since) if release.serving => Cell::plain(span(between(since, now))),
                Some(at) => Cell::plain(format!("{} ago", span(between(at, now)))),
                None => Cell::plain(NOTHING),
            },
            Cell::plain(format!("{} ago", span(between(release.cut_at, now)))),
            Cell::plain(bytes(release.bytes)),
        ];
        let beneath = release.why.iter().map(|why| Cell::styled(why, state::WARN)).collect();
        table.row(cells, beneath);
    }
    cutting + &table.render(width)
}

/// A release that is being cut, in one line.
pub(crate) fn cutting(view: &CuttingView, now: Timestamp) -> String {
    let CuttingView { operation, origin, since } = view;
    format!("a release is being cut from {origin} for operation {operation}, {} so far", span(between(*since, now)))
}

/// What a release is to its app, in few words.
fn standing(release: &ReleaseView) -> Cell {
    let word = match release.state {
        ReleaseState::Untried => "untried",
        ReleaseState::Good => "good",
        ReleaseState::Bad => "bad",
        ReleaseState::Unknown => "unknown",
    };
    let more = match (release.serving, release.rollback) {
        (true, _) => ", serves",
        (false, true) => ", way back",
        (false, false) => "",
    };
    let pinned = match release.staying {
        0 if release.pinned => ", pinned".to_owned(),
        0 => String::new(),
        1 => ", 1 task stays".to_owned(),
        tasks => format!(", {tasks} tasks stay"),
    };
    let text = format!("{word}{more}{pinned}");
    match release.state {
        ReleaseState::Bad => Cell::styled(text, state::WARN),
        ReleaseState::Untried | ReleaseState::Good | ReleaseState::Unknown => Cell::plain(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::plain;
    use super::*;

    #[test]
    fn releases_say_which_serves_and_where_the_way_back_leads() {
        let release = |id: &str, more: serde_json::Value| {
            let mut view = json!({"id": id, "version": "1.4.0", "hash": "ab", "state": "good", "why": null,
                "serving": false, "rollback": false, "pinned": false, "workers": [], "state_version": null,
                "origin": "/srv/search", "folder": "/x", "bytes": 123_456_789, "entries": 12, "build_ms": null,
                "cut_at": "2026-01-01T12:00:00Z", "served_at": null});
            view.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            view
        };
        let list = json!({"app": "search", "cutting": {"operation": 12, "origin": "/srv/search", "since": "2026-01-02T11:59:56Z"},
            "releases": [
            release("1.5.0+0011aabb", json!({"state": "bad", "why": "search.0.3 exited with status 1 before it was ready"})),
            release("1.4.0+ab12cd34", json!({"serving": true, "workers": ["search.0.2", "search.1.2"],
                "served_at": "2026-01-02T11:00:00Z"})),
            release("1.3.9+ffeeddcc", json!({"rollback": true, "pinned": true, "served_at": "2026-01-02T10:00:00Z"})),
        ]});
        let list: Releases = serde_json::from_value(list).expect("releases");
        let now = "2026-01-02T12:00:00Z".parse().expect("a time");
        insta::assert_snapshot!("eighty", plain(&table(&list, now, Some(80))));
    }
}
