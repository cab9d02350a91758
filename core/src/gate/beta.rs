//! The Beta distribution's quantile: how large a rate may be, given how often it was seen.

/// Upper bound of a rate with the confidence `level`, given `bad` of `all` (Clopper and Pearson 1934, one-sided): the
/// quantile of Beta(bad + 1, all − bad). 1 when all were bad.
#[must_use]
pub(super) fn upper_bound(bad: f64, all: f64, level: f64) -> f64 {
    if bad >= all {
        return 1.0;
    }
    let (a, b) = (bad + 1.0, all - bad);
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // 52 halvings: as exact as the number is. Asked once a stage.
    for _ in 0..52 {
        let middle = f64::midpoint(low, high);
        if cumulative(middle, a, b) < level { low = middle } else { high = middle }
    }
    high
}

/// The regularised incomplete beta function I_x(a, b), by its continued fraction (Lentz; DLMF 8.17.22).
fn cumulative(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast only under the mean.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - cumulative(1.0 - x, b, a);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp() / a;
    let away = |value: f64| if value.abs() < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { value };
    let (mut c, mut d) = (1.0, 1.0 / away(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..=400 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for term in [even, odd] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            fraction *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// Logarithm of the gamma function for positive arguments (Lanczos, g = 7, nine terms; within 1e-13).
fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let t = x + 7.5;
    let series = (1_u8..).zip(TERMS).fold(0.999_999_999_999_809_9, |sum, (k, term)| sum + term / (x + f64::from(k)));
    (std::f64::consts::TAU.sqrt()).ln() + (x + 0.5) * t.ln() - t + series.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_those_of_the_closed_forms() {
        // None bad: Beta(1, n) has the quantile 1 - (1 - level)^(1/n).
        for all in [1.0, 50.0, 1000.0] {
            assert!((upper_bound(0.0, all, 0.8) - (1.0 - 0.2_f64.powf(1.0 / all))).abs() < 1e-12);
        }
        // All but one bad: Beta(n, 1) has the quantile level^(1/n).
        assert!((upper_bound(9.0, 10.0, 0.8) - 0.8_f64.powf(0.1)).abs() < 1e-12);
        assert_eq!(upper_bound(10.0, 10.0, 0.8), 1.0);
        // Beta(2, 2) is x²(3 - 2x).
        let x = upper_bound(1.0, 3.0, 0.8);
        assert!((x * x * (3.0 - 2.0 * x) - 0.8).abs() < 1e-12, "{x}");
    }
}
