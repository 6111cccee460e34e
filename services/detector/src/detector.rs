//! The detector's state and the one order in which everything happens.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;
use understudy_bus::{
    EventLog, Nats,
    paths::{FromNode, SeatSender},
    quiet::Quiet,
    store::{Maintenance, Sizes},
};
use understudy_lease::{Seat, SeatOutput, Standing};
use understudy_service::{
    clock,
    telemetry::{self, PastSpan},
};
use understudy_wire::{
    BootTime, CloudEvent, ClusterId, Epoch, EventBody, GroupId, Heartbeat, NodeId, Release, Slot, Subject,
    event::trace_id, v1,
};

use crate::{
    ceilings::{Ceilings, Raised},
    deadlines::Deadlines,
    group::{Group, Judged},
    metrics::Metrics,
    pace::Pace,
};

/// From one look at the deadlines to the next at least: thousands of groups have them at as many different times, and
/// each would be a wake-up. A deadline that stands alone is met at once.
const GRAIN: Duration = Duration::from_millis(1);

/// The parts a detector is put together from.
pub struct Parts {
    /// Deployment.
    pub cluster: ClusterId,
    /// Seat number, 0 for an observer.
    pub seat: u8,
    /// This process.
    pub incarnation: u64,
    /// Heartbeat interval, I.
    pub interval: Duration,
    /// All groups of the configuration.
    pub groups: Vec<Group>,
    /// Both paths.
    pub sender: SeatSender,
    /// NATS.
    pub nats: Nats,
    /// Events.
    pub events: Arc<EventLog>,
    /// Epoch ceilings; an observer keeps none.
    pub ceilings: Option<Ceilings>,
    /// What it tells of itself.
    pub presence: watch::Sender<v1::Presence>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Everything the loop works on.
pub struct Detector {
    parts: Parts,
    index: HashMap<GroupId, usize>,
    deadlines: Deadlines,
    pace: Pace,
    /// Groups to be judged when there is room to tell of them, in turn.
    waiting: VecDeque<usize>,
    maintenance: Maintenance,
    presence_due: BootTime,
    /// As last told: to work it out is to look at every group.
    state: &'static str,
    /// When deadlines were last looked at.
    turned: BootTime,
    conflict: bool,
    late: Duration,
    /// Whoever may speak for a node can repeat a release as often as it likes.
    idle_releases: Quiet,
}

impl Detector {
    /// A detector that has heard nothing.
    pub fn new(parts: Parts) -> Self {
        let now = clock::now();
        let index = parts.groups.iter().enumerate().map(|(index, group)| (group.id.clone(), index)).collect();
        let mut deadlines = Deadlines::default();
        for index in 0..parts.groups.len() {
            deadlines.set(index, now);
        }
        let mut detector = Self {
            parts,
            index,
            deadlines,
            pace: Pace::new(now),
            waiting: VecDeque::new(),
            maintenance: Maintenance::new(),
            turned: BootTime::default(),
            presence_due: now,
            state: "",
            conflict: false,
            late: Duration::ZERO,
            idle_releases: Quiet::default(),
        };
        detector.tell_presence(now);
        detector
    }

    /// What a node says, over either path. Renewals go out before this returns; vacancies wait for [`Self::turn`].
    pub fn from_node(&mut self, message: FromNode) {
        match message {
            FromNode::Heartbeat(heartbeat) => self.heartbeat(*heartbeat),
            FromNode::Release(release) => self.release(&release),
        }
    }

    fn heartbeat(&mut self, heartbeat: Heartbeat) {
        let Some(index) = self.index.get(&heartbeat.group).copied() else { return };
        self.parts.metrics.heartbeats.inc();
        let now = clock::now();
        let node = heartbeat.node.clone();
        if let Some((slot, epoch, elected)) = self.parts.groups[index].heartbeat(now, heartbeat) {
            self.trace_election(index, slot, epoch, elected, now, &node);
        }
        self.follow_up(index, now);
    }

