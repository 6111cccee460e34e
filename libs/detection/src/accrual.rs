//! Phi accrual failure detector (Hayashibara, Defago, Yared, Katayama: The phi accrual failure detector, 2004).

use std::collections::VecDeque;
use std::time::Duration;

use crate::normal;
use crate::time::nanos;

/// Largest window: it keeps the exact sums inside 64 bits, and a node inside 4 KiB.
pub const MAX_WINDOW: usize = 1_024;

/// Longest interval that may count as jitter; a silence of hours is an outage.
const LONGEST_GAP: Duration = Duration::from_secs(3_600);

/// Smallest standard deviation accepted: below it one late timer tick would be certain death.
pub const SMALLEST_FLOOR: Duration = Duration::from_micros(1);

/// Finest unit that intervals are kept in: no clock of a host tells more of the network.
const FINEST_UNIT_NS: u64 = 1_000;

/// A window starts from two made-up intervals, this part of the configured interval to either side of it, so
/// that its spread is wide until real heartbeats have filled it.
const SEED_SPREAD: u64 = 4;

/// Why an [`AccrualConfig`] or [`Threshold`] was refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The window holds no interval or more than [`MAX_WINDOW`].
    #[error("window of {0} intervals: must be 2 to {MAX_WINDOW}")]
    Window(usize),
    /// The heartbeat interval is zero or longer than the longest gap.
    #[error("interval {0:?}: must be above zero and at most the longest gap")]
    Interval(Duration),
    /// The floor of the standard deviation is too small.
    #[error("deviation floor {0:?}: must be at least {SMALLEST_FLOOR:?}")]
    Floor(Duration),
    /// The longest gap that counts as jitter is too long.
    #[error("longest gap {0:?}: must be at most {LONGEST_GAP:?}")]
    Gap(Duration),
    /// The threshold is not a number between 0 and 1e6.
    #[error("threshold phi {0}: must be above 0 and at most 1e6")]
    Threshold(f64),
}

/// Settings of one [`Accrual`] detector, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccrualConfig {
    interval_ns: u64,
    window: usize,
    floor_ns: u64,
    longest_gap_ns: u64,
    unit_ns: u64,
}

/// The unit in which `longest_ns` and everything below it fits 16 bits: 1, 2 or 5 times a power of ten, so that the usual
/// intervals are whole numbers of it; 5 us for 300 ms.
fn unit(longest_ns: u64) -> u64 {
    let least = longest_ns.div_ceil(u16::MAX.into()).max(FINEST_UNIT_NS);
    let power = 10_u64.pow(least.ilog10());
    [1, 2, 5].map(|times| times * power).into_iter().find(|unit| *unit >= least).unwrap_or(10 * power)
}

impl AccrualConfig {
    /// Settings from the configured heartbeat `interval`, the number of inter-arrival times kept (`window`), the
    /// smallest standard deviation assumed (`deviation_floor`) and the longest interval that is still learned.
    ///
    /// The floor is there because on a quiet network the measured deviation falls to microseconds, and then one
    /// delayed packet would be infinitely surprising. A gap beyond `longest_gap` (usually the lease) was an
    /// outage: to learn it would blunt the detector for the next one.
    pub fn new(
        interval: Duration,
        window: usize,
        deviation_floor: Duration,
        longest_gap: Duration,
    ) -> Result<Self, ConfigError> {
        if !(2..=MAX_WINDOW).contains(&window) {
            return Err(ConfigError::Window(window));
        }
        if longest_gap > LONGEST_GAP {
            return Err(ConfigError::Gap(longest_gap));
        }
        if interval.is_zero() || interval > longest_gap {
            return Err(ConfigError::Interval(interval));
        }
        if deviation_floor < SMALLEST_FLOOR {
            return Err(ConfigError::Floor(deviation_floor));
        }
        let (interval_ns, longest_gap_ns) = (nanos(interval), nanos(longest_gap));
        Ok(Self {
            interval_ns,
            window,
            floor_ns: nanos(deviation_floor),
            longest_gap_ns,
            unit_ns: unit(longest_gap_ns.max(interval_ns + interval_ns / SEED_SPREAD)),
        })
    }
}

/// A value of phi at which a node counts as suspected, with its place on the normal curve worked out once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    phi: f64,
    deviations: f64,
}

impl Threshold {
    /// A threshold of `phi`: a live node is suspected wrongly about once in `10^phi` heartbeats.
    pub fn new(phi: f64) -> Result<Self, ConfigError> {
        if phi > 0.0 && phi <= 1e6 {
            Ok(Self { phi, deviations: normal::deviations(phi) })
        } else {
            Err(ConfigError::Threshold(phi))
        }
    }

    /// The phi it was made from.
    pub fn phi(&self) -> f64 {
        self.phi
    }
}

