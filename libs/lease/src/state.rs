//! What a seat keeps of nodes and slots.

use std::collections::{BTreeMap, VecDeque};

use understudy_wire::{BootId, BootTime, Epoch, Health, Holder, Incarnation, NodeId, Slot, StandbyKind};

/// A node as its latest heartbeat had it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) heard_at: BootTime,
    pub(crate) boot: BootId,
    pub(crate) seq: u64,
    pub(crate) sent_at: BootTime,
    /// The executor that bids, if one does.
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) health: Health,
    pub(crate) standby: StandbyKind,
    pub(crate) ready: bool,
    pub(crate) priority: i32,
    pub(crate) claims: Vec<(Slot, Epoch)>,
    pub(crate) past_boots: VecDeque<BootId>,
}

impl Member {
    /// The holder that this member, called `node`, bids for.
    pub(crate) fn bidder(&self, node: &NodeId) -> Option<Holder> {
        let incarnation = self.incarnation?;
        Some(Holder { node: node.clone(), boot: self.boot, incarnation })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) holder: Holder,
    pub(crate) until: BootTime,
    pub(crate) echo: BootTime,
    pub(crate) claimed: Option<Epoch>,
    /// Epoch promised with the election (rule R7).
    pub(crate) promised: Epoch,
}

#[derive(Debug, Default)]
pub(crate) struct SlotState {
    pub(crate) grant: Option<Live>,
    pub(crate) highest: Epoch,
    /// Highest epoch ever promised. Apart from `highest`, with which claims are compared: an election that this seat
    /// alone held must not make the holder's claim an old one.
    pub(crate) promised: Epoch,
    /// Durable bound on epochs; `None` until it was read.
    pub(crate) ceiling: Option<Epoch>,
    pub(crate) raising: Epoch,
    /// Latest claim seen: its epoch and node.
    pub(crate) last_claim: Option<(Epoch, NodeId)>,
    /// Whoever gave the slot up lately, until when they come last.
    pub(crate) shunned: BTreeMap<NodeId, BootTime>,
    /// Latest release of each node, by that node's clock: bids older than it are void.
    pub(crate) released: BTreeMap<NodeId, (Holder, BootTime)>,
    /// Whom a switchover named, and until when that counts.
    pub(crate) successor: Option<(NodeId, BootTime)>,
    pub(crate) told_vacant: bool,
}

impl SlotState {
    /// No new tenure may have an epoch up to this.
    pub(crate) fn used(&self) -> Epoch {
        self.highest.max(self.promised)
    }
}
