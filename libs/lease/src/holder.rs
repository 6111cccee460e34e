//! One executor's side of the lease.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use understudy_wire::{
    BootTime, Claim, Epoch, Grant, Holder as HolderId, NodeId, Release, Revoke, Seat, Slot, SlotRelease,
};

use crate::rules::{Identity, Rules};

/// Why a slot is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The lease ran out: no quorum of seats renewed it.
    Expired,
    /// A seat asked (rule R10), with its reason.
    Revoked(String),
    /// The operator asked.
    Switchover,
    /// A step of the takeover failed.
    TakeoverFailed(String),
    /// This process or its witness is ending.
    Leaving(String),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Expired => f.write_str("the lease ran out"),
            Self::Revoked(reason) => write!(f, "revoked: {reason}"),
            Self::Switchover => f.write_str("switchover"),
            Self::TakeoverFailed(reason) => write!(f, "takeover failed: {reason}"),
            Self::Leaving(reason) => write!(f, "leaving: {reason}"),
        }
    }
}

/// What the shell must do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A quorum granted the slot, but fewer seats know of its epoch, since what they promised differs: claim it in a
    /// heartbeat at once. It is not held before [`Output::Take`], which follows when a quorum has heard (rule R7).
    Claim {
        /// The slot.
        slot: Slot,
        /// Its new epoch.
        epoch: Epoch,
    },
    /// The slot is held, with an epoch that no other tenure has: claim it in a heartbeat at once and start the
    /// takeover. The gate may be open until `until`, not longer (rules R4, R5, R7).
    Take {
        /// The slot.
        slot: Slot,
        /// Its new epoch; not a fencing token before [`Output::Confirmed`].
        epoch: Epoch,
        /// End of the lease.
        until: BootTime,
    },
    /// The lease was extended.
    Renew {
        /// The slot.
        slot: Slot,
        /// New end of the lease.
        until: BootTime,
    },
    /// A quorum has seen the epoch: it may be used as a fencing token (rule R7).
    Confirmed {
        /// The slot.
        slot: Slot,
        /// Its epoch.
        epoch: Epoch,
    },
    /// Shut the gate, then call [`Holder::gate_shut`]; the slot is no longer claimed from here on.
    Shut {
        /// The slot.
        slot: Slot,
        /// Epoch of the tenure that ends.
        epoch: Epoch,
        /// Why.
        why: Why,
    },
    /// Tell the seats (rules R8, R9).
    Release(Release),
}

/// Why a message was not counted. None of these is an error of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refused {
    /// Another cluster or group, or a slot the group does not have.
    Foreign,
    /// For another node, boot or executor process.
    NotMine,
    /// A seat beyond S.
    UnknownSeat,
    /// Echoes a time that has not been: no answer to any heartbeat of this node.
    FromTheFuture,
    /// Echoes a heartbeat from before the last release (rule R8).
    BeforeRelease,
}

#[derive(Debug)]
struct Tenure {
    epoch: Epoch,
    began: BootTime,
    until: BootTime,
    /// A quorum of seats gives its epoch to nobody else. Until then it is claimed but not held.
    taken: bool,
    confirming: BTreeSet<Seat>,
    confirmed: bool,
}

/// A gate that is being shut.
#[derive(Debug)]
struct Ending {
    /// Who should follow.
    successor: Option<NodeId>,
    /// Before the lease ran out.
    given_up: bool,
}

#[derive(Debug, Default)]
struct SlotState {
    /// Until when each seat's grant may be trusted.
    votes: BTreeMap<Seat, BootTime>,
    /// When the first vote came that no quorum has followed yet (rule R9).
    courted_since: Option<BootTime>,
    highest: Epoch,
    /// Highest epoch promised since the last release.
    promised: Epoch,
    /// Up to which epoch each seat gives none to another: it has promised, or knows of higher ones.
    assured: BTreeMap<Seat, Epoch>,
    /// Grants that echo anything up to this are void (rule R8).
    void_until: Option<BootTime>,
    tenure: Option<Tenure>,
    ending: Option<Ending>,
    /// Latest release, repeated in heartbeats.
    release: Option<SlotRelease>,
}

/// The lease side of one executor process.
#[derive(Debug)]
pub struct Holder {
    identity: Identity,
    rules: Rules,
    me: HolderId,
    willing: bool,
    slots: Vec<SlotState>,
    outputs: VecDeque<Output>,
}

impl Holder {
    /// A process that holds nothing.
    pub fn new(identity: Identity, rules: Rules, me: HolderId) -> Self {
        let slots = (0..identity.slots).map(|_| SlotState::default()).collect();
        Self { identity, rules, me, willing: true, slots, outputs: VecDeque::new() }
    }

    /// Whether grants are taken up. An unwilling process gives them back at once instead of waiting for R9.
    pub fn set_willing(&mut self, willing: bool) {
        self.willing = willing;
    }