/// Suspicion of one node, from the arrival times of its heartbeats.
///
/// Holds at most `window` intervals in two bytes each, to a 65,535th of the longest gap (5 us of 300 ms): most of what a
/// detector keeps of a node is this window. Sums are kept in integers, so they stay exact however long it runs.
#[derive(Debug, Clone)]
pub struct Accrual {
    config: AccrualConfig,
    /// In units of the configuration.
    intervals: VecDeque<u16>,
    sum: u64,
    sum_of_squares: u64,
    last_heard: Option<u64>,
    /// Silence counts from here: the last heartbeat, or the observer's own awakening if that was later.
    silent_since: u64,
    /// Intervals that begin before this are the observer's own lateness (R13).
    blamed_until: u64,
}

impl Accrual {
    /// A detector that has heard nothing yet and expects the configured interval.
    pub fn new(config: AccrualConfig) -> Self {
        let mut accrual = Self {
            config,
            // All at once: growing by doubling would end above it.
            intervals: VecDeque::with_capacity(config.window),
            sum: 0,
            sum_of_squares: 0,
            last_heard: None,
            silent_since: 0,
            blamed_until: 0,
        };
        let spread = config.interval_ns / SEED_SPREAD;
        accrual.learn(config.interval_ns - spread);
        accrual.learn(config.interval_ns + spread);
        accrual
    }

    /// Takes in a heartbeat that arrived at `now_ns`. One that arrives before an earlier one is taken as simultaneous.
    pub fn heartbeat(&mut self, now_ns: u64) {
        if let Some(last) = self.last_heard {
            let interval = now_ns.saturating_sub(last);
            let own_fault = last < self.blamed_until;
            if !own_fault && interval <= self.config.longest_gap_ns {
                self.learn(interval);
            }
        }
        let last = self.last_heard.map_or(now_ns, |last| last.max(now_ns));
        self.last_heard = Some(last);
        self.silent_since = self.silent_since.max(last);
    }

    /// The observer itself ran late and noticed at `now_ns` (R13): silence counts from here, and neither the gap
    /// nor the burst of queued heartbeats that follows within one interval is learned.
    pub fn observer_was_late(&mut self, now_ns: u64) {
        self.silent_since = self.silent_since.max(now_ns);
        self.blamed_until = self.blamed_until.max(now_ns.saturating_add(self.config.interval_ns));
    }

    /// `-log10` of the probability that a live node's next heartbeat comes later than `now_ns`.
    ///
    /// 0 before the first heartbeat. Rises with time, and is always finite.
    pub fn phi(&self, now_ns: u64) -> f64 {
        if self.last_heard.is_none() {
            return 0.0;
        }
        let silence = now_ns.saturating_sub(self.silent_since) as f64;
        let (mean, deviation) = self.expected();
        normal::minus_log10_tail((silence - mean) / deviation)
    }

    /// When phi will have reached `threshold` if no heartbeat comes, in the clock of `now_ns`; `None` before the
    /// first heartbeat.
    pub fn suspect_at(&self, threshold: Threshold) -> Option<u64> {
        self.last_heard?;
        let (mean, deviation) = self.expected();
        let silence = (mean + threshold.deviations * deviation).max(0.0).ceil();
        // `as` saturates: what lies past the end of the clock is never reached.
        Some(self.silent_since.saturating_add(silence as u64))
    }

    /// When the last heartbeat arrived.
    pub fn last_heard(&self) -> Option<u64> {
        self.last_heard
    }

    /// Mean of the window.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.expected().0 as u64)
    }

    /// Standard deviation of the window, not below the floor.
    pub fn deviation(&self) -> Duration {
        Duration::from_nanos(self.expected().1 as u64)
    }

    /// Keeps an interval, given in nanoseconds.
    fn learn(&mut self, interval_ns: u64) {
        let unit = self.config.unit_ns;
        // The unit is such that every interval that comes here fits.
        let interval = u16::try_from((interval_ns + unit / 2) / unit).unwrap_or(u16::MAX);
        if self.intervals.len() == self.config.window
            && let Some(oldest) = self.intervals.pop_front()
        {
            self.sum -= u64::from(oldest);
            self.sum_of_squares -= u64::from(oldest) * u64::from(oldest);
        }
        self.intervals.push_back(interval);
        self.sum += u64::from(interval);
        self.sum_of_squares += u64::from(interval) * u64::from(interval);
    }

    /// Mean and standard deviation in nanoseconds. The window is never empty: it starts from the seeds.
    fn expected(&self) -> (f64, f64) {
        let count = self.intervals.len() as u64;
        // n·Σx² - (Σx)² in integers: no cancellation, and never negative (Cauchy-Schwarz).
        let spread = count * self.sum_of_squares - self.sum * self.sum;
        let nanos = self.config.unit_ns as f64 / count as f64;
        (self.sum as f64 * nanos, (libm::sqrt(spread as f64) * nanos).max(self.config.floor_ns as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_round_and_everything_that_is_learned_fits() {
        let ms = Duration::from_millis;
        for (longest, expected) in
            [(ms(30), 1_000), (ms(65), 1_000), (ms(66), 2_000), (ms(300), 5_000), (ms(3_000), 50_000)]
        {
            assert_eq!(unit(nanos(longest)), expected, "{longest:?}");
        }
        for seconds in 1..=3_600 {
            let longest = nanos(Duration::from_secs(seconds));
            assert!(longest.div_ceil(unit(longest)) <= u16::MAX.into(), "{seconds} s");
        }
    }
}
