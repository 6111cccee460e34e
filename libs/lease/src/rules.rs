//! The numbers both machines share.

use std::time::Duration;

use understudy_wire::{ClusterId, GroupId};

/// Epochs that a seat may hand out before it must have raised the ceiling again. Half a block is left when it asks,
/// so JetStream may be down for 500 failovers of a slot before one has to wait for it.
pub const BLOCK: u64 = 1_000;
/// What a publisher needs at most to hear that a slot is no longer claimed, its nap and a moment without a processor
/// included. Should it take longer, and send a heartbeat just then, the lease runs out by itself.
const WITHDRAWAL: Duration = Duration::from_millis(5);

/// Which slots the machines speak of.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Deployment.
    pub cluster: ClusterId,
    /// Group.
    pub group: GroupId,
    /// Slots 0..slots.
    pub slots: u16,
}

/// Timing and quorum, the same on every host.
///
/// The fields are public so that the simulation can weaken one at a time and see it caught; services take what
/// [`Rules::new`] makes of their configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Seats of the quorum, S.
    pub seats: u8,
    /// Grants that make a lease, Q = S/2 + 1.
    pub quorum: usize,
    /// Length of a lease, T.
    pub lease: Duration,
    /// Heartbeat interval, I.
    pub interval: Duration,
    /// Silence of a seat after its start, at least every T in use (rule R6a).
    pub silence: Duration,
    /// Longest lease a holder believes.
    pub lease_max: Duration,
    /// Bound on the error of clock rates, rho.
    pub drift: f64,
    /// A loop that ran later than this blames itself (rule R13): I/2, since after I more a lease of 3 I would have
    /// run out that was renewed just in time.
    pub late_after: Duration,
}

impl Rules {
    /// Rules for S `seats`, lease T, interval I, `lease_max` >= T and clock rates off by at most `drift`.
    ///
    /// # Panics
    /// When S is even or 0, T < 2 I, T > `lease_max`, or `drift` is not in 0..0.1: the configuration was not checked.
    pub fn new(seats: u8, lease: Duration, interval: Duration, lease_max: Duration, drift: f64) -> Self {
        assert!(seats % 2 == 1, "S must be odd");
        assert!(lease >= 2 * interval && lease <= lease_max, "2 I <= T <= lease_max");
        assert!((0.0..0.1).contains(&drift), "0 <= rho < 10 %");
        Self {
            seats,
            quorum: usize::from(seats) / 2 + 1,
            lease,
            interval,
            silence: lease_max,
            lease_max,
            drift,
            late_after: interval / 2,
        }
    }

    /// How long after its echo a grant of `lease` may be trusted: T (1 - rho) / (1 + rho) (rule R4).
    pub(crate) fn trusted(&self, lease: Duration) -> Duration {
        lease.min(self.lease_max).mul_f64((1.0 - self.drift) / (1.0 + self.drift))
    }

    /// A candidate heard longer ago than this is no candidate (rule R3): two heartbeats may be lost, and a holder
    /// whose lease has run out must no longer count.
    pub(crate) fn fresh(&self) -> Duration {
        self.interval.mul_f64(2.5).min(self.lease.mul_f64(0.9))
    }

    /// For how long after a slot was given up the node's heartbeats may still claim it: until the publisher knows (rule R8).
    pub(crate) fn withdrawal(&self) -> Duration {
        WITHDRAWAL.min(self.lease / 4)
    }

    /// How long whoever gave a slot up stays last in the order of candidates.
    pub(crate) fn shun(&self) -> Duration {
        2 * self.lease
    }
}
