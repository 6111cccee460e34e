//! One group as one detector sees it: the seat that votes, the detector that judges, and what the nodes last said.
//!
//! The judgement never reaches the seat. Only flapping does: whoever flaps comes after every steadier candidate (R3).

use std::collections::{BTreeMap, BTreeSet};

use litemap::LiteMap;
use prost::Message as _;
use understudy_bus::quiet::Quiet;
use understudy_detection::{Change, FailureDetector, FailureDetectorConfig, Flap, FlapConfig, Standing};
use understudy_lease::Seat;
use understudy_service::config;
use understudy_wire::{
    BootId, BootTime, Claim, Epoch, GroupId, Health, Heartbeat, NodeId, Slot, StandbyKind, v1,
};

/// A failure or illness that the judge reported, ready to be published.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The node.
    pub node: NodeId,
    /// Now.
    pub judgement: v1::Judgement,
    /// Suspicion now.
    pub phi: f64,
    /// Time since its last heartbeat, ms.
    pub silent_ms: f64,
    /// Why it is unhealthy or not ready, in its own words.
    pub reason: String,
    /// Slots that its last heartbeat claimed.
    pub claims: Vec<v1::SlotEpoch>,
    /// Its last heartbeat: equal sightings by several detectors share it.
    pub seq: u64,
}

/// What is kept of a node's latest heartbeat, for people; small, since there may be tens of thousands.
struct Latest {
    heard: BootTime,
    boot: BootId,
    seq: u64,
    health: Health,
    standby: StandbyKind,
    ready: bool,
    priority: i32,
    claims: Vec<Claim>,
    /// Encoded, as it came.
    details: Vec<u8>,
}

impl Latest {
    fn details(&self) -> v1::Details {
        v1::Details::decode(&*self.details).unwrap_or_default()
    }

    fn claims(&self) -> Vec<v1::SlotEpoch> {
        let raw = |claim: &Claim| v1::SlotEpoch { slot: claim.slot.0.into(), epoch: claim.epoch.0 };
        self.claims.iter().map(raw).collect()
    }
}

/// One group.
pub struct Group {
    /// Its name.
    pub id: GroupId,
    /// Its configuration.
    pub config: config::Group,
    /// The vote; an observer has none.
    pub seat: Option<Seat>,
    /// Its nodes wait to be judged: too much is being told.
    pub waits: bool,
    judge: FailureDetector<NodeId>,
    flap: FlapConfig,
    flaps: BTreeMap<NodeId, Flap>,
    damped: BTreeSet<NodeId>,
    /// A sorted array, boxed: most groups have two or three, and a tree would make room for eleven.
    latest: LiteMap<NodeId, Box<Latest>>,
    elected: BTreeMap<Slot, BootTime>,
    claimed: LiteMap<Slot, Epoch>,
    /// Slots that are open (rule R14), and how many of them serve.
    open: u16,
    serving: u16,
    /// Says it of one heartbeat of many: each would have its own line.
    unjudged: Quiet,
}

impl Group {
    /// A group of which nothing was heard yet.
    pub fn new(
        id: GroupId,
        config: config::Group,
        seat: Option<Seat>,
        judge: FailureDetectorConfig,
        flap: FlapConfig,
    ) -> Self {
        let (open, serving) = (config.active, config.active);
        Self {
            id,
            config,
            seat,
            waits: false,
            judge: FailureDetector::new(judge),
            flap,
            flaps: BTreeMap::new(),
            damped: BTreeSet::new(),
            latest: LiteMap::new_vec(),
            elected: BTreeMap::new(),
            claimed: LiteMap::new_vec(),
            open,
            serving,
            unjudged: Quiet::default(),
        }
    }

