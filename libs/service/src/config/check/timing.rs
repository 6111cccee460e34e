//! The timing relations of the lease.

use std::time::Duration;

use humantime_serde::re::humantime::format_duration;
use understudy_detection::{MAX_WINDOW, SMALLEST_FLOOR};

use super::Checker;
use crate::config::schema::Config;

/// Shortest interval: the gate's timeouts and Tokio's timers have a resolution of milliseconds.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// Longest interval, lease and ping: beyond it this is a typing mistake, not failover.
const MAX_SPAN: Duration = Duration::from_secs(600);

/// From this rate error on a clock is broken; crystals are off by 0.01 %.
const MAX_DRIFT: f64 = 0.1;

/// The lease is too short for the network it runs on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "lease.duration = {} must be above 4 x the measured p99.9 round trip to the detectors ({}), else delay alone would \
     end leases; use at least {} or a faster network", format_duration(*lease), format_duration(*p999), format_duration(*needed)
)]
pub struct RoundTripTooLong {
    /// T.
    pub lease: Duration,
    /// What was measured.
    pub p999: Duration,
    /// The least T that would do, to a millisecond.
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
    let millis = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    let needed = Duration::from_millis(millis.saturating_add(1));
    Err(RoundTripTooLong { lease, p999, needed })
}

pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    spans(config, checker);
    relations(config, checker);
    drift(config, checker);
    suspicion(config, checker);
}

fn spans(config: &Config, checker: &mut Checker<'_>) {
    let spans = [
        ("lease.interval", config.lease.interval),
        ("lease.duration", config.lease.duration),
        ("lease.max", config.lease.max),
        ("nats.ping_interval", config.nats.ping_interval),
    ];
    for (key, span) in spans {
        if span < MIN_INTERVAL {
            checker.refuse(key, "must be at least 1ms, the resolution of the timers");
        } else if span > MAX_SPAN {
            checker.refuse(key, "must be at most 10m; failover is a matter of seconds");
        }
    }
}

fn relations(config: &Config, checker: &mut Checker<'_>) {
    let lease = &config.lease;
    if checker.doubtful(&["lease.interval", "lease.duration", "lease.max"]) {
        return;
    }
    if lease.interval < MIN_INTERVAL || lease.interval > MAX_SPAN {
        return;
    }
    let (twice, thrice) = (lease.interval * 2, lease.interval * 3);
    if lease.duration < twice {
        let message = format!(
            "must be at least 2 x lease.interval ({}), since a lease that is renewed once an interval must outlive one \
             lost heartbeat",
            format_duration(twice)
        );
        checker.refuse("lease.duration", message);
    } else if lease.duration < thrice {
        let message = format!(
            "should be at least 3 x lease.interval ({}): below it one lost heartbeat and a little delay end a lease",
            format_duration(thrice)
        );
        checker.warn("lease.duration", message);
    }
    if lease.duration > lease.max {
        let message = format!(
            "must be at most lease.max ({}), since a seat that starts stays silent only that long for the leases it \
             has forgotten; shorten it or raise lease.max",
            format_duration(lease.max)
        );
        checker.refuse("lease.duration", message);
    }
    // Two to three pings until a hung server is noticed. The span itself may have been refused, and be of any length.
    if config.nats.ping_interval.saturating_mul(3) > lease.duration
        && !checker.doubtful(&["nats.ping_interval"])
    {
        let message = format!(
            "should be at most a third of lease.duration ({}): a hung NATS server is noticed after up to three pings, \
             and until then the direct path alone carries the lease",
            format_duration(lease.duration)
        );
        checker.warn("nats.ping_interval", message);
    }
}

fn drift(config: &Config, checker: &mut Checker<'_>) {
    if !(0.0..MAX_DRIFT).contains(&config.lease.drift) {
        checker.refuse(
            "lease.drift",
            "must be at least 0 and below 0.1 (10 %), as a bound on how wrong a clock's rate may be; 0.01 suits any \
             clock that works",
        );
    }
}

fn suspicion(config: &Config, checker: &mut Checker<'_>) {
    let detector = &config.detector;
    if detector.seats.is_multiple_of(2) {
        checker.refuse(
            "detector.seats",
            "must be odd (1, 3, 5, ...), since an even number survives no more failures than the odd one below it, \
             and 0 can grant nothing",
        );
    } else if detector.seats == 1 {
        checker.warn(
            "detector.seats",
            "one seat is a single point of failure: without it every VIP goes dark; use 3",
        );
    }
    if !(detector.suspect_phi > 0.0 && detector.suspect_phi <= 100.0) {
        checker.refuse(
            "detector.suspect_phi",
            "must be above 0 and at most 100; 8 suspects after two intervals",
        );
    }
    if !(2..=MAX_WINDOW).contains(&detector.window) {
        checker.refuse("detector.window", format!("must be from 2 to {MAX_WINDOW} heartbeats; 200 is usual"));
    }
    if detector.deviation_floor.is_some_and(|floor| floor < SMALLEST_FLOOR) {
        checker.refuse(
            "detector.deviation_floor",
            format!(
                "must be at least {}, else the first late heartbeat is infinitely suspicious; a fifth of lease.interval \
                 is usual",
                format_duration(SMALLEST_FLOOR)
            ),
        );
    }
}
