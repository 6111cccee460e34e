//! A lease that nothing but the lifetime of addresses enforces: where the kernel has no nftables (design section 5).
//!
//! Lifetimes are whole seconds, and the kernel looks at them once a second at worst. So what an address is given is
//! what is left of the lease without that, rounded down, and a lease too short to leave anything is refused.

use std::time::Duration;

use understudy_vip::gate::Guard;

/// How long after the end of its lifetime an address may still be there: the kernel's check of all addresses keeps at
/// least this distance from the one before (`ADDRCONF_TIMER_FUZZ_MAX`).
pub const LATE: Duration = Duration::from_secs(1);
/// What setting a lifetime may take; held up for longer, the address is taken back.
const HASTE: Duration = Duration::from_millis(100);
/// Grain and least of lifetimes.
const SECOND: Duration = Duration::from_secs(1);

/// The lifetime to give with so much of the lease left; `None`: none would end in time.
pub fn lifetime(left: Duration) -> Option<Duration> {
    let seconds = left.checked_sub(LATE + HASTE)?.as_secs();
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// The shortest lease that lifetimes can carry: one that outlives a lost renewal although each comes an interval late.
pub fn shortest_lease(interval: Duration, drift: f64) -> Duration {
    let lifetime = Duration::from_secs((2 * interval).max(SECOND).as_secs_f64().ceil() as u64);
    // What of T a holder may trust is T (1 - rho) / (1 + rho) (rule R4).
    let lease = (lifetime + LATE + HASTE + interval).mul_f64((1.0 + drift) / (1.0 - drift));
    Duration::from_millis(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).saturating_add(1))
}

/// Why a group cannot be served safely without a gate; `None`: it can.
pub fn refusal(guards: &[Guard], lease: Duration, interval: Duration, drift: f64) -> Option<String> {
    if guards.iter().any(|guard| matches!(guard, Guard::Service { .. })) {
        return Some(
            "without nftables nothing keeps clients from a service on the node's own address: a slot without VIP is \
             refused here"
                .to_owned(),
        );
    }
    let needed = shortest_lease(interval, drift);
    (lease < needed).then(|| {
        format!(
            "without nftables the kernel ends a lease by the lifetime of addresses alone, in whole seconds and up to \
             one late: lease.duration = {lease:?} must be at least {needed:?} with lease.interval = {interval:?}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_lifetime_ends_within_the_lease_however_late_the_kernel_is() {
        assert_eq!(lifetime(2099 * MS), None);
        assert_eq!(lifetime(2100 * MS), Some(SECOND));
        assert_eq!(lifetime(3099 * MS), Some(SECOND));
        assert_eq!(lifetime(3100 * MS), Some(2 * SECOND));
        for left in (0..20_000).map(|left| left * MS) {
            assert!(lifetime(left).is_none_or(|lifetime| lifetime + LATE + HASTE <= left), "{left:?}");
        }
    }

    #[test]
    fn the_shortest_lease_leaves_a_lifetime_that_outlives_a_lost_renewal() {
        for interval in [1, 100, 500, 501, 1000, 2500].map(|interval| interval * MS) {
            let lease = shortest_lease(interval, 0.01);
            let left = lease.mul_f64(0.99 / 1.01).saturating_sub(interval);
            assert!(
                lifetime(left).is_some_and(|lifetime| lifetime >= 2 * interval),
                "{interval:?} {lease:?}"
            );
        }
        assert_eq!(shortest_lease(100 * MS, 0.0), 2201 * MS);
    }

    #[test]
    fn short_leases_and_services_are_refused() {
        let vip = Guard::Address("10.0.0.1".parse().unwrap());
        let service = Guard::Service {
            address: "10.0.0.2".parse().unwrap(),
            protocol: understudy_vip::gate::Protocol::Tcp,
            port: 80,
        };
        assert_eq!(refusal(&[vip], 3 * SECOND, 100 * MS, 0.01), None);
        let short = refusal(&[vip], 2 * SECOND, 100 * MS, 0.01).unwrap();
        assert!(short.contains("lease.duration = 2s must be at least 2.245s"), "{short}");
        let service = refusal(&[service], 60 * SECOND, 100 * MS, 0.01).unwrap();
        assert!(service.contains("a slot without VIP is refused"), "{service}");
    }
}
