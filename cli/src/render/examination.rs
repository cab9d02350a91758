//! What `doctor` found, a line each, with what to do below what is not well.

use super::log::harmless;
use super::state::{BAD, FAINT, GOOD, STRONG, WARN};
use crate::examine::{Finding, Weight};

/// All findings, and how it stands as a whole.
pub(crate) fn page(findings: &[Finding], width: Option<usize>) -> String {
    let mut text = String::new();
    for finding in findings {
        let (symbol, style) = match finding.weight {
            Weight::Well => ('✓', GOOD),
            Weight::Limited => ('!', WARN),
            Weight::Broken => ('✗', BAD),
        };
        let room = width.map(|width| width.saturating_sub(20).max(20));
        for (index, line) in super::table::wrap(&finding.found, room).iter().enumerate() {
            let line = harmless(line);
            if index == 0 {
                text.push_str(&format!("{style}{symbol}{style:#} {STRONG}{:<16}{STRONG:#}  {line}\n", finding.subject));
            } else {
                text.push_str(&format!("{:20}{line}\n", ""));
            }
        }
        for line in finding.help.iter().flat_map(|help| super::table::wrap(help, room)) {
            text.push_str(&format!("{:20}{FAINT}{}{FAINT:#}\n", "", harmless(&line)));
        }
    }
    let count = |weight| findings.iter().filter(|finding| finding.weight == weight).count();
    let line = match (count(Weight::Broken), count(Weight::Limited)) {
        (0, 0) => format!("{GOOD}all is well{GOOD:#}"),
        (0, limited) => format!("{WARN}it works; {limited} of its promises hold only in part{WARN:#}"),
        (broken, _) => format!("{BAD}{broken} to mend{BAD:#}"),
    };
    text.push_str(&format!("{line}\n"));
    text
}
