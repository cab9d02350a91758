//! The table of `effects`.

use agentd_protocol::Timestamp;
use agentd_protocol::control::{EffectList, EffectView};

use super::bytes_time::{between, span};
use super::state;
use super::table::{Align, Cell, Column, Table};

const COLUMNS: &[Column] = &[
    Column { title: "KEY", align: Align::Left, rank: 0 },
    Column { title: "KIND", align: Align::Left, rank: 1 },
    Column { title: "STATE", align: Align::Left, rank: 0 },
    Column { title: "BEGUN", align: Align::Right, rank: 0 },
    Column { title: "TASK", align: Align::Left, rank: 2 },
    Column { title: "APP", align: Align::Left, rank: 3 },
    Column { title: "RELEASE", align: Align::Left, rank: 4 },
];

/// The effects at `width`.
pub(crate) fn table(list: &EffectList, now: Timestamp, width: Option<usize>) -> String {
    if list.effects.is_empty() {
        return "no such effects\n".to_owned();
    }
    let mut table = Table::new(COLUMNS, 0);
    for effect in &list.effects {
        table.row(row(effect, now), beneath(effect));
    }
    let more = if list.more { "there are more: ask for them with --limit\n" } else { "" };
    table.render(width) + more
}

fn row(effect: &EffectView, now: Timestamp) -> Vec<Cell> {
    vec![
        Cell::plain(&effect.key),
        Cell::plain(&effect.kind),
        state::effect(effect.state).cell(),
        Cell::plain(format!("{} ago", span(between(effect.begun_at, now)))),
        Cell::plain(&effect.task),
        Cell::plain(&effect.app),
        Cell::plain(&effect.release),
    ]
}

fn beneath(effect: &EffectView) -> Vec<Cell> {
    let style = state::FAINT;
    let mut said: Vec<Cell> = effect.description.iter().map(|words| Cell::styled(words, style)).collect();
    said.extend(effect.error.iter().map(|error| Cell::styled(format!("error: {error}"), state::BAD)));
    said.extend(effect.compensate.iter().map(|how| Cell::styled(format!("to undo it: {how}"), style)));
    said
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::plain;
    use super::*;

    #[test]
    fn effects_say_what_is_known_and_how_to_undo_them() {
        let effect = |key: &str, state: &str, error: serde_json::Value| {
            json!({
                "app": "support", "task": "0197f3a0-1c2b-7def-8123-00000000a001", "key": key, "kind": "mail",
                "state": state, "release": "1.4.0+ab12cd34", "fence": 3, "description": "reply to the customer",
                "compensate": {"recall": 7}, "error": error, "begun_at": "2026-01-02T11:59:00Z", "ended_at": null,
            })
        };
        let effects = [effect("7:mail", "indeterminate", json!(null)), effect("3:ticket", "failed", json!("503"))];
        let list: EffectList = serde_json::from_value(json!({"effects": effects, "more": false})).expect("effects");
        let now = "2026-01-02T12:00:00Z".parse().expect("a time");
        insta::assert_snapshot!("eighty", plain(&table(&list, now, Some(80))));
    }
}
