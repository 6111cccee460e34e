//! What this executor hears of the other members: who could follow, who held the slot before, who sees whom.

use std::{collections::BTreeMap, time::Duration};

use understudy_wire::{BootTime, Epoch, Health, Heartbeat, NodeId, Slot};

/// Members remembered at most: above any group on one segment.
const MAX_PEERS: usize = 4_096;

/// A member's latest heartbeat.
#[derive(Debug)]
pub struct Peer {
    /// Its heartbeat.
    pub heartbeat: Heartbeat,
    /// When it came, by this host's clock.
    pub heard_at: BootTime,
    /// Latest claim of each slot, and when it was heard.
    claims: BTreeMap<Slot, (Epoch, BootTime)>,
}

/// The other members of the group.
#[derive(Debug)]
pub struct Peers {
    fresh: Duration,
    members: BTreeMap<NodeId, Peer>,
}

/// Who held a slot before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The node.
    pub node: NodeId,
    /// Its last heartbeat that claimed the slot, by this host's clock.
    pub last_claim: BootTime,
    /// It gave the slot up on purpose; `true`: for a successor that was named.
    pub released: Option<bool>,
}

impl Peers {
    /// Nobody yet; who was heard within `fresh` counts as present.
    pub fn new(fresh: Duration) -> Self {
        Self { fresh, members: BTreeMap::new() }
    }

    /// Takes a heartbeat in.
    pub fn heard(&mut self, now: BootTime, heartbeat: Heartbeat) {
        if self.members.len() >= MAX_PEERS && !self.members.contains_key(&heartbeat.node) {
            let oldest =
                self.members.iter().min_by_key(|(_, peer)| peer.heard_at).map(|(node, _)| node.clone());
            oldest.map(|node| self.members.remove(&node));
        }
        let mut claims = self.members.remove(&heartbeat.node).map(|peer| peer.claims).unwrap_or_default();
        claims.extend(heartbeat.claims.iter().map(|claim| (claim.slot, (claim.epoch, now))));
        let node = heartbeat.node.clone();
        self.members.insert(node, Peer { heartbeat, heard_at: now, claims });
    }

    /// All members ever heard.
    pub fn all(&self) -> impl Iterator<Item = &Peer> {
        self.members.values()
    }

    /// Members heard lately.
    pub fn present(&self, now: BootTime) -> impl Iterator<Item = &Peer> {
        self.members.values().filter(move |peer| now.since(peer.heard_at) <= self.fresh)
    }

    /// Why `node` could not take a slot over now; `None`: it could.
    pub fn obstacle(&self, now: BootTime, node: &NodeId, maintenance: bool) -> Option<String> {
        let Some(peer) = self.members.get(node) else {
            return Some(format!("{node} is not a member that was heard"));
        };
        let heartbeat = &peer.heartbeat;
        let because = |why: String| Some(format!("{node} {why}"));
        if now.since(peer.heard_at) > self.fresh {
            because(format!("was last heard {} ms ago", now.since(peer.heard_at).as_millis()))
        } else if maintenance {
            because("is in maintenance".into())
        } else if heartbeat.incarnation.is_none() {
            because("has no executor".into())
        } else if !heartbeat.claims.is_empty() {
            because(format!("holds slot {}", heartbeat.claims[0].slot))
        } else if heartbeat.health != Health::Healthy {
            because(format!("is not healthy: {}", heartbeat.details.reason))
        } else if !heartbeat.ready {
            because(format!("is not ready: {}", heartbeat.details.reason))
        } else {
            None
        }
    }

    /// Who held `slot` with the highest epoch below `epoch`.
    pub fn previous(&self, slot: Slot, epoch: Epoch) -> Option<Previous> {
        let claims = self.members.iter().filter_map(|(node, peer)| {
            let (held, last_claim) = *peer.claims.get(&slot)?;
            (held < epoch).then_some((held, node, last_claim))
        });
        let (_, node, last_claim) = claims.max_by_key(|(held, ..)| *held)?;
        Some(Previous { node: node.clone(), last_claim, released: self.released(slot, node) })
    }

    /// Whether `node` said that it gave `slot` up and has not claimed it since; `true`: for a successor that was named.
    pub fn released(&self, slot: Slot, node: &NodeId) -> Option<bool> {
        let heartbeat = &self.members.get(node)?.heartbeat;
        let release = heartbeat.releases.iter().rev().find(|release| release.slot == slot)?;
        heartbeat.claim(slot).is_none().then_some(release.successor.is_some())
    }
}
