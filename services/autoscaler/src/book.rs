//! What nodes and seats say, and what the policy is shown of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prost::Message as _;
use understudy_scaling::{GroupView, Life, Member, Sample, SlotView, Steering};
use understudy_wire::{BootTime, Epoch, GroupId, Health, Heartbeat, NodeId, Slot, v1};

use crate::driver::{Instance, State};

/// A node that no driver lists is forgotten when it was silent for this long: it will not come back under this name
/// unless somebody starts it, and then it is heard.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// A node that is silent for this long has failed, even where no seat says so: seats that have started since never
/// heard it, so they cannot judge it.
const SILENT: Duration = Duration::from_secs(30);

/// A seat that is silent for longer is not heard: detectors tell everybody of themselves once a second, when nothing
/// changes, so one such message may be lost and the next half a second late.
const SEAT_SILENT: Duration = Duration::from_millis(2_500);

/// Nodes of a group that are remembered, far above any group: a flood of invented names cannot fill the memory.
const MAX_NODES: usize = 16_384;

/// Signal of a member that counts connections of clients: draining waits until the holder says 0.
const CONNECTIONS: &str = "connections";

/// The instances of one group as its driver listed them last.
pub type Listing = BTreeMap<NodeId, Instance>;

/// A node's latest heartbeat.
#[derive(Debug)]
struct Heard {
    at: BootTime,
    heartbeat: Heartbeat,
}

/// What is known of one node.
#[derive(Debug, Default)]
struct Known {
    heard: Option<Heard>,
    /// Latest judgement of each seat, with the detector process that said it.
    verdicts: BTreeMap<u32, (u64, v1::Judgement)>,
    /// A driver listed it once.
    listed: bool,
}

/// A detector process on a seat.
#[derive(Debug, Clone, Copy)]
struct Present {
    incarnation: u64,
    at: BootTime,
}

/// Everything that was heard.
#[derive(Debug)]
pub struct Book {
    groups: BTreeMap<GroupId, BTreeMap<NodeId, Known>>,
    seats: BTreeMap<u32, Present>,
    quorum: usize,
    /// T: a claim that was heard longer ago is none.
    lease: Duration,
}

impl Book {
    /// An empty book for these groups. `quorum` of the seats judge; T is `lease`.
    pub fn new(groups: impl IntoIterator<Item = GroupId>, quorum: usize, lease: Duration) -> Self {
        let groups = groups.into_iter().map(|group| (group, BTreeMap::new())).collect();
        Self { groups, seats: BTreeMap::new(), quorum, lease }
    }

    /// Takes a heartbeat in; whether it changes who holds a slot.
    pub fn heartbeat(&mut self, now: BootTime, heartbeat: Heartbeat) -> bool {
        let Some(nodes) = self.groups.get_mut(&heartbeat.group) else { return false };
        if nodes.len() >= MAX_NODES && !nodes.contains_key(&heartbeat.node) {
            return false;
        }
        let known = nodes.entry(heartbeat.node.clone()).or_default();
        let last = known.heard.as_ref().map(|heard| &heard.heartbeat);
        if last.is_some_and(|last| last.boot == heartbeat.boot && heartbeat.seq <= last.seq) {
            return false;
        }
        let moved = last.is_none_or(|last| last.claims != heartbeat.claims);
        known.heard = Some(Heard { at: now, heartbeat });
        moved
    }

    /// Takes a seat's judgement in; whether it is another than before.
    pub fn verdict(&mut self, verdict: &v1::Verdict) -> bool {
        let names = (GroupId::new(&verdict.group), NodeId::new(&verdict.node));
        let (Ok(group), Ok(node)) = names else { return false };
        self.judge(&group, &node, verdict.seat, verdict.detector_incarnation, verdict.judgement())
    }

    fn judge(
        &mut self,
        group: &GroupId,
        node: &NodeId,
        seat: u32,
        detector: u64,
        said: v1::Judgement,
    ) -> bool {
        let known = self.groups.get_mut(group).and_then(|nodes| nodes.get_mut(node));
        // Of a node that was never heard here nothing is known but that it is silent.
        let Some(known) = known.filter(|_| seat > 0) else { return false };
        known.verdicts.insert(seat, (detector, said)) != Some((detector, said))
    }

    /// A detector is there.
    pub fn presence(&mut self, now: BootTime, presence: &v1::Presence) {
        if presence.seat > 0 && presence.seat <= u32::from(u8::MAX) {
            let present = Present { incarnation: presence.incarnation, at: now };
            self.seats.insert(presence.seat, present);
        }
    }

