//! The tail of the normal distribution on a logarithmic scale.
//!
//! `libm` rather than the standard library's functions: the same bits on every platform, so that one
//! simulation seed gives one trace everywhere.

use std::f64::consts::{LN_10, SQRT_2, TAU};

/// Beyond this many standard deviations `erfc` comes near the smallest `f64` (it ends at about 38), so the
/// asymptotic series takes over; at 30 its first dropped term is 105/30^8, 2e-10 of the tail.
const SERIES_FROM: f64 = 30.0;

/// Bisection steps of [`deviations`]: halving an `f64` range 200 times reaches neighbouring numbers.
const BISECTIONS: u32 = 200;

/// `-log10 Q(z)`, where `Q(z)` is the probability that a standard normal variable exceeds `z`.
///
/// Never negative, finite for every finite `z` up to 1e150 in size.
pub(crate) fn minus_log10_tail(z: f64) -> f64 {
    if z <= 0.0 {
        // Q is near 1: take the logarithm of 1 - P without losing P.
        -libm::log1p(-0.5 * libm::erfc(-z / SQRT_2)) / LN_10
    } else if z <= SERIES_FROM {
        -libm::log10(0.5 * libm::erfc(z / SQRT_2))
    } else {
        // Abramowitz and Stegun 26.2.12.
        let inverse_square = 1.0 / (z * z);
        let series = 1.0 - inverse_square * (1.0 - 3.0 * inverse_square * (1.0 - 5.0 * inverse_square));
        z * z / (2.0 * LN_10) + libm::log10(z * libm::sqrt(TAU)) - libm::log10(series)
    }
}

/// The `z` at which [`minus_log10_tail`] reaches `phi`, rounded so that it has been reached.
pub(crate) fn deviations(phi: f64) -> f64 {
    let (mut low, mut high) = (-40.0_f64, 40.0_f64);
    while minus_log10_tail(high) < phi {
        high *= 2.0;
    }
    for _ in 0..BISECTIONS {
        let middle = low + (high - low) / 2.0;
        if minus_log10_tail(middle) < phi {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tail probabilities from published tables (z, Q(z)).
    const GOLDEN: [(f64, f64); 9] = [
        (-3.0, 0.998_650_101_968_369_9),
        (-1.0, 0.841_344_746_068_542_9),
        (0.0, 0.5),
        (1.0, 0.158_655_253_931_457_05),
        (2.0, 0.022_750_131_948_179_2),
        (3.0, 0.001_349_898_031_630_094_5),
        (5.0, 2.866_515_718_791_939e-7),
        (6.0, 9.865_876_450_376_98e-10),
        (10.0, 7.619_853_024_160_526e-24),
    ];

    #[test]
    fn tail_matches_published_values() {
        for (z, tail) in GOLDEN {
            let expected = -tail.log10();
            let phi = minus_log10_tail(z);
            assert!(
                (phi - expected).abs() <= 1e-12 * expected.max(1e-3),
                "z {z}: {phi}, expected {expected}"
            );
        }
    }

    /// Q(40) = 3.655893540915e-350 and Q(100) = 1.344179e-2174 are below the smallest `f64`.
    #[test]
    fn tail_goes_on_where_erfc_has_underflowed() {
        assert!((minus_log10_tail(40.0) - 349.437_006_7).abs() < 1e-6);
        assert!((minus_log10_tail(100.0) - 2_173.871_542_9).abs() < 1e-4);
        assert!(minus_log10_tail(1e19).is_finite());
    }

    #[test]
    fn branches_meet_without_a_step() {
        for at in [0.0, SERIES_FROM] {
            let (below, above) = (minus_log10_tail(at - 1e-9), minus_log10_tail(at + 1e-9));
            assert!(below < above && above - below < 1e-7, "at {at}: {below} then {above}");
        }
    }

    #[test]
    fn deviations_inverts_the_tail() {
        for phi in [1e-6, 0.3, 1.0, 3.0, 8.0, 16.0, 300.0, 1e6] {
            let z = deviations(phi);
            assert!(minus_log10_tail(z) >= phi);
            assert!((minus_log10_tail(z) - phi).abs() <= 1e-9 * phi.max(1e-3), "phi {phi}");
        }
        assert!((deviations(-0.158_655_253_931_457_05_f64.log10()) - 1.0).abs() < 1e-12);
    }
}
