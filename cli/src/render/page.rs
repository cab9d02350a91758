//! A deployment as one HTML page that needs nothing else: no script, no font, no picture from elsewhere. Reads from a
//! phone's width on, in light and dark.

use std::fmt::Write;

use agentd_protocol::control::{DeploymentReport, Durations, HookState};
use agentd_protocol::status::{DeploymentState, GateVerdict, Strategy};

use super::bytes_time::{between, span};
use super::deployment::{evidence, figure, ms, verdict};
use super::event::operation;
use super::state;

const STYLE: &str = "
:root{color-scheme:light dark;--fg:#1c1f24;--bg:#fbfbfa;--card:#fff;--line:#dcdfe3;--dim:#636b76;
--good:#1a7f4b;--warn:#a86500;--bad:#c4302b;--old:#5f6975;--new:#2f6fde}
@media(prefers-color-scheme:dark){:root{--fg:#e7e9ec;--bg:#14171a;--card:#1d2125;--line:#343a41;--dim:#9aa3ad;
--good:#4cc38a;--warn:#e0a23c;--bad:#f2716b;--old:#8f99a5;--new:#78a9ff}}
*{box-sizing:border-box}body{margin:0 auto;padding:16px;max-width:860px;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.35rem;line-height:1.25;margin:.2em 0}h2{font-size:1rem;margin:1.6em 0 .5em}
p{margin:.4em 0}.dim{color:var(--dim)}.badge{display:inline-block;border-radius:99px;padding:.1em .7em;color:var(--bg);
font-weight:600;font-size:.9rem}.why{border-left:4px solid var(--bad);padding:.3em .8em;background:var(--card)}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{font-weight:600;text-align:left;color:var(--dim);font-size:.85rem}th,td{padding:.3em .5em .3em 0;vertical-align:top;overflow-wrap:normal}
td.n,th.n{text-align:right;white-space:nowrap}tr+tr td{border-top:1px solid var(--line)}
ol{list-style:none;margin:0;padding:0}ol li{display:flex;gap:.8em;padding:.45em 0 .45em 1em;border-left:3px solid var(--line)}
ol li.sharing,ol li.warm{border-color:var(--new)}ol li.back{border-color:var(--bad)}
ol time{flex:0 0 4.6em;white-space:nowrap;color:var(--dim);font-variant-numeric:tabular-nums}ol b{font-weight:600}
svg{display:block;width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--dim)}
pre{margin:.3em 0 .8em;padding:.5em .7em;background:var(--bg);border-radius:6px;white-space:pre-wrap;font-size:.85rem}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
@media(max-width:520px){.wide{display:none}}
";

/// The page.
pub(crate) fn page(report: &DeploymentReport) -> String {
    let title = format!("{}: {} → {}", report.app, report.from, report.to);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Deployment {} of {}</title><style>{STYLE}</style></head><body>\n",
        report.id,
        text(&title)
    );
    head(&mut html, report, &title);
    steps(&mut html, report);
    hooks(&mut html, report);
    gates(&mut html, report);
    tasks(&mut html, report);
    effects(&mut html, report);
    html.push_str("</body></html>\n");
    html
}

fn head(html: &mut String, report: &DeploymentReport, title: &str) {
    let color = match report.state {
        DeploymentState::Done => "good",
        DeploymentState::RolledBack | DeploymentState::Failed | DeploymentState::RollingBack => "bad",
        DeploymentState::Running | DeploymentState::Paused | DeploymentState::Aborted | DeploymentState::Unknown => {
            "warn"
        }
    };
    let took =
        report.finished_at.map_or_else(String::new, |end| format!(" after {}", span(between(report.started_at, end))));
    let _ = writeln!(
        html,
        "<p class=\"dim\">deployment {}, {} by {}, begun {}</p><h1>{}</h1>\
         <p><span class=\"badge\" style=\"background:var(--{color})\">{}</span>{took}</p>",
        report.id,
        operation(report.kind),
        strategy(report.strategy),
        report.started_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        text(title),
        state::deployment(report.state).word,
    );
    if let Some(why) = &report.why {
        let _ = writeln!(html, "<p class=\"why\">{}</p>", text(why));
    }
}

fn strategy(of: Strategy) -> &'static str {
    state::strategy(of)
}