    fn release(&mut self, release: &Release) {
        let Some(index) = self.index.get(&release.group).copied() else { return };
        let now = clock::now();
        if let Some(seat) = &mut self.parts.groups[index].seat {
            let held = |seat: &Seat| {
                let granted = seat.view(now, release.slot).and_then(|view| view.granted);
                granted.is_some_and(|(holder, _)| holder == release.holder)
            };
            let before = held(seat);
            seat.handle_release(now, release);
            // The other path's copy of a release is one, too; a replayed one looks no different (rule R8).
            if !before || held(seat) {
                self.parts.metrics.releases_ignored.inc();
                let Release { group, slot, holder, .. } = release;
                if let Some(before) = self.idle_releases.pass() {
                    let node = &holder.node;
                    tracing::info!(%group, %slot, %node, before, "a release frees nothing: late, replayed or heard before");
                }
            }
        }
        self.follow_up(index, now);
    }

    /// A ceiling became durable (rule R6b).
    pub fn raised(&mut self, raised: &Raised) {
        let Some(index) = self.index.get(&raised.group).copied() else { return };
        let now = clock::now();
        if let Some(seat) = &mut self.parts.groups[index].seat {
            seat.handle_ceiling(now, raised.slot, raised.ceiling);
        }
        self.follow_up(index, now);
    }

    /// Another detector speaks. On our own seat that is a conflict: nobody grants while it lasts.
    pub fn presence(&mut self, presence: &v1::Presence) {
        let (seat, incarnation) = (self.parts.seat, self.parts.incarnation);
        let foreign = presence.cluster != self.parts.cluster.as_str() || presence.seat != u32::from(seat);
        if seat == 0 || foreign || presence.incarnation == incarnation {
            return;
        }
        let now = clock::now();
        for group in &mut self.parts.groups {
            if let Some(seat) = &mut group.seat {
                seat.handle_rival(now);
            }
        }
        if !self.conflict {
            self.conflict = true;
            let (at, rival) = (&presence.address, presence.incarnation);
            let reason =
                format!("another process ({rival} at {at:?}) speaks for seat {seat}: neither grants");
            tracing::error!("{reason}");
            self.tell_presence(now);
            self.tell_trouble(&reason);
        }
    }

    /// Nodes in maintenance, all groups.
    pub fn set_maintenance(&mut self, set: Maintenance) {
        self.maintenance = set;
        let now = clock::now();
        for index in 0..self.parts.groups.len() {
            let nodes = self.maintained(index);
            if let Some(seat) = &mut self.parts.groups[index].seat {
                seat.handle_maintenance(now, nodes);
            }
            self.follow_up(index, now);
        }
    }

    /// Sizes of groups that are scaled (rule R14): all that are stored.
    pub fn set_sizes(&mut self, sizes: &Sizes) {
        let now = clock::now();
        for index in 0..self.parts.groups.len() {
            let group = &mut self.parts.groups[index];
            if group.set_size(now, sizes.get(&group.id)) {
                self.follow_up(index, now);
            }
        }
    }

    fn maintained(&self, index: usize) -> BTreeSet<NodeId> {
        let group = &self.parts.groups[index].id;
        let ours = self.maintenance.iter().filter(|(other, _)| other == group);
        ours.map(|(_, node)| node.clone()).collect()
    }

    /// One turn, after everything that was queued was taken in (rule R13 needs that order):
    ///
    /// 1. groups that are due: leases that ran out, elections, judgements;
    /// 2. judgements that had to wait;
    /// 3. what this detector tells of itself.
    ///
    /// `deadline` is when this turn was due.
    pub fn turn(&mut self, deadline: BootTime) {
        let now = clock::now();
        if now < deadline {
            return;
        }
        self.turned = now;
        self.late = now.since(deadline);
        self.parts.metrics.lateness.observe(self.late);
        if self.late > self.parts.interval {
            tracing::warn!(late = ?self.late, "this detector ran late and judges nobody for an interval");
            for group in &mut self.parts.groups {
                group.observer_was_late(now);
            }
        }
        while let Some(index) = self.deadlines.due(now) {
            if let Some(seat) = &mut self.parts.groups[index].seat {
                seat.handle_time(now);
            }
            self.follow_up(index, now);
        }
        while self.pace.has_room(now)
            && let Some(index) = self.waiting.pop_front()
        {
            self.parts.groups[index].waits = false;
            self.follow_up(index, now);
        }
        if now >= self.presence_due {
            self.presence_due = now.after(self.parts.interval);
            self.tell_presence(now);
        }
    }

