//! One detector's vote for the slots of one group.

use std::collections::{BTreeSet, VecDeque};

use litemap::LiteMap;
use understudy_wire::{
    BootId, BootTime, Epoch, Grant, Health, Heartbeat, Holder, NodeId, Release, Revoke, Seat as SeatNumber,
    Slot,
};

use crate::{
    election::{self, Choice},
    output::{Output, SlotView, Standing},
    rules::{BLOCK, Identity, Rules},
    state::{Live, Member, SlotState},
};

/// Boots of one node that a seat remembers as past, so that a late message of one cannot pass for the present.
const PAST_BOOTS: usize = 8;

/// Nodes of a group that a seat remembers, far above any group: a flood of invented names cannot fill the memory.
const MAX_NODES: usize = 16_384;

/// The seat of one detector in one group.
#[derive(Debug)]
pub struct Seat {
    identity: Identity,
    rules: Rules,
    seat: SeatNumber,
    detector: u64,
    silent_until: BootTime,
    judge_from: BootTime,
    last_turn: BootTime,
    rival_until: Option<BootTime>,
    slots: Vec<SlotState>,
    /// Slots below this are granted (rule R14); `None`: not known yet.
    open: Option<u16>,
    /// A sorted array, boxed members: most groups have two or three, and a tree would make room for eleven.
    members: LiteMap<NodeId, Box<Member>>,
    maintenance: BTreeSet<NodeId>,
    damped: BTreeSet<NodeId>,
    fenced: BTreeSet<(NodeId, BootId)>,
    outputs: VecDeque<Output>,
}

