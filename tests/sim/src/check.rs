//! The invariants that hold at every instant.

use understudy_wire::{Epoch, Slot};

use crate::{seeds::Violation, trace::MS};

/// Nobody served a slot, or another node did from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The slot.
    pub slot: u16,
    /// Real time from which nobody served it.
    pub from: u64,
    /// Real time at which a gate was opened.
    pub to: u64,
    /// Index of the node before.
    pub before: usize,
    /// Index of the node after.
    pub after: usize,
}

/// Whose gate is or was open last, and until when if nothing else happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) node: usize,
    pub(crate) until: u64,
}

#[derive(Debug, Default, Clone)]
struct SlotCheck {
    served: Option<Served>,
    taken: Epoch,
    token: Epoch,
    register: Option<(Epoch, usize)>,
}

#[derive(Debug)]
pub(crate) struct Check {
    slots: Vec<SlotCheck>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) violation: Option<Violation>,
    pub(crate) tenures: u64,
}

impl Check {
    pub(crate) fn new(slots: u16) -> Self {
        let slots = vec![SlotCheck::default(); usize::from(slots)];
        Self { slots, gaps: Vec::new(), violation: None, tenures: 0 }
    }

    /// Keeps the first violation.
    pub(crate) fn fail(&mut self, invariant: u8, at: u64, what: String) {
        let at = || format!("{:.3} ms", at as f64 / MS as f64);
        self.violation.get_or_insert_with(|| Violation { invariant, at: at(), what });
    }

    /// Invariant 1: the gate of `node` is open from `now` until `until`, or for longer than before.
    pub(crate) fn open(&mut self, now: u64, slot: Slot, node: usize, until: u64) {
        if until <= now {
            return;
        }
        let served = &mut self.slots[usize::from(slot.0)].served;
        match *served {
            Some(open) if open.until > now && open.node != node => {
                let left = (open.until - now) as f64 / MS as f64;
                let what =
                    format!("slot {slot}: node {node} opens while node {} is open for {left} ms", open.node);
                self.fail(1, now, what);
            }
            Some(open) if open.until > now => *served = Some(Served { node, until: open.until.max(until) }),
            before => {
                *served = Some(Served { node, until });
                self.tenures += 1;
                if let Some(Served { node: last, until: from }) = before {
                    self.gaps.push(Gap { slot: slot.0, from, to: now, before: last, after: node });
                }
            }
        }
    }

    /// The gate of `node` is shut at `now`.
    pub(crate) fn shut(&mut self, now: u64, slot: Slot, node: usize) {
        if let Some(open) = &mut self.slots[usize::from(slot.0)].served
            && open.node == node
        {
            open.until = open.until.min(now);
        }
    }

    /// Whose gate is open.
    pub(crate) fn serving(&self, now: u64, slot: Slot) -> Option<usize> {
        self.slots[usize::from(slot.0)].served.filter(|open| open.until > now).map(|open| open.node)
    }

    /// When the last gate of the slot was or will be shut.
    pub(crate) fn served_until(&self, slot: Slot) -> u64 {
        self.slots[usize::from(slot.0)].served.map_or(0, |open| open.until)
    }

    /// Invariant 2: the epoch with which `node` takes the slot, confirmed later or not, is above all before.
    pub(crate) fn taken(&mut self, now: u64, slot: Slot, node: usize, epoch: Epoch) {
        let state = &mut self.slots[usize::from(slot.0)];
        if epoch <= state.taken {
            let what = format!("slot {slot}: node {node} takes epoch {epoch} after {}", state.taken);
            return self.fail(2, now, what);
        }
        state.taken = epoch;
    }

    /// Invariant 2: `node` uses `epoch` as a token.
    pub(crate) fn token(&mut self, now: u64, slot: Slot, node: usize, epoch: Epoch) {
        let state = &mut self.slots[usize::from(slot.0)];
        if epoch <= state.token {
            let what = format!("slot {slot}: node {node} uses epoch {epoch} after {}", state.token);
            return self.fail(2, now, what);
        }
        state.token = epoch;
    }

    /// The register takes a write only with a higher epoch, as the prerequisite of a DNS update does; the answer is
    /// whether it was taken.
    pub(crate) fn register(&mut self, slot: Slot, node: usize, epoch: Epoch) -> bool {
        let register = &mut self.slots[usize::from(slot.0)].register;
        let newer = register.is_none_or(|(known, _)| epoch > known);
        if newer {
            *register = Some((epoch, node));
        }
        newer
    }

    /// Invariant 2: once all is quiet, the register names the node that serves.
    pub(crate) fn register_follows(&mut self, now: u64, slot: Slot, node: usize) {
        let register = self.slots[usize::from(slot.0)].register;
        if register.is_none_or(|(_, named)| named != node) {
            self.fail(2, now, format!("slot {slot}: node {node} serves, the register says {register:?}"));
        }
    }
}