    /// Takes the group's size in; nothing stored: as configured. Whether the group is scaled at all.
    pub fn set_size(&mut self, now: BootTime, stored: Option<&v1::ScalingState>) -> bool {
        if self.config.scaling.is_none() {
            return false;
        }
        let most = self.config.most_active();
        let (open, serving) = match stored {
            // Slots that the configuration does not have (any more) are nobody's.
            Some(state) => (narrow(state.open).min(most), narrow(state.serving).min(most)),
            None => (self.config.active, self.config.active),
        };
        if (open, serving) != (self.open, self.serving) {
            tracing::info!(group = %self.id, open, serving, "size");
        }
        (self.open, self.serving) = (open, serving);
        if let Some(seat) = &mut self.seat {
            seat.handle_size(now, Some(open));
        }
        true
    }

    /// Takes a heartbeat in, for the seat first. Returns the tenure that it is the first to claim, with the time at
    /// which this seat elected its holder.
    pub fn heartbeat(&mut self, now: BootTime, heartbeat: Heartbeat) -> Option<(Slot, Epoch, BootTime)> {
        if let Some(seat) = &mut self.seat {
            seat.handle_heartbeat(now, &heartbeat);
        }
        let stale = self.latest.get(&heartbeat.node);
        if stale.is_some_and(|last| last.boot == heartbeat.boot && last.seq >= heartbeat.seq) {
            return None;
        }
        let healthy = heartbeat.health != Health::Unhealthy;
        if let Err(error) = self.judge.handle_heartbeat(&heartbeat.node, healthy, now.0) {
            if let Some(before) = self.unjudged.pass() {
                tracing::warn!(group = %self.id, node = %heartbeat.node, %error, before, "a node is not judged");
            }
            return None;
        }
        let fresh =
            heartbeat.claims.iter().find(|claim| self.claimed.get(&claim.slot) < Some(&claim.epoch)).copied();
        if let Some(claim) = fresh {
            self.claimed.insert(claim.slot, claim.epoch);
        }
        self.keep(now, heartbeat);
        let claim = fresh?;
        Some((claim.slot, claim.epoch, self.elected.remove(&claim.slot)?))
    }

    fn keep(&mut self, now: BootTime, heartbeat: Heartbeat) {
        let latest = Latest {
            heard: now,
            boot: heartbeat.boot,
            seq: heartbeat.seq,
            health: heartbeat.health,
            standby: heartbeat.standby,
            ready: heartbeat.ready,
            priority: heartbeat.priority,
            claims: heartbeat.claims,
            details: heartbeat.details,
        };
        match self.latest.get_mut(&heartbeat.node) {
            Some(known) => **known = latest,
            None => drop(self.latest.insert(heartbeat.node, Box::new(latest))),
        }
    }

    /// Nodes heard since the start.
    pub fn nodes(&self) -> usize {
        self.latest.len()
    }

    /// The seat elected somebody.
    pub fn elected(&mut self, now: BootTime, slot: Slot) {
        self.elected.insert(slot, now);
    }

    /// This detector was late: silence that it slept through is not the nodes' fault (rule R13).
    pub fn observer_was_late(&mut self, now: BootTime) {
        self.judge.observer_was_late(now.0);
    }

    /// What changed in the judgement of nodes.
    pub fn judged(&mut self, now: BootTime) -> Vec<Judged> {
        let changes = self.judge.poll(now.0);
        for change in &changes {
            self.note_flap(now, change);
        }
        let damped: BTreeSet<_> =
            self.flaps.iter().filter(|(_, flap)| flap.damped(now.0)).map(|(node, _)| node.clone()).collect();
        if damped != self.damped {
            if let Some(seat) = &mut self.seat {
                seat.handle_damped(now, damped.clone());
            }
            self.damped = damped;
        }
        changes.into_iter().map(|change| self.report(change)).collect()
    }

    /// A node that was well and is not any more has flapped once.
    fn note_flap(&mut self, now: BootTime, change: &Change<NodeId>) {
        let fell = matches!(change.to, Standing::Failed | Standing::Unhealthy)
            && matches!(change.from, Some(Standing::Alive | Standing::Suspect));
        if fell {
            let fresh = || Flap::new(self.flap).expect("the configuration was checked");
            self.flaps.entry(change.node.clone()).or_insert_with(fresh).down(now.0);
        }
    }