    /// When [`Self::turn`] is due: at the first deadline, but [`GRAIN`] after the turn before at the earliest.
    pub fn next_deadline(&self) -> BootTime {
        let soon = self.turned.after(GRAIN);
        if !self.waiting.is_empty() {
            return soon;
        }
        self.deadlines.next().map_or(self.presence_due, |due| due.min(self.presence_due)).max(soon)
    }

    /// Sends what the machines of a group want sent, and sets its deadline anew.
    fn follow_up(&mut self, index: usize, now: BootTime) {
        while let Some(output) = self.parts.groups[index].seat.as_mut().and_then(Seat::poll_output) {
            self.carry_out(index, now, output);
        }
        self.judge(index, now);
        // Past deadlines would spin: whatever is due now was just done.
        let due = self.parts.groups[index].next_deadline(now).max(now.after(Duration::from_micros(100)));
        self.deadlines.set(index, due);
    }

    /// Tells what changed in the judgement of a group's nodes, when there is room for it.
    fn judge(&mut self, index: usize, now: BootTime) {
        let group = &mut self.parts.groups[index];
        if !self.pace.has_room(now) {
            if !std::mem::replace(&mut group.waits, true) {
                self.waiting.push_back(index);
            }
            return;
        }
        let judged = group.judged(now);
        self.pace.told(judged.len());
        for judged in judged {
            self.tell_judged(index, judged);
        }
    }

    fn carry_out(&mut self, index: usize, now: BootTime, output: SeatOutput) {
        match output {
            SeatOutput::Grant(grant) => {
                self.parts.metrics.grants.inc();
                self.parts.sender.grant(&grant);
            }
            SeatOutput::Revoke(revoke) => {
                self.parts.metrics.revokes.inc();
                self.parts.sender.revoke(&revoke);
            }
            SeatOutput::RaiseCeiling { slot, to } => {
                if let Some(ceilings) = &self.parts.ceilings {
                    ceilings.raise(&self.parts.groups[index].id, slot, to);
                }
            }
            SeatOutput::Elected { slot, holder, previous } => {
                self.parts.metrics.elections.inc();
                let group = &mut self.parts.groups[index];
                tracing::info!(group = %group.id, %slot, node = %holder.node, ?previous, "vacant slot granted");
                group.elected(now, slot);
            }
            SeatOutput::Vacant { slot, highest, reason } => {
                let group = self.parts.groups[index].id.clone();
                tracing::warn!(%group, %slot, reason, "a slot is vacant and nobody can have it");
                let body = v1::SlotVacant {
                    group: group.to_string(),
                    slot: slot.0.into(),
                    highest_epoch: highest.0,
                    reason,
                    seat: self.parts.seat.into(),
                };
                self.tell(&group, &format!("{slot}/{highest}"), &body);
            }
        }
    }