    /// A detector's answer to a status request: its judgements of before this process listened.
    pub fn status(&mut self, now: BootTime, reply: &v1::StatusReply) {
        let Some(presence) = &reply.presence else { return };
        self.presence(now, presence);
        for group in &reply.groups {
            let Ok(id) = GroupId::new(&group.group) else { continue };
            for status in &group.nodes {
                let Ok(node) = NodeId::new(&status.node) else { continue };
                self.judge(&id, &node, presence.seat, presence.incarnation, status.judgement());
            }
        }
    }

    /// A driver's list: who was listed and is gone, and failed, is no member any more.
    pub fn listed(&mut self, now: BootTime, group: &GroupId, listing: &Listing) {
        let gone: Vec<NodeId> = {
            let Some(nodes) = self.groups.get(group) else { return };
            let gone = |(node, known): &(&NodeId, &Known)| {
                !listing.contains_key(*node)
                    && (known.listed && self.failed(now, known).is_some() || self.forgotten(now, known))
            };
            nodes.iter().filter(gone).map(|(node, _)| node.clone()).collect()
        };
        let Some(nodes) = self.groups.get_mut(group) else { return };
        for node in gone {
            nodes.remove(&node);
        }
        for (node, known) in nodes {
            known.listed |= listing.contains_key(node);
        }
    }

    fn forgotten(&self, now: BootTime, known: &Known) -> bool {
        known.heard.as_ref().is_none_or(|heard| now.since(heard.at) > FORGOTTEN)
    }

    /// Why a node that was heard has failed; `None`: it has not. A quorum of seats says so, and it is silent here, too.
    fn failed(&self, now: BootTime, known: &Known) -> Option<String> {
        let heard = known.heard.as_ref()?;
        let silent = now.since(heard.at);
        if silent <= self.lease {
            return None;
        }
        let live = known.verdicts.iter().filter(|(seat, (detector, _))| {
            self.seats.get(*seat).is_some_and(|present| present.incarnation == *detector)
        });
        let said: Vec<v1::Judgement> = live.map(|(_, (_, said))| *said).collect();
        let failed = said.iter().filter(|said| **said == v1::Judgement::Failed).count();
        let unjudged = failed == said.len() && silent > SILENT && self.hears_seats(now);
        (failed >= self.quorum || unjudged).then(|| format!("silent for {} s", silent.as_secs()))
    }

    /// Whether this process is not deaf itself: a quorum of seats was heard just now.
    pub fn hears_seats(&self, now: BootTime) -> bool {
        let silent = SEAT_SILENT.max(self.lease * 2);
        self.seats.values().filter(|seat| now.since(seat.at) <= silent).count() >= self.quorum
    }

    /// Whether the node may hold one of the `open` slots, as far as is known. A claim that was heard long ago still
    /// counts, since only this process may be deaf to the node, but not once somebody who is heard has the slot with a
    /// higher epoch (invariant 2), nor once the slot is closed (rule R14).
    pub fn holds(&self, now: BootTime, group: &GroupId, node: &NodeId, open: u16) -> bool {
        let Some(nodes) = self.groups.get(group) else { return false };
        let Some(heard) = nodes.get(node).and_then(|known| known.heard.as_ref()) else { return false };
        if self.fresh(now, heard) {
            return !heard.heartbeat.claims.is_empty();
        }
        let others = nodes.iter().filter(|(other, _)| *other != node);
        let others: Vec<_> = others
            .filter_map(|(_, known)| known.heard.as_ref().filter(|heard| self.fresh(now, heard)))
            .flat_map(|heard| &heard.heartbeat.claims)
            .collect();
        heard.heartbeat.claims.iter().any(|claim| {
            let taken = others.iter().any(|other| other.slot == claim.slot && other.epoch > claim.epoch);
            claim.slot.0 < open && !taken
        })
    }

    fn fresh(&self, now: BootTime, heard: &Heard) -> bool {
        now.since(heard.at) <= self.lease
    }

    /// One group at this moment.
    pub fn view(&self, now: BootTime, group: &GroupId, facts: &Facts<'_>) -> GroupView {
        let empty = BTreeMap::new();
        let nodes = self.groups.get(group).unwrap_or(&empty);
        let mut view = GroupView {
            open: facts.open,
            serving: facts.serving,
            can_restart: facts.can_restart,
            steering: facts.steering.clone(),
            ..GroupView::default()
        };
        for slot in (0..facts.open).map(Slot) {
            view.slots.insert(slot, SlotView::default());
        }
        for (node, known) in nodes {
            let Some(heard) = &known.heard else { continue };
            let details = v1::Details::decode(&*heard.heartbeat.details).unwrap_or_default();
            let fresh = self.fresh(now, heard);
            view.failover |= fresh && ["taking over", "releasing"].contains(&details.phase.as_str());
            let instance = facts.listing.get(node);
            let member = self.member(now, (node, known, heard), &details, instance, facts.maintenance);
            if fresh {
                claims(&mut view, node, &heard.heartbeat, &member);
            }
            view.members.insert(node.clone(), member);
        }
        for (node, instance) in facts.listing {
            if !view.members.contains_key(node) {
                view.members.insert(node.clone(), unheard(instance, facts.maintenance.contains(node)));
            }
        }
        view
    }

