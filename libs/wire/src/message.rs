//! The four lease messages, of types that cannot be mixed up; `decode.rs` checks every field on the way in.

use std::time::Duration;

use prost::Message;

use crate::{BootId, BootTime, ClusterId, Epoch, GroupId, Incarnation, NodeId, Seat, Slot, v1};

/// How the workload of a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Every check is up.
    Healthy,
    /// A check is down.
    Unhealthy,
    /// Being started or promoted: not judged yet.
    Starting,
}

/// What a standby needs before it can serve. Ordered: the quicker one first (rule R3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StandbyKind {
    /// Runs and is ready.
    Hot,
    /// Runs and must be promoted.
    Warm,
    /// Must be started.
    Cold,
}

/// A slot and an epoch of it: held, or known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The slot.
    pub slot: Slot,
    /// The epoch, never 0 in a claim.
    pub epoch: Epoch,
}

/// A release that a heartbeat repeats (rule R8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRelease {
    /// The slot given up.
    pub slot: Slot,
    /// By the node's clock, possibly a few milliseconds ahead: grants that echo anything up to it are void. The gate was
    /// proved shut before it was sent.
    pub at: BootTime,
    /// Who should follow, if the operator named one.
    pub successor: Option<NodeId>,
}

/// Who exactly holds or bids: a node, since its boot, with this executor process (rule R2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// Its boot.
    pub boot: BootId,
    /// Its executor process.
    pub incarnation: Incarnation,
}

/// A node's heartbeat and bid (rule R1).
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    /// Deployment it belongs to.
    pub cluster: ClusterId,
    /// Group of the node.
    pub group: GroupId,
    /// The node.
    pub node: NodeId,
    /// Its boot.
    pub boot: BootId,
    /// Executor behind it; `None`: no bid.
    pub incarnation: Option<Incarnation>,
    /// Rises with every heartbeat of a boot.
    pub seq: u64,
    /// The node's clock when it was made.
    pub sent_at: BootTime,
    /// Health of the workload.
    pub health: Health,
    /// What the node needs before it can serve.
    pub standby: StandbyKind,
    /// Whether it could take a slot over now.
    pub ready: bool,
    /// Higher is preferred.
    pub priority: i32,
    /// Slots it holds.
    pub claims: Vec<Claim>,
    /// Highest epochs it knows.
    pub known: Vec<Claim>,
    /// Recent releases.
    pub releases: Vec<SlotRelease>,
    /// What no lease rule looks at, encoded: see [`Heartbeat::details`].
    pub details: Vec<u8>,
}

impl Heartbeat {
    /// The holder that this heartbeat bids for, if an executor stands behind it.
    pub fn bidder(&self) -> Option<Holder> {
        let incarnation = self.incarnation?;
        Some(Holder { node: self.node.clone(), boot: self.boot, incarnation })
    }

    /// What no lease rule looks at; empty when it cannot be read, which is no reason to lose a lease.
    pub fn details(&self) -> v1::Details {
        v1::Details::decode(&*self.details).unwrap_or_default()
    }

    /// Epoch under which the node claims `slot`.
    pub fn claim(&self, slot: Slot) -> Option<Epoch> {
        self.claims.iter().find(|claim| claim.slot == slot).map(|claim| claim.epoch)
    }
}

/// One seat's vote (rule R2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Deployment.
    pub cluster: ClusterId,
    /// Group of the slot.
    pub group: GroupId,
    /// Who votes.
    pub seat: Seat,
    /// Process behind the seat.
    pub detector: u64,
    /// For which slot.
    pub slot: Slot,
    /// For whom.
    pub holder: Holder,
    /// `sent_at` of the heartbeat answered.
    pub echo: BootTime,
    /// Length of the lease, T.
    pub lease: Duration,
    /// Highest epoch the seat knows.
    pub highest: Epoch,
    /// Epoch that the answered heartbeat claimed (rule R7).
    pub claimed: Option<Epoch>,
    /// The seat gives this epoch, or a lower one, to nobody else from now on (rule R7).
    pub promised: Option<Epoch>,
}

/// A seat asks a holder to shut its gate and release (rule R10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoke {
    /// Deployment.
    pub cluster: ClusterId,
    /// Group of the slot.
    pub group: GroupId,
    /// Who asks.
    pub seat: Seat,
    /// Process behind the seat.
    pub detector: u64,
    /// For which slot.
    pub slot: Slot,
    /// From whom.
    pub holder: Holder,
    /// `sent_at` of the heartbeat that is the cause.
    pub echo: BootTime,
    /// Why, for people.
    pub reason: String,
}

/// A slot given up, its gate proved shut (rule R8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Deployment.
    pub cluster: ClusterId,
    /// Group of the slot.
    pub group: GroupId,
    /// Which slot.
    pub slot: Slot,
    /// By whom: grants to anyone else stay.
    pub holder: Holder,
    /// By the node's clock, possibly a few milliseconds ahead: grants with a later echo stay.
    pub at: BootTime,
    /// Who should follow, if the operator named one.
    pub successor: Option<NodeId>,
}