    fn tell_judged(&self, index: usize, judged: Judged) {
        let group = &self.parts.groups[index].id;
        if judged.judgement == v1::Judgement::Suspect {
            self.parts.metrics.suspicions.inc();
        }
        let verdict = v1::Verdict {
            cluster: self.parts.cluster.to_string(),
            group: group.to_string(),
            node: judged.node.to_string(),
            seat: self.parts.seat.into(),
            detector_incarnation: self.parts.incarnation,
            judgement: judged.judgement.into(),
            phi: judged.phi,
            silent_ms: judged.silent_ms,
            reason: judged.reason.clone(),
            claims: judged.claims,
        };
        self.parts.nats.publish(&Subject::Verdict(group.clone(), judged.node.clone()), &verdict);
        let key = format!("{}/{:?}/{}", judged.node, judged.judgement, judged.seq);
        let body = v1::NodeJudged {
            group: group.to_string(),
            node: judged.node.to_string(),
            judgement: judged.judgement.into(),
            phi: judged.phi,
            reason: judged.reason,
            seat: self.parts.seat.into(),
        };
        self.tell(group, &key, &body);
    }

    fn tell_presence(&mut self, now: BootTime) {
        let standing = self.standing(now);
        if standing != Some(Standing::Conflict) {
            self.conflict = false;
        }
        self.state = state(standing);
        let nodes: usize = self.parts.groups.iter().map(Group::nodes).sum();
        self.parts.metrics.nodes.set(i64::try_from(nodes).unwrap_or(i64::MAX));
        self.parts.presence.send_modify(|presence| {
            presence.state = self.state.to_owned();
            presence.late_nanos = u64::try_from(self.late.as_nanos()).unwrap_or(u64::MAX);
        });
    }

    /// What the seat does, in the word that presence messages and `/readyz` use; as of the last interval.
    pub fn state(&self) -> &'static str {
        self.state
    }

    /// What the seat may do now; the worst over the groups. `None`: an observer.
    fn standing(&self, now: BootTime) -> Option<Standing> {
        let standings = self.parts.groups.iter().filter_map(|group| Some(group.seat.as_ref()?.standing(now)));
        standings.max_by_key(|standing| match standing {
            Standing::Granting => 0,
            Standing::Late => 1,
            Standing::Silent => 2,
            Standing::Conflict => 3,
        })
    }

    /// Answer to a status request.
    pub fn status(&self) -> v1::StatusReply {
        let now = clock::now();
        let groups = self.parts.groups.iter().enumerate();
        v1::StatusReply {
            presence: Some(self.parts.presence.borrow().clone()),
            groups: groups.map(|(index, group)| group.status(now, &self.maintained(index))).collect(),
        }
    }

    fn tell_trouble(&self, reason: &str) {
        let body = v1::SeatTrouble {
            seat: self.parts.seat.into(),
            incarnation: self.parts.incarnation,
            reason: reason.to_owned(),
        };
        for group in self.parts.groups.iter().map(|group| group.id.clone()).collect::<Vec<_>>() {
            self.tell(&group, &format!("{}/{}/{reason}", self.parts.seat, self.parts.incarnation), &body);
        }
    }

    fn tell<B: EventBody>(&self, group: &GroupId, key: &str, body: &B) {
        let events = &self.parts.events;
        match CloudEvent::new(&self.parts.cluster, group, events.source(), key, body) {
            Ok(event) => events.publish(&event),
            Err(error) => tracing::error!(kind = B::KIND, %error, "an event has no JSON form"),
        }
    }

    /// Adds this seat's part to the trace of a tenure: from its vote to the first heartbeat that claims the slot.
    fn trace_election(
        &self,
        index: usize,
        slot: Slot,
        epoch: Epoch,
        elected: BootTime,
        now: BootTime,
        node: &NodeId,
    ) {
        let group = &self.parts.groups[index].id;
        let parent = telemetry::tenure_context(trace_id(&self.parts.cluster, group, slot, epoch));
        let span = PastSpan::new("election", elected, now)
            .with("seat", i64::from(self.parts.seat))
            .with("slot", i64::from(slot.0))
            .with("node", node.to_string());
        telemetry::record(&parent, span);
    }
}

fn state(standing: Option<Standing>) -> &'static str {
    match standing {
        None => "observing",
        Some(Standing::Silent) => "silent",
        Some(Standing::Conflict) => "conflict",
        Some(Standing::Late | Standing::Granting) => "granting",
    }
}
