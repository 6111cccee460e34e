//! The timing relations of the lease.

use std::time::Duration;

use super::Checker;
use crate::config::schema::Config;

/// The lease is too short for the network it runs on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "lease.duration = {lease:?} must be above 4 x the measured p99.9 round trip to the detectors ({p999:?}), else \
     delay alone would end leases: use at least {needed:?} or a faster network"
)]
pub struct RoundTripTooLong {
    /// T.
    pub lease: Duration,
    /// What was measured.
    pub p999: Duration,
    /// The least T that would do.
    pub needed: Duration,
}

/// Refuses a lease that is not above four times the measured p99.9 round trip from heartbeat to grant.
///
/// # Errors
/// [`RoundTripTooLong`] with the least lease that would do.
pub fn check_round_trip(lease: Duration, p999: Duration) -> Result<(), RoundTripTooLong> {
    let bound = p999.saturating_mul(4);
    if lease > bound {
        return Ok(());
    }
    Err(RoundTripTooLong { lease, p999, needed: bound.saturating_add(Duration::from_millis(1)) })
}

pub(super) fn check(_config: &Config, _checker: &mut Checker<'_>) {}