impl Seat {
    /// A seat that starts `now`: silent for `rules.silence`, and until every ceiling was told (rule R6). All slots are
    /// open, unless [`Seat::handle_size`] says otherwise.
    pub fn new(identity: Identity, rules: Rules, seat: SeatNumber, detector: u64, now: BootTime) -> Self {
        let slots = (0..identity.slots).map(|_| SlotState::default()).collect();
        let open = Some(identity.slots);
        Self {
            silent_until: now.after(rules.silence),
            judge_from: now,
            last_turn: now,
            rival_until: None,
            identity,
            rules,
            seat,
            detector,
            slots,
            open,
            members: LiteMap::new_vec(),
            maintenance: BTreeSet::new(),
            damped: BTreeSet::new(),
            fenced: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// A node's heartbeat: bid, renewal, releases (rules R1, R2, R8, R10). Stale and foreign ones are ignored.
    pub fn handle_heartbeat(&mut self, now: BootTime, heartbeat: &Heartbeat) {
        self.turn(now);
        if heartbeat.cluster != self.identity.cluster || heartbeat.group != self.identity.group {
            return;
        }
        if !self.remember(now, heartbeat) {
            return;
        }
        for release in &heartbeat.releases {
            // Only the executor that bids may repeat its releases; a dead one's are sent as messages.
            if let Some(holder) = heartbeat.bidder() {
                self.drop_released(now, release.slot, holder, release.at, release.successor.clone());
            }
        }
        for slot in self.all_slots() {
            self.learn_epochs(slot, heartbeat);
            if self.may_grant(now) && self.is_open(slot) {
                self.renew(now, slot, heartbeat);
                self.fill(now, slot);
            }
        }
    }

    /// A release sent as a message of its own: by an executor whose publisher is gone, or by the witness (rule R8).
    pub fn handle_release(&mut self, now: BootTime, release: &Release) {
        self.turn(now);
        if release.cluster != self.identity.cluster || release.group != self.identity.group {
            return;
        }
        self.drop_released(now, release.slot, release.holder.clone(), release.at, release.successor.clone());
        self.fill_all(now);
    }

    /// A fencing agent confirmed that this boot of `node` is off (rule R11).
    pub fn handle_fenced(&mut self, now: BootTime, node: &NodeId, boot: BootId) {
        self.turn(now);
        self.fenced.insert((node.clone(), boot));
        for state in &mut self.slots {
            state.grant.take_if(|grant| grant.holder.node == *node && grant.holder.boot == boot);
        }
        self.fill_all(now);
    }

    /// The ceiling of `slot` is durably at least `ceiling` (rule R6b).
    pub fn handle_ceiling(&mut self, now: BootTime, slot: Slot, ceiling: Epoch) {
        self.turn(now);
        let Some(state) = self.slots.get_mut(usize::from(slot.0)) else { return };
        if state.ceiling.is_none() {
            state.highest = state.highest.max(ceiling);
        }
        state.ceiling = Some(state.ceiling.unwrap_or_default().max(ceiling));
        self.raise_ceiling(slot);
        self.fill_all(now);
    }

    /// Another live process speaks for this seat: grant nothing while it does, and one silence longer.
    pub fn handle_rival(&mut self, now: BootTime) {
        self.turn(now);
        self.rival_until = Some(now.after(self.rules.silence));
    }

    /// Which nodes the operator took out (full set).
    pub fn handle_maintenance(&mut self, now: BootTime, nodes: BTreeSet<NodeId>) {
        self.turn(now);
        self.maintenance = nodes;
        self.fill_all(now);
    }

    /// Slots below `open` are granted, those from it on neither granted nor renewed: their leases run out (rule R14).
    /// `None`: it is not known how many, so the seat stays silent. A seat that is told late costs its vote and no more.
    pub fn handle_size(&mut self, now: BootTime, open: Option<u16>) {
        self.turn(now);
        self.open = open;
        self.fill_all(now);
    }

    /// Which nodes are damped for flapping (full set).
    pub fn handle_damped(&mut self, now: BootTime, nodes: BTreeSet<NodeId>) {
        self.turn(now);
        self.damped = nodes;
    }

    /// Time passes: leases run out.
    pub fn handle_time(&mut self, now: BootTime) {
        self.turn(now);
        self.fill_all(now);
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Seat::handle_time`] must be called at the latest: at the end of a lease, and every interval, since a
    /// longer absence counts as lateness (rule R13).
    pub fn next_deadline(&self) -> BootTime {
        let ends = self.slots.iter().filter_map(|state| state.grant.as_ref()).map(|grant| grant.until);
        let gates = [Some(self.silent_until), Some(self.judge_from), self.rival_until];
        let due = ends.chain(gates.into_iter().flatten()).filter(|due| *due > self.last_turn).min();
        let tick = self.last_turn.after(self.rules.interval);
        due.map_or(tick, |due| due.min(tick))
    }

    /// What this seat may do now.
    pub fn standing(&self, now: BootTime) -> Standing {
        if self.rival_until.is_some_and(|until| now < until) {
            Standing::Conflict
        } else if now < self.silent_until
            || self.open.is_none()
            || self.slots.iter().any(|state| state.ceiling.is_none())
        {
            Standing::Silent
        } else if now < self.judge_from {
            Standing::Late
        } else {
            Standing::Granting
        }
    }

    /// `slot` as this seat sees it.
    pub fn view(&self, now: BootTime, slot: Slot) -> Option<SlotView> {
        let state = self.slots.get(usize::from(slot.0))?;
        let live = state.grant.as_ref().filter(|grant| now < grant.until);
        let granted = live.map(|grant| (grant.holder.clone(), grant.until));
        Some(SlotView { granted, highest: state.highest })
    }

    fn all_slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.identity.slots).map(Slot)
    }

    /// R13: whoever was away longer than an interval beyond its deadline takes in what is queued before it judges.
    fn turn(&mut self, now: BootTime) {
        let away = now.since(self.last_turn);
        if away > self.rules.interval.saturating_add(self.rules.late_after) {
            self.judge_from = now.after(self.rules.interval);
        }
        self.last_turn = self.last_turn.max(now);
    }

    fn may_grant(&self, now: BootTime) -> bool {
        matches!(self.standing(now), Standing::Granting | Standing::Late)
    }

    /// Keeps the heartbeat if it is the newest of its node; a boot that was replaced never comes back.
    fn remember(&mut self, now: BootTime, heartbeat: &Heartbeat) -> bool {
        let full = self.members.len() >= MAX_NODES;
        let mut known = self.members.get_mut(&heartbeat.node);
        let mut past_boots = VecDeque::new();
        if let Some(member) = &mut known {
            let same_boot = member.boot == heartbeat.boot;
            if (same_boot && heartbeat.seq <= member.seq) || member.past_boots.contains(&heartbeat.boot) {
                return false;
            }
            past_boots = std::mem::take(&mut member.past_boots);
            if !same_boot {
                past_boots.truncate(PAST_BOOTS - 1);
                past_boots.push_front(member.boot);
            }
        }
        let member = Member {
            heard_at: now,
            boot: heartbeat.boot,
            seq: heartbeat.seq,
            sent_at: heartbeat.sent_at,
            incarnation: heartbeat.incarnation,
            health: heartbeat.health,
            standby: heartbeat.standby,
            ready: heartbeat.ready,
            priority: heartbeat.priority,
            claims: heartbeat.claims.iter().map(|claim| (claim.slot, claim.epoch)).collect(),
            past_boots,
        };
        match known {
            Some(known) => **known = member,
            None if full => return false,
            None => drop(self.members.insert(heartbeat.node.clone(), Box::new(member))),
        }
        true
    }

    fn learn_epochs(&mut self, slot: Slot, heartbeat: &Heartbeat) {
        let state = &mut self.slots[usize::from(slot.0)];
        if let Some(epoch) = heartbeat.claim(slot) {
            state.highest = state.highest.max(epoch);
            if state.last_claim.as_ref().is_none_or(|(last, _)| epoch >= *last) {
                state.last_claim = Some((epoch, heartbeat.node.clone()));
            }
        }
        for known in heartbeat.known.iter().filter(|known| known.slot == slot) {
            state.highest = state.highest.max(known.epoch);
        }
        self.raise_ceiling(slot);
    }

    /// Asks for a higher ceiling when less than half a block is left.
    fn raise_ceiling(&mut self, slot: Slot) {
        let state = &mut self.slots[usize::from(slot.0)];
        let Some(ceiling) = state.ceiling else { return };
        let used = state.used();
        let wanted = Epoch(used.0 + BLOCK);
        if ceiling.0 < used.0 + BLOCK / 2 && state.raising.0 < used.0 + BLOCK / 2 {
            state.raising = wanted;
            self.outputs.push_back(Output::RaiseCeiling { slot, to: wanted });
        }
    }

    /// R2: only the same holder renews. R10: an unhealthy one does not while somebody healthy could follow.
    fn renew(&mut self, now: BootTime, slot: Slot, heartbeat: &Heartbeat) {
        let state = &self.slots[usize::from(slot.0)];
        let Some(live) = state.grant.as_ref().filter(|live| now < live.until) else { return };
        let Some(bidder) = heartbeat.bidder() else { return };
        if bidder != live.holder || self.fenced.contains(&(bidder.node.clone(), bidder.boot)) {
            return;
        }
        let Some(claimed) = heartbeat.claim(slot) else {
            // Not (yet) in possession: it may have missed the grant. The same one again, not a longer one.
            let again = live.clone();
            return self.send_grant(slot, &again);
        };
        if let Some(reason) = self.unfit(heartbeat)
            && election::choose(&self.ballot(now, slot, Some(&bidder.node))).is_some()
        {
            return self.outputs.push_back(Output::Revoke(Revoke {
                cluster: self.identity.cluster.clone(),
                group: self.identity.group.clone(),
                seat: self.seat,
                detector: self.detector,
                slot,
                holder: bidder,
                echo: heartbeat.sent_at,
                reason: reason.into(),
            }));
        }
        let renewed = Live {
            holder: bidder,
            until: now.after(self.rules.lease),
            echo: heartbeat.sent_at,
            claimed: Some(claimed),
            promised: live.promised,
        };
        self.set_grant(now, slot, &renewed);
    }

    fn unfit(&self, heartbeat: &Heartbeat) -> Option<&'static str> {
        if heartbeat.health == Health::Unhealthy {
            Some("the workload is unhealthy")
        } else if self.maintenance.contains(&heartbeat.node) {
            Some("the node is in maintenance")
        } else {
            None
        }
    }

    fn fill_all(&mut self, now: BootTime) {
        if self.may_grant(now) {
            for slot in (0..self.open.unwrap_or_default().min(self.identity.slots)).map(Slot) {
                self.fill(now, slot);
            }
        }
    }

    fn is_open(&self, slot: Slot) -> bool {
        self.open.is_some_and(|open| slot.0 < open)
    }

    /// R3: gives a vacant slot to the first candidate.
    fn fill(&mut self, now: BootTime, slot: Slot) {
        let state = &mut self.slots[usize::from(slot.0)];
        if now < self.judge_from || state.grant.as_ref().is_some_and(|live| now < live.until) {
            return;
        }
        if let Some(ended) = state.grant.take()
            && ended.claimed.is_none()
        {
            // It had a whole lease to take the slot and did not: others first.
            state.shunned.insert(ended.holder.node, now.after(self.rules.shun()));
        }
        state.shunned.retain(|_, until| now < *until);
        state.successor.take_if(|(_, until)| now >= *until);
        let previous = state.last_claim.as_ref().map(|(_, node)| node.clone());
        let highest = state.highest;
        match election::choose(&self.ballot(now, slot, None)) {
            Some(Choice { holder, echo, claimed }) => {
                let promised = self.promise(slot);
                let until = now.after(self.rules.lease);
                let live = Live { holder: holder.clone(), until, echo, claimed, promised };
                self.slots[usize::from(slot.0)].told_vacant = false;
                self.set_grant(now, slot, &live);
                self.outputs.push_back(Output::Elected { slot, holder, previous });
            }
            None => self.tell_vacant(now, slot, highest),
        }
    }

    /// R7: the epoch of a new holder, which this seat gives to nobody else, whether or not its claim is ever heard. Also
    /// to one that claims the slot: the claim may be an old one, and its next epoch must be above what others were
    /// promised since.
    fn promise(&mut self, slot: Slot) -> Epoch {
        let state = &mut self.slots[usize::from(slot.0)];
        state.promised = state.used().next();
        let promised = state.promised;
        self.raise_ceiling(slot);
        promised
    }

    fn tell_vacant(&mut self, now: BootTime, slot: Slot, highest: Epoch) {
        if self.slots[usize::from(slot.0)].told_vacant {
            return;
        }
        let reason = election::why_nobody(&self.ballot(now, slot, None));
        self.slots[usize::from(slot.0)].told_vacant = true;
        self.outputs.push_back(Output::Vacant { slot, highest, reason });
    }

    fn ballot<'a>(&'a self, now: BootTime, slot: Slot, except: Option<&'a NodeId>) -> election::Ballot<'a> {
        let busy = |node: &NodeId, member: &Member| {
            let granted = self.slots.iter().enumerate().any(|(index, state)| {
                index != usize::from(slot.0)
                    && state.grant.as_ref().is_some_and(|live| now < live.until && live.holder.node == *node)
            });
            granted || member.claims.iter().any(|(claimed, _)| *claimed != slot)
        };
        let busy = self.members.iter().filter(|(node, member)| busy(node, member)).map(|(node, _)| node);
        election::Ballot {
            now,
            slot,
            group: &self.identity.group,
            fresh: self.rules.fresh(),
            state: &self.slots[usize::from(slot.0)],
            members: &self.members,
            maintenance: &self.maintenance,
            damped: &self.damped,
            fenced: &self.fenced,
            busy: busy.collect(),
            except,
        }
    }

    /// The one place where a grant comes to be. R2 stays asserted: never a second holder beside a live one.
    fn set_grant(&mut self, now: BootTime, slot: Slot, live: &Live) {
        let state = &mut self.slots[usize::from(slot.0)];
        let free = state.grant.as_ref().is_none_or(|old| now >= old.until || old.holder == live.holder);
        assert!(free, "slot {slot} is granted to another holder");
        state.grant = Some(live.clone());
        self.send_grant(slot, live);
    }

    /// R6b: no epoch passes the ceiling. It is being raised; until then the lease goes on, for none may wait for
    /// JetStream, but the epoch gets no vote as a fencing token, and a restart forgets that it was promised.
    fn send_grant(&mut self, slot: Slot, live: &Live) {
        let state = &self.slots[usize::from(slot.0)];
        let claimed = live.claimed.filter(|epoch| state.ceiling.is_some_and(|ceiling| *epoch <= ceiling));
        self.outputs.push_back(Output::Grant(Grant {
            cluster: self.identity.cluster.clone(),
            group: self.identity.group.clone(),
            seat: self.seat,
            detector: self.detector,
            slot,
            holder: live.holder.clone(),
            echo: live.echo,
            lease: self.rules.lease,
            highest: self.slots[usize::from(slot.0)].highest,
            claimed,
            promised: Some(live.promised),
        }));
    }

    /// R8: drops a grant to that very holder whose echo is not newer, which the holder ignores from then on too; its
    /// older bids are void.
    fn drop_released(
        &mut self,
        now: BootTime,
        slot: Slot,
        holder: Holder,
        at: BootTime,
        successor: Option<NodeId>,
    ) {
        let Some(state) = self.slots.get_mut(usize::from(slot.0)) else { return };
        let known = state.released.get(&holder.node);
        let is_known = known.is_some();
        if known.is_some_and(|(known, last)| *known == holder && *last >= at) {
            return;
        }
        let dropped = state.grant.take_if(|live| live.holder == holder && live.echo <= at);
        if dropped.is_some_and(|live| now < live.until) {
            let until = now.after(self.rules.shun());
            // R13: while this seat was away the lease may have run out for want of its own grants.
            if now >= self.judge_from {
                state.shunned.insert(holder.node.clone(), until);
            }
            state.successor = successor.map(|node| (node, until));
        }
        // A release that is not remembered costs at most a T: the holder itself ignores what answers older bids.
        if is_known || state.released.len() < MAX_NODES {
            state.released.insert(holder.node.clone(), (holder, at));
        }
    }
}