/// What happened, in order: stages and verdicts.
fn steps(html: &mut String, report: &DeploymentReport) {
    let stages = report.stages.iter().map(|stage| {
        let share = stage.percent.map_or_else(String::new, |percent| format!(" {percent} %"));
        (stage.at, stage.name.as_str(), format!("<b>{}</b>{share}", text(&stage.name)))
    });
    let verdicts = report.verdicts.iter().map(|said| {
        let why = said.why.as_deref().map_or_else(String::new, |why| format!(": {}", text(why)));
        (said.at, "verdict", format!("gates: <b class=\"{}\">{}</b>{why}", class(said.verdict), verdict(said.verdict)))
    });
    let mut all: Vec<_> = stages.chain(verdicts).collect();
    all.sort_by_key(|(at, _, _)| *at);
    if let Some(end) = report.finished_at {
        all.push((end, "end", format!("<b>{}</b>", state::deployment(report.state).word)));
    }
    html.push_str(
        "<h2>Timeline</h2><section><p class=\"dim\">Percent: the new version's part of new connections.</p><ol>\n",
    );
    for (at, kind, words) in all {
        let since = span(between(report.started_at, at));
        let _ = writeln!(html, "<li class=\"{kind}\"><time>+{since}</time><span>{words}</span></li>");
    }
    html.push_str("</ol></section>\n");
}

/// What ran beside it, and what that printed.
fn hooks(html: &mut String, report: &DeploymentReport) {
    if report.hooks.is_empty() {
        return;
    }
    html.push_str("<h2>Hooks</h2><section>\n");
    for run in &report.hooks {
        let class = match run.state {
            HookState::Done => "good",
            HookState::Failed => "bad",
            HookState::Running | HookState::Cut | HookState::Unknown => "warn",
        };
        let took = run.took_ms.map_or_else(String::new, |took| format!(" after {}", ms(took)));
        let why = run.why.as_deref().map_or_else(String::new, |why| format!(": {}", text(why)));
        let _ = writeln!(
            html,
            "<p>{} <b class=\"{class}\">{}</b>{took}{why}</p>",
            text(&super::hooks::occasion(run)),
            super::hooks::mark(run.state).word,
        );
        let lines: Vec<String> = run.output.iter().map(|line| text(line)).collect();
        let _ = writeln!(html, "<pre>$ {}\n{}</pre>", text(&run.command.join(" ")), lines.join("\n"));
    }
    html.push_str("</section>\n");
}

fn gates(html: &mut String, report: &DeploymentReport) {
    if report.gates.is_empty() {
        return;
    }
    html.push_str(
        "<h2>Gates</h2><section><table><tr><th>gate</th><th>verdict</th><th class=\"n wide\">tasks</th>\
         <th class=\"n\">observed</th><th class=\"n\">before</th><th class=\"n wide\">evidence</th></tr>\n",
    );
    for gate in &report.gates {
        let value = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| figure(&gate.gate, value));
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td class=\"{}\">{}</td><td class=\"n wide\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n wide\">{}</td></tr>",
            text(&gate.gate.replace('_', " ")),
            class(gate.verdict),
            verdict(gate.verdict),
            gate.n,
            value(gate.observed),
            value(gate.baseline),
            evidence(gate.log_e),
        );
    }
    html.push_str("</table><p class=\"dim\">Evidence of 8 holds, of 160 takes back.</p></section>\n");
}

const fn class(verdict: GateVerdict) -> &'static str {
    match verdict {
        GateVerdict::Rollback => "bad",
        GateVerdict::Hold => "warn",
        GateVerdict::Promote => "good",
        GateVerdict::TooFew | GateVerdict::NotEvaluated | GateVerdict::Off | GateVerdict::Unknown => "dim",
    }
}

