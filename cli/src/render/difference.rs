//! How apps differ from a configuration: an app a paragraph, its fields below it with what they were and are to be.

use agentd_protocol::control::{AppDifference, FieldChange, Work};
use anstyle::Style;

use super::log::harmless;
use super::operation::plural;
use super::state::{BAD, BUSY, FAINT, GOOD, STRONG, WARN};

/// Most columns of a field's name beside its values.
const NAME_MAX: usize = 24;

/// Everything that differs, and a line that counts it. What does not differ is only counted, unless there is something
/// to say of it.
pub(crate) fn page(apps: &[AppDifference], width: Option<usize>) -> String {
    let mut text = String::new();
    for app in apps.iter().filter(|app| app.work != Work::Nothing || !app.notes.is_empty()) {
        paragraph(&mut text, app, width);
    }
    let same = apps.iter().filter(|app| app.work == Work::Nothing).count() as u64;
    let left = apps.iter().filter(|app| app.work == Work::Left).count();
    let changed = apps.len() as u64 - same - left as u64;
    let line = match (changed, same) {
        (0, 0) => "nothing to do".to_owned(),
        (0, same) => format!("nothing to do: {same} {} as configured", plural(same, "app")),
        (changed, 0) => format!("{changed} {} to change", plural(changed, "app")),
        (changed, same) => format!("{changed} {} to change, {same} as configured", plural(changed, "app")),
    };
    text.push_str(&format!("{FAINT}{line}{FAINT:#}\n"));
    text
}

fn paragraph(text: &mut String, app: &AppDifference, width: Option<usize>) {
    let (symbol, style, words) = words(app.work);
    text.push_str(&format!("{style}{symbol}{style:#} {STRONG}{}{STRONG:#}: {style}{words}{style:#}\n", app.app));
    let name_width = app.changes.iter().map(|change| change.field.chars().count()).max().unwrap_or(0).min(NAME_MAX);
    for change in &app.changes {
        field(text, change, name_width, app.work, width);
    }
    for note in &app.notes {
        for line in super::table::wrap(note, width.map(|width| width.saturating_sub(4).max(20))) {
            text.push_str(&format!("    {WARN}{}{WARN:#}\n", harmless(&line)));
        }
    }
}

/// On one line where it fits, else what it was and what it is to be on a line each.
fn field(text: &mut String, change: &FieldChange, name_width: usize, whole: Work, width: Option<usize>) {
    let name = &change.field;
    let shown =
        |value: &Option<String>| value.as_deref().map_or_else(|| "–".to_owned(), |value| harmless(value).to_string());
    let (old, new) = (shown(&change.old), shown(&change.new));
    // Said where it tells why the whole takes so much.
    let why = match change.work {
        Work::Reload | Work::Restart if whole != Work::InPlace => format!("  {BUSY}({}){BUSY:#}", words(change.work).2),
        Work::Reload
        | Work::Restart
        | Work::Nothing
        | Work::InPlace
        | Work::New
        | Work::Gone
        | Work::Left
        | Work::Unknown => String::new(),
    };
    let plain = name_width + old.chars().count() + new.chars().count() + 20;
    if width.is_none_or(|width| plain <= width) {
        text.push_str(&format!("    {name:name_width$}  {old} → {new}{why}\n"));
    } else {
        text.push_str(&format!("    {name}{why}\n      {BAD}-{BAD:#} {old}\n      {GOOD}+{GOOD:#} {new}\n"));
    }
}

const fn words(work: Work) -> (char, Style, &'static str) {
    match work {
        Work::Nothing => ('=', FAINT, "as configured"),
        Work::InPlace => ('~', GOOD, "changes in place"),
        Work::Reload => ('↻', BUSY, "reload"),
        Work::Restart => ('↻', WARN, "restart, with a gap"),
        Work::New => ('+', GOOD, "new"),
        Work::Gone => ('-', BAD, "deleted"),
        Work::Left => ('?', WARN, "not configured any more"),
        Work::Unknown => ('?', WARN, "changes in a way that this agentctl does not know"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(field: &str, old: Option<&str>, new: Option<&str>, work: Work) -> FieldChange {
        FieldChange { field: field.into(), old: old.map(Into::into), new: new.map(Into::into), work }
    }

    fn app(name: &str, work: Work, changes: Vec<FieldChange>) -> AppDifference {
        AppDifference { app: name.into(), work, changes, notes: Vec::new() }
    }

    fn shown(apps: &[AppDifference], width: usize) -> String {
        anstream::adapter::strip_str(&page(apps, Some(width))).to_string()
    }

    #[test]
    fn each_app_says_what_it_takes_and_which_field_is_why() {
        let apps = [
            app("docs", Work::Nothing, Vec::new()),
            app(
                "support",
                Work::Reload,
                vec![
                    change("grace.default", Some("5m"), Some("10m"), Work::InPlace),
                    change("env.MODEL", Some("(not shown)"), Some("(not shown)"), Work::Reload),
                ],
            ),
            app("web", Work::InPlace, vec![change("workers", Some("2"), Some("4"), Work::InPlace)]),
            app("search", Work::New, Vec::new()),
        ];
        insta::assert_snapshot!(shown(&apps, 80), @r"
        ↻ support: reload
            grace.default  5m → 10m
            env.MODEL      (not shown) → (not shown)  (reload)
        ~ web: changes in place
            workers  2 → 4
        + search: new
        3 apps to change, 1 as configured
        ");
    }

    #[test]
    fn long_values_stand_below_each_other_and_nothing_is_counted_as_nothing() {
        let long = "[\"uvicorn\",\"app:app\",\"--fd\",\"{fd:http}\",\"--log-level\",\"info\"]";
        let apps = [app("a", Work::Reload, vec![change("command", Some(long), Some("[\"b\"]"), Work::Reload)])];
        insta::assert_snapshot!(shown(&apps, 80), @r#"
        ↻ a: reload
            command  (reload)
              - ["uvicorn","app:app","--fd","{fd:http}","--log-level","info"]
              + ["b"]
        1 app to change
        "#);
        assert_eq!(shown(&[app("a", Work::Nothing, Vec::new())], 80), "nothing to do: 1 app as configured\n");
    }
}
