//! What this executor hears of the other members: who could follow, who held the slot before, who sees whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use understudy_detection::Flap;
use understudy_wire::{BootTime, Epoch, Health, Heartbeat, NodeId, Slot};

/// Members remembered at most: above any group on one segment.
const MAX_PEERS: usize = 4_096;
/// A member that is silent for longer has fallen. Shorter silence may be a pause of this host, or of NATS.
const FALLEN: Duration = Duration::from_secs(1);

/// A member's latest heartbeat.
#[derive(Debug)]
pub struct Peer {
    /// Its heartbeat.
    pub heartbeat: Heartbeat,
    /// When it came, by this host's clock.
    pub heard_at: BootTime,
    /// Latest claim of each slot, and when it was heard.
    claims: BTreeMap<Slot, (Epoch, BootTime)>,
    /// Since when every heartbeat said that it could take a slot over.
    able_since: Option<BootTime>,
    /// How often it fell.
    flap: Flap,
}

/// A holder that would give its slot back.
#[derive(Debug)]
pub struct FailingBack<'a> {
    /// The holder.
    pub node: &'a NodeId,
    /// How much it is preferred itself.
    pub priority: i32,
    /// Its Ethernet address.
    pub link_address: [u8; 6],
    /// The slot's addresses.
    pub vips: &'a [IpAddr],
}

impl Peer {
    /// Whether it was well before and this heartbeat tells that it was not meanwhile, or is not any more.
    fn fell(&self, now: BootTime, heartbeat: &Heartbeat) -> bool {
        let well =
            |heartbeat: &Heartbeat| heartbeat.incarnation.is_some() && heartbeat.health != Health::Unhealthy;
        let restarted = heartbeat.bidder() != self.heartbeat.bidder();
        let silent = now.since(self.heard_at) > FALLEN;
        well(&self.heartbeat) && (!well(heartbeat) || restarted || silent)
    }

    fn sees(&self, holder: &FailingBack<'_>, vip: IpAddr) -> bool {
        let vip = vip.to_string();
        let sightings = self.heartbeat.details().sightings;
        sightings.iter().any(|sighting| sighting.vip == vip && sighting.link_address == holder.link_address)
    }
}

/// The other members of the group.
#[derive(Debug)]
pub struct Peers {
    fresh: Duration,
    steady: Flap,
    maintenance: BTreeSet<NodeId>,
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
    /// Nobody yet; who was heard within `fresh` counts as present, and a member that never fell is `steady`.
    pub fn new(fresh: Duration, steady: Flap) -> Self {
        Self { fresh, steady, maintenance: BTreeSet::new(), members: BTreeMap::new() }
    }

    /// Nodes that the operator took out (full set).
    pub fn set_maintenance(&mut self, nodes: BTreeSet<NodeId>) {
        for (_, peer) in self.members.iter_mut().filter(|(node, _)| nodes.contains(*node)) {
            peer.able_since = None;
        }
        self.maintenance = nodes;
    }

    /// Takes a heartbeat in.
    pub fn heard(&mut self, now: BootTime, heartbeat: Heartbeat) {
        if self.members.len() >= MAX_PEERS && !self.members.contains_key(&heartbeat.node) {
            let oldest =
                self.members.iter().min_by_key(|(_, peer)| peer.heard_at).map(|(node, _)| node.clone());
            oldest.map(|node| self.members.remove(&node));
        }
        let before = self.members.remove(&heartbeat.node);
        let mut flap = before.as_ref().map_or(self.steady, |peer| peer.flap);
        if before.as_ref().is_some_and(|peer| peer.fell(now, &heartbeat)) {
            flap.down(now.0);
        }
        let unbroken = before.as_ref().filter(|peer| now.since(peer.heard_at) <= self.fresh);
        let since = unbroken.and_then(|peer| peer.able_since).unwrap_or(now);
        let able_since = self.unable(&heartbeat).is_none().then_some(since);
        let mut claims = before.map(|peer| peer.claims).unwrap_or_default();
        claims.extend(heartbeat.claims.iter().map(|claim| (claim.slot, (claim.epoch, now))));
        let node = heartbeat.node.clone();
        self.members.insert(node, Peer { heartbeat, heard_at: now, claims, able_since, flap });
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
    pub fn obstacle(&self, now: BootTime, node: &NodeId) -> Option<String> {
        let Some(peer) = self.members.get(node) else {
            return Some(format!("{node} is not a member that was heard"));
        };
        let silent = now.since(peer.heard_at);
        let why = if silent > self.fresh {
            Some(format!("was last heard {} ms ago", silent.as_millis()))
        } else {
            self.unable(&peer.heartbeat)
        };
        why.map(|why| format!("{node} {why}"))
    }

    /// Why the sender of this heartbeat could not take a slot over.
    fn unable(&self, heartbeat: &Heartbeat) -> Option<String> {
        if self.maintenance.contains(&heartbeat.node) {
            Some("is in maintenance".into())
        } else if heartbeat.incarnation.is_none() {
            Some("has no executor".into())
        } else if let Some(claim) = heartbeat.claims.first() {
            Some(format!("holds slot {}", claim.slot))
        } else if heartbeat.health != Health::Healthy {
            Some(format!("is not healthy: {}", heartbeat.details().reason))
        } else if !heartbeat.ready {
            Some(format!("is not ready: {}", heartbeat.details().reason))
        } else {
            None
        }
    }

    /// Whom a holder gives its slot back to: the most preferred member above it that has been able to take over for
    /// `stable` without a break, does not flap, and sees the holder behind every VIP of the slot, without which its
    /// network is not ready. Nobody while another holder is less preferred: then it is that one's turn, and only one
    /// slot moves.
    pub fn to_fail_back(&self, now: BootTime, stable: Duration, holder: &FailingBack<'_>) -> Option<NodeId> {
        let rank = |peer: &Peer| (peer.heartbeat.priority, peer.heartbeat.node.clone());
        let own = (holder.priority, holder.node.clone());
        if self.present(now).any(|peer| !peer.heartbeat.claims.is_empty() && rank(peer) < own) {
            return None;
        }
        let fit = self.present(now).filter(|peer| {
            let able = peer.able_since.is_some_and(|since| now.since(since) >= stable);
            let preferred = peer.heartbeat.priority > holder.priority;
            preferred
                && able
                && !peer.flap.damped(now.0)
                && holder.vips.iter().all(|vip| peer.sees(holder, *vip))
        });
        fit.max_by_key(|peer| rank(peer)).map(|peer| peer.heartbeat.node.clone())
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

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
