//! Numbers as people read them: sizes, spans of time, moments.

use std::time::Duration;

use jiff::Timestamp;

/// `812K`, `1.4G`: powers of 1024, at most four characters and a unit.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    if count < 1024 {
        return format!("{count}B");
    }
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    if tenths < 100 {
        format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{}{}", tenths / 10, UNITS[unit])
    }
}

/// The two largest units: `3d4h`, `2h5m`, `4m58s`, `41s`, and `180ms` under a second.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let pair = |large: u64, unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    if days > 0 {
        pair(days, "d", hours, "h")
    } else if hours > 0 {
        pair(hours, "h", minutes, "m")
    } else if minutes > 0 {
        pair(minutes, "m", seconds % 60, "s")
    } else if seconds > 0 {
        format!("{seconds}s")
    } else if time.is_zero() {
        "0s".to_owned()
    } else {
        format!("{}ms", time.as_millis().max(1))
    }
}

/// Time from `earlier` to `later`; zero when they are the other way round, as two clocks may have it.
pub(crate) fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

/// `0.4%`, `12%`, `150%`.
pub(crate) fn percent(value: f64) -> String {
    if value < 9.95 { format!("{value:.1}%") } else { format!("{value:.0}%") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stay_short_whatever_their_magnitude() {
        let shown = [0, 1023, 1024, 1536, 10 * 1024, 850 * 1024 * 1024, 3 << 30, u64::MAX].map(bytes);
        assert_eq!(shown, ["0B", "1023B", "1.0K", "1.5K", "10K", "850M", "3.0G", "16383P"]);
    }

    #[test]
    fn spans_show_their_two_largest_units() {
        let shown = [0, 41, 60, 298, 7500, 90_000, 864_000].map(|s| span(Duration::from_secs(s)));
        assert_eq!(shown, ["0s", "41s", "1m", "4m58s", "2h5m", "1d1h", "10d"]);
        assert_eq!(span(Duration::from_micros(180_400)), "180ms");
        assert_eq!(span(Duration::from_nanos(3)), "1ms");
    }

    #[test]
    fn a_clock_that_went_back_gives_no_negative_time() {
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(between(now, Timestamp::UNIX_EPOCH), Duration::ZERO);
    }

    #[test]
    fn small_shares_keep_a_decimal() {
        assert_eq!([0.04, 9.94, 12.4, 150.0].map(percent), ["0.0%", "9.9%", "12%", "150%"]);
    }
}
