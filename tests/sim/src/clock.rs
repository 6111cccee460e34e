//! A host's CLOCK_BOOTTIME: its own rate and start, never compared with another host's.

use understudy_wire::BootTime;

/// Rates are integers so that a run is the same everywhere: 1,000,000 is true time.
const TRUE_RATE: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Parts per million of true time.
    rate: u64,
    /// Real time at which it showed `offset`.
    started: u64,
    offset: u64,
}

impl Clock {
    /// A clock that shows `offset` at real time `started` and is off by `drift_ppm`.
    pub(crate) fn new(started: u64, offset: u64, drift_ppm: i64) -> Self {
        Self { rate: TRUE_RATE.saturating_add_signed(drift_ppm), started, offset }
    }

    /// The same clock after a reboot at real time `now`: from zero again, the crystal is the same.
    pub(crate) fn reboot(&mut self, now: u64) {
        *self = Self { rate: self.rate, started: now, offset: 0 };
    }

    pub(crate) fn read(&self, real: u64) -> BootTime {
        BootTime(self.offset + (real - self.started) * self.rate / TRUE_RATE)
    }

    /// First instant of real time at which the clock shows `local` or more.
    pub(crate) fn when(&self, local: BootTime) -> u64 {
        let ahead = u128::from(local.0.saturating_sub(self.offset));
        let real = (ahead * u128::from(TRUE_RATE)).div_ceil(u128::from(self.rate));
        self.started.saturating_add(u64::try_from(real).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_the_first_instant_that_shows_the_time() {
        for drift in [-10_000, -3, 0, 7, 10_000] {
            let clock = Clock::new(1_000, 5_000, drift);
            for local in [5_000, 5_001, 305_000_000, 60_000_000_123] {
                let real = clock.when(BootTime(local));
                assert!(clock.read(real) >= BootTime(local), "drift {drift}, local {local}");
                assert!(
                    real == 1_000 || clock.read(real - 1) < BootTime(local),
                    "drift {drift}, local {local}"
                );
            }
        }
    }
}
