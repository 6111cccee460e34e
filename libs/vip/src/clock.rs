//! The clock that decides: CLOCK_BOOTTIME, which also runs while the host sleeps.

use nix::time::{ClockId, clock_getres, clock_gettime};

/// Nanoseconds since boot, time asleep included (CLOCK_BOOTTIME).
#[must_use]
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has CLOCK_BOOTTIME");
    nanoseconds(now.tv_sec(), now.tv_nsec())
}

/// Length of one kernel tick in nanoseconds: the grain in which nftables counts timeouts.
///
/// The coarse clocks advance once a tick, so their resolution is the tick (4 ms at HZ=250).
pub(crate) fn tick_ns() -> u64 {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .expect("every Linux since 2.6.32 has CLOCK_MONOTONIC_COARSE");
    nanoseconds(tick.tv_sec(), tick.tv_nsec())
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> u64 {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    u64::try_from(total).expect("the time since boot is positive and below 584 years")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boottime_does_not_run_backwards() {
        let first = boottime_ns();
        let second = boottime_ns();
        assert!(first > 0 && second >= first);
    }

    #[test]
    fn tick_is_between_one_and_ten_milliseconds() {
        let tick = tick_ns();
        assert!((999_000..=10_001_000).contains(&tick), "tick of {tick} ns");
    }
}
