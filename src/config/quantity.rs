//! Amounts as people write them: `"1h30m"`, `"100ms..30s"`, `"10 in 5m"`, `"2G"`, `"150%"`, `"0027"`.
//!
//! Pure text to number and back. What is written back reads as the same amount.

use std::time::Duration;

use thiserror::Error;

/// The units of time, largest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The units of size, largest first, in bytes. Powers of 1024, as systemd, nginx and Docker read them.
const SIZE_UNITS: [(&str, u64); 5] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10), ("", 1)];

/// Ten years: more is a slip of the pen, and less never overflows a clock.
const LONGEST_MS: u64 = 3650 * 86_400_000;

/// Why a text is no amount.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QuantityError {
    /// Nothing where a number should be.
    #[error("there is no number in {0:?}")]
    NoNumber(String),
    /// A number of what?
    #[error("{0:?} has no unit")]
    NoUnit(String),
    /// A unit that nobody knows.
    #[error("{unit:?} is no unit of {of}")]
    UnknownUnit {
        /// What stood after the number.
        unit: String,
        /// What is measured: time, or size.
        of: &'static str,
    },
    /// `30m1h`, or a unit twice.
    #[error("the units of {0:?} do not go from large to small")]
    UnitOrder(String),
    /// More than this version counts.
    #[error("{0:?} is too much")]
    TooLarge(String),
    /// A range whose end comes before its start.
    #[error("the range {0:?} ends before it starts")]
    Backwards(String),
    /// Not of the form `COUNT in DURATION`.
    #[error("{0:?} is not of the form COUNT in DURATION")]
    NoRate(String),
    /// No percentage.
    #[error("{0:?} is no percentage")]
    NoPercentage(String),
    /// Not three or four octal digits up to 0777.
    #[error("{0:?} is no file mode mask")]
    NoMask(String),
}

/// Reads `"100ms"`, `"5s"`, `"24h"`, `"1h30m"`: whole numbers, each with its unit, from large to small.
///
/// # Errors
/// The text holds no number, a number without unit, an unknown unit, units out of order, or more than ten years.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    let mut smallest = u64::MAX;
    if rest.is_empty() {
        return Err(QuantityError::NoNumber(text.to_owned()));
    }
    while !rest.is_empty() {
        let (number, after) = leading_number(rest, text)?;
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        if unit.is_empty() && after.is_empty() {
            return Err(QuantityError::NoUnit(text.to_owned()));
        }
        let Some(&(_, unit_ms)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
            let unit = if unit.is_empty() { after } else { unit };
            return Err(QuantityError::UnknownUnit { unit: unit.to_owned(), of: "time" });
        };
        if unit_ms >= smallest {
            return Err(QuantityError::UnitOrder(text.to_owned()));
        }
        smallest = unit_ms;
        let sum = number.checked_mul(unit_ms).and_then(|ms| ms.checked_add(total_ms));
        total_ms = sum.filter(|&ms| ms <= LONGEST_MS).ok_or_else(|| QuantityError::TooLarge(text.to_owned()))?;
        rest = after;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration as [`parse_duration`] reads it, in whole milliseconds.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, unit_ms) in TIME_UNITS {
        if left >= unit_ms {
            text.push_str(&format!("{}{name}", left / unit_ms));
            left %= unit_ms;
        }
    }
    text
}

/// Reads `"100ms..30s"`, or one duration as both ends.
///
/// # Errors
/// An end is no duration, or the range is backwards.
pub fn parse_range(text: &str) -> Result<(Duration, Duration), QuantityError> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    let (low, high) = (parse_duration(low)?, parse_duration(high)?);
    if low > high {
        return Err(QuantityError::Backwards(text.to_owned()));
    }
    Ok((low, high))
}

/// Reads `"10 in 5m"`.
///
/// # Errors
/// The form is another, the count is no whole number, or the period no duration.
pub fn parse_rate(text: &str) -> Result<(u32, Duration), QuantityError> {
    let (count, period) = text.split_once(" in ").ok_or_else(|| QuantityError::NoRate(text.to_owned()))?;
    let count = count.trim().parse().map_err(|_| QuantityError::NoRate(text.to_owned()))?;
    Ok((count, parse_duration(period)?))
}

/// Reads a size in bytes: `"2G"`, `"50M"`, `"512"`. `K`, `M`, `G`, `T` are powers of 1024; `B` and `iB` may follow.
///
/// # Errors
/// There is no number, an unknown unit, or more than `i64::MAX` bytes, which is all that the kernel counts.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let (number, unit) = leading_number(text.trim(), text)?;
    let unit = unit.trim_start();
    let stem = unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B')).unwrap_or(unit);
    let known = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(stem) && unit != "iB");
    let Some(&(_, factor)) = known else {
        return Err(QuantityError::UnknownUnit { unit: unit.to_owned(), of: "size" });
    };
    let bytes = number.checked_mul(factor).filter(|&bytes| i64::try_from(bytes).is_ok());
    bytes.ok_or_else(|| QuantityError::TooLarge(text.to_owned()))
}

