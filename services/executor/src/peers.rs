//! What this executor hears of the other members: who could follow, who held the slot before, who sees whom.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use understudy_detection::Flap;
use understudy_wire::{BootTime, Claim, Epoch, Health, Heartbeat, NodeId, Slot, SlotRelease};

/// Members remembered at most: above any group on one segment.
const MAX_PEERS: usize = 4_096;
/// A member whose heartbeats a detector has missed for longer has fallen. Shorter silence may be a pause of its host.
const FALLEN: Duration = Duration::from_secs(1);
/// Members tell of themselves when something changes and once a second. Who missed two and a half of these is not there.
const PRESENT: Duration = Duration::from_millis(2_500);

/// What a member told last.
#[derive(Debug)]
pub struct Peer {
    /// The heartbeat in which it did.
    pub heartbeat: Heartbeat,
    /// When it came, by this host's clock.
    heard_at: BootTime,
    /// A detector has missed its heartbeats since then, by this host's clock.
    silent_since: Option<BootTime>,
    /// When a detector told so, by this host's clock; until a detector hears it again.
    suspected_at: Option<BootTime>,
    /// Latest claim of each slot.
    claims: BTreeMap<Slot, Claimed>,
    /// Since when every heartbeat said that it could take a slot over.
    able_since: Option<BootTime>,
    /// How often it fell.
    flap: Flap,
}

/// A claim of a slot.
#[derive(Debug, Clone, Copy)]
struct Claimed {
    epoch: Epoch,
    /// When it is last known to have stood.
    last: BootTime,
    /// The release known when it was, by the member's clock: heartbeats repeat it, and it is of a tenure before.
    old_release: Option<BootTime>,
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
    fn fell(&self, heartbeat: &Heartbeat) -> bool {
        let restarted = heartbeat.bidder() != self.heartbeat.bidder();
        well(&self.heartbeat) && (!well(heartbeat) || restarted)
    }

    fn is_present(&self, now: BootTime) -> bool {
        self.silent_since.is_none() && now.since(self.heard_at) <= PRESENT
    }

    /// Its heartbeats come again; long silence was a fall.
    fn back(&mut self, now: BootTime) {
        let silent = self.silent_since.take().map(|since| now.since(since));
        if silent.is_some_and(|silent| silent > FALLEN) && well(&self.heartbeat) {
            self.flap.down(now.0);
        }
    }

    fn claimed(&self, claim: Claim, at: BootTime) -> Claimed {
        let old_release = self.release(claim.slot).map(|release| release.at);
        Claimed { epoch: claim.epoch, last: at, old_release }
    }

    /// Its claims stood at that time.
    fn claimed_at(&mut self, at: BootTime) {
        for claim in &self.heartbeat.claims {
            let claimed = self.claimed(*claim, at);
            let known = self.claims.entry(claim.slot).or_insert(claimed);
            if known.epoch <= claim.epoch {
                *known = Claimed { last: at.max(known.last), ..claimed };
            }
        }
    }

    /// A detector heard these claims last, at that time. They count where this member has not heard as much itself.
    fn claimed_elsewhere(&mut self, claims: &[Claim], at: BootTime) {
        for claim in claims {
            let claimed = self.claimed(*claim, at);
            let known = self.claims.entry(claim.slot).or_insert(claimed);
            if known.epoch < claim.epoch {
                *known = claimed;
            }
        }
    }

    /// Whether it said that it gave up what it claimed; `true`: for a successor that was named.
    fn released(&self, slot: Slot, claimed: Claimed) -> Option<bool> {
        let release = self.release(slot)?;
        let later = claimed.old_release.is_none_or(|old| release.at > old);
        later.then_some(release.successor.is_some())
    }

    fn release(&self, slot: Slot) -> Option<&SlotRelease> {
        self.heartbeat.releases.iter().find(|release| release.slot == slot)
    }

    fn sees(&self, holder: &FailingBack<'_>, vip: IpAddr) -> bool {
        let vip = vip.to_string();
        let sightings = self.heartbeat.details().sightings;
        sightings.iter().any(|sighting| sighting.vip == vip && sighting.link_address == holder.link_address)
    }
}

fn well(heartbeat: &Heartbeat) -> bool {
    heartbeat.incarnation.is_some() && heartbeat.health != Health::Unhealthy
}

/// The other members of the group.
#[derive(Debug)]
pub struct Peers {
    steady: Flap,
    maintenance: BTreeSet<NodeId>,
    members: BTreeMap<NodeId, Peer>,
}

/// Who held a slot before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The node.
    pub node: NodeId,
    /// Its tenure.
    pub epoch: Epoch,
    /// Its last heartbeat that is known to have claimed the slot, by this host's clock.
    pub last_claim: BootTime,
    /// It gave the slot up on purpose; `true`: for a successor that was named.
    pub released: Option<bool>,
    /// When a detector called it suspect, by this host's clock.
    pub suspected_at: Option<BootTime>,
}

impl Peers {
    /// Nobody yet; a member that never fell is `steady`.
    pub fn new(steady: Flap) -> Self {
        Self { steady, maintenance: BTreeSet::new(), members: BTreeMap::new() }
    }

