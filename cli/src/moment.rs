//! Moments as people write them on the command line.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Reads `10m` (that long ago), `2026-11-21 14:00`, `2026-11-21` or `14:00` (by the machine's clock), or RFC 3339.
///
/// # Errors
/// What is none of these, in words for a person.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    parse_at(text, Timestamp::now(), &TimeZone::system())
}

fn parse_at(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    let text = text.trim();
    if let Some(back) = ago(text) {
        return now.checked_sub(back).map_err(|error| error.to_string());
    }
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let today = now.to_zoned(zone.clone()).date();
    let civil: Option<DateTime> = text.parse().ok().or_else(|| Some(today.to_datetime(text.parse().ok()?)));
    let wanted = "10m, \"2026-11-21 14:00\", 14:00 or 2026-11-21T14:00:00Z";
    let civil = civil.ok_or_else(|| format!("no time is written so; expected one such as {wanted}"))?;
    zone.to_timestamp(civil).map_err(|error| error.to_string())
}

/// `90s`, `10m`, `1h30m`, `2d`.
fn ago(text: &str) -> Option<SignedDuration> {
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (mut seconds, mut rest) = (0_i64, text);
    while !rest.is_empty() {
        let digits = rest.find(|sign: char| !sign.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let unit = match rest[digits..].chars().next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        seconds = number.checked_mul(unit)?.checked_add(seconds)?;
        rest = &rest[digits + 1..];
    }
    Some(SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_so_long_ago_or_a_time_of_the_machine_or_of_the_world() {
        let now: Timestamp = "2026-11-21T14:30:00Z".parse().expect("a time");
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let at = |text: &str| parse_at(text, now, &zone).map(|at| at.to_string());
        for (text, expected) in [
            ("10m", "2026-11-21T14:20:00Z"),
            ("1h30m", "2026-11-21T13:00:00Z"),
            ("2d", "2026-11-19T14:30:00Z"),
            ("2026-11-21 14:00", "2026-11-21T13:00:00Z"),
            ("2026-11-21T14:00:05", "2026-11-21T13:00:05Z"),
            ("2026-11-21", "2026-11-20T23:00:00Z"),
            ("14:00", "2026-11-21T13:00:00Z"),
            ("2026-11-21T14:00:00Z", "2026-11-21T14:00:00Z"),
            ("2026-11-21T14:00:00+02:00", "2026-11-21T12:00:00Z"),
        ] {
            assert_eq!(at(text), Ok(expected.to_owned()), "{text}");
        }
        for text in ["", "yesterday", "10", "10x", "m", "99999999999999999999d", "2026-13-01"] {
            assert!(at(text).is_err(), "{text}");
        }
    }
}