/// Writes a size as [`parse_size`] reads it, in the largest unit that leaves no remainder.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let fits = |&&(_, factor): &&(&str, u64)| bytes >= factor && bytes.is_multiple_of(factor);
    SIZE_UNITS.iter().find(fits).map_or_else(|| bytes.to_string(), |(name, factor)| format!("{}{name}", bytes / factor))
}

/// Reads `"150%"` as 150, 100 being one whole processor.
///
/// # Errors
/// The text is no whole number from 1 to 1,000,000 with a percent sign.
pub fn parse_percent(text: &str) -> Result<u32, QuantityError> {
    let number = text.trim().strip_suffix('%').and_then(|digits| digits.trim_end().parse().ok());
    let known = number.filter(|percent| (1..=1_000_000).contains(percent));
    known.ok_or_else(|| QuantityError::NoPercentage(text.to_owned()))
}

/// Reads a file mode mask in octal: `"022"`, `"0027"`, `"0o077"`.
///
/// # Errors
/// The text is not octal, or above 0777.
pub fn parse_mask(text: &str) -> Result<u32, QuantityError> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = !digits.is_empty() && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    let mask = octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten();
    mask.filter(|&mask| mask <= 0o777).ok_or_else(|| QuantityError::NoMask(text.to_owned()))
}

fn leading_number<'t>(text: &'t str, whole: &str) -> Result<(u64, &'t str), QuantityError> {
    let len = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(len);
    if digits.is_empty() {
        return Err(QuantityError::NoNumber(whole.to_owned()));
    }
    let number = digits.parse().map_err(|_| QuantityError::TooLarge(whole.to_owned()))?;
    Ok((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, ms) in [("100ms", 100), ("5s", 5000), ("0s", 0), ("1h30m", 5_400_000), ("24h", 86_400_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_duration_says_why() {
        for (text, why) in [
            ("", "there is no number in \"\""),
            ("soon", "there is no number in \"soon\""),
            ("-5s", "there is no number in \"-5s\""),
            ("5", "\"5\" has no unit"),
            ("5 minutes", "\" minutes\" is no unit of time"),
            ("1.5s", "\".5s\" is no unit of time"),
            ("5sec", "\"sec\" is no unit of time"),
            ("30m1h", "the units of \"30m1h\" do not go from large to small"),
            ("1s1s", "the units of \"1s1s\" do not go from large to small"),
            ("99999999999999999999s", "\"99999999999999999999s\" is too much"),
            ("4000d", "\"4000d\" is too much"),
        ] {
            assert_eq!(parse_duration(text).map_err(|e| e.to_string()), Err(why.to_owned()));
        }
    }

    #[test]
    fn ranges_and_rates_have_two_parts() {
        let ms = Duration::from_millis;
        assert_eq!(parse_range("100ms..30s"), Ok((ms(100), ms(30_000))));
        assert_eq!(parse_range("1s"), Ok((ms(1000), ms(1000))));
        assert_eq!(parse_range("30s..1s"), Err(QuantityError::Backwards("30s..1s".to_owned())));
        assert!(parse_range("1s..").is_err() && parse_range("1s..2s..3s").is_err());
        assert_eq!(parse_rate("10 in 5m"), Ok((10, ms(300_000))));
        for bad in ["10", "10 in", "ten in 5m", "10 in 5", "-1 in 5m"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_percentages_and_masks_are_held_to_their_forms() {
        for (text, bytes) in [("2G", 2 << 30), ("50M", 50 << 20), ("512", 512), ("1k", 1024), ("1 GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "2X", "9999999T", "1.5G", "2 iB", "-1"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_percent("150%"), Ok(150));
        for bad in ["150", "0%", "%", "-5%", "1.5%"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
        assert_eq!((parse_mask("0027"), parse_mask("0o077")), (Ok(0o27), Ok(0o77)));
        for bad in ["", "8", "1000", "+22", "rwx"] {
            assert!(parse_mask(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same_amount(ms in 0..=LONGEST_MS, bytes in 0..=i64::MAX as u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_is_too_strange(text in ".*") {
            let _ = (parse_duration(&text), parse_range(&text), parse_rate(&text));
            let _ = (parse_size(&text), parse_percent(&text), parse_mask(&text));
        }
    }
}