    /// A seat's vote (rules R2, R4, R7, R8).
    pub fn handle_grant(&mut self, now: BootTime, grant: &Grant) -> Result<(), Refused> {
        self.handle_time(now);
        let known = grant.cluster == self.identity.cluster && grant.group == self.identity.group;
        if !known || grant.slot.0 >= self.identity.slots {
            return Err(Refused::Foreign);
        }
        if grant.holder != self.me {
            return Err(Refused::NotMine);
        }
        if grant.seat.raw() > self.rules.seats {
            return Err(Refused::UnknownSeat);
        }
        if grant.echo > now {
            return Err(Refused::FromTheFuture);
        }
        let state = &mut self.slots[usize::from(grant.slot.0)];
        if state.void_until.is_some_and(|until| grant.echo <= until) {
            return Err(Refused::BeforeRelease);
        }
        state.highest = state.highest.max(grant.highest);
        if state.ending.is_some() {
            return Ok(());
        }
        let trusted = grant.echo.after(self.rules.trusted(grant.lease));
        let vote = state.votes.entry(grant.seat).or_default();
        *vote = trusted.max(*vote);
        let promised = grant.promised.unwrap_or_default();
        state.promised = state.promised.max(promised);
        let assured = state.assured.entry(grant.seat).or_default();
        *assured = promised.max(grant.highest).max(*assured);
        self.count(now, grant);
        Ok(())
    }

    /// A seat asks for the slot (rule R10). One from before this tenure means an earlier one.
    pub fn handle_revoke(&mut self, now: BootTime, revoke: &Revoke) -> Result<(), Refused> {
        self.handle_time(now);
        let known = revoke.cluster == self.identity.cluster && revoke.group == self.identity.group;
        if !known || revoke.slot.0 >= self.identity.slots {
            return Err(Refused::Foreign);
        }
        if revoke.holder != self.me {
            return Err(Refused::NotMine);
        }
        if revoke.seat.raw() > self.rules.seats {
            return Err(Refused::UnknownSeat);
        }
        if revoke.echo > now {
            return Err(Refused::FromTheFuture);
        }
        let tenure = self.slots[usize::from(revoke.slot.0)].tenure.as_ref();
        if tenure.is_some_and(|tenure| revoke.echo < tenure.began) {
            return Err(Refused::BeforeRelease);
        }
        self.give_up(now, revoke.slot, Why::Revoked(revoke.reason.clone()), None);
        Ok(())
    }

    /// Gives a slot up: [`Output::Shut`], and after [`Holder::gate_shut`] the release. Nothing if it is not held.
    pub fn give_up(&mut self, now: BootTime, slot: Slot, why: Why, successor: Option<NodeId>) {
        self.handle_time(now);
        let Some(state) = self.slots.get_mut(usize::from(slot.0)) else { return };
        let Some(tenure) = state.tenure.take() else { return };
        if !tenure.taken {
            return self.release(now, slot, successor);
        }
        state.ending = Some(Ending { successor, given_up: true });
        self.outputs.push_back(Output::Shut { slot, epoch: tenure.epoch, why });
    }

    /// The gate of `slot` is proved shut: only now may the seats be told (rule R8).
    ///
    /// That of a slot that was given up counts from a moment which is still to come, so that it also drops what is granted
    /// to a heartbeat whose sender had not heard of it; nobody has to wait until he has. Where the lease ran out, such a
    /// grant does no harm, and this node may follow itself.
    pub fn gate_shut(&mut self, now: BootTime, slot: Slot) {
        let Some(state) = self.slots.get_mut(usize::from(slot.0)) else { return };
        let Some(Ending { successor, given_up }) = state.ending.take() else { return };
        let at = if given_up { now.after(self.rules.withdrawal()) } else { now };
        self.release(at, slot, successor);
    }