    /// Nodes that the operator took out (full set).
    pub fn set_maintenance(&mut self, nodes: BTreeSet<NodeId>) {
        for (_, peer) in self.members.iter_mut().filter(|(node, _)| nodes.contains(*node)) {
            peer.able_since = None;
        }
        self.maintenance = nodes;
    }

    /// Whether this heartbeat is the first of an executor that came, or came back.
    pub fn is_newcomer(&self, now: BootTime, heartbeat: &Heartbeat) -> bool {
        let known = self.members.get(&heartbeat.node).filter(|peer| peer.is_present(now));
        let bidder = heartbeat.bidder();
        bidder.is_some() && known.is_none_or(|peer| peer.heartbeat.bidder() != bidder)
    }

    /// A member told of itself.
    pub fn heard(&mut self, now: BootTime, heartbeat: Heartbeat) {
        if self.members.len() >= MAX_PEERS && !self.members.contains_key(&heartbeat.node) {
            let oldest =
                self.members.iter().min_by_key(|(_, peer)| peer.heard_at).map(|(node, _)| node.clone());
            oldest.map(|node| self.members.remove(&node));
        }
        let able = self.unable(&heartbeat).is_none();
        let node = heartbeat.node.clone();
        let Some(mut peer) = self.members.remove(&node) else {
            let mut peer = Peer {
                heartbeat,
                heard_at: now,
                silent_since: None,
                suspected_at: None,
                claims: BTreeMap::new(),
                able_since: able.then_some(now),
                flap: self.steady,
            };
            peer.claimed_at(now);
            self.members.insert(node, peer);
            return;
        };
        let unbroken = peer.is_present(now);
        // Told at once when it changed, so what it said before stood until now, unless it was away.
        if unbroken && peer.heartbeat.bidder() == heartbeat.bidder() {
            peer.claimed_at(now);
        }
        if peer.fell(&heartbeat) {
            peer.silent_since = None;
            peer.flap.down(now.0);
        }
        peer.back(now);
        let since = peer.able_since.filter(|_| unbroken).unwrap_or(now);
        peer.able_since = able.then_some(since);
        (peer.heartbeat, peer.heard_at) = (heartbeat, now);
        peer.claimed_at(now);
        self.members.insert(node, peer);
    }

    /// A detector has missed the heartbeats of `node` since then; the last one had these claims.
    pub fn silent(&mut self, now: BootTime, node: &NodeId, since: BootTime, claims: &[Claim]) {
        let Some(peer) = self.members.get_mut(node) else { return };
        peer.suspected_at.get_or_insert(now);
        if peer.silent_since.is_none() {
            // It was heard until then, whatever it told last.
            let since = since.max(peer.heard_at);
            peer.claimed_at(since);
            (peer.silent_since, peer.able_since) = (Some(since), None);
        }
        peer.claimed_elsewhere(claims, since);
    }

    /// A detector hears `node` again. Whether it was silent.
    pub fn back(&mut self, now: BootTime, node: &NodeId) -> bool {
        let Some(peer) = self.members.get_mut(node) else { return false };
        let was_silent = peer.silent_since.is_some();
        peer.back(now);
        peer.suspected_at = None;
        was_silent
    }

    /// All members ever heard.
    pub fn all(&self) -> impl Iterator<Item = &Peer> {
        self.members.values()
    }

    /// Members that are there.
    pub fn present(&self, now: BootTime) -> impl Iterator<Item = &Peer> {
        self.members.values().filter(move |peer| peer.is_present(now))
    }

    /// Why `node` could not take a slot over now; `None`: it could.
    pub fn obstacle(&self, now: BootTime, node: &NodeId) -> Option<String> {
        let Some(peer) = self.members.get(node) else {
            return Some(format!("{node} is not a member that was heard"));
        };
        let why = if peer.is_present(now) {
            self.unable(&peer.heartbeat)
        } else {
            let silent = now.since(peer.silent_since.unwrap_or(peer.heard_at));
            Some(format!("was last heard {} ms ago", silent.as_millis()))
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
            let claimed = *peer.claims.get(&slot)?;
            (claimed.epoch < epoch).then_some((claimed, node, peer))
        });
        let (claimed, node, peer) = claims.max_by_key(|(claimed, ..)| claimed.epoch)?;
        Some(Previous {
            node: node.clone(),
            epoch: claimed.epoch,
            last_claim: claimed.last,
            released: peer.released(slot, claimed),
            suspected_at: peer.suspected_at,
        })
    }
}

impl Previous {
    /// What is known by now, `heard` later than `self`. That it gave the slot up, and when it was called suspect, stays
    /// true when it is back.
    #[must_use]
    pub fn updated(self, heard: Self) -> Self {
        match heard.epoch.cmp(&self.epoch) {
            // It holds the slot again, with an epoch above; what is heard is of one before it.
            Ordering::Less => self,
            Ordering::Equal => Self {
                released: heard.released.or(self.released),
                suspected_at: self.suspected_at.or(heard.suspected_at),
                ..heard
            },
            Ordering::Greater => heard,
        }
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