    fn member(
        &self,
        now: BootTime,
        (node, known, heard): (&NodeId, &Known, &Heard),
        details: &v1::Details,
        instance: Option<&Instance>,
        maintenance: &BTreeSet<NodeId>,
    ) -> Member {
        let heartbeat = &heard.heartbeat;
        let fresh = self.fresh(now, heard);
        let life = match (self.failed(now, known), instance.map(|instance| &instance.state)) {
            _ if fresh => Life::Alive,
            (_, Some(State::Ended(cause))) => Life::Failed(cause.clone()),
            (Some(cause), _) => Life::Failed(cause),
            (None, _) => Life::Alive,
        };
        let age = now.since(heard.at);
        let mut labels: BTreeMap<_, _> = details.labels.clone().into_iter().collect();
        if let Some(instance) = instance {
            for (label, value) in &instance.labels {
                labels.entry(label.clone()).or_insert_with(|| value.clone());
            }
        }
        Member {
            life,
            managed: instance.is_some(),
            removable: instance.is_some_and(|instance| instance.removable),
            healthy: heartbeat.health != Health::Unhealthy,
            ready: fresh && heartbeat.ready && heartbeat.health == Health::Healthy,
            maintenance: maintenance.contains(node),
            incarnation: heartbeat.incarnation.map_or(0, |incarnation| incarnation.raw()),
            reason: details.reason.clone(),
            labels,
            signals: signals(details).map(|(name, value)| (name, Sample { value, age })).collect(),
            key: instance.and_then(|instance| instance.key.clone()),
        }
    }
}

/// What is known of a group beside what was heard.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Slots that are granted.
    pub open: u16,
    /// Slots that take new clients.
    pub serving: u16,
    /// The driver's list.
    pub listing: &'a Listing,
    /// Nodes of the group that operators took out.
    pub maintenance: &'a BTreeSet<NodeId>,
    /// What operators ask for.
    pub steering: Steering,
    /// The driver can restart in place.
    pub can_restart: bool,
}

/// Load signals of a heartbeat by the names that targets use.
fn signals(details: &v1::Details) -> impl Iterator<Item = (String, f64)> {
    let load = details.load.unwrap_or_default();
    // The wire has percent; a target of pressure is a ratio, as all of its kind.
    let ratio = |percent: Option<f64>| percent.map(|percent| percent / 100.0);
    let told = details.load.is_some();
    let usual = [
        ("cpu", told.then_some(load.cpu)),
        ("memory", told.then_some(load.memory)),
        ("pressure_cpu", ratio(load.pressure_cpu)),
        ("pressure_memory", ratio(load.pressure_memory)),
        ("pressure_io", ratio(load.pressure_io)),
    ];
    let usual = usual.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    usual.chain(details.signals.clone())
}

/// Notes the slots that a node claims: the claim with the highest epoch counts.
fn claims(view: &mut GroupView, node: &NodeId, heartbeat: &Heartbeat, member: &Member) {
    for known in &heartbeat.known {
        if let Some(slot) = view.slots.get_mut(&known.slot) {
            slot.epoch = slot.epoch.max(known.epoch);
        }
    }
    for claim in &heartbeat.claims {
        let Some(slot) = view.slots.get_mut(&claim.slot) else { continue };
        let later = slot.holder.is_none() || claim.epoch >= slot.epoch;
        slot.epoch = Epoch(slot.epoch.0.max(claim.epoch.0));
        if later {
            slot.holder = Some(node.clone());
            let connections = member.signals.get(CONNECTIONS).map(|sample| sample.value);
            // `as` saturates; part of a connection is one.
            slot.connections = connections
                .filter(|count| count.is_finite() && *count >= 0.0)
                .map(|count| count.ceil() as u64);
        }
    }
}

/// An instance that was never heard.
fn unheard(instance: &Instance, maintenance: bool) -> Member {
    let life = match &instance.state {
        State::Starting | State::Running => Life::Starting,
        State::Ended(cause) => Life::Failed(cause.clone()),
    };
    Member {
        life,
        managed: true,
        removable: instance.removable,
        maintenance,
        labels: instance.labels.clone(),
        key: instance.key.clone(),
        ..Member::default()
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
