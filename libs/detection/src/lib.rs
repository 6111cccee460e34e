//! How much a node is suspected, whether its workload is healthy, and whether it changes too often.
//!
//! Pure: no clock, no I/O, no randomness, ordered maps. Every time that goes in or comes out is a `u64`
//! of nanoseconds of the caller's `CLOCK_BOOTTIME`, named `now_ns`; spans are [`std::time::Duration`].
//! Nothing here acts: suspicion informs people and warms standbys (R10), the lease decides who serves.

mod accrual;
mod failure_detector;
mod flap;
mod health;
mod normal;
mod time;

pub use accrual::{Accrual, AccrualConfig, ConfigError, MAX_WINDOW, SMALLEST_FLOOR, Threshold};
pub use failure_detector::{Change, FailureDetector, FailureDetectorConfig, Standing, TooManyNodes};
pub use flap::{Flap, FlapConfig, FlapConfigError};
pub use health::{RiseFall, Transition};
