//! What a new release must hold to: the thresholds of `gates`.

use agentd_core::gate::panel::Rules;

use super::reader::{Field, TableReader};
use super::sections;

pub(super) fn fill(rules: &mut Rules, table: &TableReader<'_>) {
    for (name, place) in [
        ("error_rate", &mut rules.error_rate),
        ("latency", &mut rules.latency),
        ("tokens", &mut rules.tokens),
        ("cost", &mut rules.cost),
        ("tool_calls", &mut rules.tool_calls),
        ("steps", &mut rules.steps),
        ("context", &mut rules.context),
    ] {
        if let Some(share) = table.get(name).and_then(|field| field.parsed(|text| share(name, text))) {
            *place = share;
        }
    }
    if let Some(margin) = table.get("quality").and_then(|field| quality(&field)) {
        rules.quality = margin;
    }
    if let Some(least) = table.get("n_min").and_then(|field| field.count()) {
        rules.n_min = least.into();
    }
    if let Some(most) = sections::pause(table, "latency_max") {
        rules.latency_max = Some(most);
    }
    if let Some(most) = table.get("cost_max").and_then(|field| field.fraction()) {
        rules.cost_max = Some(most);
    }
}

fn quality(field: &Field<'_>) -> Option<Option<f64>> {
    if field.value.as_str() == Some("off") { Some(None) } else { field.fraction().map(Some) }
}

/// Reads `"10%"` as 0.1 and `"off"` as none.
fn share(name: &str, text: &str) -> Result<Option<f64>, String> {
    if text == "off" {
        return Ok(None);
    }
    let percent = text.trim().strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    // A rate of errors is a share of all tasks, and all of them is no limit; a tolerance is open above.
    let most = if name == "error_rate" { 99.0 } else { 10_000.0 };
    match percent.filter(|percent| (0.0..=most).contains(percent)) {
        // To as many decimals as survive JSON unchanged.
        Some(percent) => Ok(Some((percent * 1e4).round() / 1e6)),
        None => Err(format!("{text:?} is no percentage from 0% to {most}%")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_or_off() {
        assert_eq!(share("latency", "12.5%"), Ok(Some(0.125)));
        assert_eq!(share("error_rate", "off"), Ok(None));
        for wrong in ["0.1", "x%", "-1%", "", "NaN%", "100%"] {
            assert!(share("error_rate", wrong).is_err(), "{wrong}");
        }
    }
}