fn tasks(html: &mut String, report: &DeploymentReport) {
    let _ = writeln!(
        html,
        "<h2>Tasks</h2><section><p><b>{}</b> finished, <b>{}</b> handed over, <b>{}</b> lost, {} connections cut</p>",
        report.tasks.finished, report.tasks.handed_over, report.tasks.lost, report.connections_cut
    );
    for lost in &report.lost_tasks {
        let _ = writeln!(html, "<p class=\"bad\">{} {}</p>", text(&lost.task), text(&lost.why));
    }
    let both = [("before", "old", &report.before), ("after", "new", &report.after)];
    if both.iter().any(|(_, _, durations)| durations.is_some()) {
        curves(html, &both);
        html.push_str(
            "<table><tr><th></th><th class=\"n\">tasks</th><th class=\"n\">p50</th><th class=\"n\">p99</th></tr>\n",
        );
        for (name, color, durations) in both {
            let Some(d) = durations else { continue };
            let _ = writeln!(
                html,
                "<tr><td style=\"color:var(--{color})\">● {name}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td></tr>",
                d.n,
                ms(d.p50_ms),
                ms(d.p99_ms)
            );
        }
        html.push_str("</table>");
    }
    html.push_str("</section>\n");
}

/// Share of tasks that are over by a duration, for both versions.
fn curves(html: &mut String, both: &[(&str, &str, &Option<Durations>)]) {
    const WIDTH: f64 = 360.0;
    const LEFT: f64 = 42.0;
    const RIGHT: f64 = 350.0;
    const TOP: f64 = 10.0;
    const BOTTOM: f64 = 150.0;
    let longest = both.iter().filter_map(|(_, _, d)| d.as_ref()?.curve_ms.last()).max().copied().unwrap_or(1).max(1);
    let _ =
        write!(html, "<svg viewBox=\"0 0 {WIDTH} 176\" role=\"img\" aria-label=\"Share of tasks done by a duration\">");
    for share in [0.0, 0.5, 1.0] {
        let y = BOTTOM - (BOTTOM - TOP) * share;
        let _ = write!(
            html,
            "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"var(--line)\"/><text x=\"{:.0}\" y=\"{:.1}\" \
             text-anchor=\"end\">{:.0}%</text>",
            LEFT - 4.0,
            y + 4.0,
            share * 100.0
        );
    }
    for part in 0..=4_u64 {
        let x = LEFT + (RIGHT - LEFT) * part as f64 / 4.0;
        let anchor = match part {
            0 => "start",
            4 => "end",
            _ => "middle",
        };
        let _ = write!(html, "<text x=\"{x:.0}\" y=\"168\" text-anchor=\"{anchor}\">{}</text>", ms(longest * part / 4));
    }
    for (name, color, durations) in both {
        // Told apart without colours too.
        let dashes = if *name == "before" { " stroke-dasharray=\"5 4\"" } else { "" };
        let Some(curve) = durations.as_ref().map(|d| &d.curve_ms).filter(|curve| curve.len() > 1) else { continue };
        let mut path = String::new();
        for (index, &value) in curve.iter().enumerate() {
            let x = LEFT + (RIGHT - LEFT) * value as f64 / longest as f64;
            let y = BOTTOM - (BOTTOM - TOP) * index as f64 / (curve.len() - 1) as f64;
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" });
        }
        let _ = write!(html, "<path d=\"{path}\" fill=\"none\" stroke=\"var(--{color})\" stroke-width=\"2\"{dashes}/>");
    }
    html.push_str("</svg>\n");
}

fn effects(html: &mut String, report: &DeploymentReport) {
    if report.effects.is_empty() {
        return;
    }
    html.push_str("<h2>Effects that rollback does not undo</h2><section>\n");
    for effect in &report.effects {
        let said = effect.description.as_deref().unwrap_or_default();
        let _ = writeln!(
            html,
            "<p><b>{}</b> {}: {} <span class=\"dim\">({} of task {})</span></p>",
            text(&effect.kind),
            state::effect(effect.state).word,
            text(said),
            text(&effect.key),
            text(&effect.task),
        );
    }
    html.push_str("</section>\n");
}

/// A text that stays one, whatever is in it.
fn text(raw: &str) -> String {
    let mut safe = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod browser;

#[cfg(test)]
mod tests {
    use super::super::deployment::sample;
    use super::*;

    #[test]
    fn the_page_holds_everything_and_asks_for_nothing() {
        let html = page(&sample());
        for part in ["rolled back", "14.6 %", "not evaluated", "viewport", "<svg", "+12s", "3:mail", "p99"] {
            assert!(html.contains(part), "{part}");
        }
        for outside in ["<script", "http://", "https://", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn what_workers_say_stays_text() {
        let html = page(&sample());
        assert!(html.contains("a mail to &lt;b&gt;") && !html.contains("mail to <b>"));
    }
}