    /// Time passes: leases run out, and votes without a quorum are given back (rule R9).
    pub fn handle_time(&mut self, now: BootTime) {
        for slot in (0..self.identity.slots).map(Slot) {
            let state = &mut self.slots[usize::from(slot.0)];
            let ended = state.tenure.take_if(|tenure| now >= tenure.until);
            if ended.as_ref().is_some_and(|tenure| !tenure.taken) {
                self.release(now, slot, None);
            } else if let Some(tenure) = ended {
                state.ending = Some(Ending { successor: None, given_up: false });
                self.outputs.push_back(Output::Shut { slot, epoch: tenure.epoch, why: Why::Expired });
            }
            let patience = self.rules.lease / 4;
            let state = &self.slots[usize::from(slot.0)];
            if state.courted_since.is_some_and(|since| now >= since.after(patience)) {
                self.release(now, slot, None);
            }
        }
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Holder::handle_time`] must be called at the latest.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let ends = self.slots.iter().filter_map(|state| state.tenure.as_ref()).map(|tenure| tenure.until);
        let courted = self.slots.iter().filter_map(|state| state.courted_since);
        ends.chain(courted.map(|since| since.after(self.rules.lease / 4))).min()
    }

    /// Slots held now, or about to be ([`Output::Claim`]), for heartbeats (rule R1). Empty once the lease ran out or the
    /// gate is being shut.
    pub fn claims(&self, now: BootTime) -> Vec<Claim> {
        let held = |slot: u16| {
            let tenure = self.slots[usize::from(slot)].tenure.as_ref().filter(|tenure| now < tenure.until)?;
            Some(Claim { slot: Slot(slot), epoch: tenure.epoch })
        };
        (0..self.identity.slots).filter_map(held).collect()
    }

    /// Highest epochs known, for heartbeats (rule R1).
    pub fn known(&self) -> Vec<Claim> {
        let known = (0..self.identity.slots).map(|slot| (slot, self.slots[usize::from(slot)].highest));
        known
            .filter(|(_, epoch)| *epoch > Epoch(0))
            .map(|(slot, epoch)| Claim { slot: Slot(slot), epoch })
            .collect()
    }

    /// Latest releases, for heartbeats: repeating them heals a lost one (rule R8).
    pub fn releases(&self) -> Vec<SlotRelease> {
        self.slots.iter().filter_map(|state| state.release.clone()).collect()
    }

    /// End of the lease of `slot`, if it is held now.
    pub fn held_until(&self, now: BootTime, slot: Slot) -> Option<BootTime> {
        let tenure = self.slots.get(usize::from(slot.0))?.tenure.as_ref()?;
        (tenure.taken && now < tenure.until).then_some(tenure.until)
    }

    /// R4: the Q-th highest trusted time; `None` without a quorum.
    fn validity(&self, slot: Slot) -> Option<BootTime> {
        let mut votes: Vec<_> = self.slots[usize::from(slot.0)].votes.values().copied().collect();
        votes.sort_unstable_by(|a, b| b.cmp(a));
        votes.get(self.rules.quorum - 1).copied()
    }

    fn count(&mut self, now: BootTime, grant: &Grant) {
        let slot = grant.slot;
        let until = self.validity(slot).filter(|until| now < *until);
        let elsewhere = self.slots.iter().enumerate().any(|(index, state)| {
            index != usize::from(slot.0) && (state.tenure.is_some() || state.ending.is_some())
        });
        let state = &mut self.slots[usize::from(slot.0)];
        let Some(tenure) = &mut state.tenure else {
            // A node serves one slot at most, and an unwilling one none.
            return match until {
                _ if elsewhere || !self.willing => self.release(now, slot, None),
                Some(until) => self.claim(now, slot, until),
                None => {
                    state.courted_since.get_or_insert(now);
                }
            };
        };
        if let Some(until) = until.filter(|until| *until > tenure.until) {
            tenure.until = until;
            if tenure.taken {
                self.outputs.push_back(Output::Renew { slot, until });
            }
        }
        if !tenure.taken {
            self.take_if_assured(slot);
        }
        let Some(tenure) = &mut self.slots[usize::from(slot.0)].tenure else { return };
        if grant.claimed == Some(tenure.epoch) && !tenure.confirmed {
            tenure.confirming.insert(grant.seat);
            if tenure.confirming.len() >= self.rules.quorum {
                tenure.confirmed = true;
                self.outputs.push_back(Output::Confirmed { slot, epoch: tenure.epoch });
            }
        }
    }

    /// R7: an epoch above all that the seats which vote have promised or known. Whoever was granted the slot before, and
    /// was assured by a quorum, shares a seat with this one; so epochs rise, also those that no seat ever heard of.
    fn claim(&mut self, now: BootTime, slot: Slot, until: BootTime) {
        let state = &mut self.slots[usize::from(slot.0)];
        let epoch = state.promised.max(state.highest.next());
        state.highest = epoch;
        state.courted_since = None;
        let confirming = BTreeSet::new();
        state.tenure = Some(Tenure { epoch, began: now, until, taken: false, confirming, confirmed: false });
        if !self.take_if_assured(slot) {
            self.outputs.push_back(Output::Claim { slot, epoch });
        }
    }

    /// Takes what is claimed once Q seats give its epoch to nobody else; whether it is taken now.
    fn take_if_assured(&mut self, slot: Slot) -> bool {
        let state = &mut self.slots[usize::from(slot.0)];
        let Some(tenure) = &mut state.tenure else { return false };
        let assuring = state.assured.values().filter(|assured| **assured >= tenure.epoch).count();
        if assuring < self.rules.quorum {
            return false;
        }
        tenure.taken = true;
        self.outputs.push_back(Output::Take { slot, epoch: tenure.epoch, until: tenure.until });
        true
    }

    /// The one place where a release comes to be: never beside a tenure.
    fn release(&mut self, at: BootTime, slot: Slot, successor: Option<NodeId>) {
        let state = &mut self.slots[usize::from(slot.0)];
        assert!(state.tenure.is_none(), "slot {slot} is released while it is held");
        // What was void stays void.
        let at = state.void_until.map_or(at, |until| until.max(at));
        state.votes.clear();
        state.promised = Epoch(0);
        state.courted_since = None;
        state.void_until = Some(at);
        state.release = Some(SlotRelease { slot, at, successor: successor.clone() });
        self.outputs.push_back(Output::Release(Release {
            cluster: self.identity.cluster.clone(),
            group: self.identity.group.clone(),
            slot,
            holder: self.me.clone(),
            at,
            successor,
        }));
    }
}
