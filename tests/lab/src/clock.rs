use std::ops::Add;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

/// A time on CLOCK_BOOTTIME, in nanoseconds: the clock of the lease and of every event, and one for all
/// namespaces of a machine, so that what a probe saw and what a service says can be put on one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// Now.
    ///
    /// # Panics
    /// If the kernel has no CLOCK_BOOTTIME (Linux has had it since 2.6.39).
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME");
        Self(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
    }

    /// From CLOCK_BOOTTIME nanoseconds, as events and records carry them.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// CLOCK_BOOTTIME nanoseconds.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero when `earlier` is the later one.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Sleeps until this moment: absolute, so that a pacer does not drift by its own work.
    pub fn reach(self) {
        let until = TimeSpec::from(Duration::from_nanos(self.0));
        // Interrupted by a signal: sleep on, the time is absolute.
        while clock_nanosleep(ClockId::CLOCK_BOOTTIME, ClockNanosleepFlags::TIMER_ABSTIME, &until)
            == Err(nix::errno::Errno::EINTR)
        {}
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later.as_nanos() as u64))
    }
}