    fn report(&self, change: Change<NodeId>) -> Judged {
        let latest = self.latest.get(&change.node);
        Judged {
            judgement: judgement(change.to),
            phi: change.phi,
            silent_ms: change.silent_for.as_secs_f64() * 1e3,
            reason: latest.map(|latest| latest.details().reason).unwrap_or_default(),
            claims: latest.map(|latest| latest.claims()).unwrap_or_default(),
            seq: latest.map_or(0, |latest| latest.seq),
            node: change.node,
        }
    }

    /// When this group must be looked at again.
    pub fn next_deadline(&self, now: BootTime) -> BootTime {
        let seat = self.seat.as_ref().map(Seat::next_deadline);
        let judge = self.judge.next_deadline().map(BootTime).filter(|_| !self.waits);
        let reuse =
            self.damped.iter().filter_map(|node| self.flaps.get(node)?.reuse_at()).map(BootTime).min();
        let reuse = reuse.filter(|_| !self.waits);
        let far = now.after(std::time::Duration::from_secs(1));
        [seat, judge, reuse].into_iter().flatten().min().unwrap_or(far)
    }

    /// The group as `status` shows it.
    pub fn status(&self, now: BootTime, maintenance: &BTreeSet<NodeId>) -> v1::GroupStatus {
        v1::GroupStatus {
            group: self.id.to_string(),
            active: self.serving.into(),
            standby: self.config.standby.into(),
            slots: self
                .config
                .slots
                .iter()
                .enumerate()
                .take(usize::from(self.open))
                .map(|(index, slot)| self.slot_status(now, index, slot))
                .collect(),
            nodes: self
                .latest
                .iter()
                .map(|(node, latest)| self.node_status(now, node, latest, maintenance.contains(node)))
                .collect(),
        }
    }

    fn node_status(
        &self,
        now: BootTime,
        node: &NodeId,
        latest: &Latest,
        maintenance: bool,
    ) -> v1::NodeStatus {
        v1::NodeStatus {
            node: node.to_string(),
            judgement: self.judge.standing(node).map_or(v1::Judgement::Unspecified, judgement).into(),
            phi: self.judge.phi(node, now.0).unwrap_or_default(),
            silent_ms: now.since(latest.heard).as_secs_f64() * 1e3,
            health: v1::Health::from(latest.health).into(),
            ready: latest.ready,
            standby: v1::StandbyKind::from(latest.standby).into(),
            priority: latest.priority,
            maintenance,
            damped: self.damped.contains(node),
            claims: latest.claims(),
            details: Some(latest.details()),
        }
    }

    fn slot_status(&self, now: BootTime, index: usize, slot: &config::SlotConfig) -> v1::SlotStatus {
        let number = Slot(u16::try_from(index).unwrap_or(u16::MAX));
        let view = self.seat.as_ref().and_then(|seat| seat.view(now, number));
        let granted = view.as_ref().and_then(|view| view.granted.as_ref());
        v1::SlotStatus {
            slot: number.0.into(),
            granted: granted.map(|(holder, _)| holder.into()),
            remaining_ms: granted.map(|(_, until)| until.since(now).as_secs_f64() * 1e3).unwrap_or_default(),
            highest_epoch: view.map_or(0, |view| view.highest.0),
            vips: slot.vips.iter().map(|vip| vip.addr().to_string()).collect(),
            names: slot.names.iter().map(|name| name.as_str().to_owned()).collect(),
        }
    }
}

fn narrow(slots: u32) -> u16 {
    u16::try_from(slots).unwrap_or(u16::MAX)
}

fn judgement(standing: Standing) -> v1::Judgement {
    match standing {
        Standing::Alive => v1::Judgement::Alive,
        Standing::Suspect => v1::Judgement::Suspect,
        Standing::Failed => v1::Judgement::Failed,
        Standing::Unhealthy => v1::Judgement::Unhealthy,
    }
}
